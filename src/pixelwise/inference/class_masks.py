"""Several labels per pixel: from low-resolution logits to one mask per class, block by block.

A pixel has a label if the logit is above the logit of the class's threshold, which is the same as the probability above
the threshold. The masks (K, H, W) of bool are the only array of that size: 29 classes on 2048 x 2048 pixels are 122 MB,
and would be 486 MB as float32 logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import LowResLogits
from .augmented import View, view_blocks
from .label_map import Block, upsampled_blocks


def threshold_logits(thresholds: Sequence[float]) -> Tensor:
    """Return the logit of each probability, float32."""
    probs = torch.tensor(thresholds, dtype=torch.float64)
    return torch.log(probs / (1 - probs)).float()


def masks_upsampled(low_res: LowResLogits, size: tuple[int, int], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Return the mask of each class (K, H, W) of the upsampled logits; K thresholds between 0 and 1."""
    return _masks_above(upsampled_blocks(low_res, size), threshold_logits(thresholds), size)


def masks_of_views(views: Sequence[View], thresholds: Sequence[float]) -> NDArray[np.bool_]:
    """Return the mask of each class (K, H, W) of the mean probabilities of an image's views."""
    size = len(views[0].rows[0]), len(views[0].columns[0])
    return _masks_above(view_blocks(views, torch.sigmoid), torch.tensor(thresholds), size)


def _masks_above(blocks: Iterable[Block], limits: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
    masks = np.empty((len(limits), *size), np.bool_)
    for rows, columns, block in blocks:
        masks[:, rows, columns] = (block > limits.to(block.device)[:, None, None]).cpu().numpy()
    return masks


def class_probabilities(low_res: LowResLogits, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the sigmoid of the upsampled logits, (K, H, W) float32."""
    probs = np.empty((low_res.logits.shape[1], *size), np.float32)
    for rows, columns, block in upsampled_blocks(low_res, size):
        probs[:, rows, columns] = block.sigmoid().cpu().numpy()
    return probs
