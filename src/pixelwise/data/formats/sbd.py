"""SBD as its authors distribute it: img/*.jpg, and cls/*.mat with the classes of VOC, without borders.

Source: Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011; MathWorks, "MAT-File Format".
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DatasetError, MaskError, os_reason
from ...files import read_regular
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import crop
from . import DATASETS
from .base import DatasetFormat, make_dataset, read_lines, resolve_inside
from .voc import TAXONOMY

_FIX = "unpack benchmark.tgz again"
# Types of elements and classes of arrays in a MAT-file.
_UINT8, _INT32, _COMPRESSED, _MATRIX = 2, 5, 15, 14
_STRUCT, _UINT8_ARRAY = 2, 9
# The images have at most 500 x 500 pixels; what a file unpacks to is bounded.
_MAX_BYTES = 2**24


@dataclass(frozen=True)
class SbdDrawing(Drawing):
    """The array `GTcls.Segmentation` of one .mat file."""

    path: Path

    @property
    def source(self) -> str:
        """The file."""
        return str(self.path)

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size, and a shape for each class but the background."""
        classes = read_segmentation(self.path)
        present = [id_ for id_ in np.unique(classes).tolist() if id_]
        if present and present[-1] >= TAXONOMY.num_classes:
            raise MaskError(self.path, f"has the class {present[-1]}, expected 0 to 20", _FIX)
        size = classes.shape[0], classes.shape[1]
        return size, [Shape(TAXONOMY.names[id_], crop(classes == id_)) for id_ in present]


def read_segmentation(path: Path) -> NDArray[np.uint8]:
    """Return `GTcls.Segmentation` (H, W) uint8 of a .mat file. Raises MaskError for any other file."""
    try:
        data = read_regular(path, _MAX_BYTES)
        if data[124:128] != b"\0\1IM":
            raise ValueError("no MAT-file of version 5, little-endian")
        for kind, body in _elements(data[128:]):
            if kind == _COMPRESSED:
                kind, body = next(_elements(zlib.decompressobj().decompress(body, _MAX_BYTES)))
            if kind == _MATRIX and (found := _find(body)) is not None:
                return found
        raise ValueError("no array GTcls.Segmentation of uint8")
    except (OSError, ValueError, struct.error, zlib.error, StopIteration) as error:
        raise MaskError(path, f"cannot be read: {os_reason(error)}", _FIX) from None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and bytes of each element; short ones have their bytes in the tag. All begin at multiples of eight."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, place)
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            following = place + 8
        else:
            start = place + 8
            # Compressed elements are not padded.
            following = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > len(data):
            raise ValueError("is cut")
        yield kind, data[start : start + size]
        place = following


def _find(body: bytes) -> NDArray[np.uint8] | None:
    """Return the field Segmentation of the structure GTcls, None for another array."""
    flags, _, name, *rest = _elements(body)
    if flags[1][:1] != bytes([_STRUCT]) or name[1] != b"GTcls" or len(rest) < 2 or rest[0][0] != _INT32:
        return None
    (length,) = struct.unpack_from("<i", rest[0][1])
    names = [rest[1][1][k : k + length].rstrip(b"\0") for k in range(0, len(rest[1][1]), max(length, 1))]
    field = dict(zip(names, rest[2:], strict=False)).get(b"Segmentation")
    if field is None or field[0] != _MATRIX:
        return None
    own_flags, shape, _, values, *_ = _elements(field[1])
    height, width = struct.unpack("<ii", shape[1])
    is_uint8 = own_flags[1][:1] == bytes([_UINT8_ARRAY]) and values[0] == _UINT8
    if not is_uint8 or height < 1 or width < 1 or height * width != len(values[1]):
        return None
    # MATLAB stores columns.
    return np.ascontiguousarray(np.frombuffer(values[1], np.uint8).reshape(width, height).T)


@DATASETS.register("sbd", tiny={}, paper="Hariharan et al., Semantic contours from inverse detectors", year=2011)
class Sbd(DatasetFormat):
    """SBD's own archive: classes in .mat files, VOC's 21 classes."""

    needs = "img/, cls/ with .mat files, train.txt and val.txt; or these in benchmark_RELEASE/dataset/"

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself, or the dataset/ or benchmark_RELEASE/dataset/ in it."""
        roots = (folder, folder / "dataset", folder / "benchmark_RELEASE" / "dataset")
        return next((r for r in roots if (r / "img").is_dir() and (r / "cls").is_dir() and _lists(r)), None)

    def read(self, root: Path) -> Dataset:
        """Read one split per list of ids."""
        splits = {}
        for path in _lists(root):
            splits[path.stem] = [_item(root, key) for key in read_lines(path)]
        if not any(os.path.isfile(item.mask) for items in splits.values() for item in items if item.mask):
            raise DatasetError(root, "has none of the .mat files that its lists name in cls/", _FIX)
        return make_dataset("sbd", root, TAXONOMY, splits)


def _lists(root: Path) -> list[Path]:
    return [root / f"{name}.txt" for name in ("train", "val") if os.path.lexists(root / f"{name}.txt")]


def _item(root: Path, key: str) -> Item:
    mask = resolve_inside(root, f"cls/{key}.mat")
    return Item(key, resolve_inside(root, f"img/{key}.jpg"), mask, drawing=SbdDrawing(mask))
