"""Classes of a folder without classes.yaml, read from all of its masks.

Masks say which values or colors occur, not what they mean: classes are named by their value, in its order. What a
guess would spoil is refused with a classes.yaml to start from: values in between that antialiasing, JPEG or resizing
make, and more values than an annotator draws. A value is ignored in one case only: 255 that is the border between two
other classes wherever it occurs, as in VOC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...core import MAX_BORDER_FRACTION, Taxonomy
from ...errors import DatasetError, InputError, listed
from ...images import read_mask
from ..dataset import MaskEncoding, pack_colors

# Values that are listed, and more of them than a person draws.
_MAX_VALUES = 64
# A pixel of a border has two classes within this part of the shorter side. VOC's borders are 5 pixels wide; those of
# the Oxford pets are up to 30, in images of 500: nine in ten of their pixels have two classes within a tenth.
_BORDER_REACH = 0.1
_BORDER_SHARE = 0.85
# Antialiasing and resizing mix two values over one pixel, or two, wherever they occur.
_EDGE_REACH = 2
_EDGE_SHARE = 0.98
_MIXED_FIX = "export the masks without antialiasing, and resize them by nearest neighbor; or write a classes.yaml"


@dataclass
class _Found:
    """What masks contain.

    pixels     pixels by value, of gray masks
    colors     pixels by color, 0xRRGGBB, of the others
    on_edge    pixels by value that have a lower and a higher value beside them
    in_border  pixels of 255 with two other values near them
    masks      number of masks
    """

    pixels: Counter[int] = field(default_factory=Counter)
    colors: Counter[int] = field(default_factory=Counter)
    on_edge: Counter[int] = field(default_factory=Counter)
    in_border: int = 0
    masks: int = 0


def infer_classes(root: Path, masks: Sequence[Path]) -> tuple[Taxonomy, MaskEncoding, str]:
    """Return classes, encoding and a line that says so, from every mask of a dataset.

    Raises DatasetError if the values do not look like classes.
    """
    found = _look_at(masks)
    kind = "colors" if found.colors else "values"
    if not found.masks or not (found.pixels or found.colors):
        raise _refusal(root, "and no mask could be read")
    values = sorted(found.colors if found.colors else found.pixels)
    shown = listed(map(str, map(_rgb, values) if found.colors else values), _MAX_VALUES)
    seen = f"its {found.masks} masks contain the {kind} {shown}"
    if len(values) > _MAX_VALUES:
        raise _refusal(root, f"{seen}: {len(values)} in all, which drawn classes do not have")
    if found.colors:
        names = tuple(f"class{k}" for k in range(len(values)))
        taxonomy = Taxonomy(names, tuple(map(_rgb, values)), ignored=())
        return taxonomy, MaskEncoding(by_color=True), _note(root, found, taxonomy, map(list, taxonomy.colors))
    total = found.pixels.total()
    mixed = [
        value
        for value in values
        if found.on_edge[value] >= _EDGE_SHARE * found.pixels[value]
        and found.pixels[value] <= MAX_BORDER_FRACTION * total
    ]
    if mixed:
        what = f"{seen}; {listed(mixed)} occur only along edges, as antialiasing and resizing mix values"
        raise DatasetError(root, f"has no classes.yaml; {what}", _MIXED_FIX)
    is_border = values == [*range(len(values) - 1), 255] and found.in_border >= _BORDER_SHARE * found.pixels[255]
    classes = values[:-1] if is_border and len(values) > 2 else values
    is_pair = len(classes) == 2 and classes[0] == 0
    names = ("background", "foreground") if is_pair else tuple(f"class{value}" for value in classes)
    taxonomy = Taxonomy(names, values=tuple(classes), ignored=tuple(values[len(classes) :]))
    if len(classes) < 2:
        raise _refusal(root, f"{seen}: a single class")
    return taxonomy, MaskEncoding(), _note(root, found, taxonomy, taxonomy.values)


def _look_at(masks: Sequence[Path]) -> _Found:
    """Read all masks, on all cores; those that cannot be read are reported by the check of the dataset."""
    found = _Found()
    with ThreadPoolExecutor() as executor:
        for one in executor.map(_look_at_one, masks):
            if one is not None:
                found.masks += 1
                found.pixels += one.pixels
                found.colors += one.colors
                found.on_edge += one.on_edge
                found.in_border += one.in_border
    if found.colors:
        # Gray is a color too, where any mask is drawn in colors.
        found.colors.update({value * 0x010101: count for value, count in found.pixels.items() if value < 256})
    return found


def _look_at_one(path: Path) -> _Found | None:
    try:
        raw = read_mask(path)
    except InputError:
        return None
    if raw.ndim == 3 and not (raw == raw[..., :1]).all():
        return _Found(colors=_counted(pack_colors(raw)))
    pixels = np.ascontiguousarray(raw if raw.ndim == 2 else raw[..., 0])
    found = _Found(_counted(pixels))
    if len(found.pixels) > 2:
        low, high = _neighborhood(pixels, _EDGE_REACH)
        found.on_edge = _counted(pixels[(low < pixels) & (pixels < high)])
        # The extremes of the other classes near each pixel of 255, which stands aside as the highest and as 0.
        reach = round(_BORDER_REACH * min(pixels.shape))
        low, high = _neighborhood(pixels, reach)[0], _neighborhood(np.where(pixels == 255, 0, pixels), reach)[1]
        found.in_border = int(((pixels == 255) & (low < high)).sum())
    return found


def _counted(pixels: NDArray[Any]) -> Counter[int]:
    values, counts = np.unique(pixels, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _neighborhood(pixels: NDArray[Any], reach: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest value within `reach` pixels, in rows and columns, of each pixel."""
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.erode(pixels, square)), np.asarray(cv2.dilate(pixels, square))


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _note(root: Path, found: _Found, taxonomy: Taxonomy, values: Iterable[object]) -> str:
    classes = ", ".join(f"{value} = {name}" for value, name in zip(values, taxonomy.names, strict=True))
    ignored = f"; {taxonomy.ignored[0]}, the border between them, is ignored" if taxonomy.ignored else ""
    inferred = f"classes inferred from {found.masks} masks: {classes}{ignored}"
    return f"{root}: has no classes.yaml; {inferred}; write classes.yaml to name them"


def _refusal(root: Path, what: str) -> DatasetError:
    proposal = "{classes: [background, name, ...]}; masks must contain one class per pixel, drawn without antialiasing"
    return DatasetError(root, f"has no classes.yaml; {what}", f"write classes.yaml as {proposal}")
