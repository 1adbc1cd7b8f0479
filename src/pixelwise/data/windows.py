"""Tiled crops: windows side by side over an image, so that an epoch shows every pixel."""

from __future__ import annotations

from itertools import product


def window_starts(length: int, window: int) -> list[int]:
    """Return the first pixel of each window along an axis of `length` pixels.

    The stride is the window's size; the last window ends with the axis and may overlap the one before. A window longer
    than the axis is centered on it, so it starts at a negative position.
    """
    if length <= window:
        return [(length - window) // 2]
    return [*range(0, length - window, window), length - window]


def window_centers(size: tuple[int, int], window: tuple[int, int]) -> list[tuple[float, float]]:
    """Return (column, row) of the center of each window, row by row; `size` and `window` are (height, width)."""
    rows, columns = (
        [start + side / 2 for start in window_starts(n, side)] for n, side in zip(size, window, strict=True)
    )
    return [(column, row) for row, column in product(rows, columns)]
