"""FCN's upsampling layer: a transposed convolution, one bilinear kernel per class, fixed or the start of learning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resample import bilinear_kernel


class Upscore(nn.Module):
    """(B, K, h, w) -> (B, K, (h - 1) * stride + kernel, ...): each map on its own, no bias, nothing cropped.

    A fixed kernel is a buffer outside the state, a learned one a parameter that weight decay has to leave alone.
    """

    # Names of parameters that an optimiser must not decay: decay would shrink the interpolation itself.
    no_weight_decay = ("weight",)

    weight: Tensor

    def __init__(self, num_maps: int, kernel: int, stride: int, learned: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        # `empty` follows the device that torch was told to build on.
        weight = torch.empty(num_maps, 1, kernel, kernel).copy_(bilinear_kernel(kernel, num_maps))
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Upsampled scores."""
        return F.conv_transpose2d(scores, self.weight.to(scores.dtype), stride=self.stride, groups=len(self.weight))

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{len(self.weight)}, kernel={self.kernel}, stride={self.stride}, learned={isinstance(self.weight, nn.Parameter)}"
