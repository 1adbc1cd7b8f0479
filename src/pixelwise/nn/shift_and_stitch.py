"""Dense output from a net of stride f without upsampling: shift-and-stitch, and filter rarefaction, which is the same map.

Source: FCN (https://arxiv.org/abs/1411.4038) section 3.2; rarefaction is the a-trous algorithm: a stride becomes 1, and all
later kernels, poolings included, are dilated by it.
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

    images (B, C, H, W) -> (B, K, h * factor, w * factor), where the net gives (B, K, h, w): the cell at row r is the net's
    answer with its grid moved by r modulo factor. Beyond the right and lower border the images go on with zeros.
    """
    height, width = images.shape[-2:]
    wide = F.pad(images, (0, factor - 1, 0, factor - 1))
    shifts = [(dy, dx) for dy in range(factor) for dx in range(factor)]
    maps = [net(wide[..., dy : dy + height, dx : dx + width]) for dy, dx in shifts]
    # pixel_shuffle expects the factor^2 phases of one class side by side.
    return F.pixel_shuffle(torch.stack(maps, 2).flatten(1, 2), factor)


def rarefy(net: nn.Module) -> nn.Module:
    """A copy of the net whose strides are 1 and whose kernels are dilated by the strides that came before them.

    The net has to be a chain of convolutions and poolings (nn.Sequential, nested as you like); another container counts as
    branches side by side on one map, as in an Inception module. Where the net gives h cells of stride f, the copy gives a
    cell a pixel, the first at the same place. Raises ConfigError for layers without a window (linear, adaptive pooling).
    """
    net = copy.deepcopy(net)
    if isinstance(net, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        net = nn.Sequential(net)
    _rarefy_children(net, 1)
    return net


class DilatedAvgPool(nn.Module):
    """An average over a kernel x kernel grid of cells `dilation` apart, stride 1."""

    def __init__(self, kernel: tuple[int, int], padding: tuple[int, int], dilation: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.padding = padding
        self.dilation = dilation

    def forward(self, cells: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h', w')."""
        channels = cells.shape[1]
        weight = cells.new_full((channels, 1, *self.kernel), 1 / (self.kernel[0] * self.kernel[1]))
        return F.conv2d(cells, weight, padding=self.padding, dilation=self.dilation, groups=channels)


def _rarefy_children(parent: nn.Module, spacing: int) -> int:
    """Change the children for cells that lie `spacing` apart, and return how far apart theirs lie."""
    is_chain = isinstance(parent, nn.Sequential)
    branches = set()
    for name, child in parent.named_children():
        new, behind = _rarefied(child, spacing)
        setattr(parent, name, new)
        branches.add(behind)
        if is_chain:
            spacing = behind
    if is_chain or not branches:
        return spacing
    if len(branches) > 1:
        raise ConfigError(
            "rarefy", f"branches of {type(parent).__name__} have different strides", "rarefy a chain of layers"
        )
    return branches.pop()


def _rarefied(layer: nn.Module, spacing: int) -> tuple[nn.Module, int]:
    if isinstance(layer, nn.Linear | nn.Flatten | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d | nn.ConvTranspose2d):
        raise ConfigError("rarefy", f"{type(layer).__name__} has no sliding window", "convolutionalize the net first")
    if isinstance(layer, nn.AvgPool2d):
        (stride, _), padding = _pair(layer.stride), _scaled(layer.padding, spacing)
        return DilatedAvgPool(_pair(layer.kernel_size), padding, spacing), spacing * stride
    if isinstance(layer, nn.MaxPool2d):
        (stride, _), (vertical, horizontal) = _pair(layer.stride), _scaled(layer.padding, spacing)
        # Padded by a layer of its own: torch allows a pooling half of its kernel, not counting the dilation.
        border = nn.ConstantPad2d((horizontal, horizontal, vertical, vertical), -torch.inf)
        pooling = nn.MaxPool2d(layer.kernel_size, 1, dilation=_scaled(layer.dilation, spacing))
        return nn.Sequential(border, pooling), spacing * stride
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str), "padding is a number of cells"
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
