"""Depthwise separable convolution: one small kernel a channel, then a 1x1 across them; with a rate, its atrous form.

Source: Chollet 2017, Xception (https://arxiv.org/abs/1610.02357); atrous: Chen et al. 2018, DeepLab v3+, section 3.1
(https://arxiv.org/abs/1802.02611). A 3x3 from C to F channels has 9 C + C F weights in place of 9 C F.
"""

from __future__ import annotations

from torch import nn


def depthwise(channels: int, kernel: int = 3, stride: int = 1, rate: int = 1) -> nn.Conv2d:
    """One kernel a channel, padded so that stride 1 keeps the size."""
    return nn.Conv2d(channels, channels, kernel, stride, rate * (kernel // 2), rate, groups=channels, bias=False)


def pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    """1x1 across the channels."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def relu_separable_conv(in_channels: int, out_channels: int, stride: int, rate: int, eps: float) -> nn.Sequential:
    """ReLU, depthwise, norm, pointwise, norm: Xception's order. The ReLU leaves its input alone, a shortcut needs it."""
    return nn.Sequential(
        nn.ReLU(),
        depthwise(in_channels, stride=stride, rate=rate),
        nn.BatchNorm2d(in_channels, eps),
        pointwise(in_channels, out_channels),
        nn.BatchNorm2d(out_channels, eps),
    )


def separable_conv_relu(in_channels: int, out_channels: int, rate: int = 1, eps: float = 1e-5) -> nn.Sequential:
    """Depthwise, norm, ReLU, pointwise, norm, ReLU: the order of the last flow and of DeepLab v3+'s pyramid and decoder."""
    return nn.Sequential(
        depthwise(in_channels, rate=rate),
        nn.BatchNorm2d(in_channels, eps),
        nn.ReLU(inplace=True),
        pointwise(in_channels, out_channels),
        nn.BatchNorm2d(out_channels, eps),
        nn.ReLU(inplace=True),
    )
