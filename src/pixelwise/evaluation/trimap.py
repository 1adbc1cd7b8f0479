"""The trimap curve: mean IoU of the pixels near the boundaries of the truth, for bands of growing width.

A pixel lies in the band of width w if a pixel of another label is at most w pixels away (Chebyshev distance, as in
`boundary_iou`). Void counts as a label where boundaries are sought, because it outlines the objects of VOC, but void
pixels are not scored. The edge of the image is no boundary.

Source: Kohli, Ladicky, Torr, "Robust higher order potentials", IJCV 2009, section 7; mean IoU over band widths as in
Krähenbühl and Koltun 2011 (https://arxiv.org/abs/1210.5644), figure 5, and DeepLab (https://arxiv.org/abs/1606.00915),
figure 10, which count pixels around VOC's void. Widths and distance are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core import Taxonomy

WIDTHS = (1, 2, 4, 8, 16, 32)
"""Widths of the bands, in pixels."""


@dataclass(frozen=True)
class TrimapPoint:
    """The scores of one band.

    width       of the band, in pixels to either side of a boundary
    num_pixels  scored pixels of the set in it
    mean_iou    over the classes that occur in it, 0..1; None for an empty band
    """

    width: int
    num_pixels: int
    mean_iou: float | None


def trimap_counts(
    truth: NDArray[Any], prediction: NDArray[Any], taxonomy: Taxonomy, *, widths: Sequence[int] = WIDTHS
) -> NDArray[np.int64]:
    """Count, per band and class, the correct, the true and the predicted pixels: (len(widths), K, 3) int64.

    truth       class ids (H, W), 0..K-1 or the taxonomy's ignore id
    prediction  class ids (H, W), 0..K-1; `confusion_matrix` checks the ids of both
    widths      ascending, in pixels; a band contains those before it
    Add the counts of all images, then call `trimap_curve`.
    """
    num_classes = taxonomy.num_classes
    dtype = np.uint8 if truth.dtype == np.uint8 else np.uint16
    smallest: NDArray[Any] = truth.astype(dtype)
    largest = smallest
    # The number of bands that a pixel is not in: 0 for a pixel on a boundary, len(widths) far from all.
    ring = np.full(truth.shape, len(widths), np.int64)
    before = 0
    for number, width in enumerate(widths):
        # A square of 2 w + 1 pixels is the one before, grown; OpenCV's default border is neither smaller nor larger.
        grown = np.ones((2 * (width - before) + 1,) * 2, np.uint8)
        smallest, largest = np.asarray(cv2.erode(smallest, grown)), np.asarray(cv2.dilate(largest, grown))
        before = width
        ring[(smallest != largest) & (ring == len(widths))] = number
    scored = (truth != taxonomy.ignore_id) & (ring < len(widths))
    true, predicted = truth[scored].astype(np.int64), prediction[scored].astype(np.int64)
    codes, correct = ring[scored] * num_classes, true == predicted
    shape = (len(widths), num_classes)
    counts = [
        np.bincount((codes + ids)[chosen], minlength=shape[0] * shape[1]).reshape(shape)
        for ids, chosen in ((true, correct), (true, slice(None)), (predicted, slice(None)))
    ]
    return np.stack(counts, 2).cumsum(0)


def trimap_curve(counts: NDArray[np.int64], widths: Sequence[int] = WIDTHS) -> tuple[TrimapPoint, ...]:
    """Return the curve of added `trimap_counts`."""
    points = []
    for width, (correct, true, predicted) in zip(widths, counts.transpose(0, 2, 1), strict=True):
        union = true + predicted - correct
        present = union > 0
        iou = float((correct[present] / union[present]).mean()) if present.any() else None
        points.append(TrimapPoint(width, int(true.sum()), iou))
    return tuple(points)


def trimap_from_dicts(rows: Sequence[Mapping[str, Any]]) -> tuple[TrimapPoint, ...]:
    """Read the rows of a scores file. Raises TypeError, ValueError or KeyError for anything else."""
    return tuple(
        TrimapPoint(int(r["width"]), int(r["num_pixels"]), None if r["mean_iou"] is None else float(r["mean_iou"]))
        for r in rows
    )
