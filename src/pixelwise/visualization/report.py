"""`report.html` of a run: curves, scores, confusion matrix, best and worst images and settings, in one offline file.

The page of an unfinished or stopped run shows what its folder holds so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputError, cut, os_reason
from ..evaluation.metrics import Scores
from ..evaluation.multilabel_scores import MultilabelScores
from ..evaluation.result import read_scores
from ..files import parse_json, read_regular, write_text
from .charts import read_charts, trimap_chart
from .examples import read_examples
from .pages import grouped, percent, render_page

# A larger matrix is not readable; only the most frequent classes are shown.
_MAX_MATRIX = 40
# A matrix of more classes is drawn without numbers.
_MAX_NUMBERS = 24
# More groups are counted, not listed.
_MAX_GROUPS = 40
_FIRST_TILES = ("mean_iou", "mean_image_iou")
_PARTS = ("config.yaml", "environment.json", "metrics.csv", "scores.json")
_TITLE_END = " · pixelwise</title>".encode()
"""How the title of every report ends."""
_FIX = "give the folder of a run, as `pixelwise train --out` makes it"


@dataclass(frozen=True)
class MatrixCell:
    """One cell of the confusion matrix: its share of the row 0..1 (None for an empty row), and the text on hover."""

    share: float | None
    title: str


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder from the files there, and return its path.

    Raises InputError when the folder is missing, holds no file of a run or another page of that name, ConfigError
    when one of them is damaged.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", _FIX)
    if not any((folder / part).exists() for part in _PARTS):
        raise InputError(folder, f"holds none of {', '.join(_PARTS)}", _FIX)
    path = folder / "report.html"
    if path.exists() and _TITLE_END not in read_regular(path):
        raise InputError(path, "exists already and is not a report of a run", "move it away")
    write_text(path, render_report(folder))
    return path


def render_report(folder: Path) -> str:
    """Return the page of a run folder."""
    sheet = read_examples(folder / "samples")
    colors = dict(sheet.legend)
    best = [example for example in reversed(sheet.examples) if example.is_best]
    worst = [example for example in sheet.examples if not example.is_best]
    environment = _read_rows(folder / "environment.json")
    context: dict[str, Any] = {
        "name": folder.resolve().name,
        "evaluation": None,
        "charts": read_charts(folder / "metrics.csv"),
        "colors": colors,
        # The taxonomy's ignore color: black, unless a class is black.
        "unscored": ("Cream" if "#000000" in colors.values() else "Black") + " is not scored.",
        "groups": [(title, group) for title, group in (("Best", best), ("Worst", worst)) if group],
        "config": _read_text(folder / "config.yaml"),
        # What the run has warned of, and whether it ended early.
        "notes": [text for key, text in environment if key.startswith("notes.")],
        "environment": [(key, text) for key, text in environment if not key.startswith("notes.")],
    }
    if (folder / "scores.json").exists():
        evaluation = read_scores(folder / "scores.json")
        scores = evaluation.scores
        spread, means = evaluation.spread, evaluation.means()
        if isinstance(scores, MultilabelScores):
            context["unscored"] = "Where labels overlap, that of the fewest pixels is on top."
        context |= {
            "evaluation": evaluation,
            # The two means of the IoU first: by them, runs are compared.
            "tiles": [means[name] for name in sorted(means, key=lambda name: name not in _FIRST_TILES)],
            "by_group": spread.groups[:_MAX_GROUPS] if spread else (),
            "trimap": trimap_chart(evaluation.trimap, scores.mean_iou),
            # Each class with its share of the true pixels.
            "rows": [(row, row.truth / scores.num_pixels) for row in scores.classes],
            "matrix": matrix_rows(scores) if isinstance(scores, Scores) else None,
            "thresholds": scores.thresholds,
            "numbers": len(scores.names) <= _MAX_NUMBERS,
        }
    return render_page("report.html.j2", context)


def matrix_rows(scores: Scores) -> list[tuple[str, list[MatrixCell]]]:
    """Return the rows of the confusion matrix as (class, cells), for the 40 most frequent classes at most."""
    ranked = sorted(range(len(scores.names)), key=lambda k: -(scores.classes[k].truth + scores.classes[k].predicted))
    shown = sorted(ranked[:_MAX_MATRIX])
    rows = []
    for true in shown:
        total = scores.classes[true].truth
        cells = []
        for predicted in shown:
            count = scores.matrix[true][predicted]
            share = count / total if total else None
            pair = f"{scores.names[true]} predicted as {scores.names[predicted]}"
            cells.append(MatrixCell(share, f"{pair}: {percent(share)} %, {grouped(count)} pixels"))
        rows.append((scores.names[true], cells))
    return rows


def _read_text(path: Path) -> str:
    """Return a file's text; empty if there is no file."""
    try:
        return read_regular(path).decode("utf-8") if path.exists() else ""
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {os_reason(error)}", "restore or remove it") from None
    except UnicodeDecodeError as error:
        what = f"cannot be read: not UTF-8 text (byte {error.start})"
        raise ConfigError(path, what, "restore or remove it") from None


def _read_rows(path: Path) -> list[tuple[str, str]]:
    """Return the values of a JSON object as rows (name, text). Raises ConfigError for other content."""
    text = _read_text(path)
    try:
        data = parse_json(text) if text else {}
    except ValueError as error:
        raise ConfigError(path, f"is not JSON: {cut(error)}", "restore or remove it") from None
    if not isinstance(data, Mapping):
        raise ConfigError(path, f"expected a JSON object, got {type(data).__name__}", "restore or remove it")
    try:
        return _flatten(data)
    except RecursionError:
        raise ConfigError(path, "is nested too deeply", "restore or remove it") from None


def _flatten(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as rows (name, text), the names joined by dots."""
    rows: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
