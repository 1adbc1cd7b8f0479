"""Dense outputs of a strided net without upsampling: shift-and-stitch, and filter rarefaction.

Shift-and-stitch runs the net on every shift of the image by 0 .. f-1 pixels and interlaces the f * f coarse maps.
Rarefaction (the "algorithme à trous", the origin of atrous convolution) gets the same values in one pass: every stride
becomes 1, and all later kernels, poolings included, are dilated by it.

Source: FCN (https://arxiv.org/abs/1411.4038), section 3.2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError


def shift_and_stitch(net: Callable[[Tensor], Tensor], images: Tensor, factor: int) -> Tensor:
    """Run a net of stride `factor` on every shift of the images and interlace the maps.

    images (B, C, H, W) -> (B, K, h * factor, w * factor), where the net returns (B, K, h, w). Row r of the result comes
    from the run on the image shifted by r modulo `factor` rows. Beyond the right and lower border the images are
    continued with zeros.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (0, factor - 1, 0, factor - 1))
    shifts = [(dy, dx) for dy in range(factor) for dx in range(factor)]
    maps = [net(padded[..., dy : dy + height, dx : dx + width]) for dy, dx in shifts]
    # pixel_shuffle expects the factor^2 shifts of one class side by side.
    return F.pixel_shuffle(torch.stack(maps, 2).flatten(1, 2), factor)


def rarefy(net: nn.Module) -> nn.Module:
    """Return a copy of a net with all strides 1 and the later kernels dilated, which gives one output per pixel.

    The net must be a chain of convolutions and poolings (nn.Sequential, nested to any depth); any other container
    counts as branches side by side on one map, as in an Inception module. The copy's first output is that of the net,
    at the same place. Raises ConfigError for layers without a sliding window (linear, adaptive pooling) and for
    branches of different strides.
    """
    net = copy.deepcopy(net)
    if isinstance(net, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        net = nn.Sequential(net)
    _rarefy_children(net, 1)
    return net


class DilatedAvgPool(nn.Module):
    """An average over a kernel x kernel grid of positions `dilation` apart, stride 1.

    torch's AvgPool2d has no dilation.
    """

    def __init__(self, kernel: tuple[int, int], padding: tuple[int, int], dilation: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.padding = padding
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, C, h, w) -> (B, C, h', w')."""
        channels = x.shape[1]
        weight = x.new_full((channels, 1, *self.kernel), 1 / (self.kernel[0] * self.kernel[1]))
        return F.conv2d(x, weight, padding=self.padding, dilation=self.dilation, groups=channels)


def _rarefy_children(parent: nn.Module, spacing: int) -> int:
    """Rarefy the children in place for an input with positions `spacing` apart; return their output's spacing."""
    is_chain = isinstance(parent, nn.Sequential)
    branches = set()
    for name, child in parent.named_children():
        new, out_spacing = _rarefied(child, spacing)
        setattr(parent, name, new)
        branches.add(out_spacing)
        if is_chain:
            spacing = out_spacing
    if is_chain or not branches:
        return spacing
    if len(branches) > 1:
        what = f"branches of {type(parent).__name__} have different strides"
        raise ConfigError("rarefy", what, "rarefy a chain of layers")
    return branches.pop()


def _rarefied(layer: nn.Module, spacing: int) -> tuple[nn.Module, int]:
    """Return the layer with stride 1 and dilated by `spacing`, and the spacing of its output."""
    if isinstance(layer, nn.Linear | nn.Flatten | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.ConvTranspose2d):
        raise ConfigError("rarefy", f"{type(layer).__name__} has no sliding window", "convolutionalize the net first")
    if isinstance(layer, nn.AvgPool2d):
        (stride, _), padding = _pair(layer.stride), _scaled(layer.padding, spacing)
        return DilatedAvgPool(_pair(layer.kernel_size), padding, spacing), spacing * stride
    if isinstance(layer, nn.MaxPool2d):
        (stride, _), (vertical, horizontal) = _pair(layer.stride), _scaled(layer.padding, spacing)
        # A padding layer of its own, because torch limits a pooling's padding to half of its undilated kernel.
        border = nn.ConstantPad2d((horizontal, horizontal, vertical, vertical), -torch.inf)
        pooling = nn.MaxPool2d(layer.kernel_size, 1, dilation=_scaled(layer.dilation, spacing))
        return nn.Sequential(border, pooling), spacing * stride
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str), f"expected a padding in numbers, got {layer.padding!r}"
        stride = layer.stride[0]
        layer.stride = (1, 1)
        layer.padding = _scaled(layer.padding, spacing)
        layer.dilation = _scaled(layer.dilation, spacing)
        return layer, spacing * stride
    return layer, _rarefy_children(layer, spacing)


def _scaled(value: int | tuple[int, ...], factor: int) -> tuple[int, int]:
    first, second = _pair(value)
    return first * factor, second * factor


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
