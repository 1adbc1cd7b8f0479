"""PASCAL VOC 2012 and SBD: 20 things and background, palette masks, borders of 255 that count for nothing.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010; Hariharan et al., "Semantic contours
from inverse detectors", ICCV 2011 (SBD), as PNG in SegmentationClassAug with the list trainaug.txt.
"""

from __future__ import annotations

from pathlib import Path

from ...core import Taxonomy
from ...errors import DatasetError
from ..dataset import Dataset, Item, Split
from .base import DATASETS, DatasetFormat, inner, read_lines

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

    needs = "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/{train,val}.txt (SBD: SegmentationClassAug/, trainaug.txt)"

    def find_root(self, folder: Path) -> Path | None:
        """`folder` itself, or the VOC2012/ or VOCdevkit/VOC2012/ in it."""
        roots = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
        return next((root for root in roots if (root / "JPEGImages").is_dir() and (root / _LISTS).is_dir()), None)

    def read(self, root: Path) -> Dataset:
        """One split a list of ids; those of trainaug are in SegmentationClassAug where there is one."""
        lists = sorted((root / _LISTS).glob("*.txt"))
        if not lists:
            raise DatasetError(
                root, f"holds no split list in {_LISTS.as_posix()}", "add train.txt and val.txt, one id a line"
            )
        parts = {path.stem: _items(root, path) for path in lists}
        # The test images come in an archive of their own, which those who only train never unpack.
        if not any(item.image.is_file() for item in parts.get("test", [])):
            parts.pop("test", None)
        return Dataset("voc", root, TAXONOMY, {name: Split(name, items, TAXONOMY) for name, items in parts.items()})


def _items(root: Path, path: Path) -> list[Item]:
    augmented = root / "SegmentationClassAug"
    masks = augmented if path.stem.endswith("aug") and augmented.is_dir() else root / "SegmentationClass"
    return [_item(root, line, None if path.stem == "test" else masks) for line in read_lines(path)]


def _item(root: Path, line: str, masks: Path | None) -> Item:
    """A line is an id; SBD's trainaug.txt is also spread as `/JPEGImages/id.jpg /SegmentationClassAug/id.png`."""
    key = Path(line.split()[0]).stem
    return Item(key, inner(root, f"JPEGImages/{key}.jpg"), masks / f"{key}.png" if masks else None)
