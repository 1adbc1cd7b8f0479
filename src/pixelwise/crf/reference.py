"""Algorithm 1 of the paper in plain numpy, over all pairs of pixels: the fully connected CRF by definition.

Read this file first. Its matrices have N^2 entries for N pixels, 35 billion for an image of 500x375, so it serves as
the oracle of the tests and as the definition of what `crf/meanfield.py` computes in time linear in N.

Source: Kraehenbuehl, Koltun 2011, equations 2 and 3 (kernels), algorithm 1 (its sum leaves out j = i, a pixel's message
to itself; the authors' code and all engines here keep it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import LEAST_PROBABILITY, Kernel

Doubles = NDArray[np.float64]


def gaussian(features: NDArray[Any]) -> Doubles:
    """Return k(f_i, f_j) = exp(-|f_i - f_j|^2 / 2) of features (N, d), as a matrix (N, N)."""
    f = features.astype(np.float64)
    distances: Doubles = ((f[:, None] - f[None, :]) ** 2).sum(2)
    return np.exp(-distances / 2)


def normalized(k: Doubles, normalization: str) -> Doubles:
    """Return the kernel matrix (N, N) divided as the name says, by n_i = sum_j k(f_i, f_j), the filter of ones."""
    n = k.sum(1)
    divisors = {"symmetric": np.sqrt(np.outer(n, n)), "after": n[:, None], "before": n[None, :], "none": np.ones(1)}
    normalized: Doubles = k / divisors[normalization]
    return normalized


def mean_field(
    probs: NDArray[Any],
    kernels: Sequence[Kernel],
    *,
    iterations: int,
    compatibility: NDArray[Any] | None = None,
    gaussian: Callable[[NDArray[Any]], Doubles] = gaussian,
) -> Doubles:
    """Return the marginals Q (C, H, W) of the CRF with a classifier's probs (C, H, W) as its unaries.

    compatibility  (C, C) for the kernels without one of their own; None is Potts, mu(l, l') = [l != l']
    gaussian       features (N, d) -> (N, N): another filter in place of the exact one, such as the lattice's
    """
    num_classes = len(probs)
    psi_u = -np.log(np.maximum(probs.reshape(num_classes, -1).astype(np.float64), LEAST_PROBABILITY))  # (C, N)
    filters = [normalized(gaussian(kernel.features), kernel.normalization) for kernel in kernels]
    potts = 1 - np.eye(num_classes) if compatibility is None else compatibility
    mus = [potts if kernel.compatibility is None else kernel.compatibility for kernel in kernels]

    q = np.exp(-psi_u) / np.exp(-psi_u).sum(0)  # initialize
    for _ in range(iterations):
        messages = [q @ k.T for k in filters]  # message passing: sum_j k(f_i, f_j) Q_j(l)
        penalty = sum(  # compatibility transform: sum_l' mu(l, l') sum_m w^(m) message
            (kernel.weight * mu @ message for kernel, mu, message in zip(kernels, mus, messages, strict=True)),
            np.zeros_like(q),
        )
        energy = psi_u + penalty
        q = np.exp(energy.min(0) - energy)  # local update; the least energy only keeps exp in range, Z cancels it
        q = q / q.sum(0)  # normalize
    marginals: Doubles = q.reshape(probs.shape)
    return marginals
