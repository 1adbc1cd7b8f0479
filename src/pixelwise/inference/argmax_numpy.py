"""Upsampling by NumPy alone, and argmax in the same pass, for images that are labeled without torch and numba.

A *patch* is the pixels that mix the same four logits: 8x8 pixels in the middle of an image that is upsampled eight
times. The weights of a pixel are not negative, and sum to the same for all classes. So a class that is best in all four
logits is best in the whole patch, and only the patches whose four logits disagree are interpolated: 4 to 20 % of those
of a photo. `argmax_loops.py` does the same in compiled code, to the same bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PIXELS_AT_ONCE = 4096
"""Pixels that are interpolated together, so that their logits stay in the cache."""


def label_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """Return the type of class ids."""
    return np.uint8 if num_classes <= 255 else np.uint16


class Axis(NamedTuple):
    """The pixels along one axis, in runs that mix the same two logits.

    starts   (runs + 1,) the first pixel of each run, and the number of pixels
    first    (runs,) index of the first of the two logits
    second   (runs,) index of the second
    weights  (pixels, 2) float32, of the first and the second
    outside  indices of pixels without a logit: their weights are 0
    """

    starts: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    weights: NDArray[np.float32]
    outside: NDArray[np.intp]


def axis_of(table: tuple[NDArray[np.intp], NDArray[np.float32]]) -> Axis:
    """Return the runs of one axis.

    table  of each output pixel its two source indices and their weights, both (pixels, 2): an interpolation table
    """
    indices, weights = table
    changes = np.flatnonzero((indices[1:] != indices[:-1]).any(1)) + 1
    starts = np.concatenate([[0], changes, [len(indices)]])
    first, second = indices[starts[:-1]].T
    return Axis(starts, first.copy(), second.copy(), weights, np.flatnonzero(~weights.any(1)))


def argmax_upsampled(scores: NDArray[np.float32], rows: Axis, columns: Axis) -> NDArray[Any]:
    """Return the class ids (H, W) of logits (K, h, w) after upsampling, uint8, or uint16 for more than 255 classes.

    The first of equal logits wins.
    """
    best = scores.argmax(0).astype(label_dtype(len(scores)))
    upper, lower = best[rows.first], best[rows.second]
    corner = upper[:, columns.first]
    is_mixed = corner != upper[:, columns.second]
    is_mixed |= corner != lower[:, columns.first]
    is_mixed |= corner != lower[:, columns.second]
    row_lengths, column_lengths = np.diff(rows.starts), np.diff(columns.starts)
    labels: NDArray[Any] = corner.repeat(row_lengths, 0).repeat(column_lengths, 1)
    ys, xs = np.nonzero(is_mixed.repeat(row_lengths, 0).repeat(column_lengths, 1))
    # Per pixel of an axis, the positions of its two logits in the flat map.
    from_rows = np.stack([rows.first, rows.second]).repeat(row_lengths, 1) * scores.shape[2]
    from_columns = np.stack([columns.first, columns.second]).repeat(column_lengths, 1)
    flat = np.ascontiguousarray(scores.reshape(len(scores), -1).T)
    for start in range(0, len(ys), PIXELS_AT_ONCE):
        y, x = ys[start : start + PIXELS_AT_ONCE], xs[start : start + PIXELS_AT_ONCE]
        above, below = rows.weights[y].T[:, :, None]
        left, right = (
            above * flat[from_rows[0, y] + j] + below * flat[from_rows[1, y] + j] for j in from_columns[:, x]
        )
        labels[y, x] = (left * columns.weights[x, :1] + right * columns.weights[x, 1:]).argmax(1)
    # Where no logit reaches, all classes have 0.
    labels[rows.outside] = 0
    labels[:, columns.outside] = 0
    return labels


def upsampled(scores: NDArray[np.float32], rows: Axis, columns: Axis) -> NDArray[np.float32]:
    """Return logits (K, H, W) of low-resolution ones (K, h, w)."""
    left, right = (np.repeat(side, np.diff(columns.starts)) for side in (columns.first, columns.second))
    wide = scores[:, :, left] * columns.weights[:, 0]
    wide += scores[:, :, right] * columns.weights[:, 1]
    above, below = (np.repeat(side, np.diff(rows.starts)) for side in (rows.first, rows.second))
    tall: NDArray[np.float32] = wide[:, above] * rows.weights[:, :1]
    tall += wide[:, below] * rows.weights[:, 1:]
    return tall
