"""Boundary IoU: the agreement of the outlines in truth and prediction, for any number of classes.

The boundary region of a class consists of its pixels at most d pixels from the class's outline; the score is
intersection over union of the two regions. Plain IoU hides a ragged outline of a large object, boundary IoU does not.

Source: Cheng, Girshick, Dollar, Berg, Kirillov, "Boundary IoU", CVPR 2021, sections 4 and 5: d is 2 % of the image
diagonal, distances are those of repeated 3x3 erosion (Chebyshev), and the edge of the image is an outline too.
The rule for ignored pixels is ours: they are not counted, and they neither create nor remove an outline.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Taxonomy

DISTANCE_RATIO = 0.02


def boundary_distance(size: tuple[int, int], ratio: float = DISTANCE_RATIO) -> int:
    """Return d in pixels, at least 1, for an image of `size` (height, width); `ratio` is the share of its diagonal."""
    return max(1, round(ratio * math.hypot(*size)))


def boundary_counts(
    truth: NDArray[Any], prediction: NDArray[Any], taxonomy: Taxonomy, *, ratio: float = DISTANCE_RATIO
) -> NDArray[np.int64]:
    """Count, per class, the pixels in both boundary regions and the pixels in either: (K, 2) int64.

    truth       class ids (H, W), 0..K-1 or the taxonomy's ignore id
    prediction  class ids (H, W), 0..K-1; `confusion_matrix` checks the ids of both
    Add the counts of all images, then divide once (`Scores.from_matrix`).
    """
    from .loops import count_boundaries

    # The table has a row for every number of the type, so that no id is counted outside of it.
    dtype = np.uint8 if truth.dtype == prediction.dtype == np.uint8 else np.uint16
    counts = np.zeros((np.iinfo(dtype).max + 1, 3), np.int64)
    ids = np.ascontiguousarray(truth, dtype), np.ascontiguousarray(prediction, dtype)
    count_boundaries(ids[0], ids[1], taxonomy.ignore_id, boundary_distance(truth.shape, ratio), counts)
    both, true, predicted = counts[: taxonomy.num_classes].T
    return np.stack([both, true + predicted - both], 1)
