"""The permutohedral lattice: filters the values of N pixels with a Gaussian in feature space, in time linear in N.

    lattice = Lattice([features])                       # tables, once per image
    smooth = lattice.filter(values)                     # (C, N) -> (C, N), any number of times

Source: Adams, Baek, Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice"; the numbers are
those of Kraehenbuehl's C++ code (its scaling constant included), as the tests check. A filter is three steps:

    splat    each pixel adds its value to the d + 1 vertices of the simplex around its features, by barycentric weights
    blur     the vertices, now lattice points, are blurred by 1/2 1 1/2 along each of the lattice's d + 1 directions
    slice    each pixel reads its new value from the same vertices, with the same weights

Pixels are cut into bands of consecutive ones (`meanfield.py`: one per tile of the image). Each band numbers the
lattice points that its pixels touch, its *own points*, and adds up its splats in sums of its own: few enough for a
core's cache if the pixels are alike. Then the sums that stand for the same lattice point are merged.

    pixels  N  [ band 0             ] [ band 1           ]
                 | splat                | splat              ids (N, V): the own points around each pixel
    sums    R  [ 0 1 2 3 4 : 5 6 7  ] [ 0 1 2 3 : 4 5 6  ]   own points of a band, of kernel 0 : kernel 1
                 | merge                                     points (R,): the lattice point of each; copies: the reverse
    values  M  [ 0 1 2 3 4 5 6 ] [ 0 1 2 3 ]                 lattice points of kernel 0, of kernel 1
                 | blur            | blur
                 | slice: each band fetches the values of its own points, and its pixels read them

Bands run in parallel without locks. They do not depend on the number of threads, so the results do not either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..jit.simd import LANES
from ..jit.threads import Workers
from . import loops, simplex
from .blur import LineBlur, WindowBlur, choose_blur
from .codes import alpha, code_strides, elevation_factors
from .loops import Band

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]
Longs = NDArray[np.int64]

MERGE_CHUNK = 8192
"""Lattice points per task of merging."""


@dataclass(frozen=True)
class KernelLattice:
    """The lattice of one kernel.

    vertices  the columns of its vertices in the tables of pixels
    points    its lattice points among the points of all kernels
    blur      the blur along its d + 1 directions
    """

    vertices: slice
    points: slice
    blur: LineBlur | WindowBlur

    @property
    def directions(self) -> int:
        """Number of blur directions, d + 1: the number of vertices around a pixel."""
        return int(self.vertices.stop - self.vertices.start)

    @property
    def size(self) -> int:
        """Number of lattice points, m."""
        return int(self.points.stop - self.points.start)

    @property
    def alpha(self) -> float:
        """Factor of the filter's result."""
        return alpha(self.directions - 1)


class Lattice:
    """Lattices of one or several kernels over the same N pixels, with their tables.

    features      (N, d) for each kernel, in standard deviations: the kernel is exp(-|f_i - f_j|^2 / 2)
    band_lengths  number of pixels of each band, adding up to N; None makes a single band

    ids       (N, V) int32: the own points of its band around each pixel, d + 1 for each kernel
    weights   (N, V) float32: their barycentric weights
    bands     the pixels of each band; own: the own points of each band among those of all bands, R
    points    (R,) int32: the lattice point that each own point is
    kernels   the lattice of each kernel
    starts, copies  as `simplex.copies_of` returns them: the own points that are each lattice point
    Raises ConfigError for features that are not finite, too large, or of unequal length.
    """

    def __init__(
        self,
        features: Sequence[NDArray[Any]],
        workers: Workers | None = None,
        *,
        band_lengths: Sequence[int] | None = None,
    ) -> None:
        workers = workers or Workers(1)
        tables = check_features(features)
        self.num_pixels = len(tables[0])
        columns = list(_slices(table.shape[1] + 1 for table in tables))
        self.ids: Integers = np.empty((self.num_pixels, columns[-1].stop), np.int32)
        self.weights: Floats = np.empty(self.ids.shape, np.float32)
        self.bands = list(_slices(band_lengths or [self.num_pixels]))
        # Minima column by column: numpy does that ten times faster than along the first axis.
        lowest = [np.array([column.min() for column in table.T]) for table in tables]
        highest = [np.array([column.max() for column in table.T]) for table in tables]
        steps = [code_strides(low, high)[:-1] for low, high in zip(lowest, highest, strict=True)]

        def enclose(band: slice) -> list[Longs]:
            """Fill the band's ids and weights; return the codes of its own points, for each kernel."""
            codes: list[Longs] = []
            for table, column, step in zip(tables, columns, steps, strict=True):
                first, factors = sum(map(len, codes)), elevation_factors(table.shape[1])
                codes.append(
                    simplex.enclose(
                        table[band],
                        factors,
                        step.view(np.uint64),
                        first_id=first,
                        column=column.start,
                        ids=self.ids[band],
                        weights=self.weights[band],
                    )
                )
            return codes

        # 1. Within each band: the simplex around each pixel, and the band's own points.
        codes = workers.run(enclose, [(band,) for band in self.bands])
        self.own = list(_slices(sum(map(len, of_band)) for of_band in codes))
        # 2. Over all bands: own points of equal code are the same lattice point.
        self.points: Integers = np.empty(self.own[-1].stop, np.int32)
        self.kernels: list[KernelLattice] = []
        for k, (column, step) in enumerate(zip(columns, steps, strict=True)):
            unique, numbers = np.unique(np.concatenate([of_band[k] for of_band in codes]), return_inverse=True)
            points = slice(self.size, self.size + len(unique))
            numbers += points.start
            done = 0
            for own, of_band in zip(self.own, codes, strict=True):
                start, count = own.start + sum(map(len, of_band[:k])), len(of_band[k])
                self.points[start : start + count] = numbers[done : done + count]
                done += count
            # 3. The neighbors along each direction.
            self.kernels.append(KernelLattice(column, points, choose_blur(unique, step, workers)))
        self.starts, self.copies = simplex.copies_of(self.points, self.size)

    @property
    def size(self) -> int:
        """Number of lattice points of all kernels, M."""
        return self.kernels[-1].points.stop if self.kernels else 0

    def tables(self, splat_weights: Floats | None = None, slice_weights: Floats | None = None) -> list[Band]:
        """Return the tables of each band for the loops; weights (N, V) take the place of the lattice's own."""
        splats = self.weights if splat_weights is None else splat_weights
        slices = self.weights if slice_weights is None else slice_weights
        return [
            Band(self.ids[band], self.points[own], splats[band], slices[band])
            for band, own in zip(self.bands, self.own, strict=True)
        ]

    def filter(self, values: NDArray[Any], *, reverse: bool = False, workers: Workers | None = None) -> Floats:
        """Return the sum of the kernels' filters: values (C, N) -> (C, N) float32; `reverse` gives the transposed map.

        The two differ a little, since the blur's directions do not commute where neighbors are missing.
        """
        steps = LatticeFilter(self, len(values), workers=workers or Workers(1))
        pixels = np.zeros((self.num_pixels, steps.width), np.float32)
        pixels[:, : len(values)] = np.asarray(values, np.float32).T
        steps.splat(pixels.reshape(-1))
        steps.blur([kernel.alpha for kernel in self.kernels], reverse=reverse)
        steps.slice_(slice(0, self.ids.shape[1]), pixels.reshape(-1))
        return np.ascontiguousarray(pixels[:, : len(values)].T)

    def norms(self, workers: Workers | None = None) -> Floats:
        """Return (K, N): each kernel's filter of ones, which is n_i = sum_j k(f_i, f_j)."""
        steps = LatticeFilter(self, 1, workers=workers or Workers(1))
        pixels = np.ones(self.num_pixels * steps.width, np.float32)
        steps.splat(pixels)
        steps.blur([kernel.alpha for kernel in self.kernels])
        norms = np.empty((len(self.kernels), self.num_pixels), np.float32)
        for norm, kernel in zip(norms, self.kernels, strict=True):
            steps.slice_(kernel.vertices, pixels)
            norm[:] = pixels[:: steps.width]
        return norms


class LatticeFilter:
    """The three steps of a filter of C channels, and the values on the lattice that they work on.

    width   L = C rounded up to eight; pixels are flat (N * L,) float32. blocks: a tuple of length L / 8
    bands   the tables of each band; default: those of the lattice
    sums    (R, L) float32: what each band's pixels splat to its own points
    values  (L / 8, M, 8) float32, one block of classes after the other: after `blur`, what pixels slice
    """

    def __init__(
        self, lattice: Lattice, num_channels: int, *, workers: Workers, bands: Sequence[Band] | None = None
    ) -> None:
        self.lattice = lattice
        self.workers = workers
        self.bands = lattice.tables() if bands is None else bands
        self.blocks = (0,) * -(-num_channels // LANES)
        self.width = len(self.blocks) * LANES
        self.values: Floats = np.empty((len(self.blocks), lattice.size, LANES), np.float32)
        self.sums: Floats = np.empty((len(lattice.points), self.width), np.float32)

    def splat(self, pixels: Floats) -> None:
        """Splat the pixels onto the vertices around them, band by band, into `sums`."""
        self.workers.run(
            lambda band, own, sums: loops.splat(band, own, self.blocks, sums),
            zip(self.bands, self.of_bands(pixels), self.sums_of_bands(), strict=True),
        )

    def blur(self, factors: Sequence[float], *, reverse: bool = False) -> None:
        """Merge the bands' `sums`, times each kernel's factor, and blur them along every direction into `values`."""
        sums, values = self.sums.reshape(-1), self.values.reshape(-1)
        starts, copies = self.lattice.starts, self.lattice.copies

        def merge(first: int, stop: int, factor: float) -> None:
            loops.merge(sums, values, self.blocks, starts=starts, copies=copies, first=first, stop=stop, factor=factor)

        merges = [
            (first, min(first + MERGE_CHUNK, kernel.points.stop), factor)
            for kernel, factor in zip(self.lattice.kernels, factors, strict=True)
            for first in range(kernel.points.start, kernel.points.stop, MERGE_CHUNK)
        ]
        self.workers.run(merge, merges)
        # One block of a kernel's classes at a time, along all directions: it fits a cache, and no thread waits for
        # another. The longest block first, because the other threads would wait for it at the end.
        planes = [
            (kernel.blur, plane[kernel.points].reshape(-1))
            for kernel in sorted(self.lattice.kernels, key=lambda kernel: -kernel.size * kernel.directions)
            for plane in self.values
        ]
        self.workers.run(lambda blur, plane: blur(plane, reverse=reverse), planes)

    def slice_(self, vertices: slice, pixels: Floats) -> None:
        """Slice: set the pixels to the weighted sum of their vertices in the columns `vertices`."""
        values, first, stop = self.values.reshape(-1), vertices.start, vertices.stop
        self.workers.run(
            lambda band, own: loops.slice_(band, values, own, self.blocks, first=first, stop=stop),
            zip(self.bands, self.of_bands(pixels), strict=True),
        )

    def of_bands(self, pixels: Floats) -> list[Floats]:
        """Return the part of each band of flat pixels."""
        return [pixels[band.start * self.width : band.stop * self.width] for band in self.lattice.bands]

    def sums_of_bands(self) -> list[Floats]:
        """Return the part of each band of `sums`, flat."""
        return [self.sums[own].reshape(-1) for own in self.lattice.own]


def check_features(features: Sequence[NDArray[Any]]) -> list[Floats]:
    """Return the feature tables as float32. Raises ConfigError for a table that is not (N, d), or of another length."""
    tables = [np.require(table, np.float32, ["C", "W"]) for table in features]
    for table in tables:
        if table.ndim != 2 or not table.size:
            what = f"expected shape (pixels, features) without zeros, got {table.shape}"
            raise ConfigError("crf features", what, "pass one row per pixel")
    if len({len(table) for table in tables}) != 1:
        what = f"must have equally many rows, got {[len(table) for table in tables]}"
        raise ConfigError("crf features", what, "pass one row per pixel")
    return tables


def _slices(lengths: Iterable[int]) -> Iterator[slice]:
    """Return slices of these lengths, one after the other."""
    ends = np.cumsum([0, *lengths]).tolist()
    return (slice(start, stop) for start, stop in pairwise(ends))
