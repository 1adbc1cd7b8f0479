"""What lies beyond an image's border, by reflection. Source: U-Net, figure 2 (https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect_pad(x: Tensor, before: int, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), which begins `before` rows and columns ahead of the image.

    The image is reflected at its first and last row and column, which are not repeated, as often as it takes; a side of one
    pixel is repeated.
    """
    for axis, length in zip((2, 3), size, strict=True):
        period = max(2 * x.shape[axis] - 2, 1)
        place = (torch.arange(length, device=x.device) - before) % period
        x = x.index_select(axis, torch.minimum(place, period - place))
    return x
