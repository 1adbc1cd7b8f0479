"""Several labels per pixel: the threshold of each class, found on a split in one pass over its images.

For each class, the decisions of all pixels are counted by their truth and by the number of candidate thresholds that
the probability exceeds. From these counts follow the exact Dice and IoU at every candidate, so that nothing is
predicted again. Over a set, both have their maximum at the same threshold: Dice = 2 IoU / (1 + IoU).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import Taxonomy
from ..inference.class_masks import threshold_logits
from ..inference.label_map import Block
from ..weights.checkpoint import DEFAULT_THRESHOLD
from .multilabel_scores import MultilabelScores

CANDIDATES = tuple(step / 20 for step in range(1, 20))
"""The thresholds that are tried: 0.05, 0.1, ... 0.95. Finer ones fit the images that they are found on."""


class ThresholdCounter:
    """Counts of decisions over the images of a split: `add` each image once.

    counts  (K, 2, 20) int64: by class, by truth (0 without, 1 with the label), and by the number of candidates that the
            probability is above
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.counts = np.zeros((taxonomy.num_classes, 2, len(CANDIDATES) + 1), np.int64)
        self._limits = threshold_logits(CANDIDATES)

    def add(self, blocks: Iterable[Block], truth: NDArray[np.uint8]) -> None:
        """Count one image: its logits at native size, block by block, and its masks (K, H, W); ignored ones are not."""
        _, _, num_bins = self.counts.shape
        for rows, columns, logits in blocks:
            labels = torch.from_numpy(truth[:, rows, columns].copy()).to(logits.device)
            limits = self._limits.to(logits.device)
            is_label, valid = labels == 1, labels != self.taxonomy.ignore_id
            # Most decisions are below the lowest candidate: they are counted at once, the others one by one.
            is_low = (logits <= limits[0]) & valid
            low_labels = (is_low & is_label).sum((1, 2))
            low = torch.stack([is_low.sum((1, 2)) - low_labels, low_labels], 1)
            classes, *place = (valid & ~is_low).nonzero(as_tuple=True)
            above = torch.bucketize(logits[classes, *place], limits)
            codes = (2 * classes + is_label[classes, *place]) * num_bins + above
            found = torch.bincount(codes, minlength=self.counts.size).reshape(self.counts.shape)
            found[..., 0] += low
            self.counts += found.cpu().numpy()


def best_thresholds(counts: NDArray[np.int64]) -> tuple[float, ...]:
    """Return the candidate with the highest Dice of each class, from the counts of a `ThresholdCounter`.

    Of equal ones the nearest to 0.5, then the lower one; 0.5 for a class that the truth lacks.
    """
    chosen = []
    for k in range(len(counts)):
        scored = [count_at(counts[k], threshold) for threshold in CANDIDATES]
        dice = [2 * correct / (truth + predicted) if truth else 0.0 for truth, predicted, correct, _ in scored]
        ranked = sorted(zip(dice, CANDIDATES, strict=True), key=lambda pair: (-pair[0], abs(pair[1] - 0.5), pair[1]))
        chosen.append(ranked[0][1] if ranked[0][0] else DEFAULT_THRESHOLD)
    return tuple(chosen)


def scores_at_best(counts: NDArray[np.int64], names: Sequence[str]) -> MultilabelScores:
    """Return the scores of a `ThresholdCounter`'s counts at the best thresholds."""
    thresholds = best_thresholds(counts)
    rows = np.array([count_at(counts[k], threshold) for k, threshold in enumerate(thresholds)], np.int64)
    return MultilabelScores.from_counts(rows, names, thresholds)


def count_at(counts: NDArray[np.int64], threshold: float) -> tuple[int, int, int, int]:
    """Return (truth, predicted, correct, scored) of one class's counts (2, 20) at a candidate threshold."""
    above = counts[:, CANDIDATES.index(threshold) + 1 :].sum(1)
    return int(counts[1].sum()), int(above.sum()), int(above[1]), int(counts.sum())
