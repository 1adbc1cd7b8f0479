"""What the images of a dataset hold: as `images` in classes.yaml says, or measured where it says nothing.

Ordinary images are recognized by the first one's header, and nothing else is read. Of others (16 bits, more channels,
npy) all files are read: the bits in use are those of the largest number in the dataset, never a guess from a few.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DatasetError, InputError, listed
from ..images import COLORS, RGB, ImagePart, PixelFormat, is_plain_file, read_numbers, unnamed
from ..strict_yaml import read_yaml
from .dataset import Dataset

# Bits of the usual cameras and sensors; the smallest that holds all numbers is taken.
_USUAL_BITS = (8, 10, 12, 14, 16)
# 16-bit images whose largest number is at least this fill their range, and are read as RGB of 8 bits.
_MIN_16_BIT_TOP = 2**14
CLASS_FILES = ("classes.yaml", "classes.yml")


def declared_pixels(root: Path) -> PixelFormat | None:
    """Return the pixel format that classes.yaml declares under `images`, None if it declares none.

    Raises ConfigError naming the file.
    """
    for name in CLASS_FILES:
        if os.path.isfile(root / name):
            data = read_yaml(root / name)
            return PixelFormat.from_dict(data["images"], root / name) if "images" in data else None
    return None


def with_pixel_format(dataset: Dataset) -> Dataset:
    """Return the dataset with the pixel format of its images, and a note if it is not that of ordinary ones.

    Raises ConfigError for a wrong declaration, DatasetError for images whose numbers must be declared.
    """
    declared = declared_pixels(dataset.root)
    if declared is not None:
        pixels, note = declared, "" if declared.is_rgb else f"images have {declared.in_words()}, as classes.yaml says"
    else:
        paths = tuple(dict.fromkeys(item.image for split in dataset.splits.values() for item in split.items))
        first = next((path for path in paths if path.is_file()), None)
        if first is None or is_plain_file(first):
            return dataset
        pixels, note = _measured_format(dataset.root, paths, tuple(map(_stamp, paths)))
    if pixels.is_rgb and not note:
        return dataset
    if not pixels.is_rgb:
        note += f"; figures show {listed(pixels.shown)}"
    splits = {name: split.with_pixels(pixels) for name, split in dataset.splits.items()}
    return replace(dataset, splits=splits, notes=(*dataset.notes, note))


class _Measured(NamedTuple):
    """The numbers of one image: its channels, whether they are integers of 0 or more, the least and the largest."""

    channels: int
    is_unsigned: bool
    least: float
    largest: float
    is_array: bool


def _measure(path: Path) -> _Measured | None:
    """Return what an image holds, None for one that cannot be read: its error comes when it is read for use."""
    try:
        numbers = read_numbers(path)
    except InputError:
        return None
    finite = numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers
    if not finite.size:
        return None
    is_integer = numbers.dtype.kind in "bui"
    least, largest = float(finite.min()), float(finite.max())
    return _Measured(numbers.shape[2], is_integer and least >= 0, least, largest, path.suffix.lower() == ".npy")


def _stamp(path: Path) -> int:
    """Return when a file was changed; 0 for a missing one."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


# The same folder is opened several times in a run.
@lru_cache(maxsize=4)
def _measured_format(root: Path, paths: Sequence[Path], _changed: Sequence[int]) -> tuple[PixelFormat, str]:
    """Return the pixel format of images that are not ordinary ones, and a line that says how it was found."""
    with ThreadPoolExecutor() as executor:
        found = [measured for measured in executor.map(_measure, paths) if measured is not None]
    counts = sorted({measured.channels for measured in found})
    if not found:
        return RGB, ""
    least, largest = min(measured.least for measured in found), max(measured.largest for measured in found)
    is_array = any(measured.is_array for measured in found)
    is_unsigned = all(measured.is_unsigned for measured in found)
    # What `read_image` reads as RGB of 8 bits: integers that fill 16 bits, gray floats of 0 to 1.
    fills = is_unsigned and all(measured.largest >= _MIN_16_BIT_TOP or not measured.largest for measured in found)
    if not is_array and set(counts) <= {1, 3, 4} and (fills or (counts == [1] and least >= 0 and largest <= 1)):
        return RGB, ""
    if len(counts) > 1:
        what = f"its images have different numbers of channels: {listed(counts)}"
        raise DatasetError(root, what, "keep one kind, or declare `images` in classes.yaml")
    count = counts[0]
    names = COLORS if count == 3 else unnamed(count)
    if not is_unsigned:
        what = f"its images hold numbers of {least:g} to {largest:g} in {count} channels, of an unknown range"
        fix = f"write `images: {{channels: [{', '.join(names)}], range: [{least:g}, {largest:g}]}}` in classes.yaml"
        raise DatasetError(root, what, fix)
    bits = next((bits for bits in _USUAL_BITS if largest < 2**bits), 0)
    if not bits:
        what = f"its images hold numbers up to {largest:g}, more than 16 bits"
        fix = f"write `images: {{channels: [{', '.join(names)}], range: [0, {largest:g}]}}` in classes.yaml"
        raise DatasetError(root, what, fix)
    pixels = PixelFormat((ImagePart(names, bits),))
    return pixels, f"images have {pixels.in_words()}: the largest number in {len(found)} of them is {largest:g}"
