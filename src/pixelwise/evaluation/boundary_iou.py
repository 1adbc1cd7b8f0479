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

import cv2
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
    scored = truth != taxonomy.ignore_id
    distance = boundary_distance(truth.shape, ratio)
    true_region = _boundary_region(truth, scored, distance)
    predicted_region = _boundary_region(prediction, scored, distance)
    num_classes = taxonomy.num_classes
    true = np.bincount(truth[true_region], minlength=num_classes)
    predicted = np.bincount(prediction[predicted_region], minlength=num_classes)
    both = np.bincount(truth[true_region & predicted_region & (truth == prediction)], minlength=num_classes)
    return np.stack([both, true + predicted - both], 1)


def _boundary_region(ids: NDArray[Any], scored: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Mark the scored pixels whose surrounding square of 2 d + 1 pixels holds a second class or leaves the image.

    The smallest and the largest id of a square are equal exactly if it holds one class, so two filters serve all
    classes at once.
    """
    kernel = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    dtype = np.uint8 if ids.dtype == np.uint8 else np.uint16
    # Ignored pixels must be neither the smallest nor the largest; OpenCV's default border is neither as well.
    smallest = cv2.erode(np.where(scored, ids, np.iinfo(dtype).max).astype(dtype), kernel)
    largest = cv2.dilate(np.where(scored, ids, 0).astype(dtype), kernel)
    region = smallest != largest
    region[:distance] = region[-distance:] = True
    region[:, :distance] = region[:, -distance:] = True
    inside: NDArray[np.bool_] = region & scored
    return inside
