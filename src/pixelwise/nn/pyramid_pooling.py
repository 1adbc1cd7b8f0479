"""Context modules: atrous spatial pyramid pooling (ASPP) of DeepLab v3 and v3+, PSPNet's pyramid pooling.

Sources: DeepLab v3 (https://arxiv.org/abs/1706.05587), v3+ (https://arxiv.org/abs/1802.02611); PSPNet
(https://arxiv.org/abs/1612.01105). DeepLab v2's ASPP, which sums score maps, is in `models/deeplabv2.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ConvNormAct
from .separable_conv import separable_conv_relu


class BatchNorm2dSafe(nn.BatchNorm2d):
    """Batch normalization after a global pooling, where each image gives one value per channel.

    A single image has no variance; then the running statistics are used, as in evaluation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        if self.training and x.numel() == x.shape[1]:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, training=False, eps=self.eps)
        normed: Tensor = super().forward(x)
        return normed


class ImagePooling(nn.Sequential):
    """Image-level features: global average, 1x1, norm, ReLU, repeated at every position.

    Source: DeepLab v3 section 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        super().__init__(nn.AdaptiveAvgPool2d(1), conv, BatchNorm2dSafe(out_channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, out_channels, h, w)."""
        pooled = x
        for layer in self:
            pooled = layer(pooled)
        return pooled.expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """DeepLab v3's atrous spatial pyramid pooling: a 1x1, a 3x3 per atrous rate and image pooling, side by side.

    The branches (256 channels each in the paper) are concatenated and projected by a 1x1. The rates are 6, 12, 18 at
    output stride 16 and twice as large at 8. `separable` makes the 3x3s depthwise separable, as in DeepLab v3+.
    Sources: v3 section 3.3 and figure 5; v3+ section 3.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        atrous_rates: Sequence[int],
        *,
        dropout: float = 0.1,
        separable: bool = False,
    ) -> None:
        super().__init__()
        conv3x3 = separable_conv_relu if separable else ConvNormAct
        self.branches = nn.ModuleList([ConvNormAct(in_channels, out_channels, 1)])
        self.branches.extend(conv3x3(in_channels, out_channels, dilation=rate) for rate in atrous_rates)
        self.pooling = ImagePooling(in_channels, out_channels)
        self.project = ConvNormAct((len(atrous_rates) + 2) * out_channels, out_channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, out_channels, h, w)."""
        features = [branch(x) for branch in self.branches] + [self.pooling(x)]
        projected: Tensor = self.dropout(self.project(torch.cat(features, 1)))
        return projected


class RegionPooling(nn.AdaptiveAvgPool2d):
    """Averages over size x size regions of a map, which overlap where its sides are no multiples of `size`.

    An exported graph gets them as two matrix products. torch.export writes its own layer for the traced height and
    width alone, and such a graph is wrong, or fails, at others.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, C, h, w) -> (B, C, size, size)."""
        if not torch.compiler.is_exporting():
            pooled: Tensor = super().forward(x)
            return pooled
        rows, columns = (_region_weights(side, self.size, x) for side in x.shape[-2:])
        return rows @ x @ columns.T


def _region_weights(side: int, regions: int, like: Tensor) -> Tensor:
    """Return the weights (n, s) of averages: region i has the positions floor(i s / n) to ceil((i + 1) s / n)."""
    position = torch.arange(side, device=like.device)
    region = torch.arange(regions, device=like.device)[:, None]
    first, end = region * side // regions, -(-(region + 1) * side // regions)
    inside = (position >= first) & (position < end)
    return inside.to(like.dtype) / (end - first).to(like.dtype)


class PyramidPooling(nn.Module):
    """PSPNet's pyramid pooling: averages over 1x1, 2x2, 3x3 and 6x6 regions, upsampled and concatenated with the map.

    Each level is reduced by a 1x1 to in_channels / len(bins) channels, so that the output has twice the channels of the
    input (2048 -> 4096). Source: PSPNet section 3.2; corners aligned as in the authors' code.
    """

    def __init__(self, in_channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        reduced = in_channels // len(bins)
        self.levels = nn.ModuleList(
            nn.Sequential(
                RegionPooling(size),
                nn.Conv2d(in_channels, reduced, 1, bias=False),
                BatchNorm2dSafe(reduced),
                nn.ReLU(inplace=True),
            )
            for size in bins
        )
        self.out_channels = in_channels + reduced * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, out_channels, h, w)."""
        size = x.shape[-2:]
        levels = [F.interpolate(level(x), size=size, mode="bilinear", align_corners=True) for level in self.levels]
        return torch.cat([x, *levels], 1)
