"""Gray values of lossy masks that lie between two classes and fill no area: a thin class, or what blurs an edge.

Both put values between those of the classes. A class gathers them around its own value; antialiasing spreads them, but
gathers them too if all edges lie half way between two pixels. A class is then what has no class on one of its sides, or
what keeps the two classes apart wherever it occurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .mixtures import FAR

# Lossy values of one class, around it.
REACH = 10
# Between two classes, a value is looked at if it leads the values beside it by this factor, and holds this share of all
# in between; and a class has at least these. Of thin classes of 1 to 3 pixels, JPEG of quality 75 keeps shares of 0.67
# to 1 and factors from 4, of quality 50 0.3 to 0.7 and from 1.9. Masks of nuclei that were resized have shares up to
# 0.43.
_DOUBTFUL, _GATHERED = (1.9, 0.28), (2.5, 0.5)
_MIN_SHARE = 1e-4
# The two classes touch one another at edges that are not blurred.
_MAX_PASSED_BY, _MIN_ALONE = 0.05, 0.5


class Gathered(NamedTuple):
    """Values between two classes around which those of lossy masks gather.

    classes   thin classes
    doubtful  values that are thin classes or blurred edges
    """

    classes: list[int]
    doubtful: list[int]


def find_gathered(
    counts: Mapping[int, int], on_edge: Mapping[int, int], passed_by: Mapping[int, int], classes: Sequence[int]
) -> Gathered:
    """Return the values between classes of lossy gray masks around which values gather, one per two neighbors.

    counts     pixels by value
    on_edge    those with both a lower and a higher class beside them
    passed_by  by the commonest value in between of a mask, pixels of its lowest class beside the highest
    """
    found = Gathered([], [])
    pixels, edges, passed = (_by_value(counter) for counter in (counts, on_edge, passed_by))
    near, near_edges = (np.convolve(values, np.ones(2 * REACH + 1), "same") for values in (pixels, edges))
    for low, high in pairwise(classes):
        inner = slice(low + int(FAR[1]) + 1, high - int(FAR[1]))
        if inner.stop - inner.start < 3 * (2 * REACH + 1):
            # Too few values to gather among.
            continue
        places = np.arange(256)[inner]
        lead = near[places] / np.maximum(np.maximum(near[places - 2 * REACH - 1], near[places + 2 * REACH + 1]), 1)
        share = near[places] / max(pixels[inner].sum(), 1)
        alone = 1 - near_edges[places] / np.maximum(near[places], 1)
        is_peak = (lead >= _DOUBTFUL[0]) & (share >= _DOUBTFUL[1]) | (lead >= _GATHERED[0]) & (alone >= _MIN_ALONE)
        score = np.where(is_peak & (near[places] >= _MIN_SHARE * pixels.sum()), share, 0)
        best = int(score.argmax())
        if not score[best]:
            continue
        window = slice(int(places[best]) - REACH, int(places[best]) + REACH + 1)
        is_apart = passed[window].sum() <= _MAX_PASSED_BY * near[places[best]] or alone[best] >= _MIN_ALONE
        is_class = lead[best] >= _GATHERED[0] and share[best] >= _GATHERED[1] and is_apart
        (found.classes if is_class else found.doubtful).append(window.start + int(pixels[window].argmax()))
    return found


def fill_no_area(values: Sequence[int], counts: Mapping[int, int], flat: Mapping[int, int], least: float) -> list[int]:
    """Return those of the values that occur in lossy gray masks, but of whose pixels a smaller share is flat."""
    pixels, areas = _by_value(counts), _by_value(flat)
    windows = {value: slice(max(value - REACH, 0), value + REACH + 1) for value in values if value < 256}
    return [v for v, window in windows.items() if 0 <= areas[window].sum() < least * pixels[window].sum()]


def is_coherent(pixels: NDArray[np.int64], value: int) -> NDArray[np.bool_]:
    """Return where lossy pixels are near a value, and two of their neighbors as well."""
    import cv2

    is_near = (np.abs(pixels - value) <= 2 * REACH).astype(np.uint8)
    count = cv2.filter2D(is_near, -1, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT)
    return np.asarray((is_near > 0) & (count > 2))


def between(pixels: NDArray[np.uint8], low: NDArray[np.uint8], high: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a lossy value has both a much lower and a much higher one beside it: `low` and `high`."""
    far = int(FAR[1])
    return np.asarray((pixels >= np.minimum(low, 255 - far) + far) & (pixels <= np.maximum(high, far) - far))


def passed_by(pixels: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Return the commonest value in between the lowest and the highest class of a lossy mask, and how often they touch.

    None if there are fewer pixels in between than touch: most edges are sharp, and the rest is noise.
    """
    import cv2

    low, high = int(pixels.min()) + int(FAR[1]), int(pixels.max()) - int(FAR[1])
    inner = np.bincount(pixels.ravel(), minlength=256)[low + 1 : max(high, low + 1)]
    touching = (pixels <= low) & (cv2.dilate((pixels >= high).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    count = int(touching.sum())
    if not inner.size or inner.sum() < max(count, 1):
        return None
    return low + 1 + int(np.convolve(inner, np.ones(2 * REACH + 1), "same")[: inner.size].argmax()), count


def _by_value(counter: Mapping[int, int]) -> NDArray[np.float64]:
    values = np.zeros(256)
    for value, count in counter.items():
        if 0 <= value < 256:
            values[value] += count
    return values
