"""How annotation programs turn the corners of a polygon into pixels: each rule exactly as its program fills.

COCO's rule counts a pixel whose center lies inside, about; LabelMe's and Supervisely's count the pixels under the line
as well, so that the same 40 x 30 box has 1,200 pixels in one and 1,271 in the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...errors import MaskError, shown

# Points may lie outside of the image a little; far outside they are a mistake, and would cost time or memory.
_REACH = 3
_MAX_CROSSINGS = 50_000_000
_FIX = "correct the shape in the annotation program"
# Source: labelme, utils/shape.py.
_LINE_WIDTH, _POINT_RADIUS = 10, 5


class Region(NamedTuple):
    """Pixels of a shape: `pixels` (h, w) of bool, of which the first lies at row `top` and column `left`."""

    top: int
    left: int
    pixels: NDArray[np.bool_]


def check_points(points: Any, size: tuple[int, int], source: object, at_least: int = 3) -> NDArray[np.float64]:
    """Return points [[x, y], ...] as (N, 2). Raises MaskError for other types, NaN and points far from the image."""
    try:
        array = np.asarray(points)
        is_numeric = array.dtype.kind in "iuf" and array.ndim == 2 and array.shape[1] == 2
    except (ValueError, OverflowError):
        is_numeric = False
    if not is_numeric or len(array) < at_least:
        what = f"expected {at_least} or more points [x, y], got {shown(points)}"
        raise MaskError(source, what, _FIX)
    array = array.astype(np.float64)
    limit = _REACH * max(size)
    if not np.isfinite(array).all() or np.abs(array).max() > limit + max(size):
        what = f"has a point far outside of its image of {size[0]}x{size[1]} (height x width): {shown(points)}"
        raise MaskError(source, what, _FIX)
    return array


def fill_coco(points: NDArray[np.float64], size: tuple[int, int], source: object) -> Region:
    """Fill a polygon (N, 2) as COCO does. Source: cocoapi, common/maskApi.c, rleFrPoly, step by step."""
    from .fill_loops import cross_columns, fill_below

    height, width = size
    corners = (5.0 * points + 0.5).astype(np.int64)
    lengths = np.abs(np.roll(corners, -1, 0) - corners)
    steps = int(lengths.max(1).sum()) + len(corners)
    if steps > _MAX_CROSSINGS:
        raise MaskError(source, f"has an outline of {steps // 5} pixels", _FIX)
    # The columns whose center is crossed, and the rows from which on the inside changes; a line of five steps to the
    # side crosses one center.
    columns, rows = np.empty((2, int((lengths[:, 0] // 5 + 1).sum())), np.int64)
    number = cross_columns(corners, height, width, columns, rows)
    columns, rows = columns[:number], rows[:number]
    if not number:
        return Region(0, 0, np.zeros((0, 0), bool))
    left, top = int(columns.min()), int(rows.min())
    pixels = np.zeros((int(rows.max()) - top, int(columns.max()) + 1 - left), bool)
    fill_below(columns - left, rows - top, pixels)
    return Region(top, left, pixels)


def fill_labelme(kind: str | None, points: NDArray[np.float64], size: tuple[int, int], source: object) -> Region:
    """Fill a shape as LabelMe does: with Pillow, its line included. Source: labelme, utils/shape.py, shape_to_mask."""
    # Drawn on the part of the image around the points: moved by an even number of pixels, coordinates that stay
    # positive are rounded as before.
    reach = _reach(kind, points)
    left, top = (max(0, int(low - reach) // 2 * 2) for low in points.min(0))
    right, bottom = (math.ceil(high + reach) + 1 for high in points.max(0))
    width, height = max(min(right, size[1]) - left, 1), max(min(bottom, size[0]) - top, 1)
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    xy: list[tuple[float, float]] = list(map(tuple, (points - (left, top)).tolist()))
    match kind:
        case "polygon" | "oriented_rectangle" | None:
            draw.polygon(xy, outline=1, fill=1)
        case "rectangle" if len(xy) == 2:
            (x0, y0), (x1, y1) = xy
            draw.rectangle(((min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))), outline=1, fill=1)
        case "circle" if len(xy) == 2:
            (cx, cy), (px, py) = xy
            radius = math.sqrt((cx - px) ** 2 + (cy - py) ** 2)
            draw.ellipse(((cx - radius, cy - radius), (cx + radius, cy + radius)), outline=1, fill=1)
        case "line" | "linestrip":
            draw.line(xy, fill=1, width=_LINE_WIDTH)
        case "point" if len(xy) == 1:
            ((cx, cy),) = xy
            draw.ellipse(
                ((cx - _POINT_RADIUS, cy - _POINT_RADIUS), (cx + _POINT_RADIUS, cy + _POINT_RADIUS)), outline=1, fill=1
            )
        case _:
            raise MaskError(source, f"has a shape of type {shown(kind)} with {len(xy)} points", _FIX)
    region = crop(np.asarray(mask) > 0)
    return region._replace(top=region.top + top, left=region.left + left) if region.pixels.size else region


def _reach(kind: str | None, points: NDArray[np.float64]) -> float:
    """Return how far from its points a shape of LabelMe may have pixels."""
    if kind == "circle":
        return float(np.hypot(*(points[-1] - points[0]))) + 2
    return _LINE_WIDTH + 2 if kind in ("line", "linestrip", "point") else 2


def fill_supervisely(rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> Region:
    """Fill a polygon with holes as Supervisely does: with OpenCV. Source: supervisely.geometry.polygon, _draw_impl."""
    import cv2

    mask = np.zeros(size, np.uint8)
    for k, ring in enumerate(rings):
        cv2.fillPoly(mask, [np.rint(ring).astype(np.int32)], 0 if k else 1)
    return crop(mask > 0)


def union(regions: Sequence[Region]) -> Region:
    """Return the pixels of all regions together."""
    regions = [region for region in regions if region.pixels.size]
    if len(regions) < 2:
        return regions[0] if regions else Region(0, 0, np.zeros((0, 0), bool))
    top, left = min(region.top for region in regions), min(region.left for region in regions)
    bottom = max(region.top + region.pixels.shape[0] for region in regions)
    right = max(region.left + region.pixels.shape[1] for region in regions)
    mask = np.zeros((bottom - top, right - left), bool)
    for row, column, pixels in regions:
        mask[row - top : row - top + pixels.shape[0], column - left : column - left + pixels.shape[1]] |= pixels
    return Region(top, left, mask)


def crop(mask: NDArray[np.bool_]) -> Region:
    """Return the smallest region that holds all pixels of a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Region(0, 0, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return Region(top, left, mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])
