"""From files on disk to batches: dataset formats, splits, augmentation, the loader.

Reading order: `dataset` (splits and items), `formats` (one file per folder layout), `transforms` (augmentation),
`loader` (batches). For U-Net's weight map of your own masks, see `border_weights`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DatasetError
from .counts import check_classes, count_pixels
from .dataset import Dataset, Item, MaskEncoding, Split
from .formats import DATASETS, DatasetFormat

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetFormat",
    "Item",
    "MaskEncoding",
    "Split",
    "check_classes",
    "count_pixels",
    "find_dataset",
    "open_dataset",
]


def open_dataset(path: str | Path, format: str | None = None) -> Dataset:
    """Open a dataset folder and check that every image has its mask.

    format  name of a dataset format; found by looking at the folder if None
    Raises DatasetError for an unknown layout, missing files (all of them in one error), or an image in two splits.
    """
    return find_dataset(path, format).check()


def find_dataset(path: str | Path, format: str | None = None) -> Dataset:
    """Open a dataset folder without checking that its files exist; `Dataset.problems` lists what is wrong.

    Raises DatasetError for a folder that no format (or not the named one) recognizes, UnknownNameError for an unknown
    format.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DatasetError(folder, what, "name the folder of a dataset")
    names = [format] if format else sorted(DATASETS)
    for name in names:
        reader = DATASETS.create(name)
        root = reader.find_root(folder)
        if root is not None:
            return reader.read(root)
    needs = "; or ".join(f"{name}: {DATASETS.create(name).needs}" for name in names)
    raise DatasetError(
        folder, f"unrecognized dataset layout; expected {needs}", "rearrange the files, or name another folder"
    )
