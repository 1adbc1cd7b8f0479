"""`report.html` of a run: curves, scores, confusion matrix, best and worst images, settings, in one file that needs no network.

A run that is still going on, or was stopped, gives a page of what it holds so far.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..errors import ConfigError, InputError
from ..evaluation.evaluator import Evaluation, read_scores
from ..evaluation.metrics import ClassScore, Scores
from ..files import write_text
from .charts import read_charts
from .examples import Example, read_examples

# Beyond these a matrix of all classes is neither readable nor small; the most frequent classes are shown.
_MAX_MATRIX = 40
_MAX_NUMBERS = 24
_TEMPLATES = Path(__file__).parent / "templates"
_PARTS = ("config.yaml", "environment.json", "metrics.csv", "scores.json")
_FIX = "give the folder of a run, as `pixelwise train --out` made it"


@dataclass(frozen=True)
class MatrixCell:
    """One cell of the confusion matrix: the share of its row 0..1 (None for an empty row), and the sentence shown on hover."""

    share: float | None
    title: str


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder from the files there, and return its path.

    Raises InputError when the folder is missing or holds no file of a run, ConfigError when one of them is damaged.
    """
    folder = Path(run_folder)
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", _FIX)
    if not any((folder / part).exists() for part in _PARTS):
        raise InputError(folder, f"holds none of {', '.join(_PARTS)}", _FIX)
    path = folder / "report.html"
    write_text(path, render(folder))
    return path


def render(folder: Path) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, data_uri=_data_uri, grouped=_grouped)
    evaluation = read_scores(folder / "scores.json") if (folder / "scores.json").exists() else None
    sheet = read_examples(folder / "samples")
    context: dict[str, Any] = {
        "name": folder.resolve().name,
        "charts": read_charts(folder / "metrics.csv"),
        "evaluation": evaluation,
        "colors": dict(sheet.legend),
        "unscored": "Cream" if "#000000" in dict(sheet.legend).values() else "Black",
        "groups": _groups(sheet.examples),
        "config": _text(folder / "config.yaml"),
        "environment": _flat(_mapping(folder / "environment.json")),
        "matrix": matrix_rows(evaluation.scores) if evaluation else None,
        "numbers": evaluation is not None and len(evaluation.scores.names) <= _MAX_NUMBERS,
        "tiles": _tiles(evaluation),
        "rows": _class_rows(evaluation),
    }
    return environment.get_template("report.html.j2").render(context)


def matrix_rows(scores: Scores) -> list[tuple[str, list[MatrixCell]]]:
    """Rows of the confusion matrix as (class, cells), shares of the row's true pixels; the 40 most frequent classes at most."""
    ranked = sorted(range(len(scores.names)), key=lambda k: -(scores.classes[k].truth + scores.classes[k].predicted))
    shown = sorted(ranked[:_MAX_MATRIX])
    rows = []
    for true in shown:
        total = scores.classes[true].truth
        cells = []
        for predicted in shown:
            count = scores.matrix[true][predicted]
            share = count / total if total else None
            title = f"{scores.names[true]} predicted as {scores.names[predicted]}: {_percent(share)} %, {_grouped(count)} pixels"
            cells.append(MatrixCell(share, title))
        rows.append((scores.names[true], cells))
    return rows


def _tiles(evaluation: Evaluation | None) -> list[tuple[str, str]]:
    """The numbers at the head of the page."""
    if evaluation is None:
        return []
    words = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}
    words |= {
        "frequency_weighted_iou": "freq. weighted IoU",
        "mean_dice": "mean Dice",
        "mean_boundary_iou": "boundary IoU",
    }
    means = evaluation.scores.means()
    return [(word, _percent(means[key])) for key, word in words.items() if key in means]


def _class_rows(evaluation: Evaluation | None) -> list[tuple[ClassScore, float]]:
    """Each class with its share of the true pixels."""
    if evaluation is None:
        return []
    return [(row, row.truth / evaluation.scores.num_pixels) for row in evaluation.scores.classes]


def _groups(examples: tuple[Example, ...]) -> list[tuple[str, list[Example]]]:
    worst = [example for example in examples if not example.is_best]
    best = [example for example in reversed(examples) if example.is_best]
    return [(title, group) for title, group in (("Best", best), ("Worst", worst)) if group]


def _percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f}"


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read: {error}", "restore or remove it") from None


def _mapping(path: Path) -> Mapping[str, Any]:
    text = _text(path)
    try:
        data = json.loads(text) if text else {}
    except ValueError as error:
        raise ConfigError(path, f"is no JSON: {error}", "restore or remove it") from None
    if not isinstance(data, Mapping):
        raise ConfigError(path, f"holds a {type(data).__name__}, not named values", "restore or remove it")
    return data


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested names joined by dots."""
    rows: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
