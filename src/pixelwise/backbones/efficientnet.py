"""EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.

Inverted residual blocks with squeeze and excitation. One network, B0, found by search, is scaled in width, depth and
resolution together to B1 ... B7.

Paper: https://arxiv.org/abs/1905.11946

Faithful: B0 (table 1) scaled by the authors' width and depth factors, channels rounded to multiples of 8, repeats
rounded up; squeeze and excitation to a quarter of a block's input channels; SiLU; stochastic depth, more for later
blocks. State names and shapes are torchvision's, so that its published weights load strictly.

Deviations: paddings are symmetric, TensorFlow's are not at stride 2; norms as in torchvision (eps 1e-5 and momentum 0.1
up to B4, the paper's 0.001 and 0.01 from B5). `output_stride` replaces strides by dilation; `width_mult` and
`depth_mult` replace the network's own factors; `last_conv=False` leaves out the last 1x1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
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
from . import BACKBONES
from .classifier import ChainBackbone

PAPER = "https://arxiv.org/abs/1905.11946"


class Stage(NamedTuple):
    """Blocks of equal size, the first of which has the stride."""

    expansion: int
    kernel: int
    stride: int
    channels: int
    repeats: int


# Source: paper table 1 (which gives the stride of the layer before).
STAGES = (
    Stage(1, 3, 1, 16, 1),  # 112 x 112
    Stage(6, 3, 2, 24, 2),  # 56 x 56
    Stage(6, 5, 2, 40, 2),  # 28 x 28
    Stage(6, 3, 2, 80, 3),  # 14 x 14
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),  # 7 x 7
    Stage(6, 3, 1, 320, 1),
)
DROP = 0.2
"""Probability that the last block is skipped in training; it falls linearly to 0 at the first block."""


class Scale(NamedTuple):
    """Width and depth factors, image side in pixels, dropout before the classifier. Source: the authors' code."""

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
    """1x1 to more channels, depthwise k x k, squeeze and excitation, linear 1x1; added to the input if shapes agree.

    nominal_stride is the paper's; where it is replaced by dilation, `stride` is 1, and there is still no shortcut.
    drop_prob is the probability that training skips the block. EfficientNet-Lite has ReLU6 for SiLU (`act`) and no
    squeeze and excitation (`squeeze`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        expansion: int,
        nominal_stride: int,
        stride: int,
        dilation: int,
        drop_prob: float,
        act: type[nn.Module] = nn.SiLU,
        squeeze: bool = True,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = [ConvNormAct(in_channels, hidden, 1, act=act)] if expansion != 1 else []
        layers.append(ConvNormAct(hidden, hidden, kernel, stride=stride, dilation=dilation, groups=hidden, act=act))
        if squeeze:
            layers.append(SqueezeExcitation(hidden, max(1, in_channels // 4), activation=F.silu))
        layers.append(nn.Sequential(nn.Conv2d(hidden, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = nominal_stride == 1 and in_channels == out_channels
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        residual: Tensor = self.block(x)
        if not self.has_shortcut:
            return residual
        if self.training and self.drop_prob:
            # Stochastic depth per image; the kept ones are scaled so that the mean stays the same.
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop_prob
            residual = residual * kept / (1 - self.drop_prob)
        return x + residual

    def main_path(self) -> list[nn.Module]:
        """Return the layers without squeeze and excitation."""
        return [layer for layer in self.block if not isinstance(layer, SqueezeExcitation)]


class MBConvNet(ChainBackbone):
    """Base of EfficientNet and EfficientNet-Lite: 3x3 of stride 2, stages of MBConv, 1x1, classifier.

    The maps are the last one at each of the strides 2, 4, 8, 16 and 32.

    stages         with their final numbers of channels and blocks
    stem_channels  of the first convolution
    last_channels  of the last 1x1; 0 leaves it out
    act, squeeze   of all blocks; see MBConv
    dropout        before the classifier
    norm_eps, norm_momentum  of all batch norms
    """

    def __init__(
        self,
        in_channels: int,
        stages: Sequence[Stage],
        *,
        stem_channels: int,
        last_channels: int,
        act: type[nn.Module],
        squeeze: bool,
        num_classes: int,
        output_stride: int,
        dropout: float,
        norm_eps: float,
        norm_momentum: float,
        input_size: int,
    ) -> None:
        channels = stem_channels
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, stride=2, act=act)]
        tracker = StrideDilation(output_stride, stride=2)
        ends: list[int] = []  # positions of the maps: the last layer before each stride of 2
        num_blocks, first = sum(stage.repeats for stage in stages), 0
        for stage in stages:
            if stage.stride == 2:
                ends.append(len(layers) - 1)
            drops = [DROP * index / num_blocks for index in range(first, first + stage.repeats)]
            layers.append(build_stage(channels, stage, tracker, drops, act=act, squeeze=squeeze))
            channels = stage.channels
            first += stage.repeats
        if last_channels:
            layers.append(ConvNormAct(channels, last_channels, 1, act=act))
            channels = last_channels
        maps = {f"features.{position}": position for position in (*ends, len(layers) - 1)}
        classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes)) if num_classes else None
        super().__init__(nn.Sequential(*layers), classifier, maps=maps, input_size=input_size)
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps, layer.momentum = norm_eps, norm_momentum


def build_stage(
    in_channels: int,
    stage: Stage,
    tracker: StrideDilation,
    drop_probs: Sequence[float],
    *,
    act: type[nn.Module],
    squeeze: bool,
) -> nn.Sequential:
    """Return the blocks of a stage; the tracker replaces the stride of the first by dilation where it has to."""
    blocks: list[nn.Module] = []
    channels = in_channels
    for nominal_stride, drop_prob in zip((stage.stride, *[1] * (stage.repeats - 1)), drop_probs, strict=True):
        dilation, stride = tracker.dilation, tracker.step(nominal_stride)
        block = MBConv(
            channels,
            stage.channels,
            stage.kernel,
            expansion=stage.expansion,
            nominal_stride=nominal_stride,
            stride=stride,
            dilation=dilation,
            drop_prob=drop_prob,
            act=act,
            squeeze=squeeze,
        )
        blocks.append(block)
        channels = stage.channels
    return nn.Sequential(*blocks)


class EfficientNet(MBConvNet):
    """EfficientNet-B0 to B7 (`number`); the last map at each of the strides 2, 4, 8, 16 and 32."""

    def __init__(
        self,
        number: int,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        width_mult: float | None = None,
        depth_mult: float | None = None,
        last_conv: bool = True,
    ) -> None:
        scale = SCALES[number]
        width = scale.width if width_mult is None else width_mult
        depth = scale.depth if depth_mult is None else depth_mult
        stages = [
            stage._replace(channels=make_divisible(stage.channels, width), repeats=math.ceil(stage.repeats * depth))
            for stage in STAGES
        ]
        super().__init__(
            in_channels,
            stages,
            stem_channels=make_divisible(32, width),
            last_channels=make_divisible(1280, width) if last_conv or num_classes else 0,
            act=nn.SiLU,
            squeeze=True,
            num_classes=num_classes,
            output_stride=output_stride,
            dropout=scale.dropout,
            norm_eps=1e-5 if number < 5 else 1e-3,
            norm_momentum=0.1 if number < 5 else 0.01,
            input_size=scale.resolution,
        )


for _number, _scale in SCALES.items():
    BACKBONES.register(
        f"efficientnet_b{_number}",
        summary=f"EfficientNet-B{_number}: images of {_scale.resolution} pixels, the last map at each stride.",
        tiny={"width_mult": 0.1, "depth_mult": 0.4},
        paper=PAPER,
        year=2019,
    )(partial(EfficientNet, _number))
