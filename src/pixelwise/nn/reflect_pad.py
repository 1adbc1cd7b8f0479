"""Reflection padding of any width. Source: U-Net, figure 2 (https://arxiv.org/abs/1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect_pad(x: Tensor, before: int, size: tuple[int, int]) -> Tensor:
    """Pad x (B, C, H, W) to (B, C, *size) by reflection, with `before` rows above and columns left of the image.

    Like `F.pad(mode="reflect")`, the border row is not repeated: row -1 is row 1. Unlike it, the padding may be wider
    than the image, which is then reflected again and again; a side of one pixel is repeated.
    """
    for axis, length in zip((2, 3), size, strict=True):
        period = max(2 * x.shape[axis] - 2, 1)
        index = torch.arange(length, device=x.device) - before
        # Tensors, because ONNX has no remainder by a number that depends on the image.
        index = index.remainder(torch.full_like(index, period))
        x = x.index_select(axis, torch.minimum(index, period - index))
    return x
