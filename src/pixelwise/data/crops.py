"""The size of the crops that a training on images of some size takes, if its settings name none."""

from __future__ import annotations

import math

STRIDE = 16
"""Sides of crops are 16n + 1, on the grid of every map."""
# Pixels of a crop: a batch of four then takes one to two seconds per step on two cores.
CROP_PIXELS = 321 * 449


def crop_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the crop for images of a median size: of their shape, at most `CROP_PIXELS` pixels."""
    factor = min(1.0, math.sqrt(CROP_PIXELS / (size[0] * size[1])))
    height, width = (_side(side, math.ceil(side * factor)) for side in size)
    return height, width


def _side(side: int, limit: int) -> int:
    """Return the side 16n + 1 next to `limit`; at least that of the image if the image is smaller."""
    if limit >= side:
        return STRIDE * math.ceil((side - 1) / STRIDE) + 1
    return STRIDE * max(2, round((limit - 1) / STRIDE)) + 1
