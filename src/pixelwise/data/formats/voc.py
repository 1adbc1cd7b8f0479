"""PASCAL VOC 2012 and SBD: 20 object classes and background, palette masks, ignored borders of 255.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010; Hariharan et al., "Semantic contours
from inverse detectors", ICCV 2011 (SBD), as PNG in SegmentationClassAug with the list trainaug.txt.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ...core import Taxonomy
from ...errors import DatasetError
from ...images import IMAGE_SUFFIXES, without_suffix
from ..dataset import Dataset, Item
from .base import DATASETS, DatasetFormat, make_dataset, read_lines, resolve_inside, split_pair

TAXONOMY = Taxonomy(
    names=(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
    ignored=(255,),
)
_LISTS = Path("ImageSets", "Segmentation")


@DATASETS.register("voc", tiny={}, paper="Everingham et al., The PASCAL Visual Object Classes Challenge", year=2010)
class Voc(DatasetFormat):
    """PASCAL VOC 2012 and SBD: 21 classes, border 255 ignored, test without masks."""

    needs = (
        "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/{train,val}.txt "
        "(SBD: SegmentationClassAug/, trainaug.txt)"
    )

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself, or the VOC2012/ or VOCdevkit/VOC2012/ in it."""
        roots = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
        return next((root for root in roots if (root / "JPEGImages").is_dir() and (root / _LISTS).is_dir()), None)

    def read(self, root: Path) -> Dataset:
        """Read one split per list of ids; the masks of trainaug are in SegmentationClassAug, if that exists."""
        lists = sorted((root / _LISTS).glob("*.txt"))
        if not lists:
            what = f"has no split list in {_LISTS.as_posix()}"
            raise DatasetError(root, what, "add train.txt and val.txt, one id per line")
        parts = {path.stem: _items(root, path) for path in lists}
        # The test images are a separate archive, which is not needed for training.
        if not any(os.path.isfile(item.image) for item in parts.get("test", [])):
            parts.pop("test", None)
        return make_dataset("voc", root, TAXONOMY, parts)


def _items(root: Path, path: Path) -> list[Item]:
    """Read a split list: one id per line, or `/JPEGImages/id.jpg /...Aug/id.png` in a copy of SBD's trainaug.txt."""
    augmented = root / "SegmentationClassAug"
    masks = augmented if path.stem.endswith("aug") and augmented.is_dir() else root / "SegmentationClass"
    items = []
    for line in read_lines(path):
        # An id may hold dots and blanks, and a folder. Only SBD's lines name files.
        key = PurePosixPath(split_pair(line, path)[0]).name if line.startswith("/") else line
        if key.lower().endswith(IMAGE_SUFFIXES):
            key = str(without_suffix(PurePosixPath(key)))
        mask = None if path.stem == "test" else masks / f"{key}.png"
        items.append(Item(key, resolve_inside(root, f"JPEGImages/{key}.jpg"), mask))
    return items
