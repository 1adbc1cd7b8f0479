"""`pixelwise evaluate`: the scores of a model, or of a folder of predicted masks, on a split of a dataset."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..data import open_dataset
from ..data.dataset import Split
from ..errors import ConfigError
from ..evaluation.evaluator import Evaluation, check_same_classes, evaluate_folder, evaluate_model, write_scores
from ..evaluation.metrics import Scores
from ..files import make_folder
from ._options import parse_options
from ._progress import progress_bar


def evaluate(
    *,
    data: Path,
    split: str = "test",
    model: str | None = None,
    options: str | None = None,
    predictions: Path | None = None,
    crf: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
    format: str | None = None,
    boundary: bool = True,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Score a model, or a folder of predicted masks, on a split with truth.

    Parameters
    ----------
    data
        The dataset's folder.
    split
        The split to score, such as val or test.
    model
        A run, a checkpoint folder or a hub id; left out, it is the model that ships with pixelwise.
    options
        Options of the network in place of those of its training, such as "{output_stride: 8}"; its weights must fit.
    predictions
        Score the masks <key>.png of this folder instead of a model; one for every image of the split.
    crf
        Score what the fully connected CRF makes of the model's labels: a preset such as deeplabv2, or run for what
        `pixelwise crf-search` found.
    precision
        The arithmetic of the model.
    device
        auto, cpu or cuda.
    format
        The format of the dataset's folder; left out, it is recognised by looking.
    boundary
        Also measure boundary IoU.
    out
        Write the scores and the protocol to this JSON file.
    json
        Print JSON instead of tables.
    """
    if model is not None and predictions is not None:
        raise ConfigError("evaluate", "--model and --predictions exclude each other", "give one of the two")
    if options is not None and predictions is not None:
        raise ConfigError("evaluate", "--options are a model's, --predictions are labels", "leave one of the two out")
    if crf is not None and predictions is not None:
        raise ConfigError(
            "evaluate", "--crf needs a model's probabilities, --predictions are labels", "leave one of the two out"
        )
    if out is not None:
        make_folder(out.parent)
    dataset = open_dataset(data, format)
    truth = dataset.split(split)
    if predictions is not None:
        # No model, no torch: scoring a folder starts at once.
        with progress_bar("scoring") as report:
            result = evaluate_folder(predictions, truth, dataset=dataset.name, boundary=boundary, progress=report)
    else:
        result = _evaluate_model(model, parse_options(options), crf, truth, dataset.name, precision, device, boundary)
    if out is not None:
        write_scores(out, result)
    if json:
        print(json_format.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        print_evaluation(result, Console())
    return 0


def _evaluate_model(
    model: str | None,
    options: dict[str, Any],
    crf: str | None,
    truth: Split,
    dataset: str,
    precision: Literal["float32", "bfloat16"],
    device: str,
    boundary: bool,
) -> Evaluation:
    from ..inference.crf_settings import crf_origin, find_crf
    from ..inference.segmenter import load
    from ._crf import with_crf

    name = model or "the shipped model"
    parameters = find_crf(crf, model)
    segmenter = load(model, device=device, precision=precision, options=options)
    if options:
        name += f" with {options}"
    if crf is not None and parameters is not None:
        segmenter, name = with_crf(segmenter, parameters), f"{name} with CRF {parameters}, {crf_origin(crf, model)}"
    check_same_classes(segmenter.taxonomy, truth.taxonomy, model_name=name, data_name=f"{dataset} {truth.name}")
    with progress_bar("scoring") as report:
        return evaluate_model(
            segmenter, truth, dataset=dataset, model=name, precision=precision, boundary=boundary, progress=report
        )


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The protocol, the table a class, the means, and what looks implausible."""
    for line in evaluation.protocol_lines():
        console.print(Text(line), soft_wrap=True)
    console.print()
    console.print(class_table(evaluation.scores))
    console.print()
    console.print(means_table(evaluation.scores))
    for warning in evaluation.scores.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def class_table(scores: Scores) -> Table:
    """One row a class, in percent; a dash is a number that is undefined."""
    table = Table("in percent", box=None, pad_edge=False)
    measured = bool(scores.boundary)
    for heading in ("IoU", *(("boundary IoU",) if measured else ()), "Dice", "accuracy", "precision", "share of truth"):
        table.add_column(heading, justify="right")
    for row in scores.classes:
        outline = (row.boundary_iou,) if measured else ()
        cells = (row.iou, *outline, row.dice, row.accuracy, row.precision, row.truth / scores.num_pixels)
        absent = not row.truth and not row.predicted
        table.add_row(Text(row.name), *map(_percent, cells), style="dim" if absent else None)
    return table


def means_table(scores: Scores) -> Table:
    """The paper's four metrics and the further means, in percent."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    for name, value in scores.means().items():
        table.add_row(name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice"), _percent(value))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
