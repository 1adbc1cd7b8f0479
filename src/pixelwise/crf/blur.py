"""The blur of Adams et al. along the lattice's d + 1 directions, for scattered points and for points in rows.

Points are numbered in the order of their codes, in which the last feature counts most. With colors among the features,
neighbors lie anywhere in memory: `LineBlur` follows the lines of each direction one by one, so that every point is
read once and nothing is copied. With pixel positions alone the points lie in rows, as pixels do, and neighbors a row
or two apart: `WindowBlur` slides over them once for all directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..jit.threads import Workers
from . import loops, simplex

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]

MAX_WINDOW_FEATURES = 2
"""A window is for features of a plane, where nearly all points have neighbors. With colors every second has none, and
mispredicted branches cost more than the window gains."""
MAX_WINDOW_OFFSET = 4096
"""A window is for neighbors at most this many points off, so that it fits a core's cache."""
# In shorter chunks, starting the loop costs more than the work inside.
_MIN_CHUNK = 64


@dataclass(frozen=True)
class LineBlur:
    """The blur that follows the lines of each direction.

    orders  (d + 1, m) int32: the points along the lines
    links   (d + 1, m) float32: see `simplex.lines_of`
    """

    orders: Integers
    links: Floats

    def __call__(self, plane: Floats, *, reverse: bool) -> None:
        """Blur one block of classes of all points, plane (m * 8,), in place; `reverse`: last direction first."""
        step = -1 if reverse else 1
        for order, links in zip(self.orders[::step], self.links[::step], strict=True):
            loops.blur_lines(plane, order, links)


@dataclass(frozen=True)
class WindowBlur:
    """The blur that slides a window over all points.

    neighbors   (d + 1, 2, m) int32: the points before and after each point, -1 for none
    max_offset  the largest difference between the numbers of two neighbors
    """

    neighbors: Integers
    max_offset: int

    def __call__(self, plane: Floats, *, reverse: bool) -> None:
        """Blur one block of classes of all points in place, as `LineBlur` does."""
        loops.blur_window(plane, self.neighbors[:: -1 if reverse else 1], self.max_offset)


def choose_blur(codes: Longs, steps: Longs, workers: Workers) -> LineBlur | WindowBlur:
    """Return the blur for points with these codes (m,), ascending; steps (d + 1,) are the first of `code_strides`."""
    # One step along direction j: d more on coordinate j, 1 less on all others.
    directions = len(steps) * steps - steps.sum()
    neighbors: Integers = np.empty((len(steps), 2, len(codes)), np.int32)
    tasks = [(codes, *task) for task in zip(directions, neighbors, strict=True)]
    offsets = workers.run(simplex.neighbors_along, tasks)
    if len(steps) - 1 <= MAX_WINDOW_FEATURES and max(offsets) <= MAX_WINDOW_OFFSET:
        return WindowBlur(neighbors, max(_MIN_CHUNK, *offsets))
    orders: Integers = np.empty((len(steps), len(codes)), np.int32)
    links: Floats = np.empty(orders.shape, np.float32)
    workers.run(simplex.lines_of, zip(neighbors, orders, links, strict=True))
    return LineBlur(orders, links)
