"""Compare runs that each left out another group of images: leave-one-group-out, to choose by.

Each run was trained with `--data.hold_out GROUP` and scored on that group after its last step, so its `scores.json` has
all that is needed. Pooled over the runs, each image is labeled by a network that has not seen its group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, listed
from .metrics import Scores
from .multilabel_scores import MultilabelScores
from .result import Evaluation, read_scores


@dataclass(frozen=True)
class Fold:
    """One run: its folder, the split that it was scored on, and its scores."""

    run: str
    split: str
    num_images: int
    mean_iou: float
    mean_image_iou: float | None


@dataclass(frozen=True)
class Folds:
    """The folds, and their means.

    mean_iou        mean over the folds of the mean IoU over the fold's pixels: the number to choose by
    deviation       standard deviation of the folds' mean IoU (divided by their number - 1), None for one fold
    pooled          scores of one confusion matrix over all folds
    mean_image_iou  mean over all images of the image's mean IoU
    """

    folds: tuple[Fold, ...]
    mean_iou: float
    deviation: float | None
    pooled: Scores
    mean_image_iou: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "folds": [asdict(fold) for fold in self.folds],
            "mean_iou": self.mean_iou,
            "deviation": self.deviation,
            "mean_image_iou": self.mean_image_iou,
            "pooled": self.pooled.to_dict(),
        }


def compare_folds(runs: Sequence[str | Path]) -> Folds:
    """Return the scores of runs by their `scores.json`.

    Raises ConfigError for a run without scores, for runs of other classes or data, and for images that two runs share:
    then they are no folds.
    """
    if not runs:
        raise ConfigError("--folds", "names no run", "name the folders of the runs")
    results = [read_scores(Path(run) / "scores.json") for run in runs]
    first, matrices = results[0], []
    for run, other in zip(runs, results, strict=True):
        if isinstance(other.scores, MultilabelScores):
            what = "has several labels per pixel, and no confusion matrix to be pooled"
            raise ConfigError(run, what, "compare the runs by their reports")
        if other.scores.names != first.scores.names or other.protocol.dataset != first.protocol.dataset:
            what = f"was scored on {other.protocol.dataset} with {len(other.scores.names)} classes, {runs[0]} on "
            what += f"{first.protocol.dataset} with {len(first.scores.names)}"
            raise ConfigError(run, what, "compare runs on one dataset")
        matrices.append(np.array(other.scores.matrix, np.int64))
    shared = [key for key, n in Counter(image.key for r in results for image in r.images).items() if n > 1]
    if shared:
        what = f"{len(shared)} images are scored by more than one run: {listed(shared)}"
        raise ConfigError(
            "--folds", what, "hold out another group in each run, `pixelwise train --data.hold_out GROUP`"
        )
    ious = [result.scores.mean_iou for result in results]
    pooled = Scores.from_matrix(np.sum(matrices, 0), first.scores.names)
    everything = Evaluation(pooled, tuple(i for r in results for i in r.images), first.protocol)
    mean = math.fsum(ious) / len(ious)
    deviation = math.sqrt(sum((iou - mean) ** 2 for iou in ious) / (len(ious) - 1)) if len(ious) > 1 else None
    rows = tuple(
        Fold(str(run), r.protocol.split, r.protocol.num_images, r.scores.mean_iou, r.mean_image_iou)
        for run, r in zip(runs, results, strict=True)
    )
    return Folds(rows, mean, deviation, pooled, everything.mean_image_iou)
