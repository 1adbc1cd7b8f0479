"""`pixelwise crf-search`: CRF parameters for a model, found on validation images."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, InputError, Interrupted, printable
from ..files import check_outputs
from ._console import print_mask_warnings, progress_bar
from ._crf import compile_with_notice
from ._options import InPath, Switch

if TYPE_CHECKING:
    from ..data import Split
    from ..inference.segmenter import Segmenter

CACHE = "crf-search.jsonl"
"""The file of a search's counts in the model's folder, until the search ends."""


def crf_search(
    *,
    model: InPath,
    data: InPath,
    split: str = "val",
    images: int = 100,
    format: str | None = None,
    device: str = "auto",
    overwrite: Switch = False,
) -> int:
    """Find the fully connected CRF's parameters for a model, by a coarse and then a fine grid.

    `--crf run` of predict, evaluate and compare reads them from the model's folder.

    Parameters
    ----------
    model
        A run or a checkpoint folder, into which the result is written. A search that was stopped resumes there.
    data
        The dataset's folder.
    split
        The split to search on; never the one that is reported.
    images
        The number of its images that are used, spread evenly.
    format
        The format of the dataset's folder; by default it is detected.
    device
        auto, cpu or cuda.
    overwrite
        Replace the result of an earlier search in the model's folder.
    """
    if images < 1:
        raise InputError("--images", f"must be >= 1, got {images}", "use a number like 100")
    if split == "test":
        what = "parameters chosen on the split that scores are reported on would bias them"
        raise InputError("--split test", what, "search on val, or on a part of train")
    if not model.is_dir():
        raise CheckpointError(model, "no such folder", "name a run or a checkpoint folder, where the result is written")
    from ..inference.crf_settings import FILE, write_crf

    check_outputs([model / FILE], inputs=[data], overwrite=overwrite, fix="copy the checkpoint to another folder")
    # Importing torch takes seconds: a mistake in the options is reported before it.
    from ..evaluation.crf_search import search
    from ..evaluation.crf_search_cache import SearchCache
    from ..inference.segmenter import load

    segmenter = load(model, device=device)
    segmenter.pixels.check_crf()
    segmenter.taxonomy.require_one_label("crf-search")
    name, truth = _open_truth(data, split, format=format, segmenter=segmenter, model=model)
    cache = SearchCache(model / CACHE)
    if not cache.is_empty:
        print(printable(f"resuming the stopped search in {model / CACHE}"), file=sys.stderr)
    compile_with_notice(segmenter.taxonomy.num_classes)
    with progress_bar("searching") as report:
        try:
            result = search(segmenter, truth, num_images=images, progress=report, cache=cache)
        except KeyboardInterrupt:
            what = f"stopped; the counts so far are in {cache.path}"
            raise Interrupted("crf-search", what, "run the command again to resume") from None
    found = {
        "dataset": name,
        "split": split,
        "images": result.num_images,
        "settings": result.num_settings,
        "mean_iou": result.mean_iou,
        "mean_iou_before": result.mean_iou_before,
    }
    path = write_crf(model, result.parameters, found)
    cache.discard()
    print(printable(f"{name} {split}, {result.num_images} images, {result.num_settings} settings"))
    print(f"mean IoU without a CRF {result.mean_iou_before:.2%}, with the best {result.mean_iou:.2%}")
    print(", ".join(f"{letter} {value}" for letter, value in asdict(result.parameters).items()))
    if result.mean_iou <= result.mean_iou_before:
        print("no setting improves on the model alone: do not use --crf")
    print(printable(f"written to {path}; use it with --crf run"))
    return 0


def _open_truth(data: Path, split: str, *, format: str | None, segmenter: Segmenter, model: Path) -> tuple[str, Split]:
    """Return the dataset's name and the split to search on; `val` may be what the model's run held out."""
    from ..data import open_dataset
    from ..data.held_out import split_or_held_out
    from ..evaluation.evaluator import check_same_classes, read_as

    dataset = open_dataset(data, format)
    truth = split_or_held_out(dataset, split, model, option="--split")
    for note in dataset.notes:
        print(note, file=sys.stderr)
    check_same_classes(segmenter.taxonomy, truth.taxonomy, model_name=str(model), data_name=f"{dataset.name} {split}")
    truth = read_as(truth, segmenter.pixels, model_name=str(model))
    print_mask_warnings(truth)
    return dataset.name, truth
