"""Inference of DeconvNet by proposals: each box is labeled on its own, the logits are merged by their maximum.

Source: Noh et al. 2015 (https://arxiv.org/abs/1505.04366), section 5, and the authors' code. They take edge boxes; any
list of boxes works, and `grid_proposals` gives one that needs no detector.
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
    """Return windows of the image's shape at several scales, largest first, evenly spread.

    size  (height, width) of the image in pixels
    step  largest distance between neighbors, as a fraction of the window's side
    Every pixel lies in a window of each scale.
    """
    windows = []
    for scale in scales:
        lengths = [max(round(scale * side), 1) for side in size]
        starts = []
        for side, length in zip(size, lengths, strict=True):
            room = side - length
            count = int(np.ceil(room / max(step * length, 1))) + 1
            starts.append(sorted({round(float(start)) for start in np.linspace(0, room, count)}))
        windows += [Window(top, left, top + lengths[0], left + lengths[1]) for top, left in product(*starts)]
    return windows


@torch.inference_mode()
def proposal_scores(
    model: SegmentationModel,
    image: NDArray[np.uint8],
    proposals: Iterable[Window],
    device: torch.device,
    *,
    precision: str = "float32",
    num_proposals: int = NUM_PROPOSALS,
    min_side: int = MIN_SIDE,
) -> NDArray[np.float32]:
    """Return, per pixel of an image (H, W, C) uint8, the largest logits (K, H, W) over the proposals around it, or 0.

    Only the first `num_proposals` boxes with both sides of at least `min_side` pixels (or the image's shorter side)
    are used.
    Raises InputError for a box outside the image.
    """
    height, width = image.shape[:2]
    merged = np.zeros((model.num_classes, height, width), np.float32)
    large = (box for box in proposals if min(box.size) >= min(min_side, height, width))
    for box in islice(large, num_proposals):
        if min(box) < 0 or box.bottom > height or box.right > width:
            what = f"expected boxes inside the image of {height}x{width}, got {tuple(box)}"
            raise InputError("proposals", what, "give (top, left, bottom, right) in pixels")
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        low_res = low_res_logits(model, image[rows, columns], device, precision=precision)
        logits = low_res.upsample_to(box.size).logits[0].cpu().numpy()
        np.maximum(merged[:, rows, columns], logits, out=merged[:, rows, columns])
    return merged


def ensemble(scores: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return EDeconvNet's scores: DeconvNet's merged ones times the positive part of FCN-8s', both (K, H, W).

    Source: the authors' code.
    """
    product_of_both: NDArray[np.float32] = scores * np.maximum(others, 0)
    return product_of_both
