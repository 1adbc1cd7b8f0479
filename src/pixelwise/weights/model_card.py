"""The model card: a README.md with metadata for the Hugging Face Hub, rendered from a checkpoint's configuration."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..images import PixelFormat

_TASK = "image-segmentation"
# The sections of the card, in this order; sections without a value are left out.
_SECTIONS = ("data", "intended_use", "recipe", "command", "scores", "limits")

_USE = """## Use

```python
import pixelwise

model = pixelwise.load("path/or/hub-id")
model("photo.jpg").overlay().save("overlay.png")
```
"""


def render_card(config: Mapping[str, Any], num_parameters: int) -> str:
    """Return the card as Markdown with a YAML header. `config` is the content of config.json.

    The keys of `config["card"]`, all optional:
        title, summary, license                        strings
        data, intended_use, recipe, command, limits    a string, or a mapping that becomes a table
        scores                                         a string, a mapping, or a list of measurements

    A measurement is {dataset, split, precision, metrics: {name: 0..1}, class_iou: {class: 0..1}, group_iou: {group:
    0..1}}; `precision` and the last two are optional, and a group is a drive or a patient. Measurements also go into
    the header as the Hub's `model-index`, with their metrics in percent.
    """
    card, spec, weights = config["card"], config["model"], config["weights"]
    options = ", ".join(_code(f"{name}: {value}") for name, value in spec["options"].items()) or "the defaults"
    classes = ", ".join(escape(row["name"]) for row in config["taxonomy"]["classes"])
    if "thresholds" in config:
        classes += "\n- a pixel may have several labels, each where its probability is above a threshold: "
        classes += ", ".join(f"{number:g}" for number in config["thresholds"])
    images = PixelFormat.from_dict(config["pixels"]).in_words() if "pixels" in config else ""
    parts = [
        f"# {card.get('title', _default_title(config))}",
        card.get("summary", ""),
        f"- network: `{spec['name']}`, {num_parameters:,} parameters; options: {options}\n"
        f"- weights: {weights['dtype']}, SHA-256 `{weights['sha256']}`\n"
        f"- classes: {classes}" + (f"\n- images: {escape(images)}" if images else ""),
    ]
    for key in _SECTIONS:
        if key in card:
            parts.append(f"## {key.replace('_', ' ').capitalize()}")
            parts.append(_scores(card[key]) if key == "scores" else _text(card[key]))
    return f"---\n{_metadata(config)}\n---\n\n" + "\n\n".join(filter(None, (*parts, _USE)))


def escape(name: str) -> str:
    """Return a name as Markdown that shows just that name: no HTML, no markup, no second line, no table cell."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return re.sub(r"([\\`*_\[\]|~$#!])", r"\\\1", html.escape(line, quote=False))


def public_command(command: str) -> str:
    """Return a command line as the card shows it: in code, with file names in place of paths outside the folder.

    Absolute paths, `~` and `..` name the user and the machine; paths below the current folder stay.
    """
    return _code(shlex.join(map(_without_folders, shlex.split(command))))


def _without_folders(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if re.match(r"[/\\~]|\.\.|[A-Za-z]:[/\\]", value):
        name = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        return f"{option}{equals}{'~' if name.startswith('~') else name}"
    return option + equals + _OUTSIDE.sub("", value)


# The folders of a path in a list or mapping; the path starts at a root, a home or a parent folder. The folders of an
# address such as hf://a/b stay.
_OUTSIDE = re.compile(r"""(?<![\w.:/\\~-])(?:[A-Za-z]:|~[^/\\\s]*|\.\.)?[/\\](?:[^/\\\[\]{},'"=]*[/\\])*""")


def _code(text: str) -> str:
    """Return text as Markdown code on one line, in characters that UTF-8 can write."""
    line = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return f"`{line.replace('`', chr(39))}`"


def _cell(value: Any) -> str:
    """Return a value as a cell of a table, without HTML; addresses stay links."""
    return html.escape(" ".join(str(value).split()), quote=False).replace("|", "\\|")


def _default_title(config: Mapping[str, Any]) -> str:
    return f"{config['model']['name']}, {config['model']['num_classes']} classes"


def _metadata(config: Mapping[str, Any]) -> str:
    """Return the YAML header that the Hub reads: license, task, tags and the scores as its model index."""
    # Imported here: it brings an HTTP client, 0.5 s at every start, and only saving a checkpoint needs it.
    from huggingface_hub import EvalResult, ModelCardData

    card = config["card"]
    scores = card.get("scores")
    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=measurement["dataset"],
            dataset_name=measurement["dataset"],
            dataset_split=measurement["split"],
            metric_type=name,
            metric_name=", ".join(filter(None, (_readable(name), "%", measurement.get("precision")))),
            metric_value=round(100 * value, 2),
        )
        for measurement in (scores if isinstance(scores, Sequence) and not isinstance(scores, str) else ())
        for name, value in measurement["metrics"].items()
    ]
    data = ModelCardData(
        library_name="pixelwise",
        pipeline_tag=_TASK,
        license=card.get("license", "other"),
        tags=["semantic-segmentation", "pixelwise"],
        # The Hub demands a name for a model with results, and takes no name for one without.
        model_name=card.get("title", _default_title(config)) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _scores(scores: Any) -> str:
    """Return a table with one row per measurement, and those of their IoU per class and per group.

    Other values are returned as `_text` does.
    """
    if isinstance(scores, str | Mapping):
        return _text(scores)
    tables = [_measurement_table(scores, "metrics")]
    for key, caption in (("class_iou", "IoU per class:"), ("group_iou", "Mean IoU per group of images:")):
        rows = [measurement for measurement in scores if key in measurement]
        if rows:
            tables += [caption, _measurement_table(rows, key)]
    return "In percent.\n\n" + "\n\n".join(tables)


def _measurement_table(measurements: Sequence[Mapping[str, Any]], key: str) -> str:
    # A class that is absent from a split has no IoU there; keep the order in which the names first appear.
    names = list(dict.fromkeys(name for measurement in measurements for name in measurement[key]))
    digits = 2 if key == "metrics" else 1
    rows = [
        [escape(measurement["dataset"]), escape(measurement["split"]), measurement.get("precision", "")]
        + [f"{100 * measurement[key][name]:.{digits}f}" if name in measurement[key] else "-" for name in names]
        for measurement in measurements
    ]
    header = [
        "dataset",
        "split",
        "precision",
        *(_readable(name) if key == "metrics" else escape(name) for name in names),
    ]
    rule = ["---"] * 3 + ["--:"] * len(names)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def _readable(metric: str) -> str:
    return metric.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice")


def _text(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    rows = "\n".join(f"| {_cell(name)} | {_cell(item)} |" for name, item in value.items())
    return f"| | |\n|---|---|\n{rows}"
