"""Depthwise separable convolution: one 3x3 kernel per channel, then a 1x1 across the channels.

A 3x3 from C to F channels has 9 C + C F weights instead of 9 C F. With a dilation it is DeepLab v3+'s atrous separable
convolution.

Sources: Chollet 2017, Xception (https://arxiv.org/abs/1610.02357); Chen et al. 2018, DeepLab v3+, section 3.1
(https://arxiv.org/abs/1802.02611).
"""

from __future__ import annotations

from torch import nn

from .depthwise_conv import DepthwiseConv2d


def depthwise(channels: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a convolution with one kernel per channel, padded so that stride 1 keeps the size."""
    return DepthwiseConv2d(channels, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation)


def pointwise(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution across the channels."""
    return nn.Conv2d(in_channels, out_channels, 1, bias=False)


def relu_separable_conv(
    in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1, eps: float = 1e-5
) -> nn.Sequential:
    """Return ReLU, depthwise, norm, pointwise, norm: the order of Xception's entry and middle flow.

    The ReLU is not in place, because the block's shortcut reads the same input.
    """
    return nn.Sequential(
        nn.ReLU(),
        depthwise(in_channels, stride=stride, dilation=dilation),
        nn.BatchNorm2d(in_channels, eps),
        pointwise(in_channels, out_channels),
        nn.BatchNorm2d(out_channels, eps),
    )


def separable_conv_relu(in_channels: int, out_channels: int, *, dilation: int = 1, eps: float = 1e-5) -> nn.Sequential:
    """Return depthwise, norm, ReLU, pointwise, norm, ReLU: Xception's exit flow, DeepLab v3+'s pyramid and decoder."""
    return nn.Sequential(
        depthwise(in_channels, dilation=dilation),
        nn.BatchNorm2d(in_channels, eps),
        nn.ReLU(inplace=True),
        pointwise(in_channels, out_channels),
        nn.BatchNorm2d(out_channels, eps),
        nn.ReLU(inplace=True),
    )
