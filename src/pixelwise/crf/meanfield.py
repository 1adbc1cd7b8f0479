"""Algorithm 1 on the permutohedral lattice: mean-field inference in time linear in the number of pixels.

Source: Kraehenbuehl, Koltun 2011, algorithm 1 and section 3.2. As in the authors' code, a pixel's message to itself
stays in.

    algorithm 1                          here                           where
    ---------------------------------    ---------------------------    --------------------------------------------
    Q_i(l) <- exp(-psi_u(l)) / Z_i       `initialize`                   pixels: softmax, then splat
    repeat
      Q~_i(l)  <- sum_j k(f_i, f_j) Q_j  `message_passing`              splat above, blur here, slice below
      Q^_i(l)  <- sum_l' mu(l, l') w Q~  `compatibility_transform`      lattice points
      Q_i(l)   <- exp(-psi_u(l) - Q^)    `local_update_and_normalize`   pixels: slice, add, softmax, then splat again

A kernel's message passing is splat, blur, slice (`lattice.py`). All three are linear, and the lattice has far fewer
points than the image has pixels: so weights, the scaling constant and the compatibility matrix are applied between blur
and slice. What then remains per pixel is one pass, in which Q never goes through memory (`loops.update`).

The image is cut into tiles, and the pixels of a tile are one band of the lattice: consecutive in its tables, and work
for one thread. An image of 500x375:

    +----+----+-- ... --+----+
    |  0 |  1 |         |  7 |    4 rows of 8 tiles,
    +----+----+-- ... --+----+    94 x 63 pixels at most;
    |  8 |  9 |         | 15 |    tile t is band t
    +----+----+-- ... --+----+
      ...
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from ..jit.threads import Workers
from . import loops
from .features import LEAST_PROBABILITY, Kernel
from .lattice import Floats, Lattice, LatticeFilter

TILE = (96, 64)
"""The largest height and width of a tile. A tile has fewer colors than as many pixels of long rows, so that a core's
cache holds its lattice points."""


class CRFTables:
    """The tables of one image that mean field needs, for any probabilities and any weights of its kernels.

    size     (height, width); kernels as in `refine`, at least one

    tiles            (rows, columns) of each, in the order of the lattice's bands
    bands            the lattice's tables, its weights times the kernels' normalization
    compatibilities  (C, C) of each kernel, or None
    Raises ConfigError for features that are not finite or too large.
    """

    def __init__(self, size: tuple[int, int], kernels: Sequence[Kernel], *, workers: Workers) -> None:
        self.size = size
        self.workers = workers
        # Tiles of nearly equal size
        edges = [
            np.linspace(0, length, -(-length // most) + 1).astype(int).tolist()
            for length, most in zip(size, TILE, strict=True)
        ]
        rows, columns = ([slice(*ends) for ends in pairwise(along)] for along in edges)
        self.tiles = list(product(rows, columns))
        areas = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in self.tiles]
        self.lattice = Lattice([self._in_tiles(kernel.features) for kernel in kernels], workers, band_lengths=areas)
        self.bands = self.lattice.tables(*_normalized_weights(self.lattice, kernels, workers))
        self.compatibilities = [kernel.compatibility for kernel in kernels]

    def _in_tiles(self, features: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return rows (N, d) in the order of the tiles, given those in the order of the image."""
        image = features.reshape(*self.size, features.shape[1])
        return np.concatenate([image[tile].reshape(-1, image.shape[2]) for tile in self.tiles])


def mean_field(
    probs: NDArray[np.floating],
    tables: CRFTables,
    *,
    weights: Sequence[float],
    iterations: int,
    compatibility: NDArray[np.floating] | None = None,
) -> Floats:
    """Return the marginals Q (C, H, W) float32 of the CRF with a classifier's probs (C, H, W) as its unaries.

    weights        one per kernel; iterations at least 1
    compatibility  (C, C) for the kernels without one of their own; None is Potts, [l != l']
    """
    state = _State(tables, len(probs))
    state.initialize(probs)
    for done in range(1, iterations + 1):
        state.message_passing(weights)
        state.compatibility_transform(compatibility)
        if done < iterations:
            state.local_update_and_normalize()
    state.last_update()  # the same, but Q is kept, not splatted
    return state.marginals()


class _State:
    """The steps of algorithm 1 and their arrays, which are as large as the image.

    unary   (N * L,) class vectors of the log-probabilities, -psi_u, pixels in the order of the tiles
    filter  Q, then the messages, on the lattice
    """

    def __init__(self, tables: CRFTables, num_classes: int) -> None:
        self.tables = tables
        self.workers = tables.workers
        self.num_classes = num_classes
        self.filter = LatticeFilter(tables.lattice, num_classes, workers=tables.workers, bands=tables.bands)
        self.unary: Floats = np.empty(tables.lattice.num_pixels * self.filter.width, np.float32)

    def initialize(self, probs: NDArray[np.floating]) -> None:
        """Set psi_u = -log P and Q = softmax(-psi_u), and splat Q."""
        blocks = self.filter.blocks

        def from_probs(tile: tuple[slice, slice], band: loops.Band, unary: Floats, sums: Floats) -> None:
            planes = np.maximum(probs[:, *tile], LEAST_PROBABILITY, order="C").astype(np.float32)
            planes = planes.reshape(self.num_classes, -1)
            np.log(planes, out=planes)
            loops.to_vectors(planes, self.num_classes, loops.NEG_INF, unary)
            loops.initialize(band, unary, sums, blocks)

        self.workers.run(from_probs, zip(self.tables.tiles, *self._per_band(), strict=True))

    def message_passing(self, weights: Sequence[float]) -> None:
        """Blur the splatted Q, times w_k: each kernel's messages at the lattice points, ready to be sliced."""
        kernels = self.tables.lattice.kernels
        self.filter.blur([kernel.alpha * float(weight) for kernel, weight in zip(kernels, weights, strict=True)])

    def compatibility_transform(self, compatibility: NDArray[np.floating] | None) -> None:
        """Replace the messages of each kernel by -mu times them; Potts costs nothing.

        For Potts, -[l != l'] and [l == l'] differ by 1 for all labels alike, which the softmax cancels: the
        messages stay as they are.
        """
        for kernel, own in zip(self.tables.lattice.kernels, self.tables.compatibilities, strict=True):
            matrix = compatibility if own is None else own
            if matrix is None:
                continue
            mu = np.asarray(matrix, np.float32)
            values = self.filter.values[:, kernel.points]  # (L / 8, m, 8)
            messages = values.transpose(1, 0, 2).reshape(-1, self.filter.width)
            messages[:, : self.num_classes] = messages[:, : self.num_classes] @ -mu.T
            values[:] = messages.reshape(-1, *values.shape[::2]).transpose(1, 0, 2)

    def local_update_and_normalize(self) -> None:
        """Set Q = softmax(-psi_u + sliced messages), and splat it."""
        values, blocks = self.filter.values.reshape(-1), self.filter.blocks
        self.workers.run(
            lambda band, unary, sums: loops.update(band, values, unary, sums, blocks),
            zip(*self._per_band(), strict=True),
        )

    def last_update(self) -> None:
        """Set Q as `local_update_and_normalize` does, and keep it in `unary`."""
        values, blocks = self.filter.values.reshape(-1), self.filter.blocks
        self.workers.run(
            lambda band, unary, _: loops.last_update(band, values, unary, blocks), zip(*self._per_band(), strict=True)
        )

    def marginals(self) -> Floats:
        """Return Q (C, H, W) after the last update."""
        planes = np.empty((self.num_classes, *self.tables.size), np.float32)

        def copy(tile: tuple[slice, slice], q: Floats) -> None:
            rows, columns = tile
            loops.to_planes(q, planes, top=rows.start, bottom=rows.stop, left=columns.start, right=columns.stop)

        self.workers.run(copy, zip(self.tables.tiles, self.filter.of_bands(self.unary), strict=True))
        return planes

    def _per_band(self) -> tuple[Sequence[loops.Band], list[Floats], list[Floats]]:
        """Return the tables, the unary scores and the sums of each band."""
        return self.tables.bands, self.filter.of_bands(self.unary), self.filter.sums_of_bands()


def _normalized_weights(lattice: Lattice, kernels: Sequence[Kernel], workers: Workers) -> tuple[Floats, Floats]:
    """Return the lattice's weights times the normalization: (N, V) to splat with and (N, V) to slice with.

    n_i is the filter of ones. `symmetric` divides by sqrt(n_i n_j): both sides by the square root of their own.
    """
    if all(kernel.normalization == "none" for kernel in kernels):
        return lattice.weights, lattice.weights
    norms = lattice.norms(workers)
    splats, slices = np.ones_like(norms), np.ones_like(norms)
    for kernel, norm, before, after in zip(kernels, norms, splats, slices, strict=True):
        if kernel.normalization == "symmetric":
            before[:] = after[:] = 1 / np.sqrt(norm + np.float32(1e-20))
        elif kernel.normalization != "none":
            (before if kernel.normalization == "before" else after)[:] = 1 / (norm + np.float32(1e-20))

    def times(factors: Floats) -> Floats:
        """Multiply the lattice's weights (N, V) by the factor (K, N) of each vertex's kernel."""
        result = np.empty_like(lattice.weights)

        def multiply(band: slice) -> None:
            for kernel, factor in zip(lattice.kernels, factors, strict=True):
                weights = lattice.weights[band, kernel.vertices]
                np.multiply(weights, factor[band, None], out=result[band, kernel.vertices])

        workers.run(multiply, [(band,) for band in lattice.bands])
        return result

    splat_weights = times(splats)
    shared = all(kernel.normalization == "symmetric" for kernel in kernels)  # saves the memory of a second table
    return splat_weights, splat_weights if shared else times(slices)
