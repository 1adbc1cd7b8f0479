"""Supervisely: meta.json with the classes, and DATASET/img and DATASET/ann with a JSON per image.

Figures are drawn in the order of the file, the later over the earlier: bitmaps, polygons with holes, rectangles.
Source: docs.supervisely.com, "Supervisely annotation JSON format"; supervisely.geometry.bitmap, polygon, rectangle.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...colors import RGB
from ...errors import DatasetError, ImageError, MaskError, listed, shown
from ...files import write_text
from ...images import MAX_PIXELS, walk_files
from ...images.decode import decode_bytes
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import Region, check_points, crop, fill_supervisely
from ..shapes.run_lengths import check_size
from . import DATASETS
from .annotations import annotated_dataset, contains_words, entry, key_of, read_annotations, split_of
from .base import DatasetFormat
from .conversion import Conversion

_FIX = "export the annotations again"
# What has an area; figures of classes of other shapes (point, line, graph) are not drawn.
_AREAS = ("bitmap", "polygon", "rectangle", "any")


@dataclass(frozen=True)
class SuperviselyDrawing(Drawing):
    """The figures of one JSON file; those of the labels in `skipped` have no area."""

    path: Path
    skipped: frozenset[str]

    @property
    def source(self) -> str:
        """The file."""
        return str(self.path)

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size and the figures, in the order of the file."""
        data = read_annotations(self.path, dict)
        box = entry(data, "size", dict, self.path)
        size = check_size(box.get("height"), box.get("width"), self.path)
        shapes = []
        for row in entry(data, "objects", list, self.path):
            label = entry(row, "classTitle", str, self.path)
            if label not in self.skipped:
                shapes.append(Shape(label, self._region(row, size)))
        return size, shapes

    def _region(self, row: Mapping[str, Any], size: tuple[int, int]) -> Region:
        kind = entry(row, "geometryType", str, self.path)
        if kind == "bitmap":
            bitmap = entry(row, "bitmap", dict, self.path)
            corner = check_points([entry(bitmap, "origin", list, self.path)], size, self.path, 1)[0]
            return Region(int(corner[1]), int(corner[0]), _decode(entry(bitmap, "data", str, self.path), self.path))
        rings = entry(row, "points", dict, self.path)
        exterior = check_points(rings.get("exterior"), size, self.path, 2 if kind == "rectangle" else 3)
        if kind == "rectangle":
            (left, top), (right, bottom) = exterior.min(0), exterior.max(0)
            exterior = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        elif kind != "polygon":
            what = f"has a figure of type {shown(kind)}, which has no area"
            raise MaskError(self.path, what, f"export {', '.join(_AREAS[:3])} figures")
        holes = [check_points(ring, size, self.path) for ring in entry(rings, "interior", list, self.path)]
        return fill_supervisely([exterior, *holes], size)


def _decode(text: str, source: Path) -> NDArray[np.bool_]:
    """Return the pixels of a bitmap: base64 of zlib of a PNG, whose alpha, or last channel, is not 0."""
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), MAX_PIXELS)
        pixels = np.asarray(decode_bytes(source, data).image)
    except (binascii.Error, ValueError, zlib.error):
        raise MaskError(source, f"expected a packed PNG in base64, got {shown(text)}", _FIX) from None
    except ImageError as error:
        raise MaskError(source, f"has a bitmap that {error.what}", _FIX) from None
    return pixels.reshape(*pixels.shape[:2], -1)[..., -1] > 0


def _encode(pixels: NDArray[np.bool_]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", transparency=0, optimize=0)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode("ascii")


@DATASETS.register("supervisely", tiny={})
class Supervisely(DatasetFormat):
    """Supervisely: meta.json, and img/ and ann/ in the folder of each dataset."""

    needs = "meta.json with classes, DATASET/img/NAME and DATASET/ann/NAME.json; DATASET train, val or test is a split"
    targets: Mapping[str, str] = MappingProxyType({"supervisely": "Supervisely's JSON with bitmaps"})

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        is_project = contains_words(folder / "meta.json", b'"classes"', b'"title"') and _datasets(folder)
        return folder if is_project else None

    def read(self, root: Path) -> Dataset:
        """Read the datasets whose names are splits; all of them as `train` if none is."""
        meta = root / "meta.json"
        labels: list[tuple[str, RGB | None]] = []
        skipped = []
        for row in entry(read_annotations(meta, dict), "classes", list, meta):
            label = entry(row, "title", str, meta)
            if entry(row, "shape", str, meta) in _AREAS:
                labels.append((label, _color(row.get("color"), meta)))
            else:
                skipped.append(label)
        splits: dict[str, list[Item]] = {}
        missing = []
        folders = _datasets(root)
        # One folder per split; several datasets of one split may share names.
        is_unique = len({split_of(folder.name) or "train" for folder in folders}) == len(folders)
        for folder in folders:
            split = split_of(folder.name) or "train"
            for image in walk_files(folder / "img")[0]:
                path = folder / "ann" / f"{image.name}.json"
                if not path.exists():
                    missing.append(image.name)
                    continue
                key = key_of(image.name if is_unique else f"{folder.name}/{image.name}")
                item = Item(key, image, path, drawing=SuperviselyDrawing(path, frozenset(skipped)))
                splits.setdefault(split, []).append(item)
        notes = []
        if skipped:
            notes.append(f"{meta}: classes without an area are not drawn: {listed(skipped)}")
        if missing:
            notes.append(f"{root}: {len(missing)} images without a JSON are left out: {listed(missing)}")
        if not splits:
            raise DatasetError(root, "has no image with an annotation", _FIX)
        return annotated_dataset("supervisely", root, labels, splits, notes)

    def write(self, target: str, conversion: Conversion) -> None:
        """Write meta.json and one dataset per split, with one bitmap per class."""
        taxonomy = conversion.taxonomy
        used: dict[str, RGB] = {}
        colors = dict(zip(taxonomy.names, taxonomy.colors, strict=True))
        for split, item, mask in conversion.samples():
            place = conversion.place_image(item, f"{split}/img", item.key.replace("/", "_"))
            objects = []
            for label, region in conversion.regions(item, mask):
                used[label] = colors.get(label, taxonomy.ignore_color)
                top, left, pixels = crop(region)
                bitmap = {"origin": [left, top], "data": _encode(pixels)}
                objects.append({"classTitle": label, "geometryType": "bitmap", "tags": [], "bitmap": bitmap})
            size = {"height": int(mask.shape[-2]), "width": int(mask.shape[-1])}
            path = conversion.out / split / "ann" / f"{Path(place).name}.json"
            path.parent.mkdir(exist_ok=True)
            write_text(path, json.dumps({"description": "", "tags": [], "size": size, "objects": objects}))
        classes = [
            {"title": name, "shape": "bitmap", "color": "#{:02X}{:02X}{:02X}".format(*color)}
            for name, color in (colors | used).items()
            if name in conversion.labels or name not in taxonomy.names
        ]
        write_text(conversion.out / "meta.json", json.dumps({"classes": classes, "tags": []}))
        conversion.write_classes(ignored=True)


def _datasets(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if (path / "img").is_dir() and (path / "ann").is_dir()]


def _color(text: Any, source: Path) -> RGB | None:
    if text is None:
        return None
    try:
        code = bytes.fromhex(text.removeprefix("#"))
        return code[0], code[1], code[2]
    except (AttributeError, ValueError, IndexError):
        raise DatasetError(source, f"expected a color `#RRGGBB`, got {shown(text)}", _FIX) from None
