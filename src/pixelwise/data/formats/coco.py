"""COCO: one JSON per split with polygons or run lengths per object, which become class masks.

Objects have no order in COCO. They are drawn from the largest to the smallest, so that a small object on a large one
stays visible; of equal ones the later in the file is on top. Polygons are filled as pycocotools fills them.
Source: Lin et al., "Microsoft COCO", ECCV 2014; cocodataset.org, "Data format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DatasetError, MaskError, shown
from ...files import write_text
from ..dataset import Dataset, Item
from ..shapes.drawing import IGNORED_LABELS, Drawing, Shape
from ..shapes.fill import Region, check_points, crop, fill_coco, union
from ..shapes.outlines import outlines, single_ring
from ..shapes.run_lengths import check_size, decode_coco, encode_coco
from . import DATASETS
from .annotations import (
    ImageIndex,
    annotated_dataset,
    contains_words,
    entry,
    key_of,
    read_annotations,
    split_of,
)
from .base import DatasetFormat
from .conversion import Conversion

_WORDS = (b'"images"', b'"annotations"', b'"categories"')


@dataclass(frozen=True)
class CocoDrawing(Drawing):
    """The objects of one image: (label, segmentation) each, in the order of the file."""

    path: Path
    image: str
    size: tuple[int, int]
    objects: tuple[tuple[str, Any], ...]

    @property
    def source(self) -> str:
        """File and image."""
        return f"{self.path} ({self.image})"

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size and the objects, the largest first."""
        shapes = [Shape(label, self._region(segmentation)) for label, segmentation in self.objects]
        return self.size, sorted(shapes, key=lambda shape: -int(shape.region.pixels.sum()))

    def _region(self, segmentation: Any) -> Region:
        if not isinstance(segmentation, list):
            region, size = decode_coco(segmentation, self.source)
            if size != self.size:
                what = f"has a mask of {size[0]}x{size[1]}, expected {self.size[0]}x{self.size[1]}"
                raise MaskError(self.source, what + " (height x width)", "export the annotations again")
            return region
        regions = []
        for ring in segmentation:
            if not isinstance(ring, list) or len(ring) % 2:
                what = f"expected a polygon [x, y, x, y, ...], got {shown(ring)}"
                raise MaskError(self.source, what, "export the annotations again")
            points = check_points(list(zip(ring[::2], ring[1::2], strict=True)), self.size, self.source)
            regions.append(fill_coco(points, self.size, self.source))
        return union(regions)


@DATASETS.register("coco", tiny={}, paper="Lin et al., Microsoft COCO", year=2014)
class Coco(DatasetFormat):
    """COCO's instances: polygons and run lengths, one JSON per split."""

    needs = (
        "a JSON with images, annotations and categories in the folder, in annotations/ or in a split's folder; "
        "instances_train2017.json, train.json, train/_annotations.coco.json name the split"
    )
    targets: Mapping[str, str] = MappingProxyType(
        {"coco": "COCO with polygons along the edges of pixels", "coco-rle": "COCO with run lengths"}
    )

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        return folder if _files(folder) else None

    def read(self, root: Path) -> Dataset:
        """Read every JSON as the split that its name, or the name of its folder, says; a single one is `train`."""
        files = _files(root)
        by_split: dict[str, Path] = {}
        for path in files:
            split = split_of(path.stem) or split_of(path.parent.name if path.parent != root else "")
            split = split or ("train" if len(files) == 1 else path.stem)
            if split in by_split:
                what = f"has {by_split[split].relative_to(root)} and {path.relative_to(root)} for split {split}"
                raise DatasetError(root, what, "keep one of them in the folder")
            by_split[split] = path
        index, labels, notes = ImageIndex(root), [], []
        splits = {}
        for split, path in sorted(by_split.items(), key=lambda pair: (pair[0] != "train", pair[0])):
            splits[split], names, without = _read_file(path, index, split)
            labels += [(name, None) for name in names if (name, None) not in labels]
            if without:
                notes.append(f"{path}: {without} annotations without a segmentation are not drawn")
        return annotated_dataset("coco", root, labels, splits, notes)

    def write(self, target: str, conversion: Conversion) -> None:
        """Write images/SPLIT and annotations/instances_SPLIT.json; one annotation per part that touches by edges."""
        ids = {name: k for k, name in enumerate(conversion.labels, 1)}
        content: dict[str, dict[str, list[Any]]] = {}
        for split, item, mask in conversion.samples():
            data = content.setdefault(split, {"images": [], "annotations": []})
            place = conversion.place_image(item, f"images/{split}")
            image_id = len(data["images"]) + 1
            size = {"width": int(mask.shape[-1]), "height": int(mask.shape[-2])}
            data["images"].append({"id": image_id, "file_name": place.removeprefix(f"images/{split}/"), **size})
            for label, region in conversion.regions(item, mask):
                category = ids.setdefault(label, len(ids) + 1)
                for segmentation, part in _segmentations(region, target):
                    data["annotations"].append(
                        {"id": len(data["annotations"]) + 1, "image_id": image_id, "category_id": category}
                        | {"segmentation": segmentation, "iscrowd": 0, **_area_and_box(part)}
                    )
        categories = [{"id": k, "name": name} for name, k in ids.items()]
        for split, data in content.items():
            path = conversion.out / "annotations" / f"instances_{split}.json"
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps({**data, "categories": categories}))
        conversion.write_classes(ignored=True)


def _files(root: Path) -> list[Path]:
    """Return the JSON files of COCO's form; beside instances_*, the other files of COCO's own archive do not count."""
    folders = [root, root / "annotations"]
    folders += [path for path in sorted(root.iterdir()) if path.is_dir() and split_of(path.name)]
    found = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json"))]
    found = [path for path in found if contains_words(path, *_WORDS)]
    instances = [path for path in found if path.name.startswith("instances_")]
    return instances or found


def _read_file(path: Path, index: ImageIndex, split: str) -> tuple[list[Item], list[str], int]:
    """Return the items of a file, its category names, and the number of annotations without a segmentation."""
    data = read_annotations(path, dict)
    categories = {
        entry(row, "id", int, path): entry(row, "name", str, path) for row in entry(data, "categories", list, path)
    }
    objects: dict[int, list[tuple[str, Any]]] = {}
    rows = entry(data, "images", list, path)
    for row in rows:
        objects[entry(row, "id", int, path)] = []
    if len(objects) < len(rows):
        raise DatasetError(path, "has two images with one id", "export the annotations again")
    without = 0
    for row in entry(data, "annotations", list, path):
        image, category = entry(row, "image_id", int, path), entry(row, "category_id", int, path)
        if image not in objects or category not in categories:
            what = f"has an annotation of image {shown(image)} and category {shown(category)}, one of which it lacks"
            raise DatasetError(path, what, "export the annotations again")
        if row.get("segmentation"):
            objects[image].append((categories[category], row["segmentation"]))
        else:
            without += 1
    if without and not any(objects.values()):
        what = "has boxes but no segmentation"
        raise DatasetError(path, what, "export the annotations with polygons or masks")
    items = []
    for row in rows:
        name = entry(row, "file_name", str, path)
        size = check_size(row.get("height"), row.get("width"), f"{path} ({shown(name)})")
        drawing = CocoDrawing(path, name, size, tuple(objects[row["id"]]))
        items.append(Item(key_of(name), index.find(name, path, split=split), path, drawing=drawing))
    used = [name for name in categories.values() if name.casefold() not in IGNORED_LABELS]
    return items, used, without


def _segmentations(region: NDArray[np.bool_], target: str) -> list[tuple[Any, Region]]:
    """Return COCO's segmentation of each connected part of a region, or of all of it as run lengths, and its pixels."""
    if target == "coco-rle":
        return [(encode_coco(region), crop(region))]
    found = []
    for part in outlines(region):
        ring = single_ring(part)
        pixels = fill_coco(np.array(ring, float), (region.shape[0], region.shape[1]), "region")
        found.append(([[number for corner in ring for number in corner]], pixels))
    return found


def _area_and_box(region: Region) -> dict[str, Any]:
    height, width = region.pixels.shape
    return {"area": int(region.pixels.sum()), "bbox": [region.left, region.top, width, height]}
