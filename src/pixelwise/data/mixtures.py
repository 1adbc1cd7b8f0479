"""What lossy compression makes of two classes, and colors that it makes of none: those are a class that fills no area.

JPEG keeps brightness and color apart, and color mostly at half the size. So along the edge of two classes the
brightness lies between theirs, and the color on the line between theirs, each by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

FAR = {1: 40.0, 3: 60.0}
"""By channels: what is farther from all mixtures is none. In masks of four real sets as JPEG of quality 30 to 95, at
most 16 of 1.5 million pixels of colors are."""
_MIN_SHARE, _MIN_PIXELS = 1e-5, 20
# A class without areas never shows its own color: what its purest pixels lack of the ends of the range.
_FADED = 48
_MAX_NEW = 16
_BIN = 8


def distance_to_mixtures(points: NDArray[np.float64], classes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each value, or color, is from all mixtures of two classes: (N,) of (N, C), for classes (K, C)."""
    brightness, color = _brightness_and_color(points)
    own_brightness, own_color = _brightness_and_color(classes)
    best = np.full(len(points), np.inf)
    for one, other in combinations_with_replacement(range(len(classes)), 2):
        low, high = sorted((own_brightness[one], own_brightness[other]))
        outside = np.maximum(np.maximum(low - brightness, brightness - high), 0)
        line = own_color[other] - own_color[one]
        length = float(line @ line)
        along = np.clip((color - own_color[one]) @ line / length, 0, 1) if length else np.zeros(len(points))
        beside = np.linalg.norm(color - own_color[one] - along[:, None] * line, axis=1)
        best = np.minimum(best, np.hypot(outside, beside))
    return best


def colors_of_no_mixture(counts: Mapping[int, int], classes: list[int]) -> list[int]:
    """Return the colors 0xRRGGBB of classes that fill no area, such as thin lines, in lossy masks of other classes.

    counts   pixels by color
    classes  colors that fill areas
    """
    total, found = sum(counts.values()), list(classes)
    if not classes:
        return []
    codes = np.fromiter(counts, np.int64)
    colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], 1).astype(np.float64)
    weights = np.fromiter(counts.values(), np.float64)
    # Thousands of colors in bins of eight levels.
    _, bins = np.unique((colors // _BIN).astype(np.int64) @ [2**16, 2**8, 1], return_inverse=True)
    sums = np.bincount(bins, weights)
    points = np.stack([np.bincount(bins, weights * colors[:, k]) / sums for k in range(3)], 1)
    while len(found) - len(classes) < _MAX_NEW:
        known = np.array([[code >> 16, code >> 8 & 255, code & 255] for code in found], np.float64)
        distance = distance_to_mixtures(points, known)
        is_far = distance > FAR[3]
        if sums[is_far].sum() < max(_MIN_PIXELS, _MIN_SHARE * total):
            break
        # The purest tenth.
        order = np.argsort(-distance * is_far)
        purest = order[: 1 + int(np.searchsorted(np.cumsum(sums[order]), sums[is_far].sum() / 10))]
        red, green, blue = (_unfaded(float(np.average(points[purest, k], weights=sums[purest]))) for k in range(3))
        code = red << 16 | green << 8 | blue
        if code in found:
            break
        found.append(code)
    return found[len(classes) :]


def _brightness_and_color(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return JPEG's Y (N,), and Cb and Cr (N, 2). Source: JFIF 1.02."""
    if points.shape[1] == 1:
        return points[:, 0], np.zeros((len(points), 2))
    brightness = points @ np.array([0.299, 0.587, 0.114])
    color = np.stack([(points[:, 2] - brightness) * 0.564, (points[:, 0] - brightness) * 0.713], 1)
    return brightness, color


def _unfaded(channel: float) -> int:
    return 0 if channel < _FADED else 255 if channel > 255 - _FADED else round(channel)
