"""Score a model, or a folder of predicted masks, on a split: every image, at native resolution.

Both ways end in the same counting, so they give the same numbers; `result.py` holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Prediction, Taxonomy
from ..data.class_masks import read_class_masks
from ..data.dataset import MaskEncoding, Split
from ..data.groups import Groups
from ..errors import DatasetError, ImageError, InputError, MaskError, listed, shown
from ..images import PixelFormat, read_mask, unnamed, walk_files, without_suffix
from ..jit.threads import ahead
from .bootstrap import measure_spread
from .boundary_iou import DISTANCE_RATIO, boundary_counts
from .calibration import CalibrationCounter
from .metrics import Scores, confusion_matrix
from .multilabel_scores import MultilabelScores, SetScores, decision_counts
from .result import Evaluation, ImageScore, ScoringProtocol
from .trimap import WIDTHS, trimap_counts, trimap_curve

# Called with (images done, images in all) after each image.
OnProgress = Callable[[int, int], None]


class ScoreAccumulator:
    """Running counts over the images of a split: `add` each image once, then `finish`.

    matrix       (K, K) int64, the confusion matrix so far
    boundary     (K, 2) int64, pixels in both boundary regions and in either, or None when not measured
    trimap       the counts of `trimap_counts`, or None when not measured
    images       the scores of each image
    calibration  the running calibration, or None when not measured

    Of several labels per pixel, the decisions of each class are counted; boundaries and calibration are not measured.
    """

    def __init__(self, taxonomy: Taxonomy, *, boundary: bool, calibration: CalibrationCounter | None = None) -> None:
        num_classes = taxonomy.num_classes
        self.taxonomy = taxonomy
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        measured = boundary and not taxonomy.multilabel
        self.boundary = np.zeros((num_classes, 2), np.int64) if measured else None
        self.trimap = np.zeros((len(WIDTHS), num_classes, 3), np.int64) if measured else None
        self.images: list[ImageScore] = []
        self.calibration = calibration
        # Per image and class, the pixels in the intersection and in the union: (K, 2) each.
        self._counts: list[NDArray[np.int64]] = []
        # The same as `decision_counts` (K, 4) of several labels per pixel.
        self._decisions: list[NDArray[np.int64]] = []
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

        Of several labels per pixel, both are (K, H, W).

        probs  probabilities (K, H, W), needed for the calibration alone
        """
        height, width = truth.shape[-2:]
        self._sizes.add((height, width))
        self._num_pixels += height * width
        if self.taxonomy.multilabel:
            counts = decision_counts(truth, prediction, self.taxonomy, source=source)
            correct = counts[:, 2]
            self._decisions.append(counts)
            self._counts.append(np.stack([correct, counts[:, 0] + counts[:, 1] - correct], 1))
            self.images.append(ImageScore.from_counts(key, counts, self.taxonomy.names))
            return
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

    def finish(
        self,
        dataset: str,
        split: Split,
        *,
        groups: Groups | None,
        predicted_by: str,
        precision: str = "",
        thresholds: Sequence[float] = (),
    ) -> Evaluation:
        """Return the scores of all images, with the protocol. Raises MaskError when every pixel is ignored.

        thresholds  with which several labels per pixel were given, for the protocol
        """
        names, decisions = self.taxonomy.names, np.stack(self._decisions) if self._decisions else None
        scores: SetScores
        if decisions is not None:
            scores = MultilabelScores.from_counts(decisions.sum(0), names, thresholds)
        else:
            scores = Scores.from_matrix(self.matrix, names, boundary=self.boundary)
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
            counts=decisions,
        )


def evaluate_model(
    segmenter: Callable[[NDArray[Any]], Prediction],
    split: Split,
    *,
    dataset: str = "dataset",
    model: str = "model",
    precision: str = "float32",
    boundary: bool = True,
    groups: Groups | None = None,
    calibration: CalibrationCounter | None = None,
    thresholds: Sequence[float] = (),
    progress: OnProgress | None = None,
) -> Evaluation:
    """Label every image of `split` with `segmenter` and score the masks at the size of each image.

    segmenter  (H, W, C) of the split's pixel format -> Prediction, whose mask is (H, W) class ids
    dataset, model, precision   names for the protocol
    boundary     also measure boundary IoU and the trimap curve
    groups       of the dataset's images, by which the spread of the scores is measured; by default by image
    calibration  counts the probabilities, which `segmenter` must then return (at temperature 1)
    thresholds   with which `segmenter` gives several labels per pixel, for the protocol
    progress     called with (images done, images in all) after each image
    Raises DatasetError for an empty split, images without a mask, or a model of other classes; InputError naming the
    images and masks that cannot be read.
    """
    _check_truth(split)
    total = ScoreAccumulator(split.taxonomy, boundary=boundary, calibration=calibration)
    unreadable: list[InputError] = []
    for index, reading in enumerate(ahead(split.__getitem__, range(len(split)))):
        try:
            sample = reading.result()
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
    return total.finish(dataset, split, groups=groups, predicted_by=model, precision=precision, thresholds=thresholds)


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

    Of several labels per pixel, they are `<key>/<class>.png` for every class, as `pixelwise predict` writes them.

    Raises DatasetError listing predictions that are missing or belong to no image, so that an incomplete folder is
    never scored; MaskError naming the file for another size or an unknown value.
    """
    _check_truth(split)
    total = ScoreAccumulator(split.taxonomy, boundary=boundary)
    taxonomy = split.taxonomy
    files = _prediction_files(Path(folder), split)
    for done, (item, path) in enumerate(zip(split.items, files, strict=True), 1):
        if taxonomy.multilabel:
            class_files = [(k, path / f"{name}.png") for k, name in enumerate(taxonomy.file_names)]
            prediction = read_class_masks(path, class_files, taxonomy, item.image)
        else:
            raw = read_mask(path)
            # Where truth is drawn in colors, predictions may be colors or numbers: `predict` writes numbers.
            encoding = split.encoding if raw.ndim == 3 else MaskEncoding()
            prediction = encoding.encode(raw, taxonomy, path)
        truth = split.read_labels(item)
        assert truth is not None, "splits without truth are refused"
        total.add(item.key, truth, prediction=prediction, source=path)
        if progress:
            progress(done, len(split))
    return total.finish(dataset, split, groups=groups, predicted_by=str(folder))


def check_same_classes(model: Taxonomy, data: Taxonomy, *, model_name: str, data_name: str) -> None:
    """Raise DatasetError naming the first class that differs in number, name or order."""
    if model.kind != data.kind:
        what = f"has `kind: {data.kind}` classes, {model_name} has `kind: {model.kind}` ones"
        raise DatasetError(data_name, what, "evaluate with the data the model was trained for")
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


def read_as(split: Split, pixels: PixelFormat, *, model_name: str) -> Split:
    """Return the split with images of a model's pixel format. Raises DatasetError if they are declared otherwise.

    Channels without names may be any, and images whose bits in use were measured may use fewer than the model takes.
    """
    data = split.pixels
    is_named = data.channels != unnamed(data.num_channels)
    if not data.is_rgb and data.channels != pixels.channels and (is_named or data.num_channels != pixels.num_channels):
        what = f"has {data.in_words()}; {model_name} takes {pixels.in_words()}"
        raise DatasetError(f"split {split.name}", what, "evaluate with images of those channels, in the same order")
    return split.with_pixels(pixels)


def _check_truth(split: Split) -> None:
    if not len(split):
        raise DatasetError(split.name, "0 images to evaluate", "check the path and the split's list")
    without = [item.key for item in split.items if item.mask is None]
    if without:
        what = f"{len(without)} of {len(split)} images have no mask: {listed(without)}"
        raise DatasetError(split.name, what, "evaluate a split with truth; `pixelwise predict` needs none")


def _prediction_files(folder: Path, split: Split) -> list[Path]:
    """Return the prediction file of each item, in the order of the split; its folder for several labels per pixel."""
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", "give the folder of the predicted masks, one <key>.png per image")
    multilabel = split.taxonomy.multilabel
    parts = [f"/{name}.png" for name in split.taxonomy.file_names] if multilabel else [".png"]
    found = {path.relative_to(folder).as_posix() for path in walk_files(folder)[0] if path.suffix == ".png"}
    names = [item.key for item in split.items]
    # `pixelwise predict` names masks by their images: x_sat.jpg, whose key is x beside x_mask.png, gives x_sat.png.
    by_image = [without_suffix(Path(item.image)).name for item in split.items]
    first = parts[0]
    if len(set(by_image)) == len(by_image) and not any(f"{name}{first}" in found for name in names):
        names = by_image if any(f"{name}{first}" in found for name in by_image) else names
    expected = [f"{name}{part}" for name in names for part in parts]
    missing = [name for name in expected if name not in found]
    if missing:
        what = f"{len(missing)} of {len(expected)} predictions are missing: {listed(missing)}"
        raise DatasetError(folder, what, f"predict every image of {split.name} into it")
    # `pixelwise predict --color --confidence` writes further images beside the mask NAME.png.
    others = {f"{name}{ending}" for name in names for ending in ("_color.png", "_confidence.png")}
    extra = sorted(found - set(expected) - others)
    if extra:
        what = f"{len(extra)} masks belong to no image of {split.name}: {listed(extra)}"
        raise DatasetError(folder, what, "remove them, or choose the split they belong to")
    return [folder / (name if multilabel else f"{name}.png") for name in names]
