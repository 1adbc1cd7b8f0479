"""MobileNetV3: Howard et al., "Searching for MobileNetV3", ICCV 2019.

Paper: https://arxiv.org/abs/1905.02244

Faithful: large and small (tables 1 and 2), hard swish, squeeze and excitation with a hard sigmoid; state names and shapes are
torchvision's, so that its files load strictly.

Deviations: squeeze and excitation goes to a quarter of the expanded channels, rounded to multiples of 8, as torchvision.
`output_stride` turns stride into rate; `dilate_first` gives the new rate to the unit that lost its stride too, as torchvision's
segmentation nets; `width_mult` is the paper's multiplier.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import ConvNormAct
from ..nn.channels import make_divisible
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from ..nn.squeeze_excitation import SqueezeExcitation
from .base import BACKBONES
from .classifier import MobileBackbone

PAPER = "https://arxiv.org/abs/1905.02244"


class Row(NamedTuple):
    """One line of the paper's tables."""

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    hard_swish: bool
    stride: int


# Source: paper table 1.
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
# Source: paper table 2.
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class InvertedResidual(MainPath):
    """1x1 to more channels, depthwise, squeeze and excitation, linear 1x1; added to its input where the shape is kept."""

    def __init__(self, row: Row, in_channels: int, expanded: int, out_channels: int, stride: int, rate: int) -> None:
        super().__init__()
        act = nn.Hardswish if row.hard_swish else nn.ReLU
        layers: list[nn.Module] = [ConvNormAct(in_channels, expanded, 1, act=act)] if expanded != in_channels else []
        layers.append(ConvNormAct(expanded, expanded, row.kernel, stride, rate, expanded, act))
        if row.squeeze:
            layers.append(SqueezeExcitation(expanded, make_divisible(expanded // 4, 1), F.relu, F.hardsigmoid))
        layers.append(nn.Sequential(nn.Conv2d(expanded, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)))
        self.block = nn.Sequential(*layers)
        self.is_residual = row.stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, about H / stride, about W / stride)."""
        added: Tensor = self.block(x)
        return x + added if self.is_residual else added

    def main_path(self) -> list[nn.Module]:
        """The branch with layers that move cells."""
        return [layer for layer in self.block if not isinstance(layer, SqueezeExcitation)]


class MobileNetV3(MobileBackbone):
    """The last map at each of the strides 2, 4, 8, 16 and 32, or to `output_stride`."""

    input_size = 224

    def __init__(
        self,
        rows: tuple[Row, ...],
        hidden: int,
        in_channels: int,
        num_classes: int,
        output_stride: int,
        dilate_first: bool,
        width_mult: float,
    ) -> None:
        super().__init__()
        channels = make_divisible(16, width_mult)
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, 3, 2, act=nn.Hardswish)]
        tracker = StrideDilation(output_stride, stride=2)
        ends: list[tuple[int, int, int]] = []
        for row in rows:
            if row.stride == 2:
                ends.append((len(layers) - 1, channels, tracker.stride))
            before, stride = tracker.dilation, tracker.step(row.stride)
            expanded, out = make_divisible(row.expanded, width_mult), make_divisible(row.channels, width_mult)
            layers.append(
                InvertedResidual(row, channels, expanded, out, stride, tracker.dilation if dilate_first else before)
            )
            channels = out
        layers.append(ConvNormAct(channels, 6 * channels, 1, act=nn.Hardswish))
        channels *= 6
        ends.append((len(layers) - 1, channels, tracker.stride))
        self._finish(layers, ends)
        if num_classes:
            wide = make_divisible(hidden, width_mult)
            self.classifier = nn.Sequential(
                nn.Linear(channels, wide), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(wide, num_classes)
            )
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                # Source: torchvision; the authors' momentum is that of another engine.
                layer.eps, layer.momentum = 0.001, 0.01


def _register(name: str, rows: tuple[Row, ...], hidden: int) -> None:
    def build(
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        dilate_first: bool = False,
        width_mult: float = 1.0,
    ) -> MobileNetV3:
        return MobileNetV3(rows, hidden, in_channels, num_classes, output_stride, dilate_first, width_mult)

    build.__doc__ = f"MobileNetV3 {name}, the last map at each stride."
    BACKBONES.register(f"mobilenetv3_{name}", tiny={"width_mult": 0.25}, paper=PAPER, year=2019)(build)


_register("large", LARGE, 1280)
_register("small", SMALL, 1024)
