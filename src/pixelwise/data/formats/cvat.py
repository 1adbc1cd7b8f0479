"""CVAT for images 1.1: one annotations.xml with polygons, masks and ellipses; its VOC form is read as VOC.

Shapes are drawn by their z_order and, of one order, as they stand in the file, the later over the earlier. Polygons are
filled as COCO does, which CVAT's own export of masks calls. Source: docs.cvat.ai, "XML annotation format".
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...colors import RGB
from ...errors import DatasetError, MaskError, listed, os_reason, shown
from ...files import read_regular, write_text
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import Region, check_points, crop, fill_coco
from ..shapes.run_lengths import check_size, decode_cvat, encode_cvat
from . import DATASETS
from .annotations import ImageIndex, annotated_dataset, contains_words, key_of, split_of
from .base import DatasetFormat
from .conversion import Conversion

_FIX = "export the annotations again as `CVAT for images 1.1`"
_NUMBERS = {"mask": ("left", "top", "width", "height"), "ellipse": ("cx", "cy", "rx", "ry")}


@dataclass(frozen=True)
class CvatDrawing(Drawing):
    """The shapes of one image: their kind and attributes, in the order of drawing."""

    path: Path
    image: str
    size: tuple[int, int]
    shapes: tuple[tuple[str, Mapping[str, str]], ...]

    @property
    def source(self) -> str:
        """File and image."""
        return f"{self.path} ({self.image})"

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size and the shapes, by z_order."""
        return self.size, [
            Shape(_text(row, "label", self.source), self._region(kind, row)) for kind, row in self.shapes
        ]

    def _region(self, kind: str, row: Mapping[str, str]) -> Region:
        if kind == "polygon":
            pairs = [pair.split(",") for pair in _text(row, "points", self.source).split(";")]
            try:
                points: Any = [[float(number) for number in pair] for pair in pairs]
            except ValueError:
                points = pairs
            return fill_coco(check_points(points, self.size, self.source), self.size, self.source)
        if kind == "mask":
            left, top, width, height = (_integer(row, name, self.source) for name in _NUMBERS[kind])
            check_size(height, width, self.source)
            return Region(top, left, decode_cvat(_text(row, "rle", self.source), height, width, self.source))
        try:
            cx, cy, rx, ry = (float(_text(row, name, self.source)) for name in _NUMBERS["ellipse"])
        except ValueError:
            raise MaskError(self.source, f"expected an ellipse with numbers, got {shown(dict(row))}", _FIX) from None
        check_points([[cx - rx, cy - ry], [cx + rx, cy + ry]], self.size, self.source, 2)
        rows, columns = np.mgrid[: self.size[0], : self.size[1]] + 0.5
        return crop(((columns - cx) / max(rx, 1e-9)) ** 2 + ((rows - cy) / max(ry, 1e-9)) ** 2 <= 1)


@DATASETS.register("cvat", tiny={})
class Cvat(DatasetFormat):
    """CVAT for images 1.1: annotations.xml."""

    needs = "annotations.xml of CVAT, the images anywhere below; the subset of an image, or its folder, is its split"
    targets: Mapping[str, str] = MappingProxyType({"cvat": "CVAT for images 1.1 with masks"})

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        return folder if contains_words(folder / "annotations.xml", b"<annotations", b"<image") else None

    def read(self, root: Path) -> Dataset:
        """Read the images by their subset, or by the folder in their name; all others are `train`."""
        path = root / "annotations.xml"
        tree = _parse(path)
        index = ImageIndex(root)
        labels: list[tuple[str, RGB | None]] = []
        for label in tree.iter("label"):
            color = (label.findtext("color") or "").removeprefix("#")
            is_hex = len(color) == 6 and all(c in "0123456789abcdefABCDEF" for c in color)
            code = bytes.fromhex(color) if is_hex else b""
            if name := label.findtext("name"):
                labels.append((name, (code[0], code[1], code[2]) if code else None))
        splits: dict[str, list[Item]] = {}
        skipped: Counter[str] = Counter()
        for image in tree.iter("image"):
            item, split, without = _item(image, path, index)
            skipped += without
            splits.setdefault(split, []).append(item)
        known = {name for name, _ in labels}
        found = (row.get("label", "") for image in tree.iter("image") for row in image)
        labels += [(label, None) for label in dict.fromkeys(found) if label and label not in known]
        notes = [
            f"{path}: shapes without an area are not drawn: {listed(f'{n} {kind}' for kind, n in skipped.items())}"
        ]
        return annotated_dataset("cvat", root, labels, splits, notes if skipped else ())

    def write(self, target: str, conversion: Conversion) -> None:
        """Write annotations.xml with one mask per class and image, and images/SPLIT."""
        # Only here: it imports the standard library's HTTP client and its encryption.
        from xml.sax.saxutils import quoteattr

        taxonomy = conversion.taxonomy
        lines: list[str] = []
        used: set[str] = set()
        for number, (split, item, mask) in enumerate(conversion.samples()):
            place = conversion.place_image(item, f"images/{split}").removeprefix(f"images/{split}/")
            size = f'width="{mask.shape[-1]}" height="{mask.shape[-2]}"'
            lines.append(f'  <image id="{number}" name={quoteattr(place)} subset={quoteattr(split)} {size}>')
            for label, region in conversion.regions(item, mask):
                used.add(label)
                top, left, pixels = crop(region)
                box = f'left="{left}" top="{top}" width="{pixels.shape[1]}" height="{pixels.shape[0]}"'
                rle = f'rle="{encode_cvat(pixels)}" {box} z_order="0"'
                lines.append(f'    <mask label={quoteattr(label)} source="manual" occluded="0" {rle}></mask>')
            lines.append("  </image>")
        colors = dict(zip(taxonomy.names, taxonomy.colors, strict=True)) | {
            label: taxonomy.ignore_color for label in used if label not in taxonomy.names
        }
        names = [name for name in colors if name in conversion.labels or name not in taxonomy.names]
        head = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
        head += ["  <meta><project><labels>"]
        for name in names:
            color = "#{:02x}{:02x}{:02x}".format(*colors[name])
            text = quoteattr(name)[1:-1]
            head.append(f"    <label><name>{text}</name><color>{color}</color><type>mask</type></label>")
        head += ["  </labels></project></meta>"]
        write_text(conversion.out / "annotations.xml", "\n".join([*head, *lines, "</annotations>", ""]))
        conversion.write_classes(ignored=True)


def _parse(path: Path) -> ElementTree.Element:
    try:
        data = read_regular(path)
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
            # Entities may expand to any size.
            raise DatasetError(path, "declares a document type, which CVAT does not", _FIX)
        return ElementTree.fromstring(data)
    except OSError as error:
        raise DatasetError(path, f"cannot be read: {os_reason(error)}", "check the file") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DatasetError(path, f"cannot be read as XML: {error}", _FIX) from None


def _item(image: ElementTree.Element, path: Path, index: ImageIndex) -> tuple[Item, str, Counter[str]]:
    """Return the item of an `image` element, its split, and how many shapes of which kind have no area."""
    name = _text(image.attrib, "name", path)
    size = check_size(_integer(image.attrib, "height", path), _integer(image.attrib, "width", path), path)
    subset = image.attrib.get("subset", "")
    folders = [part for part in name.replace("\\", "/").split("/")[:-1] if split_of(part)]
    split = split_of(subset) or (split_of(folders[0]) if folders else None) or "train"
    areas = [row for row in image if row.tag in ("polygon", "mask", "ellipse")]
    order = {id(row): _integer(row.attrib, "z_order", path) if "z_order" in row.attrib else 0 for row in areas}
    areas.sort(key=lambda row: order[id(row)])
    without = Counter(row.tag for row in image if row.tag not in ("polygon", "mask", "ellipse", "tag"))
    shapes = tuple((row.tag, dict(row.attrib)) for row in areas)
    drawing = CvatDrawing(path, name, size, shapes)
    return Item(key_of(name), index.find(name, path, split=split), path, drawing=drawing), split, without


def _text(row: Mapping[str, str], name: str, source: object) -> str:
    if name not in row:
        raise DatasetError(source, f"expected an attribute {name}, got {listed(row) or 'none'}", _FIX)
    return row[name]


def _integer(row: Mapping[str, str], name: str, source: object) -> int:
    text = _text(row, name, source)
    if not text.lstrip("-").isdecimal() or len(text) > 10:
        raise DatasetError(source, f"expected {name} as an integer, got {shown(text)}", _FIX)
    return int(text)
