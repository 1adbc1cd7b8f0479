"""Squeeze and excitation: scale every channel by a factor computed from the average of the whole map.

Source: Hu et al. 2018, "Squeeze-and-excitation networks" (https://arxiv.org/abs/1709.01507), equations 2 to 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Global average, 1x1 to `reduced` channels, activation, 1x1 back, gate; the result scales the channels.

    The paper has a ReLU and a sigmoid; EfficientNet a SiLU, MobileNetV3 a hard sigmoid. State names are torchvision's.
    """

    def __init__(
        self,
        channels: int,
        reduced: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.relu,
        gate: Callable[[Tensor], Tensor] = torch.sigmoid,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1, bias=bias)
        self.fc2 = nn.Conv2d(reduced, channels, 1, bias=bias)
        self.activation = activation
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, channels, H, W) -> (B, channels, H, W)."""
        squeezed = x.mean((2, 3), keepdim=True)
        scale = self.gate(self.fc2(self.activation(self.fc1(squeezed))))
        return x * scale
