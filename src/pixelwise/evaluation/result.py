"""The result of an evaluation: scores of the set and of its images, the protocol, and the file that holds them.

The protocol (what was measured and how) is part of the result, is printed with it, and is written to `scores.json`
beside the scores.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, Protocol, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, cut, listed, os_reason, shown
from ..files import read_json, write_text
from ..registry import type_in_words
from .bootstrap import Interval, Spread
from .calibration import Calibration
from .metrics import Scores, read_counts
from .multilabel_scores import MultilabelScores, SetScores, class_scores, mean_of_defined
from .trimap import TrimapPoint, trimap_from_dicts

_FIX_SCORES = "write it again with `pixelwise evaluate`"


class Writable(Protocol):
    """A result that has a JSON form."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        ...


def check_types(record: Any) -> None:
    """Raise TypeError or ValueError for a field of another type, or a number out of range, in a record from a file."""
    for name, hint in get_type_hints(type(record)).items():
        kinds = get_args(hint) or (hint,)
        # JSON writes a whole number without a point.
        kinds = (*kinds, int) if float in kinds else kinds
        value = getattr(record, name)
        if set(kinds) <= {str, int, float, NoneType} and type(value) not in kinds:
            raise TypeError(f"{name}: expected {type_in_words(hint)}, got {shown(value)}")
        if isinstance(value, int | float):
            highest = 1.0 if name.endswith(("iou", "accuracy")) else sys.float_info.max
            if not 0 <= value <= highest:
                raise ValueError(f"{name}: expected a number of 0 to {highest:g}, got {shown(value)}")


class ImageScore(NamedTuple):
    """The scores of one image alone; the scores of the set are not their mean.

    num_pixels  scored pixels; if 0, the other fields are None
    worst       the class with the lowest IoU in this image

    Several labels per pixel have no pixel accuracy, and an image without any label has no mean.
    """

    key: str
    num_pixels: int
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    worst: str | None = None
    worst_iou: float | None = None

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ImageScore:
        """Read the form of `_asdict`. Raises TypeError or ValueError for other fields, types or shares."""
        score = cls(**row)
        check_types(score)
        return score

    @classmethod
    def from_counts(cls, key: str, counts: NDArray[np.int64], names: Sequence[str]) -> ImageScore:
        """Return the scores of one image's `decision_counts` (K, 4); without any label, no mean is defined."""
        ious = {row.name: row.iou for row in class_scores(counts, names) if row.iou is not None}
        worst = min(ious, key=lambda name: ious[name], default=None)
        worst_iou = None if worst is None else ious[worst]
        return cls(key, int(counts[:, 3].max()), mean_of_defined([*ious.values()]), worst=worst, worst_iou=worst_iou)

    @classmethod
    def from_matrix(cls, key: str, matrix: NDArray[np.int64], names: Sequence[str]) -> ImageScore:
        """Return the scores of one image's confusion matrix (K, K)."""
        total = int(matrix.sum())
        if not total:
            return cls(key, 0)
        # IoU per class: n_ii / (t_i + p_i - n_ii), over the classes that occur in this image.
        correct = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - correct
        present = np.flatnonzero(union)
        ious = correct[present] / union[present]
        worst = int(ious.argmin())
        accuracy = int(correct.sum()) / total
        return cls(key, total, float(ious.mean()), accuracy, names[present[worst]], float(ious[worst]))


class Mean(NamedTuple):
    """A mean over the set: its title, its value 0..1, and its 95 % interval where one was computed."""

    title: str
    value: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class ScoringProtocol:
    """How the scores were measured.

    sizes            (height, width) of the images, each once, smallest first
    ignored_pixels   pixels left out, because their truth is the ignore id
    predicted_by     name of the model, or folder of the predictions
    precision        of the arithmetic, such as "float32"; empty for a folder
    boundary_ratio   boundary distance as a share of the image diagonal, or None when not measured
    """

    dataset: str
    split: str
    num_images: int
    sizes: tuple[tuple[int, int], ...]
    ignored_pixels: int
    predicted_by: str
    precision: str = ""
    boundary_ratio: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set.

    images       the scores of its images, in the order of the split
    counts       of several labels per pixel: `decision_counts` of each image, (images, K, 4); else None
    spread       scores by group and the intervals of both means; None if no pixel was scored or not measured
    trimap       mean IoU near the boundaries of the truth, empty when not measured
    calibration  of the probabilities, None when not measured
    """

    scores: SetScores
    images: tuple[ImageScore, ...]
    protocol: ScoringProtocol
    spread: Spread | None = None
    trimap: tuple[TrimapPoint, ...] = ()
    calibration: Calibration | None = None
    counts: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @property
    def mean_image_iou(self) -> float | None:
        """Mean over the images with a scored pixel of the image's own mean IoU, 0..1.

        The mean IoU of an image is over the classes that occur in its truth or in its prediction, so a class that is
        invented counts as 0. Each image counts the same, as what a user sees of it; the mean IoU over the set counts
        each pixel, and each class the same. Source: Csurka, Larlus, Perronnin, "What is a good evaluation measure for
        semantic segmentation?", BMVC 2013, section 3.2; Wang et al. (https://arxiv.org/abs/2310.19252), whose mIoU^I
        leaves out classes that the truth lacks.
        """
        ious = [image.mean_iou for image in self.images if image.mean_iou is not None]
        return math.fsum(ious) / len(ious) if ious else None

    @property
    def mean_image_dice(self) -> float | None:
        """Mean over the images of each image's own mean Dice, 0..1; only for several labels per pixel."""
        names = self.scores.names
        rows = [] if self.counts is None else [class_scores(counts, names) for counts in self.counts]
        return mean_of_defined([mean_of_defined([row.dice for row in classes]) for classes in rows])

    def means(self) -> dict[str, Mean]:
        """Return every mean of the set by its name in JSON."""
        rows: dict[str, Mean] = {}
        for name, value in self.scores.means().items():
            rows[name] = Mean(name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice"), value)
            if name == "mean_iou":
                of_set, of_images = (None, None) if self.spread is None else self.spread.intervals
                rows[name] = Mean("mean IoU over the set", value, of_set)
                rows["mean_image_iou"] = Mean("mean of per-image IoU", self.mean_image_iou, of_images)
            if name == "mean_dice" and isinstance(self.scores, MultilabelScores):
                rows[name] = Mean("mean Dice over the set", value)
                rows["mean_image_dice"] = Mean("mean of per-image Dice", self.mean_image_dice)
        return rows

    def protocol_lines(self) -> list[str]:
        """Return the protocol in sentences, to be printed with the scores."""
        protocol, scores = self.protocol, self.scores
        small, large = (f"{height}x{width}" for height, width in (protocol.sizes[0], protocol.sizes[-1]))
        sizes = small if small == large else f"{small} to {large}"
        ignored = protocol.ignored_pixels
        share = ignored / (ignored + scores.num_pixels)
        absent = listed(scores.absent, 20) or "none"
        lines = [
            f"{protocol.dataset} {protocol.split}: {protocol.num_images} images at native resolution "
            f"({sizes}, height x width), {len(scores.names)} classes",
            f"predictions: {protocol.predicted_by}" + (f", {protocol.precision}" if protocol.precision else ""),
            f"{self._counted()} over the set, {scores.num_pixels:,} pixels; {ignored:,} ignored ({share:.1%})",
            f"classes absent from truth and prediction, left out of the means: {absent}",
        ]
        if protocol.boundary_ratio is not None:
            lines.append(f"boundary IoU at a distance of {protocol.boundary_ratio:.1%} of the image diagonal")
        return lines

    def _counted(self) -> str:
        if not isinstance(self.scores, MultilabelScores):
            return "one confusion matrix"
        above = "" if not self.scores.thresholds else ", where its probability is above its threshold"
        return f"several labels per pixel{above}: one mask per class"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which `from_dict` reads back."""
        return {
            "protocol": asdict(self.protocol),
            "scores": self.scores.to_dict(),
            "mean_image_iou": self.mean_image_iou,
            "spread": None if self.spread is None else self.spread.to_dict(),
            "trimap": [asdict(point) for point in self.trimap],
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "images": [image._asdict() | self._class_columns(number) for number, image in enumerate(self.images)],
        }

    def _class_columns(self, number: int) -> dict[str, Any]:
        """Return what an image's row has of its classes, in their order; nothing for one label per pixel."""
        if self.counts is None:
            return {}
        rows = class_scores(self.counts[number], self.scores.names)
        dice, iou = [row.dice for row in rows], [row.iou for row in rows]
        return {"mean_dice": mean_of_defined(dice), "dice": dice, "iou": iou, "counts": self.counts[number].tolist()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "scores") -> Evaluation:
        """Read the form of `to_dict`. Raises ConfigError naming `source`."""
        try:
            sizes = tuple((int(height), int(width)) for height, width in data["protocol"]["sizes"])
            protocol = ScoringProtocol(**{**data["protocol"], "sizes": sizes})
            is_multilabel = data["scores"].get("kind") == "multilabel"
            counts = _read_image_counts(data) if is_multilabel else None
            fields = ImageScore._fields if is_multilabel else None
            rows = [{k: v for k, v in row.items() if not fields or k in fields} for row in data["images"]]
            images = tuple(map(ImageScore.from_dict, rows))
            spread = None if data.get("spread") is None else Spread.from_dict(data["spread"])
            trimap = trimap_from_dicts(data.get("trimap", ()))
            calibration = None if data.get("calibration") is None else Calibration.from_dict(data["calibration"])
            parts = (protocol, *trimap, *(spread.groups if spread else ()))
            for part in (*parts, *((calibration, *calibration.bins) if calibration else ())):
                check_types(part)
            for low, high in filter(None, spread.intervals if spread else ()):
                if not 0 <= low <= high <= 1:
                    raise ValueError(f"expected an interval in 0 to 1, got {low} to {high}")
            scores = data["scores"]
        except (LookupError, AttributeError, TypeError, ValueError, OverflowError) as error:
            what = f"is not a scores file: {type(error).__name__} {cut(error)}"
            raise ConfigError(source, what, _FIX_SCORES) from None
        kind = MultilabelScores if is_multilabel else Scores
        return cls(kind.from_dict(scores, source), images, protocol, spread, trimap, calibration, counts)


def _read_image_counts(data: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return `decision_counts` of every image (images, K, 4). Raises ValueError for counts that cannot be."""
    counts = read_counts([row["counts"] for row in data["images"]])
    shape = len(data["images"]), len(data["scores"]["classes"]), 4
    truth, predicted, correct = (counts[..., k] for k in range(3)) if counts.shape == shape else (np.zeros(1),) * 3
    if counts.shape != shape or (correct < 0).any() or (correct > np.minimum(truth, predicted)).any():
        raise ValueError(f"expected counts (truth, predicted, correct, scored) of each image, got {shown(counts)}")
    return counts


def write_scores(path: str | Path, evaluation: Writable) -> None:
    """Write `scores.json`, or the scores of folds, whole or not at all."""
    write_text(path, json.dumps(evaluation.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_scores(path: str | Path) -> Evaluation:
    """Read a file of `write_scores`. Raises ConfigError when it is missing or something else."""
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read as scores: {os_reason(error)}", _FIX_SCORES) from None
    return Evaluation.from_dict(data, path)
