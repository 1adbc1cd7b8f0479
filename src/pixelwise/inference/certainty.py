"""How sure a label is: the probability of its class, and the lead of that class over the second one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 64
"""Rows whose probabilities are sorted together, so that they stay in the cache."""


class Certainty(NamedTuple):
    """Both are (H, W) float32, between 0 and 1.

    confidence  the probability of the label
    margin      that probability minus the one of the second class; 1 where there is a single class
    """

    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]


def certainty_of(probs: NDArray[np.float32]) -> Certainty:
    """Return the certainty of the most probable classes of probabilities (K, H, W)."""
    if len(probs) == 1:
        return Certainty(probs[0].copy(), np.ones_like(probs[0]))
    confidence, margin = np.empty((2, *probs.shape[1:]), np.float32)
    for start in range(0, probs.shape[1], ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        second, first = np.partition(probs[:, rows], -2, axis=0)[-2:]
        confidence[rows], margin[rows] = first, first - second
    return Certainty(confidence, margin)
