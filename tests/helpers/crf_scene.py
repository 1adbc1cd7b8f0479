"""An image and probabilities for tests of the CRF."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def scene(seed: int, size: tuple[int, int], num_classes: int = 4) -> tuple[Array, Array]:
    """A smooth image with an edge, and random probabilities in float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([x * 3, y * 4, 90 * (x + y > sum(size) / 2)], 2) + rng.integers(0, 20, (*size, 3))
    probs = rng.random((num_classes, *size)) ** 3 + 1e-3
    return image.astype(np.uint8), (probs / probs.sum(0)).astype(np.float32)
