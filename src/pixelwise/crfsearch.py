"""The search for CRF parameters that DeepLab describes: a coarse grid on validation pictures, then a finer one around its best.

Source: Chen et al. 2015 (https://arxiv.org/abs/1412.7062), section 5: w2 and theta_gamma stay at 3; w1, theta_alpha
and theta_beta are searched on 100 pictures, with ten steps of mean field. The grid is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .core import Coarse
from .crf import Parameters, refine
from .data.dataset import Split
from .errors import DatasetError
from .inference.dense import coarse_scores, probabilities
from .inference.segmenter import Segmenter
from .metrics import Scores, confusion_matrix

# Values of (w1, theta_alpha in pixels, theta_beta in steps of 0..255).
Triple = tuple[float, float, float]
COARSE = ((3.0, 6.0, 10.0), (20.0, 50.0, 80.0), (3.0, 6.0, 10.0))
# Steps around the best of the coarse grid.
FINE = (1.5, 15.0, 1.5)
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Found:
    """The best parameters, their mean IoU, that without a CRF, and how many settings and pictures were tried."""

    parameters: Parameters
    mean_iou: float
    mean_iou_before: float
    num_settings: int
    num_images: int


@dataclass(frozen=True)
class _Picture:
    image: NDArray[np.uint8]
    truth: NDArray[Any]
    coarse: Coarse


def search(
    segmenter: Segmenter,
    split: Split,
    *,
    num_images: int = 100,
    start: Parameters | None = None,
    progress: Progress | None = None,
) -> Found:
    """Try grids of w1, theta_alpha and theta_beta on pictures spread over `split`; the other parameters are those of `start`.

    progress  called with (settings done, settings in all, best mean IoU so far) after each setting
    The parameters without a CRF's gain are returned too: `mean_iou` may be below `mean_iou_before`.
    Raises DatasetError for a split without truth.
    """
    first = start or Parameters(normalization="after")
    pictures = list(_pictures(segmenter, split, num_images))
    before = _score(pictures, split, None)
    tried: dict[Triple, float] = {}
    total = int(np.prod([len(axis) for axis in COARSE])) + 3 ** len(FINE) - 1
    for triple in chain(_grid(COARSE), _later(lambda: _grid(_around(_best(tried))))):
        if triple not in tried:
            tried[triple] = _score(pictures, split, _with(first, triple))
            if progress:
                progress(len(tried), total, max(tried.values()))
    best = _best(tried)
    return Found(_with(first, best), tried[best], before, len(tried), len(pictures))


def _best(tried: Mapping[Triple, float]) -> Triple:
    return max(tried, key=lambda triple: tried[triple])


def _grid(axes: Sequence[Sequence[float]]) -> Iterator[Triple]:
    first, second, third = axes
    return product(first, second, third)


def _later(triples: Callable[[], Iterable[Triple]]) -> Iterator[Triple]:
    """What `triples` gives at the time when the first is asked for."""
    yield from triples()


def _with(parameters: Parameters, triple: Triple) -> Parameters:
    return replace(parameters, w1=triple[0], theta_alpha=triple[1], theta_beta=triple[2])


def _around(triple: Triple) -> Sequence[Sequence[float]]:
    """Each value, a step less (no less than half of it) and a step more."""
    return [(max(value - step, value / 2), value, value + step) for value, step in zip(triple, FINE, strict=True)]


def _pictures(segmenter: Segmenter, split: Split, num_images: int) -> Iterator[_Picture]:
    """Pictures spread evenly over the split, with the network's coarse scores: small, so that all stay in memory."""
    if not split.has_masks:
        raise DatasetError(f"split {split.name}", "has pictures without a mask", "search on a split with truth")
    count = min(num_images, len(split))
    with torch.inference_mode():
        for index in np.linspace(0, len(split) - 1, count).astype(int):
            sample = split[int(index)]
            assert sample.mask is not None, "has_masks said so"
            yield _Picture(sample.image, sample.mask, coarse_scores(segmenter.model, sample.image, segmenter.device))


def _score(pictures: Sequence[_Picture], split: Split, parameters: Parameters | None) -> float:
    """Mean IoU over the pictures, with a CRF or without."""
    count = split.taxonomy.num_classes
    matrix = np.zeros((count, count), np.int64)
    for picture in pictures:
        probs = probabilities(picture.coarse)
        if parameters is not None:
            probs = refine(picture.image, probs, parameters)
        matrix += confusion_matrix(picture.truth, probs.argmax(0), count, split.taxonomy.ignore_id)
    return Scores.from_matrix(matrix, split.taxonomy.names).mean_iou
