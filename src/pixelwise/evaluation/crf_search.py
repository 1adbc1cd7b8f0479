"""The search for CRF parameters as DeepLab describes it: a coarse grid, then a finer grid around the best setting.

Source: Chen et al. 2015 (https://arxiv.org/abs/1412.7062), section 5: w2 and theta_gamma stay at 3; w1, theta_alpha
and theta_beta are searched on 100 images, with ten iterations of mean field. The values of the grid are ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
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
from .crf_search_cache import SearchCache
from .metrics import Scores, confusion_matrix

COARSE = ((3.0, 6.0, 10.0), (20.0, 50.0, 80.0), (3.0, 6.0, 10.0))
"""The values of w1, theta_alpha (pixels) and theta_beta (steps of 0..255): 27 settings."""
FINE = (1.5, 15.0, 1.5)
"""The steps to either side of the best setting of the coarse grid: 26 more settings."""


@dataclass(frozen=True)
class SearchResult:
    """The best parameters, their mean IoU, the mean IoU without a CRF, and the numbers of settings and images."""

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
    progress: Callable[[int, int], None] | None = None,
    cache: SearchCache | None = None,
) -> SearchResult:
    """Return the best of two grids of w1, theta_alpha and theta_beta, by mean IoU on images spread over `split`.

    start     the values of the other parameters; default: w2 and theta_gamma 3, ten iterations, `after` normalization
    progress  called with (refinements done, refinements in all) after each image's refinement with one setting
    cache     stores the counts; stored counts are not computed again
    The best parameters may be worse than no CRF: `mean_iou` may be below `mean_iou_before`.
    Raises DatasetError for a split without masks.
    """
    if not split.has_masks:
        raise DatasetError(f"split {split.name}", "has images without a mask", "search on a split with masks")
    start, cache = start or Parameters(normalization="after"), cache or SearchCache()
    indices = np.linspace(0, len(split) - 1, min(num_images, len(split))).astype(int).tolist()
    model = _digest_of(segmenter)
    coarse = _grid(start, COARSE)
    total, done = len(indices) * (len(coarse) + 3 ** len(FINE) - 1), count(1)

    def tick() -> None:
        if progress:
            progress(next(done), total)

    def mean_ious(settings: Sequence[Parameters]) -> list[float]:
        """Return the mean IoU over the images without a CRF, then with each of the settings."""
        names = split.taxonomy.names
        matrices = np.zeros((1 + len(settings), len(names), len(names)), np.int64)
        # All settings of an image before the next: a network that labels at full size has scores of 100 MB per image.
        for sample in map(split.__getitem__, indices):
            key = _key(model, sample, settings)
            counts = cache.find(key, matrices.shape)
            if counts is None:
                counts = np.stack(list(_confusions(segmenter, sample, split.taxonomy, settings, tick)))
                cache.add(key, counts)
            else:
                for _ in settings:
                    tick()
            matrices += counts
        return [Scores.from_matrix(matrix, names).mean_iou for matrix in matrices]

    before, *ious = mean_ious(coarse)
    iou_of = dict(zip(coarse, ious, strict=True))
    best = max(iou_of, key=iou_of.__getitem__)
    # Each value of the best setting, and a step less (but at least half the value) and a step more.
    values = zip((best.w1, best.theta_alpha, best.theta_beta), FINE, strict=True)
    around = [(max(value - step, value / 2), value, value + step) for value, step in values]
    fine = [parameters for parameters in _grid(start, around) if parameters not in iou_of]
    iou_of.update(zip(fine, mean_ious(fine)[1:], strict=True))
    best = max(iou_of, key=iou_of.__getitem__)
    return SearchResult(best, iou_of[best], before, len(iou_of), len(indices))


def _grid(start: Parameters, values: Sequence[Sequence[float]]) -> list[Parameters]:
    """Return all combinations; those that differ only in w1 are consecutive, as they share tables."""
    weights, alphas, betas = values
    return [
        replace(start, w1=w1, theta_alpha=theta_alpha, theta_beta=theta_beta)
        for theta_alpha, theta_beta, w1 in product(alphas, betas, weights)
    ]


def _confusions(
    segmenter: Segmenter, sample: Sample, taxonomy: Taxonomy, settings: Sequence[Parameters], tick: Callable[[], None]
) -> Iterator[NDArray[np.int64]]:
    """Yield the confusion matrix of an image without a CRF, then with each of the settings."""
    with torch.inference_mode():
        probs = probabilities(
            low_res_logits(
                segmenter.model, sample.image, segmenter.device, precision=segmenter.precision, source=sample.key
            ),
            (sample.image.shape[0], sample.image.shape[1]),
        )
    rgb = np.ascontiguousarray(segmenter.pixels.to_rgb(sample.image))
    for number, refined in enumerate(chain([probs], refine_each(rgb, probs, settings))):
        assert sample.mask is not None, "`search` checks has_masks"
        yield confusion_matrix(sample.mask, refined.argmax(0), taxonomy)
        if number:
            tick()


def _digest_of(segmenter: Segmenter) -> str:
    """Return a digest of everything that an image's scores depend on beside the image."""
    digest = hashlib.sha256(f"{segmenter.model.spec} {segmenter.device.type} {segmenter.precision}".encode())
    for name, tensor in segmenter.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _key(model: str, sample: Sample, settings: Sequence[Parameters]) -> str:
    """Return the key of a model's counts: a digest of image and mask, pixel by pixel, and of the settings."""
    digest = hashlib.sha256(f"{model} {sample.image.shape} {settings}".encode())
    for pixels in (sample.image, sample.mask):
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
