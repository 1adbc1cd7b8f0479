"""The outlines of a region: polygons along the edges between pixels, in which nothing is lost.

A polygon has its corners at the corners of pixels: pixel (row, column) is the square from (column, row) to (column + 1,
row + 1). The center of a pixel lies inside the polygons exactly if the pixel belongs to the region, so every rule that
decides by centers, COCO's too, fills them to the same region. Pixels that touch at a corner only belong to different
polygons; a hole that touches the rim at a corner stays a hole, as the OGC's rules of valid polygons demand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]
"""Corners (x, y) of a closed line, the first not repeated."""
# Clockwise on the screen, where y points down: right, down, left, up.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


class Outline(NamedTuple):
    """A connected part of a region: its rim, clockwise on the screen, and its holes, counterclockwise."""

    exterior: Ring
    holes: list[Ring]


def outlines(region: NDArray[Any]) -> list[Outline]:
    """Return the outlines of the 4-connected parts of a region (H, W) of bool, in the order of their first pixels."""
    import cv2

    flags = np.pad(np.asarray(region, np.uint8), 1)
    if not flags.any():
        return []
    _, parts = cv2.connectedComponents(flags, connectivity=4, ltype=cv2.CV_32S)
    here = flags > 0
    # Edges with the region on their right, by the corner at which they start: one bit per direction.
    above, left = np.roll(here, 1, 0), np.roll(here, 1, 1)
    before = np.roll(above, 1, 1)
    # The pixels around a corner: `before` upper left, `above` upper right, `left` lower left, `here` lower right.
    starts = np.stack([here & ~above, left & ~here, before & ~left, above & ~before])
    open_edges = (starts * np.array([1, 2, 4, 8])[:, None, None]).sum(0)
    corners = {(int(x) - 1, int(y) - 1): int(open_edges[y, x]) for y, x in np.argwhere(open_edges)}
    found: dict[int, Outline] = {}
    for x, y in list(corners):
        while corners[x, y]:
            direction = corners[x, y].bit_length() - 1
            ring = _walk(corners, x, y, direction)
            # The pixel at the right of the first edge, in the padded image.
            column = x + 1 - (direction in (1, 2))
            row = y + 1 - (direction in (2, 3))
            part = int(parts[row, column])
            outline = found.setdefault(part, Outline([], []))
            for simple in _split(ring):
                if _is_clockwise(simple):
                    outline.exterior.extend(_corners_only(simple))
                else:
                    outline.holes.append(_corners_only(simple))
    return [found[part] for part in sorted(found)]


def _walk(corners: dict[tuple[int, int], int], x: int, y: int, direction: int) -> Ring:
    """Follow edges from a corner until it is reached again, and take them out of `corners`."""
    start = x, y, direction
    ring: Ring = []
    while True:
        ring.append((x, y))
        corners[x, y] &= ~(1 << direction)
        x, y = x + _STEPS[direction][0], y + _STEPS[direction][1]
        # Where two edges start, the one to the right belongs to the same pixel.
        choices = ((direction + turn) % 4 for turn in (1, 0, 3))
        following = next((d for d in choices if corners[x, y] >> d & 1 or (x, y, d) == start), None)
        assert following is not None, "as many edges end at a corner as start there"
        if (x, y, following) == start:
            return ring
        direction = following


def _split(ring: Ring) -> list[Ring]:
    """Cut a ring that passes through a corner twice into rings that do not."""
    rings: list[Ring] = []
    path: Ring = []
    position: dict[tuple[int, int], int] = {}
    for corner in ring:
        if corner in position:
            first = position[corner]
            loop = path[first:]
            for passed in loop:
                del position[passed]
            del path[first:]
            rings.append(loop)
        position[corner] = len(path)
        path.append(corner)
    return [*rings, path]


def _is_clockwise(ring: Ring) -> bool:
    points = np.array(ring)
    following = np.roll(points, -1, 0)
    return int((points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum()) > 0


def _corners_only(ring: Ring) -> Ring:
    """Leave out the points on straight lines."""
    points = np.array(ring)
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    return [(int(x), int(y)) for x, y in points[(before != after).any(1)]]


def single_ring(outline: Outline) -> Ring:
    """Return one closed line around a part with its holes: a seam, walked both ways, leads to each hole.

    Formats without holes, such as COCO's polygons, take it; the two ways of a seam cancel out.
    """
    ring = outline.exterior
    for hole in outline.holes:
        ring = [*ring[:1], *hole, hole[0], *ring[:1], *ring[1:]]
    return ring
