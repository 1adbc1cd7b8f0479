"""From files on disk to batches: dataset formats, transforms, the loader."""

from __future__ import annotations

from pathlib import Path

from ..errors import DatasetError
from .dataset import Dataset, Item, MaskEncoding, Split
from .formats import DATASETS, DatasetFormat

__all__ = ["DATASETS", "Dataset", "DatasetFormat", "Item", "MaskEncoding", "Split", "find_dataset", "open_dataset"]


def open_dataset(path: str | Path, format: str | None = None) -> Dataset:
    """Open a dataset folder, its format recognised by looking (or named), and make sure that every pair is there.

    Raises DatasetError for an unknown format, missing files (all of them in one error), or an image in two splits.
    """
    return find_dataset(path, format).check()


def find_dataset(path: str | Path, format: str | None = None) -> Dataset:
    """As `open_dataset`, without looking whether the files exist: for those who list all problems themselves.

    Raises DatasetError for a folder that no format (or not the named one) recognises, UnknownNameError for a format's name.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DatasetError(
            folder, "is not a folder" if folder.exists() else "does not exist", "name the folder of a dataset"
        )
    names = [format] if format else sorted(DATASETS)
    for name in names:
        reader = DATASETS.create(name)
        root = reader.find_root(folder)
        if root is not None:
            return reader.read(root)
    needs = "; or ".join(f"{name}: {DATASETS.create(name).needs}" for name in names)
    raise DatasetError(folder, "is laid out in no known way", f"make it {needs}")
