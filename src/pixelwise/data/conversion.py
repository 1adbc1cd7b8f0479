"""Write a dataset in another format, into a new folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DatasetError, InputError
from ..files import new_folder, write_text
from ..images import RGB
from ..strict_yaml import read_yaml, to_yaml
from .dataset import Dataset
from .formats import DATASETS
from .formats.conversion import Conversion
from .pixel_formats import declared_pixels

TARGETS: dict[str, str] = {target: name for name in sorted(DATASETS) for target in DATASETS.create(name).targets}
"""What `--to` takes, and the format that writes it."""


def convert_dataset(
    dataset: Dataset,
    target: str,
    out: str | Path,
    *,
    link: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write a dataset as one of `TARGETS`; return what was done, with its notes and the number of images per split.

    link    link to the images instead of copying them
    report  called with the number of images done and their total
    Raises InputError for a folder that holds files or lies in the dataset, DatasetError if no image has a mask, and the
    error of a file that cannot be read; the folder is then removed again.
    """
    writer = DATASETS.create(TARGETS[target])
    if dataset.taxonomy.multilabel and target in writer.one_label:
        others = [name for name in TARGETS if name not in DATASETS.create(TARGETS[name]).one_label]
        what = f"has several labels per pixel, and {target} holds one"
        raise DatasetError(dataset.root, what, f"convert to one of {', '.join(others)}")
    pixels = declared_pixels(dataset.root) or RGB
    if len(pixels.parts) > 1 or any(split.second is not None for split in dataset.splits.values()):
        what = "has images in several files, or a second label map, and the formats hold one of each"
        raise DatasetError(dataset.root, what, "take `images` or `second` out of a copy of classes.yaml")
    if all(item.mask is None for split in dataset.splits.values() for item in split.items):
        raise DatasetError(dataset.root, "has no image with a mask", "name a labeled dataset")
    with new_dataset_folder(dataset, out) as folder:
        conversion = Conversion(dataset, folder, link, report)
        writer.write(target, conversion)
        if not pixels.is_rgb:
            # Read in every format, also without classes.
            file = folder / "classes.yaml"
            data = read_yaml(file) if file.is_file() else {}
            write_text(file, to_yaml(data | {"images": pixels.to_dict()}) + "\n")
    return conversion


@contextmanager
def new_dataset_folder(dataset: Dataset, out: str | Path) -> Iterator[Path]:
    """Create a folder outside of a dataset for the block; if the block fails, remove it again with what it holds.

    Raises InputError for a folder that holds files or lies in the dataset.
    """
    folder = Path(out)
    if os.path.join(os.path.realpath(folder), "").startswith(os.path.join(os.path.realpath(dataset.root), "")):
        raise InputError(folder, f"lies in the dataset {dataset.root}", "choose another folder")
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(folder, "exists already and is no empty folder", "choose a new folder")
    with new_folder(folder):
        try:
            yield folder
        except BaseException:
            # All of it was written here: the folder was empty. It may be a link, and is not removed itself.
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            raise
