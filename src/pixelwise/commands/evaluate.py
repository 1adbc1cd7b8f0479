"""`pixelwise evaluate`: score a model, or a folder of predicted masks, on a split of a dataset."""

from __future__ import annotations

import json as json_format
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..data import open_dataset
from ..errors import ConfigError
from ..evaluation.evaluator import Evaluation, check_same_classes, evaluate_folder, evaluate_model, write_scores
from ..evaluation.metrics import Scores
from ..files import check_outputs, new_folder
from ._console import progress_bar, text
from ._options import OutPath, Switch, parse_options


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
    out: OutPath | None = None,
    overwrite: Switch = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Score a model, or a folder of predicted masks, on a labeled split.

    Parameters
    ----------
    data
        Folder of the dataset.
    split
        The split to score, such as val or test.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; the shipped street-scene model by default.
    options
        Network options that replace those of training, such as "{output_stride: 8}"; the weights must fit.
    predictions
        Score the masks KEY.png of this folder instead of a model; one per image of the split.
    crf
        Score the model followed by the fully connected CRF: a preset such as deeplabv2, or "run" for the parameters
        that `pixelwise crf-search` found for this run.
    precision
        Floating-point precision of the network.
    device
        auto, cpu or cuda.
    format
        Format of the dataset, as `pixelwise datasets` lists it; detected by default.
    boundary
        Also compute boundary IoU.
    out
        Also write the scores and the protocol to this JSON file, outside of the data folder.
    overwrite
        Replace the file of --out if it exists.
    json
        Print JSON instead of tables.
    """
    for option, given in {"--model": model, "--options": options, "--crf": crf}.items():
        if given is not None and predictions is not None:
            what = "--predictions are finished labels, which need no model"
            raise ConfigError(f"evaluate {option}", what, f"leave out --predictions or {option}")
    if out is not None:
        check_outputs([out], inputs=[model, predictions], data=data, overwrite=overwrite)
    with nullcontext() if out is None else new_folder(out.parent):
        result = _score(
            data,
            split,
            model=model,
            options=options,
            predictions=predictions,
            crf=crf,
            precision=precision,
            device=device,
            format=format,
            boundary=boundary,
        )
        if out is not None:
            write_scores(out, result)
    if json:
        print(json_format.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        print_evaluation(result, Console())
    return 0


def _score(
    data: Path,
    split: str,
    *,
    model: str | None,
    options: str | None,
    predictions: Path | None,
    crf: str | None,
    precision: Literal["float32", "bfloat16"],
    device: str,
    format: str | None,
    boundary: bool,
) -> Evaluation:
    """Return the scores of the model or of the folder of predictions."""
    dataset = open_dataset(data, format)
    truth = dataset.split(split, option="--split")
    for note in dataset.notes:
        print(note, file=sys.stderr)
    if predictions is not None:
        with progress_bar("scoring") as report:
            return evaluate_folder(predictions, truth, dataset=dataset.name, boundary=boundary, progress=report)
    # Only here, as importing torch takes seconds.
    from ..inference.crf_settings import crf_origin, find_crf
    from ..inference.segmenter import load
    from ._crf import with_crf

    network_options = parse_options(options)
    parameters = find_crf(crf, model)
    segmenter = load(model, device=device, precision=precision, options=network_options)
    name = (model or "the shipped model") + (f" with {network_options}" if network_options else "")
    if crf is not None and parameters is not None:
        segmenter = with_crf(segmenter, parameters)
        name += f" with CRF {parameters}, {crf_origin(crf, model)}"
    data_name = f"{dataset.name} {truth.name}"
    check_same_classes(segmenter.taxonomy, truth.taxonomy, model_name=name, data_name=data_name)
    with progress_bar("scoring") as report:
        return evaluate_model(
            segmenter,
            truth,
            dataset=dataset.name,
            model=name,
            precision=precision,
            boundary=boundary,
            progress=report,
        )


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print the protocol, the scores per class, the means, and warnings about implausible scores."""
    for line in evaluation.protocol_lines():
        console.print(text(line), soft_wrap=True)
    console.print()
    console.print(class_table(evaluation.scores))
    console.print()
    console.print(means_table(evaluation.scores))
    for warning in evaluation.scores.warnings:
        console.print(text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def class_table(scores: Scores) -> Table:
    """Return the scores per class in percent; a dash is an undefined score."""
    table = Table("in percent", box=None, pad_edge=False)
    measured = bool(scores.boundary)
    for heading in ("IoU", *(("boundary IoU",) if measured else ()), "Dice", "accuracy", "precision", "share of truth"):
        table.add_column(heading, justify="right")
    for row in scores.classes:
        outline = (row.boundary_iou,) if measured else ()
        cells = (row.iou, *outline, row.dice, row.accuracy, row.precision, row.truth / scores.num_pixels)
        absent = not row.truth and not row.predicted
        table.add_row(text(row.name), *map(_percent, cells), style="dim" if absent else None)
    return table


def means_table(scores: Scores) -> Table:
    """Return the four metrics of the FCN paper and further means, in percent."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    for name, value in scores.means().items():
        table.add_row(name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice"), _percent(value))
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
