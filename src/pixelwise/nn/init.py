"""Fresh weights: what a network starts from when nothing published fits, and how a published first layer is widened."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import ConfigError


def init_he(module: nn.Module) -> None:
    """Convolutions and linear layers: normal weights of He's variance (fan in), zero biases; norms: one and zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_he_up(layer: nn.ConvTranspose2d) -> None:
    """An up-convolution whose windows do not overlap: each of its cells has as many incoming nodes as there are channels in."""
    assert layer.kernel_size == layer.stride, "windows overlap"
    nn.init.normal_(layer.weight, std=math.sqrt(2 * layer.groups / layer.in_channels))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero: FCN's score layers. Source: FCN section 4.2; Caffe's default filler."""
    layer = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def normal_conv(
    in_channels: int, out_channels: int, kernel: int, *, std: float, stride: int = 1, padding: int = 0, rate: int = 1
) -> nn.Conv2d:
    """A convolution with weights of a normal of `std` around 0 and zero biases: DeepLab's new layers, Caffe's gaussian filler."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, rate)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def scaled(num_channels: int, width: float) -> int:
    """A channel count times `width`, even (groups of two stay possible) and at least 2."""
    if width <= 0:
        raise ConfigError("width", f"got {width}, allowed are numbers above 0")
    return num_channels if width == 1 else max(2, 2 * round(num_channels * width / 2))


def inflate_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """(F, 3, k, k) -> (F, in_channels, k, k): the three colour planes, then their mean in every further plane.

    Raises ConfigError for fewer than three channels. Source: FCN's NYUDv2 early fusion (net surgery of the RGB-D net).
    """
    if in_channels < 3 or weight.shape[1] != 3:
        what = f"cannot turn {weight.shape[1]} input planes into {in_channels}"
        raise ConfigError("in_channels", what, "start from 3 and go to 3 or more")
    extra = weight.mean(1, keepdim=True).expand(-1, in_channels - 3, -1, -1)
    return torch.cat([weight, extra], 1)
