"""MobileNetV3: Howard et al., "Searching for MobileNetV3", ICCV 2019.

MobileNetV2's inverted residual blocks with squeeze and excitation, hard swish and a layout found by architecture
search.

Paper: https://arxiv.org/abs/1905.02244

Faithful: large and small (tables 1 and 2), hard swish, squeeze and excitation with a hard sigmoid. State names and
shapes are torchvision's, so that its published weights load strictly.

Deviations: as in torchvision, paddings are symmetric; TensorFlow's are not where a stride of 2 meets an even size, so
the maps of its weights differ there. Squeeze and excitation reduces to a quarter of the expanded channels, rounded to
multiples of 8, as in torchvision. Norms have eps 0.001 and momentum 0.01, as in both. `output_stride` replaces strides
by dilation; `dilate_first` also dilates the block that lost its stride, as in torchvision's segmentation networks;
`width_mult` is the paper's multiplier.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

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

PAPER = "https://arxiv.org/abs/1905.02244"


class BlockConfig(NamedTuple):
    """One row of the paper's tables: kernel, exp size, #out, SE (squeeze and excitation), NL (hard swish, ReLU), s."""

    kernel: int
    expanded: int
    channels: int
    se: Literal["SE", "-"]
    nl: Literal["HS", "RE"]
    stride: int


# Source: paper table 1, after the first convolution; sizes of the output for an image of 224 pixels.
LARGE = (
    BlockConfig(3, 16, 16, "-", "RE", 1),  # 112 x 112
    BlockConfig(3, 64, 24, "-", "RE", 2),  # 56 x 56
    BlockConfig(3, 72, 24, "-", "RE", 1),
    BlockConfig(5, 72, 40, "SE", "RE", 2),  # 28 x 28
    BlockConfig(5, 120, 40, "SE", "RE", 1),
    BlockConfig(5, 120, 40, "SE", "RE", 1),
    BlockConfig(3, 240, 80, "-", "HS", 2),  # 14 x 14
    BlockConfig(3, 200, 80, "-", "HS", 1),
    BlockConfig(3, 184, 80, "-", "HS", 1),
    BlockConfig(3, 184, 80, "-", "HS", 1),
    BlockConfig(3, 480, 112, "SE", "HS", 1),
    BlockConfig(3, 672, 112, "SE", "HS", 1),
    BlockConfig(5, 672, 160, "SE", "HS", 2),  # 7 x 7
    BlockConfig(5, 960, 160, "SE", "HS", 1),
    BlockConfig(5, 960, 160, "SE", "HS", 1),
)
# Source: paper table 2.
SMALL = (
    BlockConfig(3, 16, 16, "SE", "RE", 2),  # 56 x 56
    BlockConfig(3, 72, 24, "-", "RE", 2),  # 28 x 28
    BlockConfig(3, 88, 24, "-", "RE", 1),
    BlockConfig(5, 96, 40, "SE", "HS", 2),  # 14 x 14
    BlockConfig(5, 240, 40, "SE", "HS", 1),
    BlockConfig(5, 240, 40, "SE", "HS", 1),
    BlockConfig(5, 120, 48, "SE", "HS", 1),
    BlockConfig(5, 144, 48, "SE", "HS", 1),
    BlockConfig(5, 288, 96, "SE", "HS", 2),  # 7 x 7
    BlockConfig(5, 576, 96, "SE", "HS", 1),
    BlockConfig(5, 576, 96, "SE", "HS", 1),
)


# Rows, and the channels of the hidden layer of the classifier.
NETS = {"large": (LARGE, 1280), "small": (SMALL, 1024)}


class InvertedResidualV3(MainPath):
    """1x1 to more channels, depthwise, squeeze and excitation, linear 1x1; added to the input where the shape is kept.

    `expanded` and `out_channels` are those of the row, scaled. Where the row's stride is replaced by dilation, `stride`
    is 1.
    """

    def __init__(
        self,
        row: BlockConfig,
        in_channels: int,
        *,
        expanded: int,
        out_channels: int,
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        act = nn.Hardswish if row.nl == "HS" else nn.ReLU
        layers: list[nn.Module] = [ConvNormAct(in_channels, expanded, 1, act=act)] if expanded != in_channels else []
        layers.append(
            ConvNormAct(expanded, expanded, row.kernel, stride=stride, dilation=dilation, groups=expanded, act=act)
        )
        if row.se == "SE":
            layers.append(SqueezeExcitation(expanded, make_divisible(expanded // 4, 1), gate=F.hardsigmoid))
        layers.append(nn.Sequential(nn.Conv2d(expanded, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = row.stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        residual: Tensor = self.block(x)
        return x + residual if self.has_shortcut else residual

    def main_path(self) -> list[nn.Module]:
        """Return the layers without squeeze and excitation."""
        return [layer for layer in self.block if not isinstance(layer, SqueezeExcitation)]


class MobileNetV3(ChainBackbone):
    """MobileNetV3 "large" or "small"; the last map at each of the strides 2, 4, 8, 16 and 32.

    Options of single papers: `output_stride` is DeepLab's; `dilate_first` is torchvision's, for DeepLab v3 and LR-ASPP.
    """

    def __init__(
        self,
        size: str,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        dilate_first: bool = False,
        width_mult: float = 1.0,
    ) -> None:
        rows, num_hidden = NETS[size]
        channels = make_divisible(16, width_mult)
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, stride=2, act=nn.Hardswish)]  # 224 -> 112
        tracker = StrideDilation(output_stride, stride=2)
        ends: list[int] = []  # positions of the maps: the last layer before each stride of 2
        for row in rows:
            if row.stride == 2:
                ends.append(len(layers) - 1)
            dilation_before, stride = tracker.dilation, tracker.step(row.stride)
            block = InvertedResidualV3(
                row,
                channels,
                expanded=make_divisible(row.expanded, width_mult),
                out_channels=make_divisible(row.channels, width_mult),
                stride=stride,
                dilation=tracker.dilation if dilate_first else dilation_before,
            )
            layers.append(block)
            channels = make_divisible(row.channels, width_mult)
        layers.append(ConvNormAct(channels, 6 * channels, 1, act=nn.Hardswish))
        channels *= 6
        maps = {f"features.{position}": position for position in (*ends, len(layers) - 1)}
        features = nn.Sequential(*layers)
        hidden = make_divisible(num_hidden, width_mult)
        classifier = nn.Sequential(
            nn.Linear(channels, hidden), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(hidden, num_classes),
        ) if num_classes else None  # fmt: skip
        super().__init__(features, classifier, maps=maps, input_size=224)
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                # As torchvision. The paper's "average decay of 0.99" is a momentum of 0.01 here.
                layer.eps, layer.momentum = 0.001, 0.01


for _size in NETS:
    BACKBONES.register(
        f"mobilenetv3_{_size}",
        summary=f"MobileNetV3 {_size}, the last map at each stride.",
        tiny={"width_mult": 0.25},
        paper=PAPER,
        year=2019,
    )(partial(MobileNetV3, _size))
