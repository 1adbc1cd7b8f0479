"""Scores of a segmentation, from one integer confusion matrix over the whole set.

n_ij is the number of pixels of class i that are predicted as class j, t_i = sum_j n_ij the number of pixels of class i:
    pixel accuracy             sum_i n_ii / sum_i t_i
    mean accuracy              mean_i n_ii / t_i
    mean IoU                   mean_i n_ii / (t_i + sum_j n_ji - n_ii)
    frequency weighted IoU     sum_i t_i IoU_i / sum_k t_k
Source: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, section 5,
"Metrics". Dice (F1) and precision are added. Masks are compared at the size of the image, never resized.

The paper leaves open what happens to missing classes, and projects differ. The rules here:
- Pixels whose truth is the ignore id are left out. Any other unknown id, in truth or prediction, is an error.
- A class that occurs neither in truth nor in prediction is left out of every mean, and listed in `Scores.absent`.
- A class that is predicted but never true has IoU and Dice 0, and these count in the means; its accuracy is undefined
  and left out of the mean accuracy.
- A class that is true but never predicted has IoU, Dice and accuracy 0, which count; its precision is undefined.
- An undefined number is None, never 0, 1 or NaN.

Counts are int64 and ratios are taken once, at the end. So a set may be split over batches, machines and ranks in any
way: add the matrices (`numpy.sum`, or an all-reduce of int64), and the scores are equal to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..colors import is_background
from ..core import Taxonomy
from ..errors import ConfigError, MaskError, cut, shown

# Pixels counted at once: fewer than a uint32 can count, and those of wider ids are copied to eight bytes each.
_CHUNK = 1 << 24


def confusion_matrix(
    truth: NDArray[Any], prediction: NDArray[Any], taxonomy: Taxonomy, *, source: object = "mask"
) -> NDArray[np.int64]:
    """Count pixels by true class (rows) and predicted class (columns): (K, K) int64.

    truth       integer class ids of any shape, 0..K-1 or the taxonomy's ignore id
    prediction  integer class ids of the same shape, 0..K-1 everywhere, also where truth is ignored
    source      the image's name in error messages
    Raises MaskError when the shapes differ or an id is unknown, naming the id and its pixel count.
    """
    if truth.shape != prediction.shape:
        what = f"truth is {_size(truth)}, prediction {_size(prediction)} (height x width)"
        raise MaskError(source, what, "predict at the image's own size; masks are never resized silently")
    for word, ids in (("truth", truth), ("prediction", prediction)):
        if not np.issubdtype(ids.dtype, np.integer):
            raise MaskError(source, f"expected integer class ids in {word}, got {ids.dtype}", "convert them first")
    # The table of pairs of bytes is the fast way; it needs 256 ids at most.
    is_bytes = truth.dtype == prediction.dtype == taxonomy.dtype == np.uint8
    count = _count_bytes if is_bytes else _count_integers
    matrix = np.zeros((taxonomy.num_classes, taxonomy.num_classes), np.int64)
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat_truth.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        matrix += count(flat_truth[part], flat_prediction[part], taxonomy, source)
    return matrix


def _count_bytes(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], taxonomy: Taxonomy, source: object
) -> NDArray[np.int64]:
    """Count all 256 x 256 pairs of bytes; unknown ids are found in the small table, at no cost per pixel."""
    from .loops import count_pairs

    tables = np.zeros((4, 65536), np.uint32)
    count_pairs(truth, prediction, tables)
    counts: NDArray[np.int64] = tables.sum(0, dtype=np.int64).reshape(256, 256)
    num_classes = taxonomy.num_classes
    for word, totals, ignored in (
        ("truth", counts.sum(1), taxonomy.ignore_id),
        ("prediction", counts.sum(0), None),
    ):
        values = np.array([v for v in np.flatnonzero(totals) if v >= num_classes and v != ignored], np.int64)
        if values.size:
            raise _unknown(word, values, totals[values], num_classes, source)
    return counts[:num_classes, :num_classes]


def _count_integers(
    truth: NDArray[Any], prediction: NDArray[Any], taxonomy: Taxonomy, source: object
) -> NDArray[np.int64]:
    """Count wider integers: ids are checked first, then coded as true * K + predicted."""
    num_classes = taxonomy.num_classes
    scored = truth != taxonomy.ignore_id
    for word, ids in (("truth", truth[scored]), ("prediction", prediction)):
        if ids.size and (ids.min() < 0 or ids.max() >= num_classes):
            values, counts = np.unique(ids[(ids < 0) | (ids >= num_classes)], return_counts=True)
            raise _unknown(word, values, counts, num_classes, source)
    codes = truth[scored].astype(np.int64) * num_classes + prediction[scored].astype(np.int64)
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def _unknown(word: str, values: NDArray[Any], counts: NDArray[Any], num_classes: int, source: object) -> MaskError:
    listed = ", ".join(f"{v} ({n} px)" for v, n in zip(values[:5], counts[:5], strict=True))
    if word == "truth":
        what = f"expected ids 0..{num_classes - 1} or the ignore id in the truth, got {listed}"
        return MaskError(source, what, "add the value to a class, or to `ignore`, in classes.yaml")
    what = f"expected ids 0..{num_classes - 1} in the prediction, got {listed}"
    return MaskError(source, what, "a prediction names a class at every pixel, also where truth is ignored")


def _size(mask: NDArray[Any]) -> str:
    return "x".join(str(n) for n in mask.shape)


def _ratio(part: int, whole: int) -> float | None:
    """Return part / whole as the nearest float (exact for integers of any size), None for a whole of 0."""
    return part / whole if whole else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the defined values; `fsum` makes it independent of the order of the classes."""
    defined = [v for v in values if v is not None]
    return math.fsum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class ClassScore:
    """The pixel counts of one class, and the ratios derived from them.

    truth      pixels of the class in the truth
    predicted  pixels of the class in the prediction, where truth is not ignored
    correct    pixels of both
    boundary   pixels of the class's boundary regions (in both, in either), or None when not measured
    """

    name: str
    truth: int
    predicted: int
    correct: int
    boundary: tuple[int, int] | None = None

    @property
    def iou(self) -> float | None:
        """Intersection over union, 0..1."""
        return _ratio(self.correct, self.truth + self.predicted - self.correct)

    @property
    def dice(self) -> float | None:
        """2 * intersection / (truth + predicted), 0..1; also called F1."""
        return _ratio(2 * self.correct, self.truth + self.predicted)

    @property
    def accuracy(self) -> float | None:
        """Share of the true pixels that are predicted, 0..1; also called recall."""
        return _ratio(self.correct, self.truth)

    @property
    def precision(self) -> float | None:
        """Share of the predicted pixels that are right, 0..1."""
        return _ratio(self.correct, self.predicted)

    @property
    def boundary_iou(self) -> float | None:
        """Intersection over union of the boundary regions, 0..1."""
        return None if self.boundary is None else _ratio(*self.boundary)


@dataclass(frozen=True)
class Scores:
    """All scores of one set, derived from its integer counts.

    names     K class names
    matrix    K rows of K pixel counts, rows = truth
    boundary  K pairs (pixels in both boundary regions, pixels in either), or empty when not measured
    """

    names: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    boundary: tuple[tuple[int, int], ...] = ()

    @property
    def thresholds(self) -> tuple[float, ...]:
        """None: the class with the highest logit is the label."""
        return ()

    @classmethod
    def from_matrix(cls, matrix: NDArray[Any], names: Sequence[str], *, boundary: NDArray[Any] | None = None) -> Scores:
        """Return the scores of a confusion matrix (K, K) of integers, rows = truth, and of boundary counts (K, 2).

        Raises MaskError when the matrix counts no pixel at all.
        """
        num_classes = len(names)
        is_square = matrix.shape == (num_classes, num_classes)
        if not is_square or not np.issubdtype(matrix.dtype, np.integer) or (matrix < 0).any():
            what = f"expected {num_classes}x{num_classes} counts, got {_size(matrix)} {matrix.dtype}"
            raise ConfigError("confusion matrix", what, "give one row per class")
        if not matrix.any():
            what = "nothing to score: every pixel is ignored or the split is empty"
            raise MaskError("scores", what, "check the split and `ignore`")
        if boundary is not None and (
            boundary.shape != (num_classes, 2)
            or not (boundary[:, 0] >= 0).all()
            or (boundary[:, 0] > boundary[:, 1]).any()
        ):
            what = f"expected {num_classes}x2 counts, the first at most the second, got {_size(boundary)}"
            raise ConfigError("boundary counts", what, "give one row per class")
        rows = tuple(tuple(row) for row in matrix.tolist())
        pairs = () if boundary is None else tuple((both, either) for both, either in boundary.tolist())
        return cls(tuple(names), rows, pairs)

    @cached_property
    def classes(self) -> tuple[ClassScore, ...]:
        """One row per class, in the order of the ids."""
        columns = [sum(column) for column in zip(*self.matrix, strict=True)]
        pairs = self.boundary or (None,) * len(self.names)
        return tuple(
            ClassScore(name, sum(row), columns[k], row[k], pairs[k])
            for k, (name, row) in enumerate(zip(self.names, self.matrix, strict=True))
        )

    @property
    def num_pixels(self) -> int:
        """Number of scored pixels: those whose truth is not the ignore id."""
        return sum(c.truth for c in self.classes)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes that occur neither in truth nor in prediction: left out of the means."""
        return tuple(c.name for c in self.classes if not c.truth and not c.predicted)

    @property
    def pixel_accuracy(self) -> float:
        """sum_i n_ii / sum_i t_i."""
        return sum(c.correct for c in self.classes) / self.num_pixels

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes that occur in truth of n_ii / t_i."""
        return _mean(c.accuracy for c in self.classes) or 0.0

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that are not absent of n_ii / (t_i + sum_j n_ji - n_ii)."""
        return _mean(c.iou for c in self.classes) or 0.0

    @property
    def frequency_weighted_iou(self) -> float:
        """sum_i t_i IoU_i / sum_k t_k."""
        return math.fsum(c.truth * (c.iou or 0.0) for c in self.classes) / self.num_pixels

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that are not absent of 2 n_ii / (t_i + sum_j n_ji)."""
        return _mean(c.dice for c in self.classes) or 0.0

    @property
    def foreground_dice(self) -> float | None:
        """Mean Dice of the classes that are no background by their names; None where none is background."""
        foreground = [c for c in self.classes if not is_background(c.name)]
        return _mean(c.dice for c in foreground) if len(foreground) < len(self.classes) else None

    @property
    def mean_boundary_iou(self) -> float | None:
        """Mean over the classes that have a boundary in truth or prediction; None when not measured."""
        return _mean(c.boundary_iou for c in self.classes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about implausible scores, such as a class that is never predicted; empty if there are none."""
        found = []
        true = [c for c in self.classes if c.truth]
        predicted = [c for c in self.classes if c.predicted]
        never = [c.name for c in true if not c.predicted]
        invented = [c.name for c in predicted if not c.truth]
        # With a single class in truth or prediction all others are missing, so only the first case is reported.
        if len(true) == 1:
            found.append(f"the truth holds only one class ({true[0].name}): these scores say little")
        elif len(predicted) == 1:
            found.append(f"every pixel is predicted as {predicted[0].name}: the model has collapsed to one class")
        elif never:
            found.append(f"never predicted, though in the truth: {_listed(never)}")
        if invented:
            found.append(f"predicted, though not in the truth (IoU 0): {_listed(invented)}")
        if self.pixel_accuracy >= 0.99 and self.mean_iou < 0.7:
            found.append(
                f"pixel accuracy is {self.pixel_accuracy:.1%} but mean IoU {self.mean_iou:.1%}: "
                "a frequent class hides the rare ones; judge by the per-class table"
            )
        if self.pixel_accuracy == 1 and len(true) > 1:
            found.append("every pixel is right: check that the predictions are not the truth itself")
        return tuple(found)

    def means(self) -> dict[str, float]:
        """Return the paper's four metrics, mean Dice, and mean boundary IoU where measured, 0..1."""
        means = {
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "mean_iou": self.mean_iou,
            "frequency_weighted_iou": self.frequency_weighted_iou,
            "mean_dice": self.mean_dice,
        }
        boundary = self.mean_boundary_iou
        return means if boundary is None else {**means, "mean_boundary_iou": boundary}

    def summary(self) -> str:
        """Return the paper's four metrics in one line, in percent."""
        return (
            f"pixel accuracy {self.pixel_accuracy:.1%}, mean accuracy {self.mean_accuracy:.1%}, "
            f"mean IoU {self.mean_iou:.1%}, frequency weighted IoU {self.frequency_weighted_iou:.1%}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: the means, one row per class, and the counts that `from_dict` reads back."""
        fields = ("name", "iou", "dice", "accuracy", "precision", "boundary_iou", "truth", "predicted")
        return {
            **self.means(),
            "num_pixels": self.num_pixels,
            "absent": list(self.absent),
            "warnings": list(self.warnings),
            "classes": [{field: getattr(c, field) for field in fields} for c in self.classes],
            "confusion_matrix": [list(row) for row in self.matrix],
            "boundary_counts": [list(pair) for pair in self.boundary],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "scores") -> Scores:
        """Read names and counts from the form of `to_dict`. Raises ConfigError naming `source`."""
        try:
            names = [str(row["name"]) for row in data["classes"]]
            matrix = read_counts(data["confusion_matrix"])
            boundary = read_counts(data["boundary_counts"]) if data["boundary_counts"] else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"is not a scores file: {type(error).__name__} {cut(error)}"
            raise ConfigError(source, what, "write it again with `pixelwise evaluate`") from None
        return cls.from_matrix(matrix, names, boundary=boundary)


def read_counts(rows: Any) -> NDArray[np.int64]:
    """Return rows of whole numbers from a file as an array. Raises ValueError for others, which NumPy would round."""
    counts = np.array(rows)
    if counts.dtype != np.int64:
        raise ValueError(f"expected rows of whole numbers, got {shown(rows)}")
    return counts


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
