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
    "open_dataset",
]


def open_dataset(path: str | Path, format: str | None = None, *, check: bool = True) -> Dataset:
    """Open a dataset folder and check that every image has its mask.

    format  name of a dataset format; found by looking at the folder if None
    check   False opens it without looking for the files; `Dataset.problems` then lists all errors
    Raises DatasetError for a folder that no format (or not the named one) recognizes, for missing files (all of them in
    one error), and for an image in two splits; UnknownNameError for an unknown format.
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
            dataset = reader.read(root)
            return dataset.check() if check else dataset
    needs = "; or ".join(f"{name}: {DATASETS.create(name).needs}" for name in names)
    raise DatasetError(
        folder, f"unrecognized dataset layout; expected {needs}", "rearrange the files, or name another folder"
    )
