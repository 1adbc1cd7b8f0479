"""What lets a cell see far: atrous spatial pyramids, image pooling, pyramid pooling.

Sources: DeepLab v2 (https://arxiv.org/abs/1606.00915), v3 (https://arxiv.org/abs/1706.05587), v3+
(https://arxiv.org/abs/1802.02611); PSPNet (https://arxiv.org/abs/1612.01105).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ConvNormAct
from .separable_conv import separable_conv_relu


class BatchNorm2dSafe(nn.BatchNorm2d):
    """Batch normalisation behind a global pooling: one value a channel and image.

    With a single image there is nothing to take a variance of; then the running statistics are used, as in evaluation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), the same size."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        normed: Tensor = super().forward(x)
        return normed


class ImagePooling(nn.Sequential):
    """Global average, 1x1, norm, ReLU, spread over the map again. Source: DeepLab v3 section 3.3."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        super().__init__(nn.AdaptiveAvgPool2d(1), conv, BatchNorm2dSafe(out_channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        cell = x
        for layer in self:
            cell = layer(cell)
        return cell.expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """DeepLab v3's pyramid: 1x1, 3x3 at each rate, image pooling; concatenated and projected by 1x1.

    `separable` makes the 3x3s depthwise separable, as DeepLab v3+. Source: v3 figure 5; v3+ section 3.1.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rates: Sequence[int], dropout: float = 0.1, separable: bool = False
    ) -> None:
        super().__init__()
        at_rate = separable_conv_relu if separable else _conv3x3
        self.branches = nn.ModuleList(
            [ConvNormAct(in_channels, out_channels, 1), *(at_rate(in_channels, out_channels, rate) for rate in rates)]
        )
        self.pooling = ImagePooling(in_channels, out_channels)
        self.project = ConvNormAct((len(rates) + 2) * out_channels, out_channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        cells = [branch(x) for branch in self.branches]
        projected: Tensor = self.dropout(self.project(torch.cat([*cells, self.pooling(x)], 1)))
        return projected


def _conv3x3(in_channels: int, out_channels: int, rate: int) -> nn.Module:
    return ConvNormAct(in_channels, out_channels, dilation=rate)


class PyramidPooling(nn.Module):
    """PSPNet's: averages over bins x bins regions, each reduced by 1x1, spread over the map and concatenated with it.

    Source: PSPNet section 3.2; corners aligned as in the authors' code.
    """

    def __init__(self, in_channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        reduced = in_channels // len(bins)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(size),
                nn.Conv2d(in_channels, reduced, 1, bias=False),
                BatchNorm2dSafe(reduced),
                nn.ReLU(inplace=True),
            )
            for size in bins
        )
        self.out_channels = in_channels + reduced * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        spread = [
            F.interpolate(level(x), size=x.shape[-2:], mode="bilinear", align_corners=True) for level in self.levels
        ]
        return torch.cat([x, *spread], 1)
