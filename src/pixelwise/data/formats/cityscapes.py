"""Cityscapes: street scenes of 50 cities, 2048x1024 pixels, 34 label ids of which 19 are trained and scored.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016; ids and colors from
cityscapesScripts, helpers/labels.py.
"""

from __future__ import annotations

from pathlib import Path

from ...core import Taxonomy
from ...images import walk_files
from ..dataset import Dataset, Item
from . import DATASETS
from .base import DatasetFormat, make_dataset

_NUM_LABELS = 34
_CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
_SCORED = tuple(value for _, value, _ in _CLASSES)
TAXONOMY = Taxonomy(
    names=tuple(name for name, _, _ in _CLASSES),
    colors=tuple(color for _, _, color in _CLASSES),
    values=_SCORED,
    ignored=tuple(value for value in range(_NUM_LABELS) if value not in _SCORED),
)
_IMAGE, _MASK = "_leftImg8bit.png", "_gtFine_labelIds.png"


@DATASETS.register("cityscapes", tiny={}, paper="Cordts et al., The Cityscapes Dataset", year=2016)
class Cityscapes(DatasetFormat):
    """Cityscapes, fine annotations: 19 classes of 34 label ids, test without masks."""

    needs = f"leftImg8bit/{{train,val,test}}/<city>/*{_IMAGE}, gtFine/{{train,val}}/<city>/*{_MASK}"

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        return folder if (folder / "leftImg8bit").is_dir() else None

    def read(self, root: Path) -> Dataset:
        """Read splits by folder. The published masks of test contain no scored class and are not used."""
        names = [name for name in ("train", "val", "test") if (root / "leftImg8bit" / name).is_dir()]
        return make_dataset("cityscapes", root, TAXONOMY, {name: _items(root, name) for name in names})


def _items(root: Path, name: str) -> list[Item]:
    items = []
    for image in walk_files(root / "leftImg8bit" / name)[0]:
        if image.name.endswith(_IMAGE):
            key = image.name.removesuffix(_IMAGE)
            mask = root / "gtFine" / name / image.parent.name / f"{key}{_MASK}"
            items.append(Item(key, image, None if name == "test" else mask, group=image.parent.name))
    return items
