"""Images, probabilities and kernels for tests of the CRF, and what they are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelwise.crf import Kernel, Parameters, appearance_features, position_features
from pixelwise.crf.lattice import Lattice

Array = NDArray[Any]

RECORDED_SIZE = (6, 8)
"""The grid of the recorded numbers: 8 wide, 6 high."""


def scene(seed: int, size: tuple[int, int], num_classes: int = 4) -> tuple[Array, Array]:
    """Return a smooth image with an edge, and random probabilities in float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([x * 3, y * 4, 90 * (x + y > sum(size) / 2)], 2) + rng.integers(0, 20, (*size, 3))
    probs = rng.random((num_classes, *size)) ** 3 + 1e-3
    return image.astype(np.uint8), (probs / probs.sum(0)).astype(np.float32)


def recorded_scene() -> tuple[Array, Array]:
    """Return the image and the probabilities of the recorded numbers."""
    y, x = np.mgrid[: RECORDED_SIZE[0], : RECORDED_SIZE[1]]
    image = np.stack([(31 * x + 17 * y + 53 * c) % 256 for c in range(3)], 2).astype(np.uint8)
    probs = np.stack([1.0 + (x + 2 * y + 3 * k) % 5 for k in range(3)])
    return image, probs / probs.sum(0)


def at_recorded_places(q: Array) -> Array:
    """Return the marginals where numbers were recorded: (x, y) = (0, 0), (3, 2), (7, 5)."""
    return np.stack([q[:, row, column] for row, column in ((0, 0), (2, 3), (5, 7))])


def two_kernels(image: Array, parameters: Parameters) -> list[Kernel]:
    """Return the paper's two kernels, written out."""
    height, width, _ = image.shape
    smoothness = position_features((height, width), parameters.theta_gamma)
    appearance = appearance_features(image, parameters.theta_alpha, parameters.theta_beta)
    normalization = parameters.normalization
    return [
        Kernel(smoothness, parameters.w2, normalization=normalization),
        Kernel(appearance, parameters.w1, normalization=normalization),
    ]


def lattice_matrix(features: Array) -> Array:
    """Return the lattice's filter as a matrix (N, N); for the reference in place of the exact Gaussian."""
    return Lattice([features]).filter(np.eye(len(features))).T.astype(np.float64)
