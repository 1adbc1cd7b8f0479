"""Initial weights, for networks that do not start from published weights."""

from __future__ import annotations

import math

from torch import nn


def init_kaiming_normal(module: nn.Module) -> None:
    """Initialize all convolutions, linear layers and norms in a module.

    Weights are normal with variance 2 / fan_in (He et al. 2015), biases 0; norms start at weight 1, bias 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_kaiming_upconv(layer: nn.ConvTranspose2d) -> None:
    """Initialize an up-convolution whose windows do not overlap (kernel equal to stride, as U-Net's 2x2).

    Each output then has in_channels inputs, so the variance is 2 / in_channels; torch's fan_in would count the kernel
    too.
    """
    assert layer.kernel_size == layer.stride, "expected windows that do not overlap"
    nn.init.normal_(layer.weight, std=math.sqrt(2 * layer.groups / layer.in_channels))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def zero_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 1x1 convolution that starts at zero: FCN's score layers.

    Source: FCN sections 4.2 (skips) and 4.3; Caffe's default filler.
    """
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
    """Return a convolution with weights from N(0, std^2) and zero biases.

    This is Caffe's gaussian filler; DeepLab's new layers have std 0.01.
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
