"""The compiled loops of COCO's rule for filling polygons; see `fill.fill_coco`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...jit.compiled import compiled


@compiled
def cross_columns(corners: NDArray[np.int64], height: int, width: int, columns: Any, rows: Any) -> int:
    """Walk along a polygon and note where it crosses the center of a column; return the number of crossings.

    corners        (N, 2) x, y in fifths of pixels
    columns, rows  for the results: the column, and the row from which on the inside changes
    """
    num = 0
    last_x = last_y = 0
    is_first = True
    for k in range(len(corners)):
        start_x, start_y = corners[k]
        end_x, end_y = corners[(k + 1) % len(corners)]
        dx, dy = abs(end_x - start_x), abs(end_y - start_y)
        length = max(dx, dy)
        if length == 0:
            continue
        is_flat = dx >= dy
        is_turned = start_x > end_x if is_flat else start_y > end_y
        low_x, low_y = (end_x, end_y) if is_turned else (start_x, start_y)
        high_x, high_y = (start_x, start_y) if is_turned else (end_x, end_y)
        slope = (high_y - low_y) / length if is_flat else (high_x - low_x) / length
        for number in range(length + 1):
            along = length - number if is_turned else number
            if is_flat:
                x, y = along + low_x, int(low_y + slope * along + 0.5)
            else:
                x, y = int(low_x + slope * along + 0.5), along + low_y
            if not is_first and x != last_x:
                column = (min(x, last_x) + 0.5) / 5 - 0.5
                if column == np.floor(column) and 0 <= column <= width - 1:
                    row = (min(y, last_y) + 0.5) / 5 - 0.5
                    columns[num] = int(column)
                    rows[num] = int(np.ceil(min(max(row, 0.0), float(height))))
                    num += 1
            last_x, last_y, is_first = x, y, False
    return num


@compiled
def fill_below(columns: Any, rows: Any, region: NDArray[np.bool_]) -> None:
    """Set the pixels of a region (h, w) of False that have an odd number of crossings at or above them."""
    height, width = region.shape
    for k in range(len(columns)):
        if rows[k] < height:
            region[rows[k], columns[k]] = not region[rows[k], columns[k]]
    for row in range(1, height):
        for column in range(width):
            region[row, column] ^= region[row - 1, column]
