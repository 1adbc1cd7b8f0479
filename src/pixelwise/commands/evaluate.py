"""`pixelwise evaluate`: score a model, or a folder of predicted masks, on a split of a dataset."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from ..errors import ConfigError, InputError
from ..files import check_outputs, new_folder
from ._console import print_mask_warnings, progress_bar
from ._options import InPath, OutPath, Scales, Switch, parse_options
from ._scores import print_result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core import Prediction
    from ..data import Dataset, Groups, Split
    from ..evaluation.calibration import CalibrationCounter
    from ..evaluation.folds import Folds
    from ..evaluation.result import Evaluation
    from ..inference.base import BaseSegmenter


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """What is scored against: a split of a dataset, its groups, and whether boundaries are measured."""

    dataset: Dataset
    split: Split
    groups: Groups | None
    boundary: bool


@dataclass(frozen=True, kw_only=True)
class _Model:
    """The options that say how a model labels."""

    name: str | None
    head: str | None
    options: str | None
    crf: str | None
    flip: bool
    scales: tuple[float, ...]
    calibration: bool
    fit_temperature: str | None
    precision: Literal["float32", "bfloat16"]
    device: str


def evaluate(
    *,
    data: InPath | None = None,
    split: str = "test",
    only: str | None = None,
    groups: InPath | None = None,
    model: str | None = None,
    head: str | None = None,
    options: str | None = None,
    predictions: InPath | None = None,
    folds: Annotated[list[Path] | None, Parameter(negative="", consume_multiple=True)] = None,
    flip: Switch = False,
    scales: Scales = (1.0,),
    crf: str | None = None,
    calibration: Switch = False,
    fit_temperature: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
    format: str | None = None,
    boundary: bool = True,
    out: OutPath | None = None,
    overwrite: Switch = False,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Score a model, or a folder of predicted masks, on a labeled split.

    Two means are printed side by side: mean IoU over the set, from one confusion matrix, and the mean over the images
    of each image's own mean IoU. Each has a 95 % interval by group (drive, patient), where the names or --groups show
    five groups or more; with fewer, the scores of each group are printed instead.

    Parameters
    ----------
    data
        Folder of the dataset.
    split
        The split to score, such as val or test. Where the dataset has no val, it is what the run held out.
    only
        Score these groups of the split alone, separated by commas.
    groups
        CSV file with the columns name and group; by default groups are found in the names of the images.
    model
        A run, a checkpoint folder, a Hugging Face Hub id, or a file of `pixelwise export`; the shipped street-scene
        model by default.
    head
        Of a network with two heads, the name of the second label map, to score that one; the first by default.
    options
        Network options that replace those of training, such as "{output_stride: 8}"; the weights must fit.
    predictions
        Score the masks KEY.png of this folder instead of a model; one per image of the split.
    folds
        Compare these runs, which each held out another group (`pixelwise train --data.hold_out`), by their scores.json.
    flip
        Average the probabilities of the image and of its mirror image: twice the time.
    scales
        Average over the image at these scales, such as `--scales 0.75 1 1.25`.
    crf
        Score the model followed by the fully connected CRF: a preset such as deeplabv2, or "run" for the parameters
        that `pixelwise crf-search` found for this run.
    calibration
        Also measure whether the probabilities are honest: the expected calibration error, without and with the
        temperature of the model.
    fit_temperature
        Fit the temperature on this split, such as val, and write it into the model's folder, from which `predict
        --probs` takes it; implies --calibration. Labels do not change.
    precision
        Floating-point precision of the network.
    device
        auto, cpu or cuda.
    format
        Format of the dataset, as `pixelwise datasets` lists it; detected by default.
    boundary
        Also compute boundary IoU, and mean IoU within bands around the boundaries of the truth.
    out
        Also write the scores and the protocol to this JSON file, outside of the data folder.
    overwrite
        Replace the file of --out if it exists.
    json
        Print JSON instead of tables.
    """
    wanted = _Model(
        name=model,
        head=head,
        options=options,
        crf=crf,
        flip=flip,
        scales=scales,
        calibration=calibration,
        fit_temperature=fit_temperature,
        precision=precision,
        device=device,
    )
    _check_sources(data, wanted, predictions=predictions, folds=folds)
    if out is not None:
        check_outputs([out], inputs=[model, predictions, *(folds or ())], data=data, overwrite=overwrite)
    result: Evaluation | Folds
    with nullcontext() if out is None else new_folder(out.parent):
        if folds is not None:
            from ..evaluation.folds import compare_folds

            result = compare_folds(folds)
        else:
            assert data is not None, "`_check_sources` asks for it"
            truth = _open_truth(
                data, split, format=format, head=head, only=only, groups=groups, boundary=boundary, model=model
            )
            result = _score_model(truth, wanted) if predictions is None else _score_folder(truth, predictions)
        if out is not None:
            from ..evaluation.result import write_scores

            write_scores(out, result)
    if json:
        print(json_format.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        print_result(result, Console())
    return 0


def _check_sources(data: Path | None, wanted: _Model, *, predictions: Path | None, folds: list[Path] | None) -> None:
    """Raise ConfigError for options that contradict each other, or if nothing says what to score."""
    given = {
        "--model": wanted.name is not None,
        "--head": wanted.head is not None and predictions is None,
        "--options": wanted.options is not None,
        "--crf": wanted.crf is not None,
        "--flip": wanted.flip,
        "--scales": wanted.scales != (1.0,),
        "--calibration": wanted.calibration,
        "--fit-temperature": wanted.fit_temperature is not None,
    }
    named = [option for option, is_given in given.items() if is_given]
    if folds is not None:
        if data is not None or predictions is not None or named:
            option = "--data" if data is not None else "--predictions" if predictions is not None else named[0]
            what = "--folds compares the scores that runs have, and scores nothing"
            raise ConfigError(f"evaluate {option}", what, f"leave out --folds or {option}")
        return
    if data is None:
        raise ConfigError("pixelwise evaluate", "--data is missing", "add --data PATH, see `pixelwise evaluate --help`")
    if predictions is not None and named:
        what = "--predictions are finished labels, which need no model"
        raise ConfigError(f"evaluate {named[0]}", what, f"leave out --predictions or {named[0]}")


def _open_truth(
    data: Path,
    split: str,
    *,
    format: str | None,
    head: str | None,
    only: str | None,
    groups: Path | None,
    boundary: bool,
    model: str | None,
) -> _Truth:
    """Open the split to score, and find its groups; `val` may be what the model's run held out."""
    from ..data import find_groups, open_dataset
    from ..data.groups import select_groups
    from ..data.held_out import split_or_held_out
    from ..data.second_labels import second_dataset

    dataset = open_dataset(data, format)
    if head is not None:
        dataset = second_dataset(dataset, head)
    truth = split_or_held_out(dataset, split, model, option="--split")
    for note in dataset.notes:
        print(note, file=sys.stderr)
    found = find_groups(dataset, groups)
    if only is not None:
        truth, _ = select_groups(truth, found, only, "--only")
    print_mask_warnings(truth)
    return _Truth(dataset=dataset, split=truth, groups=found, boundary=boundary)


def _score_folder(truth: _Truth, predictions: Path) -> Evaluation:
    from ..evaluation.evaluator import evaluate_folder

    with progress_bar("scoring") as report:
        return evaluate_folder(
            predictions,
            truth.split,
            dataset=truth.dataset.name,
            boundary=truth.boundary,
            groups=truth.groups,
            progress=report,
        )


def _score_model(truth: _Truth, wanted: _Model) -> Evaluation:
    """Return the scores of a model, and those of its probabilities if they are asked for."""
    # Only here, as importing torch takes seconds.
    from ..evaluation.evaluator import check_same_classes, evaluate_model, read_as
    from ..inference.augmented import Augmentation
    from ..inference.crf_settings import crf_origin, find_crf
    from ..inference.load_any import load_any
    from ._crf import with_crf

    network_options = parse_options(wanted.options)
    augmentation = Augmentation(wanted.flip, wanted.scales)
    parameters = find_crf(wanted.crf, wanted.name)
    fit_split = None if wanted.fit_temperature is None else _split_to_fit(truth, wanted.fit_temperature, wanted.name)
    segmenter = load_any(wanted.name, device=wanted.device, precision=wanted.precision, options=network_options)
    if wanted.head is not None:
        segmenter = segmenter.with_head(wanted.head)
    name = (wanted.name or "the shipped model") + (f" with {network_options}" if network_options else "")
    if not augmentation.is_plain:
        segmenter = segmenter.with_augmentation(flip=wanted.flip, scales=wanted.scales)
        name += f", mean over {augmentation}"
    if wanted.crf is not None and parameters is not None:
        segmenter = with_crf(segmenter, parameters)
        name += f" with CRF {parameters}, {crf_origin(wanted.crf, wanted.name)}"
    split = read_as(truth.split, segmenter.pixels, model_name=name)
    data_name = f"{truth.dataset.name} {truth.split.name}"
    check_same_classes(segmenter.taxonomy, truth.split.taxonomy, model_name=name, data_name=data_name)
    if wanted.calibration or fit_split is not None:
        segmenter.taxonomy.require_one_label("--calibration")
    predict: Callable[[NDArray[Any]], Prediction] = segmenter
    counter = None
    if fit_split is not None:
        fit_split = read_as(fit_split, segmenter.pixels, model_name=name)
    if wanted.calibration or fit_split is not None:
        predict = partial(segmenter.with_temperature(1).predict, probs=True)
        counter = _calibration_counter(segmenter, predict, fit_split, model=wanted.name, dataset=truth.dataset.name)
    with progress_bar("scoring") as report:
        return evaluate_model(
            predict,
            split,
            dataset=truth.dataset.name,
            model=name,
            precision=wanted.precision,
            boundary=truth.boundary,
            groups=truth.groups,
            calibration=counter,
            thresholds=segmenter.thresholds,
            progress=report,
        )


def _split_to_fit(truth: _Truth, name: str, model: str | None) -> Split:
    """Return the split to fit a temperature on. Raises InputError for the scored one and for the test split."""
    from ..data.held_out import split_or_held_out

    split = split_or_held_out(truth.dataset, name, model, option="--fit-temperature")
    if name == "test" or split.name == truth.split.name:
        what = "a temperature that was fitted on the images of the score would flatter it"
        raise InputError(f"--fit-temperature {name}", what, "fit on val, or on a part of train")
    return split


def _calibration_counter(
    segmenter: BaseSegmenter,
    predict: Callable[[NDArray[Any]], Prediction],
    fit_split: Split | None,
    *,
    model: str | None,
    dataset: str,
) -> CalibrationCounter:
    """Return a counter for the temperature of the model, or for one that is fitted now and written into its folder."""
    from ..evaluation.calibration import CalibrationCounter, fit_on_split
    from ..inference.temperature import write_temperature

    if fit_split is None:
        return CalibrationCounter(segmenter.temperature, "" if segmenter.temperature == 1 else "other images, before")
    with progress_bar("fitting") as report:
        temperature = fit_on_split(predict, fit_split, progress=report)
    fitted_on = f"{dataset} {fit_split.name}"
    if model is not None and Path(model).is_dir():
        path = write_temperature(Path(model), temperature, fitted_on)
        print(f"temperature {temperature:.4g} written to {path}", file=sys.stderr)
    return CalibrationCounter(temperature, fitted_on)
