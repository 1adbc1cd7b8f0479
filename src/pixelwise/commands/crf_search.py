"""`pixelwise crf-search`: CRF parameters for a model, found on validation images."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..data import open_dataset
from ..errors import CheckpointError, InputError, Interrupted
from ..evaluation.crf_search import search
from ..evaluation.crf_search_cache import Tally
from ..evaluation.evaluator import check_same_classes
from ..inference.crf_settings import write_crf
from ..inference.segmenter import load
from ._crf import compile_crf

# Where a search keeps what it has counted until it ends.
TALLY = "crf-search.jsonl"
_AGAIN = "give the command again"


def crf_search(
    *,
    model: Path,
    data: Path,
    split: str = "val",
    images: int = 100,
    format: str | None = None,
    device: str = "auto",
) -> int:
    """Find the fully connected CRF's parameters for a model, by a coarse and then a fine grid.

    `--crf run` of predict, evaluate and compare finds them in the model's folder.

    Parameters
    ----------
    model
        A run or a checkpoint folder, into which the result is written. A search that was stopped goes on there.
    data
        The dataset's folder.
    split
        The split to search on; never the one that is reported.
    images
        How many of its images are used, spread evenly.
    format
        The format of the dataset's folder; left out, it is recognised by looking.
    device
        auto, cpu or cuda.
    """
    if images < 1:
        raise InputError("--images", f"got {images}, allowed are 1 and more", "write a number like 100")
    if split == "test":
        what = "is what scores are reported on, and parameters that were chosen there would flatter them"
        raise InputError("--split test", what, "search on val, or on a part of train")
    if not model.is_dir():
        raise CheckpointError(model, "no such folder", "name a run or a checkpoint folder, where the result is written")
    segmenter = load(model, device=device)
    dataset = open_dataset(data, format)
    truth = dataset.split(split)
    check_same_classes(segmenter.taxonomy, truth.taxonomy, model_name=str(model), data_name=f"{dataset.name} {split}")
    tally = Tally(model / TALLY)
    if not tally.is_empty:
        print(f"going on with what {model / TALLY} holds of a search that was stopped", file=sys.stderr)
    compile_crf(segmenter.taxonomy.num_classes)
    columns = TextColumn("searching"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("searching", total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        try:
            found = search(segmenter, truth, num_images=images, progress=report, tally=tally)
        except KeyboardInterrupt:
            raise Interrupted(
                "crf-search", f"stopped; what was counted, if anything, is in {model / TALLY}", _AGAIN
            ) from None
    how = {"dataset": dataset.name, "split": split, "images": found.num_images, "settings": found.num_settings}
    path = write_crf(
        model, found.parameters, {**how, "mean_iou": found.mean_iou, "mean_iou_before": found.mean_iou_before}
    )
    tally.discard()
    print(f"{dataset.name} {split}, {found.num_images} images, {found.num_settings} settings")
    print(f"mean IoU without a CRF {found.mean_iou_before:.2%}, with the best {found.mean_iou:.2%}")
    print(", ".join(f"{name} {value}" for name, value in asdict(found.parameters).items()))
    if found.mean_iou <= found.mean_iou_before:
        print("no setting is better than none: leave --crf out")
    print(f"written to {path}; use it with --crf run")
    return 0
