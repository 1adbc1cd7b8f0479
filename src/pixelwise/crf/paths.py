"""How lattice points are blurred along the lattice's directions: points that lie anywhere, and points that lie in rows.

Points are numbered in the order of their codes, in which the last feature counts most. With colours among the features,
neighbours lie anywhere in memory: the `Lines` of each direction are followed one by one, so that every point is read once and
nothing is copied. With pixel positions alone the points lie in rows, as pixels do, and neighbours a row or two apart: a `Window`
slides over them once for all directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import simplex, sweeps
from .compiled import Workers

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]

# A window is for features of a plane, where nearly all points have neighbours (with colours every second has none, and a chip
# that guesses wrongly loses what the window gains) and where these are at most so many points off: it shall fit a core's cache.
_PLANE, _NEAR = 2, 4096
# Shorter chunks of points would not be worth a loop's start.
_CHUNK = 64


@dataclass(frozen=True)
class Lines:
    """orders (d + 1, m) int32: the points along the lines of each direction; links (d + 1, m) float32: see `lines_of`."""

    orders: Integers
    links: Floats

    def blur(self, plane: Floats, reverse: bool) -> None:
        """Blur eight channels of all points, plane (m * 8,), in place along every direction; `reverse`: the last one first."""
        step = -1 if reverse else 1
        for order, links in zip(self.orders[::step], self.links[::step], strict=True):
            sweeps.blur_lines(plane, order, links)


@dataclass(frozen=True)
class Window:
    """neighbours (d + 1, 2, m) int32: those before and after each point, -1 where none is; reach: none is further off."""

    neighbours: Integers
    reach: int

    def blur(self, plane: Floats, reverse: bool) -> None:
        """As `Lines.blur`."""
        sweeps.blur_window(plane, self.neighbours[:: -1 if reverse else 1], self.reach)


def find_paths(codes: Longs, steps: Longs, workers: Workers) -> Lines | Window:
    """The paths of points with these codes (m,), ascending; steps (d + 1,) the first of `codes.strides`."""
    # One step along direction j: d more on coordinate j, 1 less on all others.
    directions = len(steps) * steps - steps.sum()
    neighbours: Integers = np.empty((len(steps), 2, len(codes)), np.int32)
    reaches = workers.run(
        simplex.neighbours_along, [(codes, *task) for task in zip(directions, neighbours, strict=True)]
    )
    if len(steps) - 1 <= _PLANE and max(reaches) <= _NEAR:
        return Window(neighbours, max(_CHUNK, *reaches))
    orders: Integers = np.empty((len(steps), len(codes)), np.int32)
    links: Floats = np.empty(orders.shape, np.float32)
    workers.run(simplex.lines_of, zip(neighbours, orders, links, strict=True))
    return Lines(orders, links)
