"""Score a model, or a folder of predicted masks, on a split: every image, at native resolution.

Both ways end in the same counting, so they give the same numbers. The protocol (what was measured and how) is part of
the result, is printed with it, and is written to `scores.json` beside the scores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import Prediction, Taxonomy
from ..data.dataset import MaskEncoding, Split
from ..data.groups import Groups
from ..errors import ConfigError, DatasetError, ImageError, InputError, MaskError, cut, listed, os_reason, shown
from ..files import read_json, write_text
from ..images import read_mask, walk_files
from .bootstrap import Interval, Spread, measure_spread
from .boundary_iou import DISTANCE_RATIO, boundary_counts
from .calibration import Calibration, CalibrationCounter
from .metrics import Scores, confusion_matrix
from .trimap import WIDTHS, TrimapPoint, trimap_counts, trimap_curve, trimap_from_dicts

# Called with (images done, images in all) after each image.
OnProgress = Callable[[int, int], None]
_FIX_SCORES = "write it again with `pixelwise evaluate`"


class ImageScore(NamedTuple):
    """The scores of one image alone; the scores of the set are not their mean.

    num_pixels  scored pixels; if 0, the other fields are None
    worst       the class with the lowest IoU in this image
    """

    key: str
    num_pixels: int
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    worst: str | None = None
    worst_iou: float | None = None

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
    spread       scores by group and the intervals of both means; None if no pixel was scored or not measured
    trimap       mean IoU near the boundaries of the truth, empty when not measured
    calibration  of the probabilities, None when not measured
    """

    scores: Scores
    images: tuple[ImageScore, ...]
    protocol: ScoringProtocol
    spread: Spread | None = None
    trimap: tuple[TrimapPoint, ...] = ()
    calibration: Calibration | None = None

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

    def means(self) -> dict[str, Mean]:
        """Return every mean of the set by its name in JSON."""
        rows: dict[str, Mean] = {}
        for name, value in self.scores.means().items():
            rows[name] = Mean(name.replace("_", " ").replace("iou", "IoU").replace("dice", "Dice"), value)
            if name == "mean_iou":
                of_set, of_images = (None, None) if self.spread is None else self.spread.intervals
                rows[name] = Mean("mean IoU over the set", value, of_set)
                rows["mean_image_iou"] = Mean("mean IoU per image, mean", self.mean_image_iou, of_images)
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
            f"one confusion matrix over the set, {scores.num_pixels:,} pixels; {ignored:,} ignored ({share:.1%})",
            f"classes absent from truth and prediction, left out of the means: {absent}",
        ]
        if protocol.boundary_ratio is not None:
            lines.append(f"boundary IoU at a distance of {protocol.boundary_ratio:.1%} of the image diagonal")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, which `from_dict` reads back."""
        return {
            "protocol": asdict(self.protocol),
            "scores": self.scores.to_dict(),
            "mean_image_iou": self.mean_image_iou,
            "spread": None if self.spread is None else self.spread.to_dict(),
            "trimap": [asdict(point) for point in self.trimap],
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "images": [image._asdict() for image in self.images],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "scores") -> Evaluation:
        """Read the form of `to_dict`. Raises ConfigError naming `source`."""
        try:
            sizes = tuple((int(height), int(width)) for height, width in data["protocol"]["sizes"])
            protocol = ScoringProtocol(**{**data["protocol"], "sizes": sizes})
            images = tuple(ImageScore(**row) for row in data["images"])
            scores, spread, calibration = data["scores"], data.get("spread"), data.get("calibration")
            more: dict[str, Any] = {
                "spread": None if spread is None else Spread.from_dict(spread),
                "trimap": trimap_from_dicts(data.get("trimap", ())),
                "calibration": None if calibration is None else Calibration.from_dict(calibration),
            }
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"is not a scores file: {type(error).__name__} {cut(error)}"
            raise ConfigError(source, what, _FIX_SCORES) from None
        return cls(Scores.from_dict(scores, source), images, protocol, **more)


def write_scores(path: str | Path, evaluation: Evaluation) -> None:
    """Write `scores.json`, whole or not at all."""
    write_text(path, json.dumps(evaluation.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_scores(path: str | Path) -> Evaluation:
    """Read a file of `write_scores`. Raises ConfigError when it is missing or something else."""
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read as scores: {os_reason(error)}", _FIX_SCORES) from None
    return Evaluation.from_dict(data, path)


class ScoreAccumulator:
    """Running counts over the images of a split: `add` each image once, then `finish`.

    matrix       (K, K) int64, the confusion matrix so far
    boundary     (K, 2) int64, pixels in both boundary regions and in either, or None when not measured
    trimap       the counts of `trimap_counts`, or None when not measured
    images       the scores of each image
    calibration  the running calibration, or None when not measured
    """

    def __init__(self, taxonomy: Taxonomy, *, boundary: bool, calibration: CalibrationCounter | None = None) -> None:
        num_classes = taxonomy.num_classes
        self.taxonomy = taxonomy
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        self.boundary = np.zeros((num_classes, 2), np.int64) if boundary else None
        self.trimap = np.zeros((len(WIDTHS), num_classes, 3), np.int64) if boundary else None
        self.images: list[ImageScore] = []
        self.calibration = calibration
        # Per image and class, the pixels in the intersection and in the union: (K, 2) each.
        self._counts: list[NDArray[np.int64]] = []
        self._sizes: set[tuple[int, int]] = set()
        self._num_pixels = 0

    def add(
        self,
        key: str,
        truth: NDArray[Any],
        *,
        prediction: NDArray[Any],
        probs: NDArray[np.float32] | None = None,
        source: object,
    ) -> None:
        """Count one image: class ids (H, W) of truth and prediction; `source` is its name in error messages.

        probs  probabilities (K, H, W), needed for the calibration alone
        """
        counts = confusion_matrix(truth, prediction, self.taxonomy, source=source)
        if self.boundary is not None:
            self.boundary += boundary_counts(truth, prediction, self.taxonomy)
        if self.trimap is not None:
            self.trimap += trimap_counts(truth, prediction, self.taxonomy)
        if self.calibration is not None:
            assert probs is not None, "the calibration is measured on probabilities"
            self.calibration.add(probs, prediction, truth=truth, ignore_id=self.taxonomy.ignore_id)
        self.matrix += counts
        correct = counts.diagonal()
        self._counts.append(np.stack([correct, counts.sum(0) + counts.sum(1) - correct], 1))
        self.images.append(ImageScore.from_matrix(key, counts, self.taxonomy.names))
        height, width = truth.shape
        self._sizes.add((height, width))
        self._num_pixels += height * width

    def finish(
        self, dataset: str, split: Split, *, groups: Groups | None, predicted_by: str, precision: str = ""
    ) -> Evaluation:
        """Return the scores of all images, with the protocol. Raises MaskError when every pixel is ignored."""
        scores = Scores.from_matrix(self.matrix, self.taxonomy.names, boundary=self.boundary)
        protocol = ScoringProtocol(
            dataset=dataset,
            split=split.name,
            num_images=len(self.images),
            sizes=tuple(sorted(self._sizes)),
            ignored_pixels=self._num_pixels - scores.num_pixels,
            predicted_by=predicted_by,
            precision=precision,
            boundary_ratio=None if self.boundary is None else DISTANCE_RATIO,
        )
        counts = np.stack(self._counts)
        if groups is None:
            spread = measure_spread(counts, None, "no groups show in their names")
        else:
            trained = () if split.name.startswith("train") else groups.trained
            spread = measure_spread(counts, groups.of(split), groups.rule, trained=trained)
        return Evaluation(
            scores,
            tuple(self.images),
            protocol,
            spread=spread,
            trimap=() if self.trimap is None else trimap_curve(self.trimap),
            calibration=None if self.calibration is None else self.calibration.finish(),
        )


def evaluate_model(
    segmenter: Callable[[NDArray[np.uint8]], Prediction],
    split: Split,
    *,
    dataset: str = "dataset",
    model: str = "model",
    precision: str = "float32",
    boundary: bool = True,
    groups: Groups | None = None,
    calibration: CalibrationCounter | None = None,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Label every image of `split` with `segmenter` and score the masks at the size of each image.

    segmenter  (H, W, C) uint8 RGB -> Prediction, whose mask is (H, W) class ids of the split's classes
    dataset, model, precision   names for the protocol
    boundary     also measure boundary IoU and the trimap curve
    groups       of the dataset's images, by which the spread of the scores is measured; by default by image
    calibration  counts the probabilities, which `segmenter` must then return (at temperature 1)
    progress     called with (images done, images in all) after each image
    Raises DatasetError for an empty split, images without a mask, or a model of other classes; InputError naming the
    images and masks that cannot be read.
    """
    _check_truth(split)
    total = ScoreAccumulator(split.taxonomy, boundary=boundary, calibration=calibration)
    unreadable: list[InputError] = []
    for index in range(len(split)):
        try:
            sample = split[index]
        except (ImageError, MaskError) as error:
            unreadable.append(error)
        if unreadable:
            # There will be no score, so the others are only read: one message names all.
            continue
        assert sample.mask is not None, "splits without truth are refused"
        try:
            prediction = segmenter(sample.image)
        except InputError as error:
            # The segmenter gets an array, so its error does not name the image.
            raise InputError(sample.key, error.what, error.fix) from error
        check_same_classes(prediction.taxonomy, split.taxonomy, model_name=model, data_name=f"{dataset} {split.name}")
        total.add(sample.key, sample.mask, prediction=prediction.mask, probs=prediction.probs, source=sample.key)
        if progress:
            progress(index + 1, len(split))
    if len(unreadable) > 1:
        names = listed(error.subject for error in unreadable)
        what = f"{len(unreadable)} images or masks cannot be read: {names}; the first: {unreadable[0].what}"
        raise InputError(f"split {split.name}", what, unreadable[0].fix or "fix or remove them")
    if unreadable:
        raise unreadable[0]
    return total.finish(dataset, split, groups=groups, predicted_by=model, precision=precision)


def evaluate_folder(
    folder: str | Path,
    split: Split,
    *,
    dataset: str = "dataset",
    boundary: bool = True,
    groups: Groups | None = None,
    progress: OnProgress | None = None,
) -> Evaluation:
    """Score the masks `<key>.png` in `folder`, whose file values are those of the split's taxonomy.

    Raises DatasetError listing predictions that are missing or belong to no image, so that an incomplete folder is
    never scored; MaskError naming the file for another size or an unknown value.
    """
    _check_truth(split)
    total = ScoreAccumulator(split.taxonomy, boundary=boundary)
    files = _prediction_files(Path(folder), split)
    for done, (item, path) in enumerate(zip(split.items, files, strict=True), 1):
        raw = read_mask(path)
        # Where truth is drawn in colors, predictions may be colors or numbers: `predict` writes numbers.
        encoding = split.encoding if raw.ndim == 3 else MaskEncoding()
        prediction = encoding.encode(raw, split.taxonomy, path)
        truth = split.read_labels(item)
        assert truth is not None, "splits without truth are refused"
        total.add(item.key, truth, prediction=prediction, source=path)
        if progress:
            progress(done, len(split))
    return total.finish(dataset, split, groups=groups, predicted_by=str(folder))


def check_same_classes(model: Taxonomy, data: Taxonomy, *, model_name: str, data_name: str) -> None:
    """Raise DatasetError naming the first class that differs in number, name or order."""
    if model.names == data.names:
        return
    fix = "evaluate with the data the model was trained for, or give both the same classes in the same order"
    if model.num_classes != data.num_classes:
        only = sorted(set(model.names) ^ set(data.names))
        what = f"has {data.num_classes} classes, {model_name} has {model.num_classes}"
        raise DatasetError(data_name, what + (f"; not in both: {listed(only)}" if only else ""), fix)
    k = next(k for k, (ours, theirs) in enumerate(zip(model.names, data.names, strict=True)) if ours != theirs)
    raise DatasetError(
        data_name, f"class {k} is {shown(data.names[k])}, but {shown(model.names[k])} in {model_name}", fix
    )


def _check_truth(split: Split) -> None:
    if not len(split):
        raise DatasetError(split.name, "0 images to evaluate", "check the path and the split's list")
    without = [item.key for item in split.items if item.mask is None]
    if without:
        what = f"{len(without)} of {len(split)} images have no mask: {_first(without)}"
        raise DatasetError(split.name, what, "evaluate a split with truth; `pixelwise predict` needs none")


def _prediction_files(folder: Path, split: Split) -> list[Path]:
    """Return the prediction file of each item, in the order of the split."""
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", "give the folder of the predicted masks, one <key>.png per image")
    expected = [f"{item.key}.png" for item in split.items]
    found = {path.relative_to(folder).as_posix() for path in walk_files(folder)[0] if path.suffix == ".png"}
    missing = [name for name in expected if name not in found]
    if missing:
        what = f"{len(missing)} of {len(expected)} predictions are missing: {_first(missing)}"
        raise DatasetError(folder, what, f"predict every image of {split.name} into it")
    # `pixelwise predict --color` writes KEY_color.png beside the mask KEY.png.
    colored = {f"{item.key}_color.png" for item in split.items}
    extra = sorted(found - set(expected) - colored)
    if extra:
        what = f"{len(extra)} masks belong to no image of {split.name}: {_first(extra)}"
        raise DatasetError(folder, what, "remove them, or choose the split they belong to")
    return [folder / name for name in expected]


def _first(names: Sequence[str]) -> str:
    return listed(names[:5]) + (", ..." if len(names) > 5 else "")
