"""DeconvNet's inference: every proposal labelled by itself, the scores merged by their maximum.

Source: Noh et al. 2015 (https://arxiv.org/abs/1505.04366), section 5, and the authors' code. They take edge boxes; any
list of boxes will do, and `grid_proposals` gives one that needs no detector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, product

import numpy as np
import torch
from numpy.typing import NDArray

from ..core import Window
from ..errors import InputError
from ..models.base import SegmentationModel
from .label_map import low_res_logits

# Source: the authors' code: the first 50 boxes whose shorter side is 112 pixels or more.
NUM_PROPOSALS = 50
MIN_SIDE = 112


def grid_proposals(size: tuple[int, int], scales: Sequence[float] = (1.0, 0.7, 0.5), step: float = 0.5) -> list[Window]:
    """Windows of the image's shape at several scales, largest first; neighbours are `step` of a side or less apart.

    size (height, width) in pixels. Every pixel lies in a window of each scale.
    """
    windows = []
    for scale in scales:
        lengths = [max(round(scale * side), 1) for side in size]
        starts = [_starts(side, length, step) for side, length in zip(size, lengths, strict=True)]
        windows += [Window(top, left, top + lengths[0], left + lengths[1]) for top, left in product(*starts)]
    return windows


def _starts(side: int, length: int, step: float) -> list[int]:
    """Where windows of `length` begin, evenly from the first pixel to the last."""
    room = side - length
    count = int(np.ceil(room / max(step * length, 1))) + 1
    return sorted({round(float(start)) for start in np.linspace(0, room, count)})


@torch.inference_mode()
def proposal_scores(
    model: SegmentationModel,
    image: NDArray[np.uint8],
    proposals: Iterable[Window],
    device: torch.device,
    precision: str = "float32",
    num_proposals: int = NUM_PROPOSALS,
    min_side: int = MIN_SIDE,
) -> NDArray[np.float32]:
    """image (H, W, C) uint8 -> scores (K, H, W): over the proposals that hold a pixel the largest score, at least 0.

    The first `num_proposals` boxes with both sides of `min_side` pixels (or the image's shorter side) or more are used.
    Raises InputError for a box outside the image.
    """
    height, width = image.shape[:2]
    merged = np.zeros((model.num_classes, height, width), np.float32)
    # Of an image that is smaller itself, what counts is its own shorter side.
    large = (box for box in proposals if min(box.size) >= min(min_side, height, width))
    for box in islice(large, num_proposals):
        if min(box) < 0 or box.bottom > height or box.right > width:
            raise InputError(
                "proposals",
                f"{tuple(box)} leaves the image of {height}x{width}",
                "give top, left, bottom, right inside",
            )
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        low_res = low_res_logits(model, image[rows, columns], device, precision)
        scores = low_res.upsample_to(box.size).logits[0].cpu().numpy()
        np.maximum(merged[:, rows, columns], scores, out=merged[:, rows, columns])
    return merged


def ensemble(scores: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """EDeconvNet: DeconvNet's merged scores times the positive part of FCN-8s', both (K, H, W). Source: the authors' code."""
    both: NDArray[np.float32] = scores * np.maximum(others, 0)
    return both
