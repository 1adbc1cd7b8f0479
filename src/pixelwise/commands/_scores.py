"""The tables of `pixelwise evaluate` on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ._console import text

if TYPE_CHECKING:
    from ..evaluation.bootstrap import Spread
    from ..evaluation.folds import Folds
    from ..evaluation.multilabel_scores import SetScores
    from ..evaluation.result import Evaluation


def print_result(result: Evaluation | Folds, console: Console) -> None:
    """Print an evaluation, or the comparison of several runs."""
    from ..evaluation.folds import Folds

    if isinstance(result, Folds):
        print_folds(result, console)
    else:
        print_evaluation(result, console)


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print the protocol, the scores per class, the means, their spread, and warnings about implausible scores."""
    from ..evaluation.bootstrap import MIN_GROUPS

    for line in evaluation.protocol_lines():
        console.print(text(line), soft_wrap=True)
    console.print()
    console.print(class_table(evaluation.scores))
    console.print()
    console.print(means_table(evaluation))
    spread = evaluation.spread
    for line in spread.lines() if spread else ():
        console.print(text(line), soft_wrap=True)
    if spread is not None and spread.unit == "group" and 1 < spread.num_units < MIN_GROUPS:
        console.print(group_table(spread))
    if evaluation.trimap:
        points = ", ".join(f"{point.width} px {_percent(point.mean_iou)}" for point in evaluation.trimap)
        console.print(text(f"mean IoU near boundaries of the truth, at most: {points}"), soft_wrap=True)
    for line in evaluation.calibration.lines() if evaluation.calibration else ():
        console.print(text(line), soft_wrap=True)
    for warning in evaluation.scores.warnings:
        console.print(text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def class_table(scores: SetScores) -> Table:
    """Return the scores per class in percent; a dash is an undefined score."""
    from ..evaluation.multilabel_scores import MultilabelScores

    table = Table("in percent", box=None, pad_edge=False)
    measured = bool(scores.boundary)
    share = "share of pixels" if isinstance(scores, MultilabelScores) else "share of truth"
    headings = ["IoU", *(("boundary IoU",) if measured else ()), "Dice", "accuracy", "precision", share]
    for heading in (*headings, *(("threshold",) if scores.thresholds else ())):
        table.add_column(heading, justify="right")
    for number, row in enumerate(scores.classes):
        outline = (row.boundary_iou,) if measured else ()
        cells = (row.iou, *outline, row.dice, row.accuracy, row.precision, row.truth / scores.num_pixels)
        absent = not row.truth and not row.predicted
        threshold = [f"{scores.thresholds[number]:g}"] if scores.thresholds else []
        table.add_row(text(row.name), *map(_percent, cells), *threshold, style="dim" if absent else None)
    return table


def means_table(evaluation: Evaluation) -> Table:
    """Return the four metrics of the FCN paper and further means, in percent, with the intervals that are known."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column()
    for mean in evaluation.means().values():
        low_high = "" if mean.interval is None else " to ".join(map(_percent, mean.interval))
        table.add_row(mean.title, _percent(mean.value), low_high)
    return table


def group_table(spread: Spread) -> Table:
    """Return the scores of each group, in percent."""
    table = Table("group", box=None, pad_edge=False)
    for heading in ("images", "mean IoU over the group", "mean of per-image IoU"):
        table.add_column(heading, justify="right")
    for row in spread.groups:
        table.add_row(text(row.name), str(row.num_images), _percent(row.mean_iou), _percent(row.mean_image_iou))
    return table


def print_folds(folds: Folds, console: Console) -> None:
    """Print a row per run, and the means."""
    table = Table("run", "scored on", box=None, pad_edge=False)
    for heading in ("images", "mean IoU over the fold", "mean of per-image IoU"):
        table.add_column(heading, justify="right")
    for row in folds.folds:
        scores = _percent(row.mean_iou), _percent(row.mean_image_iou)
        table.add_row(text(row.run), text(row.split), str(row.num_images), *scores)
    console.print(table)
    around = "" if folds.deviation is None else f", standard deviation {_percent(folds.deviation)}"
    console.print(f"mean of the {len(folds.folds)} folds {_percent(folds.mean_iou)}{around}")
    console.print(f"one confusion matrix over all folds: mean IoU {_percent(folds.pooled.mean_iou)}")
    console.print(f"mean of per-image IoU, all images: {_percent(folds.mean_image_iou)}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
