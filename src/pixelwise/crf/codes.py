"""The geometry of the permutohedral lattice for both engines (numba, torch): scales of features, codes of vertices.

Source: Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice" (Eurographics 2010),
sections 3.1 to 3.3; the constants are those of Kraehenbuehl's C++ code.

With d features, a vertex is d + 1 integers that add up to zero. It is stored as one 64-bit code, the sum of its first d
coordinates times fixed strides, so that a step along the lattice is the addition of a constant.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Floats = NDArray[np.float32]
Longs = NDArray[np.int64]

# Features are in standard deviations. Beyond this, single precision cannot tell the simplices apart.
_MAX_FEATURE = 2.0**17


def elevation_factors(num_features: int) -> Floats:
    """Return (d,): the factor of each feature before elevation that gives the blur unit variance."""
    d = num_features
    deviation = float(np.float32(np.sqrt(2 / 3) * (d + 1)))
    return np.array([1 / np.sqrt((i + 1) * (i + 2)) * deviation for i in range(d)], np.float32)


def alpha(num_features: int) -> float:
    """Return the factor of the filter's result. Source: the authors' code, 1 / (1 + 2^-d)."""
    return float(np.float32(1 / (1 + 2.0**-num_features)))


def code_strides(lowest: NDArray[Any], highest: NDArray[Any], copies: int = 1) -> Longs:
    """Return (d + 2,) int64: the factors of a vertex's d + 1 coordinates in its code, then one for the copy's number.

    lowest, highest (d,): the features' range; copies: how many lattices share one numbering (the images of a batch).
    The codes of all vertices around such points, and of their neighbors, differ. Where the range is so wide that 64
    bits cannot hold it, strides are odd random numbers: two of a million vertices then share a code with a probability
    of 1 in 30 million.
    Raises ConfigError for a range that is not finite or too wide.
    """
    d = len(lowest)
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        raise ConfigError("crf features", "contain NaN or infinity", "check the image and the standard deviations")
    farthest = float(max(np.abs(lowest).max(), np.abs(highest).max()))
    if farthest > _MAX_FEATURE:
        what = f"must be at most {_MAX_FEATURE:g} standard deviations, got {farthest:g}"
        raise ConfigError("crf features", what, "use a larger theta")
    low, high = np.sort(np.stack([lowest, highest]).astype(np.float64) * elevation_factors(d), 0)
    strides = [1]
    for j in range(1, d + 1):
        # Coordinate j is the sum of the scaled features from j on, less j times the one before; a vertex, or a
        # neighbor of one, lies at most 3.5 (d + 1) beyond its point.
        extent = (high[j:] - low[j:]).sum() + j * (high[j - 1] - low[j - 1])
        strides.append(strides[-1] * (math.ceil(extent) + 8 * (d + 1)))
    if strides[-1] * copies >= 2**62:
        strides = [number | 1 for number in np.random.default_rng(0).integers(2**62, size=d + 1).tolist()]
    return np.array([0, *strides], np.int64)
