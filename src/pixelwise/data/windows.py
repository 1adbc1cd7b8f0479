"""Windows side by side over an image: every pixel is in one, stride and window are equal."""

from __future__ import annotations

from itertools import product


def window_starts(length: int, window: int) -> list[int]:
    """First pixel of each window along an axis; the last window ends with the axis, and so may cover some of the one before.

    An axis that is shorter than the window has one that is centred on it, and begins ahead of it.
    """
    if length <= window:
        return [(length - window) // 2]
    return [*range(0, length - window, window), length - window]


def window_centers(size: tuple[int, int], window: tuple[int, int]) -> list[tuple[float, float]]:
    """(column, row) of the middle of each window over an image, row by row; both sizes are (height, width)."""
    rows, columns = (
        [start + side / 2 for start in window_starts(n, side)] for n, side in zip(size, window, strict=True)
    )
    return [(column, row) for row, column in product(rows, columns)]
