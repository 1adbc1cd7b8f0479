"""From files on disk to batches: dataset formats, splits, augmentation, the loader.

Reading order: `dataset` (splits and items), `formats` (one file per folder layout), `transforms` (augmentation),
`loader` (batches). For U-Net's weight map of your own masks, see `border_weights`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DatasetError, listed
from .counts import check_classes, check_masks, count_pixels
from .dataset import Dataset, Item, MaskEncoding, Split
from .formats import DATASETS, DatasetFormat
from .groups import Groups, find_groups
from .pixel_formats import with_pixel_format

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetFormat",
    "Groups",
    "Item",
    "MaskEncoding",
    "Split",
    "check_classes",
    "check_masks",
    "count_pixels",
    "find_groups",
    "open_dataset",
]


# Other names that people give the two folders of the format `folder`.
_OTHER_NAMES = {
    "images": ("images", "image", "imgs", "img", "photos"),
    "masks": ("masks", "mask", "labels", "label", "annotations", "gt"),
}


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
            return with_pixel_format(dataset.check() if check else dataset)
    needs = "; or ".join(f"{name}: {DATASETS.create(name).needs}" for name in names)
    found = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    what = f"unrecognized dataset layout; expected {needs}; it holds {listed(found, 10) or 'nothing'}"
    renames = [
        f"rename {name} to {usual}/"
        for usual, others in _OTHER_NAMES.items()
        for name in found
        if name.endswith("/") and name[:-1].casefold() in others and f"{usual}/" not in found
    ]
    raise DatasetError(folder, what, " and ".join(renames) or "rearrange the files, or name another folder")
