"""Score a model, or a folder of predicted masks, on a split: every image, at native resolution, none left out in silence.

Both ways end in the same counting, so they give the same numbers. What was measured and how (the protocol) is part of
the result, is printed with it, and is written to `scores.json` beside the scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core import Prediction, Taxonomy
from ..data.dataset import MaskEncoding, Split
from ..errors import ConfigError, DatasetError, InputError
from ..files import write_text
from ..images import read_mask
from .boundary_iou import DISTANCE_RATIO, boundary_counts
from .metrics import Scores, confusion_matrix

Progress = Callable[[int, int], None]
# Key, truth (H, W), predicted mask (H, W), and what an error about the prediction is to name.
Pair = tuple[str, NDArray[Any] | None, NDArray[Any], object]


class ImageScore(NamedTuple):
    """The scores of one image alone, for finding the best and the worst; the set's scores are no mean of these.

    num_pixels  scored pixels; where it is 0 the other fields are None
    worst       the class of the lowest IoU in this image
    """

    key: str
    num_pixels: int
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    worst: str | None = None
    worst_iou: float | None = None


@dataclass(frozen=True)
class ScoringProtocol:
    """How the scores were measured.

    sizes            the images' (height, width), each once, smallest first
    ignored_pixels   pixels left out, because their truth is the ignore id
    predicted_by     the model's name, or the folder of the predictions
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
    """Scores of a set, the scores of its images in the split's order, and how they were measured."""

    scores: Scores
    images: tuple[ImageScore, ...]
    protocol: ScoringProtocol

    def protocol_lines(self) -> list[str]:
        """The protocol in sentences, to be printed with the scores."""
        told, scores = self.protocol, self.scores
        small, large = (f"{height}x{width}" for height, width in (told.sizes[0], told.sizes[-1]))
        share = told.ignored_pixels / (told.ignored_pixels + scores.num_pixels)
        absent = ", ".join(scores.absent) or "none"
        lines = [
            f"{told.dataset} {told.split}: {told.num_images} images at native resolution "
            f"({small if small == large else f'{small} to {large}'}, height x width), {len(scores.names)} classes",
            f"predictions: {told.predicted_by}" + (f", {told.precision}" if told.precision else ""),
            f"one confusion matrix over the set, {scores.num_pixels:,} pixels; {told.ignored_pixels:,} ignored ({share:.1%})",
            f"classes absent from truth and prediction, left out of the means: {absent}",
        ]
        if told.boundary_ratio is not None:
            lines.append(f"boundary IoU at a distance of {told.boundary_ratio:.1%} of the image diagonal")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` reads it back."""
        return {
            "protocol": asdict(self.protocol),
            "scores": self.scores.to_dict(),
            "images": [image._asdict() for image in self.images],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "scores") -> Evaluation:
        """Read `to_dict`'s form. Raises ConfigError naming `source`."""
        try:
            sizes = tuple((int(height), int(width)) for height, width in data["protocol"]["sizes"])
            protocol = ScoringProtocol(**{**data["protocol"], "sizes": sizes})
            images = tuple(ImageScore(**row) for row in data["images"])
            scores = data["scores"]
        except (KeyError, TypeError, ValueError) as error:
            what = f"is no scores file: {type(error).__name__} {error}"
            raise ConfigError(source, what, "write it anew with `pixelwise evaluate`") from None
        return cls(Scores.from_dict(scores, source), images, protocol)


def write_scores(path: str | Path, evaluation: Evaluation) -> None:
    """Write `scores.json`, whole or not at all."""
    write_text(path, json.dumps(evaluation.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_scores(path: str | Path) -> Evaluation:
    """Read what `write_scores` wrote. Raises ConfigError when the file is missing or something else."""
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            path, f"cannot be read as scores: {error}", "write it anew with `pixelwise evaluate`"
        ) from None
    return Evaluation.from_dict(data, path)


def evaluate(
    segmenter: Callable[[NDArray[np.uint8]], Prediction],
    split: Split,
    *,
    dataset: str = "dataset",
    model: str = "model",
    precision: str = "float32",
    boundary: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Label every image of `split` with `segmenter` and score the masks at the images' own size.

    segmenter  (H, W, C) uint8 RGB -> Prediction, whose mask is (H, W) class ids of the split's classes
    dataset, model, precision   names for the protocol
    progress   called with (images done, images in all) after each image

    Raises DatasetError for an empty split, images without a mask, or a model of other classes.
    """
    _refuse_unscorable(split)

    def pairs() -> Iterator[Pair]:
        for index in range(len(split)):
            sample = split[index]
            prediction = segmenter(sample.image)
            refuse_other_classes(prediction.taxonomy, split.taxonomy, model, f"{dataset} {split.name}")
            yield sample.key, sample.mask, prediction.mask, sample.key

    protocol = {"dataset": dataset, "predicted_by": model, "precision": precision}
    return _score(pairs(), split, protocol, boundary, progress)


def evaluate_folder(
    folder: str | Path,
    split: Split,
    *,
    dataset: str = "dataset",
    boundary: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the masks `<key>.png` in `folder`, whose file values are those of the split's taxonomy.

    Raises DatasetError listing predictions that are missing or belong to no image: never are fewer scored in silence;
    MaskError naming the file for another size or an unknown value.
    """
    _refuse_unscorable(split)
    folder = Path(folder)
    files = _paired(folder, split)

    def pairs() -> Iterator[Pair]:
        for item, path in zip(split.items, files, strict=True):
            raw = read_mask(path)
            # Where truth is drawn in colours, predictions may be either: what `predict` writes are numbers.
            code = split.code if raw.ndim == 3 else MaskEncoding()
            yield item.key, split.read_labels(item), code.encode(raw, split.taxonomy, path), path

    return _score(pairs(), split, {"dataset": dataset, "predicted_by": str(folder)}, boundary, progress)


def refuse_other_classes(model: Taxonomy, data: Taxonomy, model_name: str, data_name: str) -> None:
    """Raise DatasetError that names the first class that differs, in number, name or order."""
    if model.names == data.names:
        return
    fix = "evaluate with the data the model was trained for, or give both the same classes in the same order"
    if model.num_classes != data.num_classes:
        only = sorted(set(model.names) ^ set(data.names))
        what = f"has {data.num_classes} classes, {model_name} has {model.num_classes}"
        raise DatasetError(data_name, what + (f"; not in both: {', '.join(only[:5])}" if only else ""), fix)
    k = next(k for k, (ours, theirs) in enumerate(zip(model.names, data.names, strict=True)) if ours != theirs)
    raise DatasetError(data_name, f"class {k} is {data.names[k]!r}, but {model.names[k]!r} in {model_name}", fix)


def _refuse_unscorable(split: Split) -> None:
    if not len(split):
        raise DatasetError(split.name, "0 images to evaluate", "check the path and the split's list")
    without = [item.key for item in split.items if item.mask is None]
    if without:
        what = f"{len(without)} of {len(split)} images have no mask: {_first(without)}"
        raise DatasetError(split.name, what, "evaluate a split with truth; `pixelwise predict` needs none")


def _paired(folder: Path, split: Split) -> list[Path]:
    """The prediction file of each item, in the split's order."""
    if not folder.is_dir():
        raise InputError(
            folder, "is not a folder", "give the folder that holds the predicted masks, one <key>.png an image"
        )
    expected = [f"{item.key}.png" for item in split.items]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png") if not path.name.startswith(".")}
    missing = [name for name in expected if name not in found]
    if missing:
        what = f"{len(missing)} of {len(expected)} predictions are missing: {_first(missing)}"
        raise DatasetError(folder, what, f"predict every image of {split.name} into it")
    extra = sorted(found - set(expected))
    if extra:
        what = f"{len(extra)} masks belong to no image of {split.name}: {_first(extra)}"
        raise DatasetError(folder, what, "remove them, or choose the split they belong to")
    return [folder / name for name in expected]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


class Tally:
    """The running counts of a set: add image after image, then read `matrix`, `outlines` and `images`."""

    def __init__(self, taxonomy: Taxonomy, boundary: bool) -> None:
        self.taxonomy = taxonomy
        self.boundary = boundary
        self.matrix = np.zeros((taxonomy.num_classes, taxonomy.num_classes), np.int64)
        self.outlines = np.zeros((taxonomy.num_classes, 2), np.int64)
        self.images: list[ImageScore] = []
        self.sizes: set[tuple[int, int]] = set()
        self.num_pixels = 0

    def add(self, key: str, truth: NDArray[Any], mask: NDArray[Any], source: object) -> None:
        """Count one image: truth (H, W) against mask (H, W); `source` is what an error calls it."""
        num_classes, ignore_id = self.taxonomy.num_classes, self.taxonomy.ignore_id
        counts = confusion_matrix(truth, mask, num_classes, ignore_id, source)
        if self.boundary:
            self.outlines += boundary_counts(truth, mask, num_classes, ignore_id)
        self.matrix += counts
        self.images.append(_image_score(key, counts, self.taxonomy.names))
        height, width = truth.shape
        self.sizes.add((height, width))
        self.num_pixels += height * width


def _score(
    pairs: Iterable[Pair], split: Split, protocol: Mapping[str, str], boundary: bool, progress: Progress | None
) -> Evaluation:
    """Count all pairs of a split."""
    tally, total = Tally(split.taxonomy, boundary), len(split)
    for done, (key, truth, mask, source) in enumerate(pairs, 1):
        assert truth is not None, "splits without truth were refused"
        tally.add(key, truth, mask, source)
        if progress:
            progress(done, total)
    assert len(tally.images) == total, "an image was left out"
    scores = Scores.from_matrix(tally.matrix, split.taxonomy.names, tally.outlines if boundary else None)
    told = ScoringProtocol(
        split=split.name,
        num_images=total,
        sizes=tuple(sorted(tally.sizes)),
        ignored_pixels=tally.num_pixels - scores.num_pixels,
        boundary_ratio=DISTANCE_RATIO if boundary else None,
        **protocol,
    )
    return Evaluation(scores, tuple(tally.images), told)


def _image_score(key: str, matrix: NDArray[np.int64], names: Sequence[str]) -> ImageScore:
    total = int(matrix.sum())
    if not total:
        return ImageScore(key, 0)
    correct = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - correct
    present = np.flatnonzero(union)
    ious = correct[present] / union[present]
    worst = int(ious.argmin())
    accuracy = int(correct.sum()) / total
    return ImageScore(key, total, float(ious.mean()), accuracy, names[present[worst]], float(ious[worst]))
