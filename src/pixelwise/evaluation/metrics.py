"""Scores of a segmentation, from one integer confusion matrix over the whole set.

The rules, written down because projects differ in them:

- Pixels whose truth is the ignore id are left out. Any other unknown id, in truth or prediction, is an error.
- A class that occurs neither in truth nor in prediction is left out of every mean, and listed in `Scores.absent`.
- A class that is predicted but never true has IoU and Dice 0, and these count in the means; its accuracy is undefined
  and left out of the mean accuracy.
- A class that is true but never predicted has IoU, Dice and accuracy 0, which count; its precision is undefined.
- A number that is undefined is None, never 0, 1 or NaN.

Counts are int64 and ratios are taken once, at the end. So a set may be split over batches, machines and ranks in any way:
add the matrices (`numpy.sum`, or an all-reduce of int64) and the scores are equal to the last bit.

Source: the four metrics of FCN (Long, Shelhamer, Darrell, CVPR 2015), section 5, "Metrics".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, MaskError

# Pixels counted at once: bounds the memory of `numpy.bincount`, which widens its input to eight bytes.
_CHUNK = 1 << 20


def confusion_matrix(
    truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_id: int, source: object = "mask"
) -> NDArray[np.int64]:
    """Count pixels by true class (rows) and predicted class (columns).

    truth       integers of any shape, 0..K-1 or `ignore_id`
    prediction  integers of the same shape, 0..K-1 everywhere, also where truth is ignored
    source      what an error message calls this image
    returns     (K, K) int64

    Raises MaskError when the shapes differ or an id is unknown (names the id and its pixel count).
    """
    if 0 <= ignore_id < num_classes:
        raise ConfigError(
            source, f"ignore id {ignore_id} is also the id of a class", f"choose one outside 0..{num_classes - 1}"
        )
    if truth.shape != prediction.shape:
        what = f"truth is {_size(truth)}, prediction {_size(prediction)} (height x width)"
        raise MaskError(source, what, "predict at the image's own size; masks are never resized silently")
    for word, ids in (("truth", truth), ("prediction", prediction)):
        if not np.issubdtype(ids.dtype, np.integer):
            raise MaskError(source, f"{word} holds {ids.dtype} values", "hand over integer class ids")
    count = _count_bytes if truth.dtype == prediction.dtype == np.uint8 else _count_integers
    matrix = np.zeros((num_classes, num_classes), np.int64)
    flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, flat_truth.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        matrix += count(flat_truth[part], flat_prediction[part], num_classes, ignore_id, source)
    return matrix


def _count_bytes(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], num_classes: int, ignore_id: int, source: object
) -> NDArray[np.int64]:
    """Count all 256 x 256 pairs: the unknown ids are read off the table afterwards, at no cost a pixel."""
    codes = truth.astype(np.uint16)
    codes <<= 8
    codes |= prediction
    counts = np.bincount(codes, minlength=65536).reshape(256, 256)
    _refuse_unknown("truth", counts.sum(1), num_classes, ignore_id, source)
    _refuse_unknown("prediction", counts.sum(0), num_classes, None, source)
    return counts[:num_classes, :num_classes]


def _count_integers(
    truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_id: int, source: object
) -> NDArray[np.int64]:
    """Count wider integers: ids are checked first, then coded as true * K + predicted."""
    scored = truth != ignore_id
    for word, ids in (("truth", truth[scored]), ("prediction", prediction)):
        if ids.size and (ids.min() < 0 or ids.max() >= num_classes):
            unknown = ids[(ids < 0) | (ids >= num_classes)]
            values, counts = np.unique(unknown, return_counts=True)
            raise _unknown(word, values, counts, num_classes, source)
    codes = truth[scored].astype(np.int64) * num_classes + prediction[scored].astype(np.int64)
    return np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)


def _refuse_unknown(
    word: str, counts: NDArray[np.int64], num_classes: int, ignore_id: int | None, source: object
) -> None:
    values = np.array([v for v in np.flatnonzero(counts) if v >= num_classes and v != ignore_id], np.int64)
    if values.size:
        raise _unknown(word, values, counts[values], num_classes, source)


def _unknown(word: str, values: NDArray[Any], counts: NDArray[Any], num_classes: int, source: object) -> MaskError:
    listed = ", ".join(f"{v} ({n} px)" for v, n in zip(values[:5], counts[:5], strict=True))
    what = f"{word} holds id {listed}, allowed are 0..{num_classes - 1}"
    if word == "truth":
        return MaskError(
            source, what + " and the ignore id", "add the value to a class, or to `ignore`, in classes.yaml"
        )
    return MaskError(source, what, "a prediction names a class at every pixel, also where truth is ignored")


def _size(mask: NDArray[Any]) -> str:
    return "x".join(str(n) for n in mask.shape)


def _ratio(part: int, whole: int) -> float | None:
    """part / whole as the nearest float (whole Python numbers, so no count is too large), None for a whole of 0."""
    return part / whole if whole else None


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is defined; `fsum` makes it independent of the order of the classes."""
    defined = [v for v in values if v is not None]
    return math.fsum(defined) / len(defined) if defined else None


@dataclass(frozen=True)
class ClassScore:
    """The counts of one class, in pixels, and what follows from them.

    truth      pixels of the class in the truth
    predicted  pixels of the class in the prediction, where truth is not ignored
    correct    pixels of both
    boundary   pixels of the class's boundary regions: (in both, in either), or None when not measured
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
        """Share of the true pixels that were found, 0..1; also called recall."""
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
    """All scores of one set; every number is derived from the integer counts when asked for.

    names     K class names
    matrix    K rows of K pixel counts, rows = truth
    boundary  K pairs (pixels in both boundary regions, pixels in either), or empty when not measured
    """

    names: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    boundary: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_matrix(cls, matrix: NDArray[Any], names: Sequence[str], boundary: NDArray[Any] | None = None) -> Scores:
        """Scores of a confusion matrix (K, K) of integers, rows = truth, and boundary counts (K, 2) if measured.

        Raises MaskError when the matrix counts no pixel at all.
        """
        num_classes = len(names)
        if (
            matrix.shape != (num_classes, num_classes)
            or not np.issubdtype(matrix.dtype, np.integer)
            or (matrix < 0).any()
        ):
            got = f"{_size(matrix)} {matrix.dtype}"
            raise ConfigError(
                "confusion matrix", f"got {got}, allowed are {num_classes}x{num_classes} counts", "one row a class"
            )
        if not matrix.any():
            raise MaskError(
                "scores", "no pixel to score: all are ignored, or there was no image", "check the split and `ignore`"
            )
        if boundary is not None and boundary.shape != (num_classes, 2):
            raise ConfigError(
                "boundary counts", f"got {_size(boundary)}, allowed are {num_classes}x2", "one row a class"
            )
        rows = tuple(tuple(row) for row in matrix.tolist())
        pairs = () if boundary is None else tuple((both, either) for both, either in boundary.tolist())
        return cls(tuple(names), rows, pairs)

    @cached_property
    def classes(self) -> tuple[ClassScore, ...]:
        """One row a class, in the order of the ids."""
        columns = [sum(column) for column in zip(*self.matrix, strict=True)]
        pairs = self.boundary or (None,) * len(self.names)
        return tuple(
            ClassScore(name, sum(row), columns[k], row[k], pairs[k])
            for k, (name, row) in enumerate(zip(self.names, self.matrix, strict=True))
        )

    @property
    def num_pixels(self) -> int:
        """Scored pixels: all whose truth is not ignored."""
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
    def mean_boundary_iou(self) -> float | None:
        """Mean over the classes that have a boundary in truth or prediction; None when not measured."""
        return _mean(c.boundary_iou for c in self.classes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what makes these scores implausible; empty for ordinary ones."""
        return tuple(_implausible(self))

    def means(self) -> dict[str, float]:
        """The paper's four metrics, mean Dice, and mean boundary IoU where measured, 0..1."""
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
        """The paper's four metrics in one line, in percent."""
        return (
            f"pixel accuracy {self.pixel_accuracy:.1%}, mean accuracy {self.mean_accuracy:.1%}, "
            f"mean IoU {self.mean_iou:.1%}, frequency weighted IoU {self.frequency_weighted_iou:.1%}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON form: the means, a row a class, and the counts that `from_dict` reads back."""
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
        """Read `to_dict`'s form: only names and counts are taken, the rest follows. Raises ConfigError naming `source`."""
        try:
            names = [str(row["name"]) for row in data["classes"]]
            matrix = np.array(data["confusion_matrix"], np.int64)
            boundary = np.array(data["boundary_counts"], np.int64) if data["boundary_counts"] else None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"is no scores file: {type(error).__name__} {error}"
            raise ConfigError(source, what, "write it anew with `pixelwise evaluate`") from None
        return cls.from_matrix(matrix, names, boundary)


def _implausible(scores: Scores) -> Iterable[str]:
    """What an experienced reader would ask about, one sentence each."""
    true = [c for c in scores.classes if c.truth]
    predicted = [c for c in scores.classes if c.predicted]
    if len(true) == 1:
        yield f"the truth holds one class only ({true[0].name}): these scores say little"
    elif len(predicted) == 1:
        yield f"every pixel is predicted as {predicted[0].name}: the model sees one class only"
    else:
        never = [c.name for c in true if not c.predicted]
        if never:
            yield f"never predicted, though in the truth: {_listed(never)}"
    invented = [c.name for c in predicted if not c.truth]
    if invented:
        yield f"predicted, though not in the truth (IoU 0): {_listed(invented)}"
    if scores.pixel_accuracy >= 0.99 and scores.mean_iou < 0.7:
        yield (
            f"pixel accuracy is {scores.pixel_accuracy:.1%} but mean IoU {scores.mean_iou:.1%}: "
            "a frequent class hides the rare ones; judge by the per-class table"
        )
    if scores.pixel_accuracy == 1 and len(true) > 1:
        yield "every pixel is right: check that the predictions are not the truth itself"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
