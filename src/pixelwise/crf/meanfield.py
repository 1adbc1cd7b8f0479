"""Mean-field inference of the fully connected CRF, on the permutohedral lattice.

Source: Kraehenbuehl, Koltun 2011, algorithm 1. A step is Q_i(l) = softmax_l(-psi_u(l) - sum_k w_k sum_l' mu(l, l') (F_k Q_l')_i),
where F_k filters with kernel k and divides by its normalisation. As in the authors' code, a pixel's message to itself stays in.

Filtering is linear, and the lattice has far fewer points than the image has pixels: weights, the scaling constant and the
compatibility matrix are applied there, between blurring and reading back.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from . import sweeps
from .compiled import Workers
from .features import LEAST_PROBABILITY, Kernel
from .lattice import Field, Floats, Lattice

# Height and width of a tile at most. Fewer colours meet in it than in as many pixels of long rows, so that a core's cache
# holds its lattice points.
_TILE = (96, 64)


class Inference:
    """Mean field over one image: its lattice and tables, for any scores and any weights of its kernels.

    size     (height, width); kernels as in `refine`, at least one

    tiles                 (rows, columns) of each, in the order of the lattice's bands
    weigh_in, weigh_out   (N, V): the lattice's weights with the normalisation in them, for spreading and for reading back
    compatibilities       (C, C) of each kernel, or None
    Raises ConfigError for features that are not finite or too large.
    """

    def __init__(self, size: tuple[int, int], kernels: Sequence[Kernel], workers: Workers) -> None:
        self.tiles = _tiles(size)
        self.size = size
        self.workers = workers
        areas = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in self.tiles]
        self.lattice = Lattice([self._in_tiles(kernel.features) for kernel in kernels], workers, areas)
        self.weigh_in, self.weigh_out = _weigh(self.lattice, kernels, workers)
        self.compatibilities = [kernel.compatibility for kernel in kernels]

    def run(
        self,
        probs: NDArray[np.floating],
        weights: Sequence[float],
        iterations: int,
        compatibility: NDArray[np.floating] | None = None,
    ) -> Floats:
        """probs (C, H, W) of a classifier -> (C, H, W) float32, the marginals after `iterations` steps, at least one.

        weights        one for each kernel
        compatibility  (C, C) for the kernels without one of their own; None is Potts, [l != l']
        """
        steps = _Steps(self, len(probs))
        steps.take_scores(probs)
        steps.update(with_messages=False, last=False)
        for done in range(1, iterations + 1):
            steps.send_messages(weights, compatibility)
            steps.update(with_messages=True, last=done == iterations)
        return steps.give_marginals()

    def _in_tiles(self, features: NDArray[np.floating]) -> NDArray[np.floating]:
        """Rows (N, d) in the order of the image, brought into that of the tiles."""
        image = features.reshape(*self.size, features.shape[1])
        return np.concatenate([image[tile].reshape(-1, image.shape[2]) for tile in self.tiles])


class _Steps:
    """The arrays of one inference; all that is as large as the image, but for the result."""

    def __init__(self, inference: Inference, num_classes: int) -> None:
        self.inference = inference
        self.workers = inference.workers
        self.num_classes = num_classes
        self.field = Field(inference.lattice, num_classes, inference.workers)
        self.rows: Floats = np.empty(inference.lattice.num_points * self.field.width, np.float32)

    def take_scores(self, probs: NDArray[np.floating]) -> None:
        """Keep the log of the probabilities (C, H, W), a row for each pixel."""

        def take(tile: tuple[slice, slice], band: slice) -> None:
            planes = (
                np.maximum(probs[:, *tile], LEAST_PROBABILITY, order="C")
                .astype(np.float32)
                .reshape(self.num_classes, -1)
            )
            np.log(planes, out=planes)
            sweeps.to_rows(planes, self.num_classes, sweeps.NOTHING, self.field.of_band(self.rows, band))

        self.workers.run(take, zip(self.inference.tiles, self.inference.lattice.bands, strict=True))

    def update(self, with_messages: bool, last: bool) -> None:
        """Softmax of scores and messages in every band; Q goes to the lattice, or in the last step to the rows."""
        tables, values = self.inference.lattice, self.field.values.reshape(-1)
        tasks = [
            (
                self.field.of_band(self.rows, band),
                tables.ids[band],
                tables.points[rows],
                self.inference.weigh_in[band],
                self.inference.weigh_out[band],
                values,
                self.field.sums[rows].reshape(-1),
                self.field.blocks,
                with_messages,
                last,
            )
            for band, rows in zip(tables.bands, tables.rows, strict=True)
        ]
        self.workers.run(sweeps.update, tasks)

    def send_messages(self, weights: Sequence[float], compatibility: NDArray[np.floating] | None) -> None:
        """Blur what the pixels spread, and turn it into what they read: -w_k mu F_k Q at each lattice point."""
        tables = self.inference.lattice
        self.field.blur([part.alpha * float(weight) for part, weight in zip(tables.parts, weights, strict=True)])
        for part, own in zip(tables.parts, self.inference.compatibilities, strict=True):
            matrix = compatibility if own is None else own
            if matrix is not None:
                self._pay(self.field.values[:, part.points], np.asarray(matrix, np.float32))

    def _pay(self, values: Floats, matrix: Floats) -> None:
        """Replace a kernel's blurred Q (L / 8, m, 8) by -mu Q; Potts needs none of it, as -[l != l'] and [l == l'] differ by 1."""
        classes = values.transpose(1, 0, 2).reshape(-1, self.field.width)
        classes[:, : self.num_classes] = classes[:, : self.num_classes] @ -matrix.T
        values[:] = classes.reshape(-1, *values.shape[::2]).transpose(1, 0, 2)

    def give_marginals(self) -> Floats:
        """Q, (C, H, W), after the last step."""
        planes = np.empty((self.num_classes, *self.inference.size), np.float32)

        def give(tile: tuple[slice, slice], band: slice) -> None:
            rows, columns = tile
            ends = rows.start, rows.stop, columns.start, columns.stop
            sweeps.to_planes(self.field.of_band(self.rows, band), *ends, planes)

        self.workers.run(give, zip(self.inference.tiles, self.inference.lattice.bands, strict=True))
        return planes


def _tiles(size: tuple[int, int]) -> list[tuple[slice, slice]]:
    """The image cut into tiles of nearly equal size."""
    edges = [
        np.linspace(0, length, -(-length // most) + 1).astype(int).tolist()
        for length, most in zip(size, _TILE, strict=True)
    ]
    rows, columns = ([slice(*ends) for ends in pairwise(along)] for along in edges)
    return list(product(rows, columns))


def _weigh(lattice: Lattice, kernels: Sequence[Kernel], workers: Workers) -> tuple[Floats, Floats]:
    """The lattice's weights with the normalisation in them: (N, V) for spreading and (N, V) for reading back."""
    if all(kernel.normalization == "none" for kernel in kernels):
        return lattice.weights, lattice.weights
    norms = lattice.norms(workers)
    if all(kernel.normalization == "symmetric" for kernel in kernels):
        return (both := _times(lattice, 1 / np.sqrt(norms + np.float32(1e-20)), workers)), both
    ins, outs = np.ones_like(norms), np.ones_like(norms)
    for kernel, norm, inward, outward in zip(kernels, norms, ins, outs, strict=True):
        if kernel.normalization == "symmetric":
            inward[:] = outward[:] = 1 / np.sqrt(norm + np.float32(1e-20))
        elif kernel.normalization != "none":
            (inward if kernel.normalization == "before" else outward)[:] = 1 / (norm + np.float32(1e-20))
    return _times(lattice, ins, workers), _times(lattice, outs, workers)


def _times(lattice: Lattice, factors: Floats, workers: Workers) -> Floats:
    """The lattice's weights (N, V) times the factor (K, N) of each vertex's kernel."""
    result = np.empty_like(lattice.weights)

    def multiply(band: slice) -> None:
        for part, factor in zip(lattice.parts, factors, strict=True):
            weights = lattice.weights[band, part.vertices]
            np.multiply(weights, factor[band, None], out=result[band, part.vertices])

    workers.run(multiply, [(band,) for band in lattice.bands])
    return result
