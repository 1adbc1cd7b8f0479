"""YOLO segmentation: a text file per image with polygons in fractions of its size, and a YAML file that names classes.

    images/train/a.jpg  labels/train/a.txt          or  train/images/a.jpg  train/labels/a.txt
    data.yaml: train, val, test (folders, or lists of images), names

A line is `class x y x y x y ...`. Objects have no order: as in COCO, they are drawn from the largest to the smallest,
and filled as pycocotools fills them. An image without a text file shows no object.
Source: docs.ultralytics.com, "Instance segmentation datasets overview"; ultralytics/data/utils.py, img2label_paths.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DatasetError, MaskError, os_reason, shown
from ...files import read_regular, write_text
from ...images import IMAGE_SUFFIXES, image_size, paths_below, walk, walk_files, without_suffix
from ...strict_yaml import read_yaml, to_yaml
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import check_points, fill_coco
from ..shapes.outlines import outlines, single_ring
from . import DATASETS
from .annotations import annotated_dataset, contains_words, key_of, split_of
from .base import DatasetFormat, name_inside, read_lines
from .conversion import Conversion

_FIX = "export the annotations again as segmentation"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LINE = re.compile(rb"\s*\d+((?:[ \t]+[-+.\deE]+){4,})[ \t]*(?:\r?\n|$)")
# Text files that are looked at to recognize a folder.
_LOOKED_AT = 50


@dataclass(frozen=True)
class YoloDrawing(Drawing):
    """The polygons of one image; `path` is None for an image without any."""

    path: Path | None
    image: Path
    names: Sequence[str]

    @property
    def source(self) -> str:
        """The text file."""
        return str(self.path or self.image)

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size of the image and the polygons, the largest first."""
        size = image_size(self.image)
        rows = enumerate(_lines(self.path), 1) if self.path is not None else ()
        shapes = [self._shape(line.split(), f"{self.path}:{number}", size) for number, line in rows if line.strip()]
        return size, sorted(shapes, key=lambda shape: -int(shape.region.pixels.sum()))

    def _shape(self, words: list[str], source: str, size: tuple[int, int]) -> Shape:
        if len(words) == 5:
            raise MaskError(source, "is a box, not a polygon", _FIX)
        number = int(words[0]) if words[0].isdecimal() and len(words[0]) < 10 else -1
        if not 0 <= number < len(self.names):
            what = f"expected the number of a class, 0 to {len(self.names) - 1}, got {shown(words[0])}"
            raise MaskError(source, what, "name the class in data.yaml, or correct the line")
        try:
            numbers = np.array([float(word) for word in words[1:]])
        except ValueError:
            numbers = np.zeros(1)
        if len(numbers) < 6 or len(numbers) % 2:
            what = f"expected `class x y x y x y ...`, got {shown(' '.join(words))}"
            raise MaskError(source, what, _FIX)
        # In fractions of the image.
        points = check_points(numbers.reshape(-1, 2), (1, 1), source)
        return Shape(self.names[number], fill_coco(points * size[::-1], size, source))


@DATASETS.register("yolo", tiny={})
class Yolo(DatasetFormat):
    """YOLO segmentation: polygons in text files, and data.yaml."""

    needs = (
        "labels/SPLIT/NAME.txt with polygons for images/SPLIT/NAME.jpg (or SPLIT/labels, SPLIT/images), and data.yaml"
    )
    targets: Mapping[str, str] = MappingProxyType({"yolo": "YOLO's text files with polygons along the edges of pixels"})

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself if it has text files of YOLO in folders called labels."""
        return folder if any(map(_is_label_file, _label_files(folder)[:_LOOKED_AT])) else None

    def read(self, root: Path) -> Dataset:
        """Read the splits that data.yaml names; without it, those that the names of folders say, or all as `train`."""
        path = _find_data(root)
        data = read_yaml(path) if path is not None else {}
        names = _names(data, path or root) or _numbered(root)
        images, notes = _split_images(data, path or root, root), []
        splits: dict[str, list[Item]] = {}
        without = 0
        for split, files in images.items():
            for image in files:
                text = _label_file(image, root)
                key = key_of(image.relative_to(root).as_posix())
                has_text = text.exists()
                without += not has_text
                drawing = YoloDrawing(text if has_text else None, image, names)
                splits.setdefault(split, []).append(Item(key, image, text if has_text else image, drawing=drawing))
        if not splits:
            raise DatasetError(path or root, "names no folder with images", "put images/ beside labels/")
        if without:
            notes.append(f"{root}: {without} images without a text file show no object")
        return annotated_dataset("yolo", root, [(name, None) for name in names], splits, notes)

    def write(self, target: str, conversion: Conversion) -> None:
        """Write images/SPLIT, labels/SPLIT with a polygon per part that touches by edges, and data.yaml."""
        ids = {name: k for k, name in enumerate(conversion.labels)}
        splits: dict[str, str] = {}
        for split, item, mask in conversion.samples():
            place = conversion.place_image(item, f"images/{split}")
            splits[split] = f"images/{split}"
            lines = []
            for label, region in conversion.regions(item, mask):
                number = ids.setdefault(label, len(ids))
                lines += [f"{number} {_fractions(single_ring(part), region)}\n" for part in outlines(region)]
            path = conversion.out / "labels" / without_suffix(PurePosixPath(place).relative_to("images"))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path.with_name(path.name + ".txt"), "".join(lines))
        write_text(conversion.out / "data.yaml", to_yaml({**splits, "names": list(ids)}))
        conversion.write_classes(ignored=True)


def _fractions(ring: Sequence[tuple[int, int]], region: NDArray[np.bool_]) -> str:
    return " ".join(f"{x / region.shape[1]!r} {y / region.shape[0]!r}" for x, y in ring)


def _lines(path: Path) -> list[str]:
    try:
        return read_regular(path).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise MaskError(path, "expected numbers, got other text", _FIX) from None
    except OSError as error:
        raise MaskError(path, f"cannot be read: {os_reason(error)}", "check the file") from None


def _label_files(root: Path) -> list[Path]:
    return paths_below(root, [name for name in walk(root, (".txt",)).names if "labels" in name.split("/")[:-1]])


def _is_label_file(path: Path) -> bool:
    """Return whether the first line of a file is a polygon or a box."""
    try:
        return _LINE.match(read_regular(path)) is not None
    except OSError:
        return False


def _find_data(root: Path) -> Path | None:
    """Return the YAML file that names the classes: data.yaml, or another one in the folder. Raises DatasetError."""
    files = [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".yaml", ".yml")]
    found = [path for path in files if path.stem != "classes" and contains_words(path, b"names")]
    named = [path for path in found if path.stem in ("data", "dataset")] or found
    if len(named) > 1:
        raise DatasetError(root, f"has {named[0].name} and {named[1].name}", "keep one of them in the folder")
    return named[0] if named else None


def _names(data: Mapping[str, Any], source: Path) -> list[str]:
    """Return the names of the classes by number; empty if there are none. Raises DatasetError."""
    names = data.get("names", [])
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    words = [str(name) for name in names if isinstance(name, str | int | float)] if isinstance(names, list) else []
    if not isinstance(names, list) or len(words) < len(names):
        raise DatasetError(source, f"expected `names` as a list, or by number, got {shown(names)}", _FIX)
    return words


def _numbered(root: Path) -> list[str]:
    """Return class0, class1, ... up to the highest number in the text files."""
    starts = (line.split()[0] for path in _label_files(root) for line in _lines(path) if line.strip())
    highest = max((int(word) for word in starts if word.isdecimal() and len(word) < 5), default=0)
    return [f"class{number}" for number in range(highest + 1)]


def _split_images(data: Mapping[str, Any], source: Path, root: Path) -> dict[str, list[Path]]:
    """Return the images of each split, sorted. Raises DatasetError for folders and lists that do not exist."""
    found: dict[str, list[Path]] = {}
    for key, split in _SPLITS.items():
        entries = data.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _place(str(entry), str(data.get("path") or ""), root)
            if place is not None:
                found.setdefault(split, []).extend(_images_at(place, root))
            elif split != "test":
                # A test split is often left out of an export that names it.
                what = f"names {shown(entry)} for split {split}, which does not exist"
                raise DatasetError(source, what, "add the folder, or correct its name")
    if not found:
        for path in walk_files(root)[0]:
            parts = path.relative_to(root).parts
            if path.suffix.lower() in IMAGE_SUFFIXES and "images" in parts:
                found.setdefault(next(filter(None, map(split_of, parts[:-1])), "train"), []).append(path)
    order = sorted(found, key=lambda split: (split != "train", split))
    return {split: sorted(set(found[split])) for split in order}


def _place(entry: str, base: str, root: Path) -> Path | None:
    """Return the folder or list that an entry of data.yaml names, below the root whatever computer it was made on."""
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    inner = [part for part in parts if part not in ("..", ".", "/")]
    bases = [root / name_inside(root, base)] if base and not Path(base).is_absolute() and ".." not in base else []
    for folder in (*bases, root):
        # Folders of another computer stand before the names that count.
        for first in range(len(inner)):
            place = folder.joinpath(*inner[first:])
            if place.exists():
                return place
    return root if entry in (".", "./") else None


def _images_at(place: Path, root: Path) -> list[Path]:
    if place.is_dir():
        return [path for path in walk_files(place)[0] if path.suffix.lower() in IMAGE_SUFFIXES]
    found = []
    for line in read_lines(place):
        image = _place(line, place.parent.relative_to(root).as_posix(), root)
        # One that is missing keeps its place, so that `Dataset.problems` reports it.
        found.append(image or root / PurePosixPath(line.replace("\\", "/")).name)
    return found


def _label_file(image: Path, root: Path) -> Path:
    """Return the place of the text file of an image: in labels/ in place of images/, or beside it."""
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    path = root.joinpath(*parts)
    return path.with_name(without_suffix(path).name + ".txt")
