"""The permutohedral lattice: filters values at N points with a Gaussian in feature space, in time linear in N.

    lattice = Lattice([features])                       # tables, once an image
    smooth = lattice.filter(values)                     # (C, N) -> (C, N), as often as you like

Source: Adams, Baek, Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice"; the numbers are those of
Kraehenbuehl's C++ code (its scaling constant included), which the tests hold.

The points are cut into bands of consecutive ones. A band adds up its own pixels in rows of its own, small enough for a core's
cache; then the bands' rows are merged into the lattice points, blurred, and read back. Bands run side by side without locks,
and as they do not depend on the number of threads, neither does any result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import simplex, sweeps
from .compiled import Workers

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]

# Points of a band: its rows shall fit a core's second-level cache.
_BAND = 8192
# Lattice points of one task; fewer are not worth a thread.
_CHUNK = 4096
# Features are in standard deviations. Beyond this, single precision cannot tell the simplices apart.
_FARTHEST = 2.0**17


@dataclass(frozen=True)
class Part:
    """The lattice of one kernel: its vertices' columns, its points' rows, their lines along each of the d + 1 directions.

    orders (d + 1, m) int32 and cuts as `lines_along` makes them.
    """

    vertices: slice
    points: slice
    orders: Integers
    cuts: Sequence[Sequence[int]]

    @property
    def alpha(self) -> float:
        """What the filter is multiplied by. Source: the authors' code, 1 / (1 + 2^-d)."""
        return float(np.float32(1 / (1 + 2.0 ** -(len(self.orders) - 1))))


class Lattice:
    """Lattices of one or several kernels over the same N points, with their tables.

    features  for each kernel (N, d), in standard deviations: the kernel is exp(-|f_i - f_j|^2 / 2)
    Raises ConfigError when they are not finite, too large, or of unequal length.
    """

    def __init__(self, features: Sequence[Floats], workers: Workers | None = None) -> None:
        workers = workers or Workers(1)
        tables = [_checked(table) for table in features]
        if len({len(table) for table in tables}) != 1:
            raise ConfigError("crf features", f"lengths differ: {[len(t) for t in tables]}", "one row for every pixel")
        self.num_points = len(tables[0])
        num_vertices = sum(table.shape[1] + 1 for table in tables)
        self.ids: Integers = np.empty((self.num_points, num_vertices), np.int32)
        self.weights: Floats = np.empty((self.num_points, num_vertices), np.float32)
        self.bands = [slice(start, min(start + _BAND, self.num_points)) for start in range(0, self.num_points, _BAND)]
        columns = list(_slices(table.shape[1] + 1 for table in tables))
        steps = [simplex.strides(table.min(0), table.max(0)) for table in tables]
        codes = workers.run(lambda band: self._enclose(tables, columns, steps, band), [(band,) for band in self.bands])
        self.rows = list(_slices(sum(map(len, of_band)) for of_band in codes))
        self.points: Integers = np.empty(self.rows[-1].stop, np.int32)
        self.parts: list[Part] = []
        for column, step in zip(columns, steps, strict=True):
            self.parts.append(self._join(codes, column, step, workers))
        self.starts, self.places = simplex.members_of(self.points, self.size)

    @property
    def size(self) -> int:
        """Lattice points of all kernels, M."""
        return self.parts[-1].points.stop if self.parts else 0

    def filter(self, values: NDArray[np.floating], reverse: bool = False) -> Floats:
        """Sum of the kernels' filters: values (C, N) -> (C, N) float32; `reverse` gives the transposed map.

        The two differ a little, since the blur's directions do not commute where neighbours are missing.
        """
        with Workers(1) as workers:
            blurred = Field(self, len(values), workers)
            rows = np.zeros((self.num_points, blurred.width), np.float32)
            rows[:, : len(values)] = np.asarray(values, np.float32).T
            blurred.spread(rows.reshape(-1))
            blurred.blur([part.alpha for part in self.parts], reverse)
            blurred.gather(slice(None), rows.reshape(-1))
        return np.ascontiguousarray(rows[:, : len(values)].T)

    def norms(self, workers: Workers) -> Floats:
        """(K, N): each kernel's filter of ones."""
        field = Field(self, 1, workers)
        rows = np.ones(self.num_points * field.width, np.float32)
        field.spread(rows)
        field.blur([part.alpha for part in self.parts])
        norms = np.empty((len(self.parts), self.num_points), np.float32)
        for norm, part in zip(norms, self.parts, strict=True):
            field.gather(part.vertices, rows)
            norm[:] = rows[:: field.width]
        return norms

    def _enclose(self, tables: Sequence[Floats], columns: Sequence[slice], steps: Sequence[Longs], band: slice) -> list[Longs]:
        """Fill the band's ids and weights; the codes of its own rows, for each kernel."""
        codes: list[Longs] = []
        for table, column, step in zip(tables, columns, steps, strict=True):
            ids, weights = self.ids[band, column], self.weights[band, column]
            first = sum(map(len, codes))
            codes.append(simplex.enclose(table[band], simplex.scales(table.shape[1]), step, first, ids, weights))
        return codes

    def _join(self, codes: Sequence[Sequence[Longs]], column: slice, steps: Longs, workers: Workers) -> Part:
        """Number a kernel's vertices over all bands and order them along every direction."""
        kernel, first = len(self.parts), self.size
        numbers = np.empty(sum(len(of_band[kernel]) for of_band in codes), np.int32)
        unique, table = simplex.unite(np.concatenate([of_band[kernel] for of_band in codes]), first, numbers)
        done = 0
        for row, of_band in zip(self.rows, codes, strict=True):
            start, count = row.start + sum(map(len, of_band[:kernel])), len(of_band[kernel])
            self.points[start : start + count] = numbers[done : done + count]
            done += count
        orders = np.empty((len(steps), len(unique)), np.int32)
        directions = len(steps) * steps - steps.sum()
        tasks = [(table, unique, step, first, _CHUNK, order) for step, order in zip(directions, orders, strict=True)]
        cuts = [places.tolist() for places in workers.run(simplex.lines_along, tasks)]
        return Part(column, slice(first, first + len(unique)), orders, cuts)


class Field:
    """Values of C channels on a lattice: what one image's iterations work in.

    values (M, L) float32, L = C rounded up to eight: after `blur`, what pixels read
    sums   (R, L) float32, what each band's pixels spread over its own rows
    """

    def __init__(self, lattice: Lattice, num_channels: int, workers: Workers) -> None:
        self.lattice = lattice
        self.workers = workers
        self.width = -(-num_channels // sweeps.LANES) * sweeps.LANES
        self.values: Floats = np.empty((lattice.size, self.width), np.float32)
        self.sums: Floats = np.empty((len(lattice.points), self.width), np.float32)

    def spread(self, pixels: Floats) -> None:
        """Give the pixels (N * L,) to the vertices around them."""
        tables = self.lattice
        tasks = [
            (self.of_band(pixels, band), tables.ids[band], tables.weights[band], self.sums[rows].reshape(-1))
            for band, rows in zip(tables.bands, tables.rows, strict=True)
        ]
        self.workers.run(sweeps.spread, tasks)

    def gather(self, vertices: slice, pixels: Floats) -> None:
        """Read the values between those columns of vertices into the pixels (N * L,)."""
        tables = self.lattice
        values = self.values.reshape(-1)
        tasks = [
            (values, tables.ids[band, vertices], tables.points[rows], tables.weights[band, vertices], self.of_band(pixels, band))
            for band, rows in zip(tables.bands, tables.rows, strict=True)
        ]
        self.workers.run(sweeps.gather, tasks)

    def blur(self, factors: Sequence[float], reverse: bool = False) -> None:
        """Merge the bands' sums, times each kernel's factor, and blur them along every direction into `values`."""
        tables, values = self.lattice, self.values.reshape(-1)
        tasks: list[tuple[Any, ...]] = [
            (self.sums.reshape(-1), tables.starts, tables.places, start, stop, self.width, factor, values)
            for part, factor in zip(tables.parts, factors, strict=True)
            for start, stop in _spans(part.points)
        ]
        self.workers.run(sweeps.merge, tasks)
        for turn in range(max(len(part.orders) for part in tables.parts)):
            parts = [part for part in tables.parts if turn < len(part.orders)]
            directions = [len(part.orders) - 1 - turn if reverse else turn for part in parts]
            tasks = [
                (values, part.orders[direction], *span, self.width)
                for part, direction in zip(parts, directions, strict=True)
                for span in pairwise(part.cuts[direction])
            ]
            self.workers.run(sweeps.blur, tasks)

    def of_band(self, pixels: Floats, band: slice) -> Floats:
        """The band's rows of flat pixels (N * L,)."""
        return pixels[band.start * self.width : band.stop * self.width]


def _checked(table: Floats) -> Floats:
    table = np.ascontiguousarray(table, np.float32)
    if table.ndim != 2 or not table.size:
        raise ConfigError("crf features", f"have shape {table.shape}", "hand over (pixels, features), both at least 1")
    if not np.isfinite(table).all():
        raise ConfigError("crf features", "hold NaN or infinity", "check the image and the standard deviations")
    farthest = float(np.abs(table).max())
    if farthest > _FARTHEST:
        raise ConfigError("crf features", f"reach {farthest:g} standard deviations, allowed is {_FARTHEST:g}", "widen the kernel")
    return table


def _slices(lengths: Iterator[int]) -> Iterator[slice]:
    """Slices of these lengths, one behind the other."""
    ends = np.cumsum([0, *lengths]).tolist()
    return (slice(start, stop) for start, stop in pairwise(ends))


def _spans(points: slice) -> list[tuple[int, int]]:
    return [(start, min(start + _CHUNK, points.stop)) for start in range(points.start, points.stop, _CHUNK)]
