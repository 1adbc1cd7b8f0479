"""Fresh weights: what a network starts from when nothing published fits, and how a published first layer is widened."""

from __future__ import annotations

import math

from torch import nn


def init_kaiming_normal(module: nn.Module) -> None:
    """Convolutions and linear layers: normal weights of He's variance (fan in), zero biases; norms: one and zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_kaiming_upconv(layer: nn.ConvTranspose2d) -> None:
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
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    std: float,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> nn.Conv2d:
    """A convolution with weights of a normal of `std` around 0 and zero biases: DeepLab's new layers, Caffe's gaussian filler."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
