"""LabelMe: a JSON beside each image, with shapes in the order of drawing, the later over the earlier.

Shapes are filled by LabelMe's own rule, which counts the pixels under the line: polygons, rectangles, circles, masks,
and lines 10 pixels wide. Source: labelme 6, utils/shape.py (`shapes_to_label`) and _label_file.py.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import DatasetError, ImageError, MaskError, listed, shown
from ...files import write_text
from ...images import IMAGE_SUFFIXES, image_size, paths_below, walk, walk_files, without_suffix
from ...images.decode import decode_bytes
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import Region, check_points, crop, fill_labelme
from ..shapes.run_lengths import check_size
from . import DATASETS
from .annotations import (
    annotated_dataset,
    contains_words,
    entry,
    key_of,
    read_annotations,
    split_of,
)
from .base import DatasetFormat, has_class_names
from .conversion import Conversion

_WORDS = (b'"shapes"', b'"imagePath"')
_FIX = "open the image in LabelMe and save it again"


@dataclass(frozen=True)
class LabelmeDrawing(Drawing):
    """The shapes of one JSON file."""

    path: Path
    image: Path

    @property
    def source(self) -> str:
        """The file."""
        return str(self.path)

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size and the shapes, in the order of the file."""
        data = read_annotations(self.path, dict)
        height, width = data.get("imageHeight"), data.get("imageWidth")
        if height is None or width is None:
            # Older versions leave the size out.
            height, width = image_size(self.image)
        size = check_size(height, width, self.path)
        return size, [self._shape(row, size) for row in entry(data, "shapes", list, self.path)]

    def _shape(self, row: Any, size: tuple[int, int]) -> Shape:
        label, kind, points = entry(row, "label", str, self.path), row.get("shape_type"), row.get("points")
        if kind is not None and not isinstance(kind, str):
            raise MaskError(self.path, f"has a shape of type {shown(kind)}", _FIX)
        if kind == "mask":
            corner = check_points(points, size, self.path, 2)[0].astype(int)
            pixels = decode_bitmap(entry(row, "mask", str, self.path), self.path)
            return Shape(label, Region(int(corner[1]), int(corner[0]), pixels))
        at_least = {"point": 1, "circle": 2, "rectangle": 2, "line": 2, "linestrip": 2}.get(kind or "", 3)
        return Shape(label, fill_labelme(kind, check_points(points, size, self.path, at_least), size, self.path))


def decode_bitmap(text: str, source: Path) -> NDArray[np.bool_]:
    """Return the pixels (h, w) that are not 0 in a PNG in base64. Raises MaskError."""
    try:
        image = decode_bytes(source, base64.b64decode(text, validate=True)).image
    except (binascii.Error, ValueError):
        raise MaskError(source, f"expected a PNG in base64, got {shown(text)}", _FIX) from None
    except ImageError as error:
        raise MaskError(source, f"has a mask that {error.what}", _FIX) from None
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)[..., -1] > 0


def encode_bitmap(pixels: NDArray[np.bool_]) -> str:
    """Return pixels (h, w) as a PNG of one bit per pixel in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@DATASETS.register("labelme", tiny={})
class Labelme(DatasetFormat):
    """LabelMe: a JSON beside each image."""

    needs = "a JSON of LabelMe (shapes, imagePath) beside each image; folders train/, val/, test/ are splits"
    targets: Mapping[str, str] = MappingProxyType({"labelme": "LabelMe's JSON with polygons, and masks for holes"})

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself if it has a JSON of LabelMe, in a folder of a split or anywhere below."""
        return folder if any(contains_words(path, *_WORDS) for path in _json_files(folder)[:20]) else None

    def read(self, root: Path) -> Dataset:
        """Read the JSON files by the folders of splits, or all as `train`. Images without one are left out."""
        files = [path for path in _json_files(root) if contains_words(path, *_WORDS)]
        images: dict[Path, list[Path]] = {}
        for path in walk_files(root)[0]:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.setdefault(without_suffix(path), []).append(path)
        splits: dict[str, list[Item]] = {}
        labels: dict[str, None] = {}
        named = has_class_names(root)
        for path in files:
            data: dict[str, Any] = {} if named and path.with_suffix("") in images else read_annotations(path, dict)
            image = _image_of(path, data, images, root)
            folder = path.parent.relative_to(root)
            split = next((found for part in folder.parts if (found := split_of(part))), "train")
            key = key_of(path.relative_to(root).as_posix())
            splits.setdefault(split, []).append(Item(key, image, path, drawing=LabelmeDrawing(path, image)))
            for row in entry(data, "shapes", list, path) if data else ():
                labels[entry(row, "label", str, path)] = None
        labeled = {item.image for items in splits.values() for item in items}
        rest = [path for paths in images.values() for path in paths if path not in labeled]
        what = f"{len(rest)} images without a JSON are left out: {listed(path.name for path in rest)}"
        notes = [f"{root}: {what}"] if rest else []
        order = sorted(splits, key=lambda split: (split != "train", split))
        return annotated_dataset(
            "labelme", root, [(label, None) for label in sorted(labels)], {name: splits[name] for name in order}, notes
        )

    def write(self, target: str, conversion: Conversion) -> None:
        """Write SPLIT/KEY.json beside the image: a polygon for each part that LabelMe fills to the same pixels."""
        for split, item, mask in conversion.samples():
            place = conversion.place_image(item, split)
            shapes = [
                {"label": label, "group_id": None, "description": "", "flags": {}, **shape}
                for label, region in conversion.regions(item, mask)
                for shape in _shapes_of(region)
            ]
            data: dict[str, Any] = {
                "version": "5.5.0",
                "flags": {},
                "shapes": shapes,
                "imagePath": PurePosixPath(place).name,
                "imageData": None,
                "imageHeight": int(mask.shape[-2]),
                "imageWidth": int(mask.shape[-1]),
            }
            write_text((conversion.out / place).with_suffix(".json"), json.dumps(data))
        conversion.write_classes(ignored=True)


def _json_files(root: Path) -> list[Path]:
    return paths_below(root, walk(root, (".json",)).names)


def _image_of(path: Path, data: Mapping[str, Any], images: Mapping[Path, list[Path]], root: Path) -> Path:
    """Return the image of a JSON: the one that it names, or the one of its own name beside it.

    Programs write absolute paths and paths of other computers; only their last part counts where the folder has it.
    """
    name = PurePosixPath(entry(data, "imagePath", str, path).replace("\\", "/")).name if data else ""
    beside = images.get(path.with_suffix(""), [])
    named = (
        [image for image in images.get(without_suffix(path.parent / name), []) if image.name == name] if name else []
    )
    if named:
        return named[0]
    if len(beside) > 1:
        what = f"may label {listed(image.name for image in beside)}"
        raise DatasetError(path, what, "keep one of them, or correct imagePath")
    if beside:
        return beside[0]
    elsewhere = [image for paths in images.values() for image in paths if image.name == name]
    if len(elsewhere) > 1:
        both = listed(image.relative_to(root) for image in elsewhere)
        raise DatasetError(path, f"names {shown(name)}, which may be {both}", "put the JSON beside its image")
    return elsewhere[0] if elsewhere else path.with_suffix(".*")


def _shapes_of(region: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the 8-connected parts of a region as shapes: polygons where these give the same pixels, else masks."""
    import cv2

    count, parts = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    found = []
    for number in range(1, count):
        top, left, pixels = crop(parts == number)
        contours, _ = cv2.findContours(pixels.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        points = contours[0].reshape(-1, 2).astype(float)
        filled = (
            fill_labelme("polygon", points, (pixels.shape[0], pixels.shape[1]), "region") if len(points) > 2 else None
        )
        if filled is not None and filled.pixels.shape == pixels.shape and (filled.pixels == pixels).all():
            corners = (points + np.array([left, top])).tolist()
            found.append({"points": corners, "shape_type": "polygon", "mask": None})
        else:
            box = [[left, top], [left + pixels.shape[1] - 1, top + pixels.shape[0] - 1]]
            found.append({"points": box, "shape_type": "mask", "mask": encode_bitmap(pixels)})
    return found
