"""What mask files hold, before it is known what it means: values or colors, and which of them only mix two others.

Antialiasing, resizing and lossy compression put values between those of two classes along their edges. They are
distinguished from classes by where they occur: `classes_and_mixtures`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import MAX_BORDER_FRACTION
from . import thin_values
from .mixtures import FAR, colors_of_no_mixture, distance_to_mixtures

# Values that are listed, and more of them than a person draws.
MAX_VALUES = 64
# A pixel of a border has two classes within this part of the shorter side. VOC's borders are 5 pixels wide; those of
# the Oxford pets are up to 30, in images of 500: nine in ten of their pixels have two classes within a tenth.
_BORDER_REACH = 0.1
BORDER_SHARE = 0.85
"""A value is a border if at least this share of its pixels lies between two classes."""
# Antialiasing and resizing mix two values over one pixel, or two, wherever they occur.
_EDGE_REACH = 2
_EDGE_SHARE = 0.98
_THIN_EDGE_SHARE, _MAX_THIN_FLAT, _MIN_GAP = 0.5, 0.01, 16
# Lossy compression changes the values around an edge by up to this, of 255, and by the square root of three times as
# much in a color. What is farther from all classes is a class of its own if it fills areas.
LOSSY_REACH = 24
_LOSSY_COLOR_REACH = 48
_FLAT_RANGE = 16
# Along antialiased edges, the two classes touch one another in straight stretches.
_MAX_PASSED_BY = 0.01
_MIN_FLAT_SHARE = 0.2
_MIN_CLASS_SHARE = 1e-4
# A class at the end of the range loses its last bits, too: 252 is 255.
_END_REACH = 3


@dataclass
class MaskValues:
    """What masks contain.

    pixels     pixels by value, of gray masks
    colors     pixels by color, 0xRRGGBB, of the others
    on_edge    pixels by value or color that have a lower and a higher value beside them, of lossy gray masks far ones
    flat       pixels by value or color whose eight neighbors have the same, in a lossy mask nearly
    in_border  pixels of 255 with two other values near them
    passed_by  of masks of three values, and of lossy gray ones with one around which others gather, how often the
               lowest touches the highest, by the one in between
    masks      number of masks
    lossy      number of them that do not keep their values exactly
    """

    pixels: Counter[int] = field(default_factory=Counter)
    colors: Counter[int] = field(default_factory=Counter)
    on_edge: Counter[int] = field(default_factory=Counter)
    flat: Counter[int] = field(default_factory=Counter)
    in_border: int = 0
    passed_by: Counter[int] = field(default_factory=Counter)
    masks: int = 0
    lossy: int = 0

    def add(self, other: MaskValues) -> None:
        """Add what other masks contain."""
        self.pixels += other.pixels
        self.colors += other.colors
        self.on_edge += other.on_edge
        self.flat += other.flat
        self.in_border += other.in_border
        self.passed_by += other.passed_by
        self.masks += other.masks
        self.lossy += other.lossy

    def counts(self) -> Counter[int]:
        """Return the pixels by color if any mask is drawn in colors, where gray is a color too; else by value."""
        return self.by_color() if self.colors else self.pixels

    def by_color(self) -> Counter[int]:
        """Return the pixels by color, 0xRRGGBB, those of gray masks as well."""
        return self.colors + Counter({gray_code(value): n for value, n in self.pixels.items() if value < 256})


def count_mask(raw: NDArray[Any], *, lossy: bool = False) -> MaskValues:
    """Return the values or colors of one mask (H, W) or (H, W, 3), as `images.read_mask` reads it, and their borders.

    lossy  whether the file does not keep its values exactly
    """
    pixels, is_color = _codes(raw)
    counts = _counted(pixels)
    found = MaskValues(masks=1, lossy=int(lossy))
    if is_color:
        found.colors = counts
        return found
    found.pixels = counts
    if 255 in counts and (len(counts) > 2 or lossy):
        found.in_border = round(border_share(pixels, 255)[1] * counts[255])
    return found


def look_at_values(raw: NDArray[Any], *, lossy: bool = False) -> MaskValues:
    """Return what `count_mask` does, and which pixels of a mask lie on edges and fill areas."""
    found = count_mask(raw, lossy=lossy)
    if len(found.counts()) <= 2 and not lossy:
        return found
    pixels, is_color = _codes(raw)
    raw = raw if is_color else pixels
    low, high = _neighborhood(raw, _EDGE_REACH)
    if lossy and not is_color and raw.dtype == np.uint8:
        found.on_edge = _counted(pixels[thin_values.between(raw, low, high)])
        if passed := thin_values.passed_by(raw):
            found.passed_by[passed[0]] = passed[1]
    else:
        between = (low < raw) & (raw < high)
        found.on_edge = _counted(pixels[between.any(2) if is_color else between])
    low, high = _neighborhood(raw, 1)
    is_flat = high - low <= (_FLAT_RANGE if lossy else 0)
    found.flat = _counted(pixels[is_flat.all(2) if is_color else is_flat])
    if len(found.pixels) == 3 and not lossy:
        import cv2

        least, between_both, most = sorted(found.pixels)
        touching = (pixels == least) & (cv2.dilate((pixels == most).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
        found.passed_by[between_both] = int(touching.sum())
    return found


def _codes(raw: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return the values (H, W) of a mask, or its colors as 0xRRGGBB, and whether they are colors."""
    if raw.ndim == 3 and not (raw == raw[..., :1]).all():
        return pack_colors(raw), True
    return np.ascontiguousarray(raw if raw.ndim == 2 else raw[..., 0]), False


def border_share(pixels: NDArray[Any], value: int) -> tuple[float, float]:
    """Return the share of the pixels that have a value, the highest of all, and of those the share that is a border."""
    # Every fourth pixel of a large mask shows as much.
    step = max(1, min(pixels.shape) // 256)
    small = np.ascontiguousarray(pixels[::step, ::step])
    has_value = small == value
    if not has_value.any():
        return 0.0, 0.0
    return float(has_value.mean()), int((has_value & near_two_classes(small, value)).sum()) / int(has_value.sum())


def near_two_classes(pixels: NDArray[Any], aside: int) -> NDArray[np.bool_]:
    """Return where two values are within a tenth of the shorter side; `aside`, the highest of all, does not count."""
    reach = round(_BORDER_REACH * min(pixels.shape))
    low = _neighborhood(pixels, reach)[0]
    high = _neighborhood(np.where(pixels == aside, 0, pixels).astype(pixels.dtype), reach)[1]
    return np.asarray((low < high) & (low != aside))


def classes_and_mixtures(found: MaskValues) -> tuple[list[int], list[int]]:
    """Return the values (or colors, 0xRRGGBB) that are classes, and those that only mix two of them, both sorted.

    A value of an exact mask is a mixture if it covers no more than a border does and has lower and higher values
    beside it wherever it occurs. A single value between two others that never touch is a border that somebody drew.
    Around a lossy mask's edges any value occurs; there, and where there are too many values to be classes, a class is
    what fills areas, or a gray value around which others gather.
    """
    counts = found.counts()
    drawn = sorted(counts)[1] if len(counts) == 3 and not found.colors else None
    mixed = [
        value
        for value, count in rare_values(found).items()
        if not (value == drawn and found.passed_by[value] <= _MAX_PASSED_BY * count)
        and (found.on_edge[value] >= _EDGE_SHARE * count or _is_thin_mixture(value, counts, found))
    ]
    if not found.lossy and len(counts) - len(mixed) <= MAX_VALUES:
        return sorted(set(counts) - set(mixed)), sorted(mixed)
    classes = _filled_areas(counts, found.flat, is_color=bool(found.colors))
    if found.lossy and not found.colors:
        classes += _gathered(found, classes).classes
    return sorted(classes), sorted(set(counts) - set(classes))


def doubtful_values(found: MaskValues) -> list[int]:
    """Return the gray values of lossy masks that are thin classes or blurred edges: see `thin_values`."""
    if not found.lossy or found.colors:
        return []
    return _gathered(found, _filled_areas(found.pixels, found.flat, is_color=False)).doubtful


def thin_classes(found: MaskValues, values: Sequence[int]) -> list[int]:
    """Return those of the values of lossy gray masks that lie between two others and fill no area."""
    values = sorted(values)[1:-1]
    return thin_values.fill_no_area(values, found.pixels, found.flat, _MIN_FLAT_SHARE)


def _gathered(found: MaskValues, filled: Sequence[int]) -> thin_values.Gathered:
    return thin_values.find_gathered(found.pixels, found.on_edge, found.passed_by, sorted(v for v in filled if v < 256))


def rare_values(found: MaskValues) -> dict[int, int]:
    """Return the pixels of each value or color that covers no more than a border does: all that may be mixtures."""
    counts = found.counts()
    total = counts.total()
    return {value: count for value, count in counts.items() if count <= MAX_BORDER_FRACTION * total}


def are_classes(found: MaskValues, looked_at: Mapping[int, int]) -> bool:
    """Return whether no value is a mixture, whatever the masks hold whose edges and areas are not in `found`.

    looked_at  pixels by value or color of the masks whose edges and areas are in it
    It is the negation of `classes_and_mixtures`, with all other pixels on an edge and in no area.
    """
    if found.lossy or len(found.counts()) > MAX_VALUES or (found.colors and found.pixels):
        return False
    filled = [value for value, count in found.counts().items() if found.flat[value] > _MAX_THIN_FLAT * count]
    for value, count in rare_values(found).items():
        if looked_at.get(value, 0) - found.on_edge[value] <= (1 - _EDGE_SHARE) * count:
            return False
        is_filled = value in filled or bool(found.colors)
        if not is_filled and not any(abs(value - other) < _MIN_GAP for other in filled):
            return False
    return True


def _is_thin_mixture(value: int, counts: Counter[int], found: MaskValues) -> bool:
    """Return whether a gray value never fills an area, lies far from both ends, and mostly has both sides beside it.

    A vessel of one pixel that was shrunk has no pixel of its own value left, so that its mixtures have no higher value
    beside them. Ids are next to one another: a thin class of theirs is no mixture.
    """
    if found.colors or found.flat[value] > _MAX_THIN_FLAT * counts[value]:
        return False
    filled = [other for other, count in counts.items() if found.flat[other] > _MAX_THIN_FLAT * count]
    lower, higher = [v for v in filled if v < value], [v for v in filled if v > value]
    is_far = bool(lower and higher) and min(value - max(lower), min(higher) - value) >= _MIN_GAP
    return is_far and found.on_edge[value] >= _THIN_EDGE_SHARE * counts[value]


def _filled_areas(counts: Counter[int], flat: Counter[int], *, is_color: bool) -> list[int]:
    """Return values, far enough from one another, that fill areas without any other value; the most frequent first."""
    reach = _LOSSY_COLOR_REACH if is_color else LOSSY_REACH
    values = np.array(list(counts), np.int64)
    points, weights = as_points(values, is_color=is_color), np.array(list(counts.values()))
    chosen: list[int] = []
    for value, _ in flat.most_common():
        own = as_points(np.array([value]), is_color=is_color)[0]
        if any(np.linalg.norm(own - as_points(np.array([c]), is_color=is_color)[0]) <= reach for c in chosen):
            continue
        near = np.linalg.norm(points - own, axis=1) <= reach / 2
        num_near = int(weights[near].sum())
        num_flat = sum(flat[int(v)] for v in values[near])
        if num_flat >= _MIN_FLAT_SHARE * num_near and num_near >= _MIN_CLASS_SHARE * weights.sum():
            chosen.append(value)
        if len(chosen) == MAX_VALUES:
            break
    # The ends of the range: a compressed 255 comes back as 254.
    found = list(dict.fromkeys(_to_ends(code, is_color=is_color) for code in chosen))
    if is_color:
        return found + colors_of_no_mixture(counts, found)
    if found:
        # Thin lines on a ground, beyond what mixes the classes.
        grays = {gray_code(v): n for v, n in counts.items() if v < 256}
        found += [code & 255 for code in colors_of_no_mixture(grays, [gray_code(v) for v in found])[: 3 - len(found)]]
    return found


def _to_ends(code: int, *, is_color: bool) -> int:
    channels = as_points(np.array([code]), is_color=is_color)[0].astype(int).tolist()
    moved = [0 if c <= _END_REACH else 255 if 255 - _END_REACH <= c <= 255 else c for c in channels]
    return moved[0] << 16 | moved[1] << 8 | moved[2] if is_color else moved[0]


def snap(
    raw: NDArray[Any], classes: Sequence[int], *, is_color: bool, lossy: bool = False, thin: Collection[int] = ()
) -> tuple[NDArray[np.int64], int]:
    """Return a mask (H, W) of the given values (or colors, 0xRRGGBB): each pixel gets the nearest class around it.

    A pixel that already is one of the classes keeps it. Any other gets, of the classes within two pixels, the one whose
    value is nearest: between 0 and 255 there is no 128, also where 128 is a class elsewhere. In a lossy mask, a pixel
    that is far from all mixtures of the classes around it gets the nearest class of all: a thin line shows its own
    value nowhere. The number of these pixels is returned as well.

    raw   (H, W) or (H, W, 3)
    thin  classes that show their own value nowhere exactly, nor fill areas: some near pixels side by side are one
    """
    pixels = pack_colors(raw) if is_color else (raw if raw.ndim == 2 else raw[..., 0])
    codes = pixels.astype(np.int64)
    points = as_points(np.array(classes), is_color=is_color)
    where = np.nonzero(~np.isin(codes, classes))
    own = as_points(codes[where], is_color=is_color)
    around = np.stack([_is_around(codes == code)[where] for code in classes], 1)
    for code in thin:
        around[:, list(classes).index(code)] |= _is_around(thin_values.is_coherent(codes, code))[where]
    distance = np.stack([np.linalg.norm(own - point, axis=1) for point in points], 1)
    chosen = np.argmin(distance + np.where(around, 0, 1e6), axis=1)
    is_far = np.zeros(len(own), bool)
    if lossy:
        # Pixels with the same classes around them, at once.
        packed = np.ascontiguousarray(np.packbits(around, axis=1))
        _, first, kind = np.unique(packed.view(f"V{packed.shape[1]}"), return_index=True, return_inverse=True)
        for number, near in enumerate(around[first]):
            if near.any():
                rows = np.flatnonzero(kind.ravel() == number)
                is_far[rows] = distance_to_mixtures(own[rows], points[near]) > FAR[points.shape[1]]
        chosen = np.where(is_far, np.argmin(distance, axis=1), chosen)
    codes[where] = np.array(classes)[chosen]
    return codes, int(is_far.sum())


def _is_around(is_class: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where a class is within two pixels; a single pixel of its value may be a mixture by chance."""
    import cv2

    square = np.ones((2 * _EDGE_REACH + 1, 2 * _EDGE_REACH + 1), np.uint8)
    neighbors = np.ones((3, 3), np.uint8)
    neighbors[1, 1] = 0
    ones = is_class.astype(np.uint8)
    ones &= cv2.filter2D(ones, -1, neighbors, borderType=cv2.BORDER_CONSTANT) > 0
    return np.asarray(cv2.dilate(ones, square) > 0)


def as_points(codes: NDArray[Any], *, is_color: bool) -> NDArray[np.float64]:
    """Return values as points (N, 1), or colors 0xRRGGBB as points (N, 3)."""
    if not is_color:
        return codes.astype(np.float64)[:, None]
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float64)


def pack_colors(colors: NDArray[Any]) -> NDArray[np.int32]:
    """Convert RGB (..., 3) to one integer per color, 0xRRGGBB."""
    red, green, blue = (colors[..., k].astype(np.int32) for k in range(3))
    return red << 16 | green << 8 | blue


def gray_code(value: int) -> int:
    """Return a gray value as the color 0xRRGGBB."""
    return value * 0x010101


def _counted(pixels: NDArray[Any]) -> Counter[int]:
    if pixels.dtype.kind == "u":
        from .mask_loops import count_values

        counts = count_values(pixels)
        values: NDArray[Any] = np.flatnonzero(counts)
        return Counter(dict(zip(values.tolist(), counts[values].tolist(), strict=True)))
    # Masks are flat: there are far fewer runs of equal pixels than pixels.
    flat = pixels.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]]) if flat.size else np.zeros(0, np.intp)
    values, inverse = np.unique(flat[starts], return_inverse=True)
    totals = np.bincount(inverse, weights=np.diff(np.r_[starts, flat.size]), minlength=len(values))
    return Counter(dict(zip(values.tolist(), totals.astype(int).tolist(), strict=True)))


def _neighborhood(pixels: NDArray[Any], reach: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest value within `reach` pixels, in rows and columns, of each pixel."""
    import cv2

    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.erode(pixels, square)), np.asarray(cv2.dilate(pixels, square))
