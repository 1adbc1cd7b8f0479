"""The search for CRF parameters that DeepLab describes: a coarse grid on validation images, then a finer one around its best.

Source: Chen et al. 2015 (https://arxiv.org/abs/1412.7062), section 5: w2 and theta_gamma stay at 3; w1, theta_alpha
and theta_beta are searched on 100 images, with ten steps of mean field. The grid is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, product

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import Sample, Taxonomy
from ..crf import Parameters, refine_each
from ..data.dataset import Split
from ..errors import DatasetError
from ..inference.label_map import low_res_logits, probabilities
from ..inference.segmenter import Segmenter
from .crf_search_cache import Tally
from .metrics import Scores, confusion_matrix

# Values of (w1, theta_alpha in pixels, theta_beta in steps of 0..255).
Triple = tuple[float, float, float]
COARSE = ((3.0, 6.0, 10.0), (20.0, 50.0, 80.0), (3.0, 6.0, 10.0))
# Steps around the best of the coarse grid.
FINE = (1.5, 15.0, 1.5)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """The best parameters, their mean IoU, that without a CRF, and how many settings and images were tried."""

    parameters: Parameters
    mean_iou: float
    mean_iou_before: float
    num_settings: int
    num_images: int


def search(
    segmenter: Segmenter,
    split: Split,
    *,
    num_images: int = 100,
    start: Parameters | None = None,
    progress: Progress | None = None,
    tally: Tally | None = None,
) -> Found:
    """Try grids of w1, theta_alpha and theta_beta on images spread over `split`; the other parameters are those of `start`.

    progress  called with (refinements done, refinements in all) after each image's refinement with one setting
    tally     keeps what was counted; what it holds already is not counted again
    The parameters without a CRF's gain are returned too: `mean_iou` may be below `mean_iou_before`.
    Raises DatasetError for a split without truth.
    """
    if not split.has_masks:
        raise DatasetError(f"split {split.name}", "has images without a mask", "search on a split with truth")
    first, tally = start or Parameters(normalization="after"), tally or Tally()
    indices = np.linspace(0, len(split) - 1, min(num_images, len(split))).astype(int).tolist()
    coarse = _grid(COARSE)
    total, done = len(indices) * (len(coarse) + 3 ** len(FINE) - 1), count(1)

    def tick() -> None:
        if progress:
            progress(next(done), total)

    def mean_ious(triples: Sequence[Triple]) -> list[float]:
        return _mean_ious(segmenter, split, indices, [_with(first, triple) for triple in triples], tally, tick)

    before, *scores = mean_ious(coarse)
    tried = dict(zip(coarse, scores, strict=True))
    fine = [triple for triple in _grid(_around(_best(tried))) if triple not in tried]
    tried.update(zip(fine, mean_ious(fine)[1:], strict=True))
    best = _best(tried)
    return Found(_with(first, best), tried[best], before, len(tried), len(indices))


def _best(tried: Mapping[Triple, float]) -> Triple:
    return max(tried, key=lambda triple: tried[triple])


def _grid(axes: Sequence[Sequence[float]]) -> list[Triple]:
    """Those that differ in w1 alone stand together: they share the tables that the widths make."""
    weights, *widths = axes
    return [(w1, theta_alpha, theta_beta) for theta_alpha, theta_beta, w1 in product(*widths, weights)]


def _with(parameters: Parameters, triple: Triple) -> Parameters:
    return replace(parameters, w1=triple[0], theta_alpha=triple[1], theta_beta=triple[2])


def _around(triple: Triple) -> Sequence[Sequence[float]]:
    """Each value, a step less (no less than half of it) and a step more."""
    return [(max(value - step, value / 2), value, value + step) for value, step in zip(triple, FINE, strict=True)]


def _mean_ious(
    segmenter: Segmenter,
    split: Split,
    indices: Sequence[int],
    settings: Sequence[Parameters],
    tally: Tally,
    tick: Callable[[], None],
) -> list[float]:
    """Mean IoU over those images without a CRF, then with each setting.

    All settings of an image before the next: a network that labels at full size has scores of a hundred megabytes an image.
    """
    taxonomy, model = split.taxonomy, _digest_of(segmenter)
    total = np.zeros((1 + len(settings), taxonomy.num_classes, taxonomy.num_classes), np.int64)
    for index in indices:
        sample = split[index]
        key = _key(model, sample, settings)
        matrices = tally.find(key, total.shape)
        if matrices is None:
            matrices = np.stack(list(_confusions(segmenter, sample, taxonomy, settings, tick)))
            tally.add(key, matrices)
        else:
            for _ in settings:
                tick()
        total += matrices
    return [Scores.from_matrix(matrix, taxonomy.names).mean_iou for matrix in total]


def _digest_of(segmenter: Segmenter) -> str:
    """Of all that an image's scores depend on beside the image."""
    digest = hashlib.sha256(f"{segmenter.model.spec} {segmenter.device.type} {segmenter.precision}".encode())
    for name, tensor in segmenter.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _key(model: str, sample: Sample, settings: Sequence[Parameters]) -> str:
    """Of a model's counts: the image and its truth pixel by pixel, however files name and write them, and the settings."""
    digest = hashlib.sha256(f"{model} {sample.image.shape} {settings}".encode())
    for pixels in (sample.image, sample.mask):
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _confusions(
    segmenter: Segmenter, sample: Sample, taxonomy: Taxonomy, settings: Sequence[Parameters], tick: Callable[[], None]
) -> Iterator[NDArray[np.int64]]:
    """The confusion matrix of an image without a CRF, then with each setting."""
    with torch.inference_mode():
        probs = probabilities(
            low_res_logits(segmenter.model, sample.image, segmenter.device, segmenter.precision),
            (sample.image.shape[0], sample.image.shape[1]),
        )
    for number, refined in enumerate(chain([probs], refine_each(sample.image, probs, settings))):
        assert sample.mask is not None, "has_masks said so"
        yield confusion_matrix(sample.mask, refined.argmax(0), taxonomy)
        if number:
            tick()
