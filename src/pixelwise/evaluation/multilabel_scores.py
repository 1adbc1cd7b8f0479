"""Scores where a pixel may have several labels: a binary decision per pixel and class, so one row of counts per class.

With t the pixels that have a label in the truth, p those that have it in the prediction and c those of both:
    IoU         c / (t + p - c)
    Dice        2 c / (t + p)
    accuracy    c / t, also called recall
    precision   c / p
Ignored decisions are left out. The rules for missing classes are those of `metrics`: a class that occurs neither in
truth nor in prediction has no score, is left out of every mean and listed in `absent`; one that is predicted but never
true has IoU and Dice 0. Counts are int64, ratios are taken once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Taxonomy, size_text
from ..errors import ConfigError, MaskError, cut, listed, shown
from .metrics import ClassScore, Scores, read_counts


def decision_counts(
    truth: NDArray[Any], prediction: NDArray[Any], taxonomy: Taxonomy, *, source: object = "mask"
) -> NDArray[np.int64]:
    """Count the decisions of one image: (K, 4) int64, pixels of truth, of prediction, of both, and all scored ones.

    truth       (K, H, W) of 1, 0 and the ignore id
    prediction  (K, H, W) bool, or of 1 and 0
    Raises MaskError when the shapes differ.
    """
    if truth.shape != prediction.shape or len(truth) != taxonomy.num_classes:
        what = f"truth is {size_text(truth.shape)}, prediction {size_text(prediction.shape)} (classes x height x width)"
        raise MaskError(source, what, "predict at the image's own size; masks are never resized silently")
    counts = np.zeros((taxonomy.num_classes, 4), np.int64)
    # Class by class, so that no further array of the size of all masks is made.
    for k in range(taxonomy.num_classes):
        valid, label = truth[k] != taxonomy.ignore_id, truth[k] == 1
        predicted = (prediction[k] != 0) & valid
        counts[k] = [np.count_nonzero(part) for part in (label, predicted, label & predicted, valid)]
    return counts


@dataclass(frozen=True)
class MultilabelScores:
    """All scores of one set, derived from its integer counts.

    names       K class names
    counts      K rows (truth, predicted, correct, scored) of pixels
    thresholds  K probabilities above which a label was given; empty if unknown, as of finished masks
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, int, int, int], ...]
    thresholds: tuple[float, ...] = ()

    @classmethod
    def from_counts(
        cls, counts: NDArray[np.int64], names: Sequence[str], thresholds: Sequence[float] = ()
    ) -> MultilabelScores:
        """Return the scores of counts (K, 4). Raises MaskError when nothing was scored."""
        is_sound = counts.shape == (len(names), 4) and counts.dtype == np.int64 and (counts >= 0).all()
        truth, predicted, correct, scored = counts.T if is_sound else np.ones((4, 1), np.int64)
        if (
            not is_sound
            or (correct > np.minimum(truth, predicted)).any()
            or (truth + predicted - correct > scored).any()
        ):
            what = f"expected {len(names)} rows (truth, predicted, correct, scored), got {shown(counts.tolist())}"
            raise ConfigError("counts", what, "give pixels that can be of one set")
        if not truth.any() and not predicted.any():
            what = "nothing to score: no class occurs in truth or prediction"
            raise MaskError("scores", what, "check the split and its masks")
        rows = tuple((int(t), int(p), int(c), int(s)) for t, p, c, s in counts)
        return cls(tuple(names), rows, tuple(map(float, thresholds)))

    @cached_property
    def classes(self) -> tuple[ClassScore, ...]:
        """One row per class, in the order of the ids."""
        return tuple(class_scores(self.counts, self.names))

    @property
    def boundary(self) -> tuple[tuple[int, int], ...]:
        """Boundary counts, which are not measured here."""
        return ()

    @property
    def num_pixels(self) -> int:
        """Number of scored pixels: of the class with the fewest ignored ones."""
        return max(row[3] for row in self.counts)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that occur neither in truth nor in prediction: left out of the means."""
        return tuple(c.name for c in self.classes if not c.truth and not c.predicted)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that are not absent."""
        return mean_of_defined([c.iou for c in self.classes]) or 0.0

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that are not absent."""
        return mean_of_defined([c.dice for c in self.classes]) or 0.0

    @property
    def foreground_dice(self) -> None:
        """None: where a pixel may have no label, none stands for the background."""
        return

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about implausible scores, such as a class that is never predicted; empty if there are none."""
        never = [c.name for c in self.classes if c.truth and not c.predicted]
        invented = [c.name for c in self.classes if c.predicted and not c.truth]
        found = [f"never predicted, though in the truth: {listed(never, 8)}"] if never else []
        if invented:
            found.append(f"predicted, though not in the truth (IoU 0): {listed(invented, 8)}")
        if all(c.correct == c.truth == c.predicted for c in self.classes):
            found.append("every pixel is right: check that the predictions are not the truth itself")
        return tuple(found)

    def means(self) -> dict[str, float]:
        """Return mean Dice, IoU, accuracy and precision over the classes, 0..1."""
        return {
            "mean_dice": self.mean_dice,
            "mean_iou": self.mean_iou,
            "mean_accuracy": mean_of_defined([c.accuracy for c in self.classes]) or 0.0,
            "mean_precision": mean_of_defined([c.precision for c in self.classes]) or 0.0,
        }

    def summary(self) -> str:
        """Return mean Dice and mean IoU in one line, in percent."""
        thresholds = ""
        if self.thresholds:
            low, high = min(self.thresholds), max(self.thresholds)
            thresholds = f", thresholds {low:g}" + (f" to {high:g}" if high > low else "")
        return f"mean Dice {self.mean_dice:.1%}, mean IoU {self.mean_iou:.1%}{thresholds}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the means, one row per class, and the counts that `from_dict` reads back."""
        fields = ("name", "dice", "iou", "accuracy", "precision", "truth", "predicted")
        return {
            "kind": "multilabel",
            **self.means(),
            "num_pixels": self.num_pixels,
            "absent": list(self.absent),
            "warnings": list(self.warnings),
            "classes": [{field: getattr(c, field) for field in fields} for c in self.classes],
            "counts": [list(row) for row in self.counts],
            "thresholds": list(self.thresholds),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "scores") -> MultilabelScores:
        """Read names and counts from the form of `to_dict`. Raises ConfigError naming `source`."""
        try:
            names = [str(row["name"]) for row in data["classes"]]
            counts = read_counts(data["counts"])
            thresholds = [float(number) for number in data["thresholds"]]
            if len(thresholds) not in (0, len(names)) or not all(0 < number < 1 for number in thresholds):
                raise ValueError(f"expected a threshold between 0 and 1 per class, got {shown(data['thresholds'])}")
            return cls.from_counts(counts, names, thresholds)
        except (KeyError, TypeError, ValueError, OverflowError, ConfigError, MaskError) as error:
            what = f"is not a scores file: {type(error).__name__} {cut(error)}"
            raise ConfigError(source, what, "write it again with `pixelwise evaluate`") from None


def class_scores(counts: NDArray[np.int64] | Sequence[Sequence[int]], names: Sequence[str]) -> list[ClassScore]:
    """Return one row per class, from rows (truth, predicted, correct, scored)."""
    rows = np.asarray(counts).tolist()
    return [ClassScore(name, row[0], row[1], row[2]) for name, row in zip(names, rows, strict=True)]


SetScores = Scores | MultilabelScores
"""The scores of a set: of one label per pixel, or of several."""


def mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Return the mean of the defined values, None if there are none."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
