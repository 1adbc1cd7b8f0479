"""The permutohedral lattice: filters values at N points with a Gaussian in feature space, in time linear in N.

    lattice = Lattice([features])                       # tables, once an image
    smooth = lattice.filter(values)                     # (C, N) -> (C, N), as often as you like

Source: Adams, Baek, Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice"; the numbers are those of
Kraehenbuehl's C++ code (its scaling constant included), which the tests hold.

The points are cut into bands of consecutive ones. A band adds up its own pixels in rows of its own, few enough for a core's
cache if its points lie close together; then the bands' rows are merged into the lattice points, blurred, and read back. Bands
run side by side without locks, and as they do not depend on the number of threads, neither does any result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from . import simplex, sweeps
from .codes import alpha, scales, strides
from .compiled import Workers
from .paths import Lines, Window, find_paths

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]

# Lattice points of one task of merging.
_CHUNK = 8192


@dataclass(frozen=True)
class Part:
    """The lattice of one kernel.

    vertices  the columns of its vertices in the tables of pixels
    points    its lattice points among those of all kernels
    paths     along which they are blurred
    """

    vertices: slice
    points: slice
    paths: Lines | Window

    @property
    def directions(self) -> int:
        """d + 1, as many as a pixel has vertices."""
        return int(self.vertices.stop - self.vertices.start)

    @property
    def size(self) -> int:
        """Its lattice points, m."""
        return int(self.points.stop - self.points.start)

    @property
    def alpha(self) -> float:
        """What its filter is multiplied by."""
        return alpha(self.directions - 1)


class Lattice:
    """Lattices of one or several kernels over the same N points, with their tables.

    features  for each kernel (N, d), in standard deviations: the kernel is exp(-|f_i - f_j|^2 / 2)
    lengths   of the bands, adding up to N; None makes one of all

    ids       (N, V) int32: the rows of its band that each point lies between, d + 1 for each kernel
    weights   (N, V) float32: their barycentric weights
    bands     the points of each band; rows: the rows of each band among those of all bands, R
    points    (R,) int32: the lattice point that each row stands for
    parts     the lattice of each kernel
    starts, places  as `simplex.members_of` gives them: the rows that stand for each lattice point
    Raises ConfigError for features that are not finite, too large, or of unequal length.
    """

    def __init__(
        self, features: Sequence[NDArray[Any]], workers: Workers | None = None, lengths: Sequence[int] | None = None
    ) -> None:
        workers = workers or Workers(1)
        tables = [np.require(table, np.float32, ["C", "W"]) for table in features]
        _check(tables)
        self.num_points = len(tables[0])
        columns = list(_slices(table.shape[1] + 1 for table in tables))
        self.ids: Integers = np.empty((self.num_points, columns[-1].stop), np.int32)
        self.weights: Floats = np.empty(self.ids.shape, np.float32)
        self.bands = list(_slices(lengths or [self.num_points]))
        steps = [strides(*_range(table))[:-1] for table in tables]
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

    def filter(self, values: NDArray[Any], reverse: bool = False, workers: Workers | None = None) -> Floats:
        """Sum of the kernels' filters: values (C, N) -> (C, N) float32; `reverse` gives the transposed map.

        The two differ a little, since the blur's directions do not commute where neighbours are missing.
        """
        field = Field(self, len(values), workers or Workers(1))
        rows = np.zeros((self.num_points, field.width), np.float32)
        rows[:, : len(values)] = np.asarray(values, np.float32).T
        field.spread(rows.reshape(-1))
        field.blur([part.alpha for part in self.parts], reverse)
        field.gather(slice(0, self.ids.shape[1]), rows.reshape(-1))
        return np.ascontiguousarray(rows[:, : len(values)].T)

    def norms(self, workers: Workers | None = None) -> Floats:
        """(K, N): each kernel's filter of ones."""
        field = Field(self, 1, workers or Workers(1))
        rows = np.ones(self.num_points * field.width, np.float32)
        field.spread(rows)
        field.blur([part.alpha for part in self.parts])
        norms = np.empty((len(self.parts), self.num_points), np.float32)
        for norm, part in zip(norms, self.parts, strict=True):
            field.gather(part.vertices, rows)
            norm[:] = rows[:: field.width]
        return norms

    def _enclose(
        self, tables: Sequence[Floats], columns: Sequence[slice], steps: Sequence[Longs], band: slice
    ) -> list[Longs]:
        """Fill the band's ids and weights; the codes of its own rows, for each kernel."""
        codes: list[Longs] = []
        for table, column, step in zip(tables, columns, steps, strict=True):
            first = sum(map(len, codes))
            tasks = scales(table.shape[1]), step, first, column.start, self.ids[band], self.weights[band]
            codes.append(simplex.enclose(table[band], *tasks))
        return codes

    def _join(self, codes: Sequence[Sequence[Longs]], column: slice, steps: Longs, workers: Workers) -> Part:
        """Number a kernel's vertices over all bands and order them along every direction."""
        kernel, first = len(self.parts), self.size
        unique, numbers = np.unique(np.concatenate([of_band[kernel] for of_band in codes]), return_inverse=True)
        numbers += first
        done = 0
        for row, of_band in zip(self.rows, codes, strict=True):
            start, count = row.start + sum(map(len, of_band[:kernel])), len(of_band[kernel])
            self.points[start : start + count] = numbers[done : done + count]
            done += count
        return Part(column, slice(first, first + len(unique)), find_paths(unique, steps, workers))


class Field:
    """Values of C channels on a lattice: what one image's iterations work in.

    width   L = C rounded up to eight; pixels are flat (N * L,) float32. blocks: a tuple of length L / 8
    values  (L / 8, M, 8) float32, eight channels behind the other: after `blur`, what pixels read
    sums    (R, L) float32, what each band's pixels spread over its own rows
    """

    def __init__(self, lattice: Lattice, num_channels: int, workers: Workers) -> None:
        self.lattice = lattice
        self.workers = workers
        self.blocks = (0,) * -(-num_channels // sweeps.LANES)
        self.width = len(self.blocks) * sweeps.LANES
        self.values: Floats = np.empty((len(self.blocks), lattice.size, sweeps.LANES), np.float32)
        self.sums: Floats = np.empty((len(lattice.points), self.width), np.float32)

    def spread(self, pixels: Floats) -> None:
        """Give the pixels to the vertices around them."""
        tables = self.lattice
        tasks = [
            (
                self.of_band(pixels, band),
                tables.ids[band],
                tables.weights[band],
                self.blocks,
                self.sums[rows].reshape(-1),
            )
            for band, rows in zip(tables.bands, tables.rows, strict=True)
        ]
        self.workers.run(sweeps.spread, tasks)

    def gather(self, vertices: slice, pixels: Floats) -> None:
        """Read the values of those columns of vertices into the pixels."""
        tables, values = self.lattice, self.values.reshape(-1)
        ends = vertices.start, vertices.stop
        tasks = [
            (
                values,
                tables.ids[band],
                tables.points[rows],
                tables.weights[band],
                *ends,
                self.blocks,
                self.of_band(pixels, band),
            )
            for band, rows in zip(tables.bands, tables.rows, strict=True)
        ]
        self.workers.run(sweeps.gather, tasks)

    def blur(self, factors: Sequence[float], reverse: bool = False) -> None:
        """Merge the bands' sums, times each kernel's factor, and blur them along every direction into `values`."""
        tables = self.lattice
        sums, values = self.sums.reshape(-1), self.values.reshape(-1)
        spans = [
            (sums, tables.starts, tables.places, span.start, span.stop, factor, self.blocks, values)
            for part, factor in zip(tables.parts, factors, strict=True)
            for span in _spans(part.points, _CHUNK)
        ]
        self.workers.run(sweeps.merge, spans)
        # Eight channels of a kernel at a time, along all directions: they fit a cache, and no thread waits for another.
        planes = [
            (part.paths, plane[part.points].reshape(-1), reverse)
            for part in sorted(tables.parts, key=lambda part: -part.size * part.directions)
            for plane in self.values
        ]
        self.workers.run(lambda paths, plane, reverse: paths.blur(plane, reverse), planes)

    def of_band(self, pixels: Floats, band: slice) -> Floats:
        """The band's rows of flat pixels."""
        return pixels[band.start * self.width : band.stop * self.width]


def _check(tables: Sequence[Floats]) -> None:
    for table in tables:
        if table.ndim != 2 or not table.size:
            raise ConfigError(
                "crf features", f"have shape {table.shape}", "hand over (pixels, features), both at least 1"
            )
    if len({len(table) for table in tables}) != 1:
        raise ConfigError(
            "crf features", f"have {[len(table) for table in tables]} rows", "hand over one row for every pixel"
        )


def _range(table: Floats) -> tuple[Floats, Floats]:
    """Least and largest of each feature; column by column, which numpy does ten times faster than along the first axis."""
    return np.array([column.min() for column in table.T]), np.array([column.max() for column in table.T])


def _slices(lengths: Iterable[int]) -> Iterator[slice]:
    """Slices of these lengths, one behind the other."""
    ends = np.cumsum([0, *lengths]).tolist()
    return (slice(start, stop) for start, stop in pairwise(ends))


def _spans(whole: slice, length: int) -> Iterator[slice]:
    """The slice cut into pieces of that length, the last one shorter."""
    return (slice(start, min(start + length, whole.stop)) for start in range(whole.start, whole.stop, length))
