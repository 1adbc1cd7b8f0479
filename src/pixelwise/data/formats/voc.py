"""PASCAL VOC 2012 and SBD: 20 object classes and background, palette masks, ignored borders of 255.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010; Hariharan et al., "Semantic contours
from inverse detectors", ICCV 2011 (SBD), as PNG in SegmentationClassAug with the list trainaug.txt.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from ...core import Taxonomy
from ...errors import DatasetError
from ...files import write_text
from ...images import IMAGE_SUFFIXES, without_suffix, write_mask
from ..dataset import Dataset, Item
from . import DATASETS
from .base import (
    DatasetFormat,
    find_image,
    has_class_names,
    make_dataset,
    read_lines,
    resolve_inside,
    split_pair,
)
from .conversion import Conversion, free_value

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

    targets: Mapping[str, str] = MappingProxyType({"voc": "PASCAL VOC: palette PNG and lists of ids"})
    one_label = frozenset({"voc"})

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
        if list(parts) == ["default"]:
            # CVAT's name for a task without subsets.
            parts = {"train": parts["default"]}
        # The test images are a separate archive, which is not needed for training.
        if not any(os.path.isfile(item.image) for item in parts.get("test", [])):
            parts.pop("test", None)
        return make_dataset("voc", root, TAXONOMY, parts)

    def write(self, target: str, conversion: Conversion) -> None:
        """Write JPEGImages, SegmentationClass, ImageSets/Segmentation, and the classes as classes.yaml."""
        taxonomy = conversion.taxonomy
        ids: dict[str, list[str]] = {}
        for split, item, mask in conversion.samples(all_splits=True):
            conversion.place_image(item, "JPEGImages")
            path = conversion.out / "SegmentationClass" / f"{item.key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_mask(path, taxonomy.decode(mask, free_value(taxonomy)), palette=taxonomy.palette("value"))
            ids.setdefault(split, []).append(item.key)
        (conversion.out / _LISTS).mkdir(parents=True)
        for split, keys in ids.items():
            write_text(conversion.out / _LISTS / f"{split}.txt", "".join(f"{key}\n" for key in keys))
        conversion.write_classes(ignored=True)


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
        mask = masks / f"{key}.png"
        # VOC's own test images have no published masks.
        has_mask = path.stem != "test" or (has_class_names(root) and os.path.isfile(mask))
        image = resolve_inside(root, f"JPEGImages/{key}.jpg")
        if not os.path.isfile(image):
            # CVAT keeps the suffix of its images.
            image = find_image(resolve_inside(root, f"JPEGImages/{key}")) or image
        items.append(Item(key, image, mask if has_mask else None))
    return items
