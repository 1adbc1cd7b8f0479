"""EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.

Paper: https://arxiv.org/abs/1905.11946

Faithful: B0 (table 1) scaled to B1 to B7 by the authors' width and depth factors, channels rounded to multiples of 8, repeats
rounded up; squeeze and excitation to a quarter of a block's input channels; SiLU; blocks dropped at random in training
(stochastic depth), the more the later. State names and shapes are torchvision's, so that its files load strictly.

Deviations: paddings are symmetric, TensorFlow's are not at stride 2; norms as torchvision (eps 1e-5 and momentum 0.1 up to B4,
the paper's 0.001 and 0.01 from B5). `output_stride` turns stride into rate; `width_mult` and `depth_mult` can be given; `last_conv` False
leaves the 1x1 out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
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

PAPER = "https://arxiv.org/abs/1905.11946"

# UpBlock, kernel, stride, channels, repeats. Source: paper table 1.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
DROP = 0.2
"""Probability with which the last block is left out in training; it falls linearly to 0 at the first."""


class Scale(NamedTuple):
    """Factors of one net, its image side in pixels, dropout before the classifier. Source: the authors' code."""

    width: float
    depth: float
    resolution: int
    dropout: float


SCALES = {
    0: Scale(1.0, 1.0, 224, 0.2),
    1: Scale(1.0, 1.1, 240, 0.2),
    2: Scale(1.1, 1.2, 260, 0.3),
    3: Scale(1.2, 1.4, 300, 0.3),
    4: Scale(1.4, 1.8, 380, 0.4),
    5: Scale(1.6, 2.2, 456, 0.4),
    6: Scale(1.8, 2.6, 528, 0.5),
    7: Scale(2.0, 3.1, 600, 0.5),
}


class MBConv(MainPath):
    """1x1 to more channels, depthwise k x k, squeeze and excitation, linear 1x1; added to its input where the shape is kept."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        rate: int,
        expansion: int,
        keeps_size: bool,
        drop: float,
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        expand = [ConvNormAct(in_channels, inner, 1, act=nn.SiLU)] if expansion != 1 else []
        self.block = nn.Sequential(
            *expand,
            ConvNormAct(inner, inner, kernel, stride, rate, groups=inner, act=nn.SiLU),
            SqueezeExcitation(inner, max(1, in_channels // 4), F.silu),
            nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)),
        )
        self.is_residual = keeps_size and in_channels == out_channels
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, about H / stride, about W / stride)."""
        added: Tensor = self.block(x)
        if not self.is_residual:
            return added
        if self.training and self.drop:
            # Stochastic depth, image by image; what stays is scaled so that the mean is kept.
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            added = added * kept / (1 - self.drop)
        return x + added

    def main_path(self) -> list[nn.Module]:
        """The branch with layers that move cells."""
        return [layer for layer in self.block if not isinstance(layer, SqueezeExcitation)]


class EfficientNet(MobileBackbone):
    """The last map at each of the strides 2, 4, 8, 16 and 32, or to `output_stride`."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        output_stride: int,
        width_mult: float,
        depth: float,
        scale: Scale,
        eps: float,
        momentum: float,
        last_conv: bool,
    ) -> None:
        super().__init__()
        self.input_size = scale.resolution
        channels = make_divisible(32, width_mult)
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, 3, 2, act=nn.SiLU)]
        repeats = [math.ceil(stage[-1] * depth) for stage in STAGES]
        tracker, number = StrideDilation(output_stride, stride=2), 0
        ends: list[tuple[int, int, int]] = []
        for (expansion, kernel, nominal, base, _), count in zip(STAGES, repeats, strict=True):
            if nominal == 2:
                ends.append((len(layers) - 1, channels, tracker.stride))
            out, units = make_divisible(base, width_mult), []
            for repeat in range(count):
                wished, rate = nominal if repeat == 0 else 1, tracker.dilation
                drop = DROP * number / sum(repeats)
                units.append(MBConv(channels, out, kernel, tracker.step(wished), rate, expansion, wished == 1, drop))
                channels, number = out, number + 1
            layers.append(nn.Sequential(*units))
        if last_conv or num_classes:
            layers.append(ConvNormAct(channels, make_divisible(1280, width_mult), 1, act=nn.SiLU))
            channels = make_divisible(1280, width_mult)
        ends.append((len(layers) - 1, channels, tracker.stride))
        self._finish(layers, ends)
        if num_classes:
            self.classifier = nn.Sequential(nn.Dropout(scale.dropout), nn.Linear(channels, num_classes))
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps, layer.momentum = eps, momentum


def _register(number: int, scale: Scale) -> None:
    def build(
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        width_mult: float = scale.width,
        depth_mult: float = scale.depth,
        last_conv: bool = True,
    ) -> EfficientNet:
        eps, momentum = (1e-5, 0.1) if number < 5 else (1e-3, 0.01)
        return EfficientNet(
            in_channels, num_classes, output_stride, width_mult, depth_mult, scale, eps, momentum, last_conv
        )

    build.__doc__ = f"EfficientNet-B{number}: images of {scale.resolution} pixels, the last map at each stride."
    BACKBONES.register(f"efficientnet_b{number}", tiny={"width_mult": 0.1, "depth_mult": 0.4}, paper=PAPER, year=2019)(
        build
    )


for _number, _scale in SCALES.items():
    _register(_number, _scale)
