"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

Paper: https://arxiv.org/abs/1801.04381

Faithful: table 2; state names and shapes are torchvision's, so that its files load strictly.

Deviations: `output_stride` turns stride into rate (the depthwise convolutions behind take it, as section 6.3 for DeepLab v3);
`width_mult` is the paper's multiplier, rounded to multiples of 8. `last_conv` False leaves the 1x1 to 1280 channels out, as DeepLab.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..nn.blocks import ConvNormAct
from ..nn.channels import make_divisible
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from .base import BACKBONES
from .classifier import MobileBackbone

PAPER = "https://arxiv.org/abs/1801.04381"

# UpBlock, channels, repeats, stride. Source: paper table 2.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(MainPath):
    """1x1 to more channels, depthwise 3x3, linear 1x1; added to its input where the shape is kept. Source: paper table 1."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, rate: int, expansion: int, keeps_size: bool
    ) -> None:
        super().__init__()
        inner = in_channels * expansion
        expand = [ConvNormAct(in_channels, inner, 1, act=nn.ReLU6)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvNormAct(inner, inner, 3, stride, rate, groups=inner, act=nn.ReLU6),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        # A unit that lost its stride to a rate had no shortcut in the classifier and gets none here.
        self.is_residual = keeps_size and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, about H / stride, about W / stride)."""
        added: Tensor = self.conv(x)
        return x + added if self.is_residual else added

    def main_path(self) -> list[nn.Module]:
        """The branch with layers."""
        return [self.conv]


class MobileNetV2(MobileBackbone):
    """The last map at each of the strides 2, 4, 8, 16 and 32, or to `output_stride`."""

    input_size = 224

    def __init__(
        self, in_channels: int, num_classes: int, output_stride: int, width_mult: float, last_conv: bool
    ) -> None:
        super().__init__()
        channels = make_divisible(32, width_mult)
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, 3, 2, act=nn.ReLU6)]
        tracker = StrideDilation(output_stride, stride=2)
        # Where a nominal stride stands, the map before it ends: its position, channels and true stride.
        ends: list[tuple[int, int, int]] = []
        for expansion, base, repeats, nominal in STAGES:
            for repeat in range(repeats):
                wished = nominal if repeat == 0 else 1
                if wished == 2:
                    ends.append((len(layers) - 1, channels, tracker.stride))
                rate, out = tracker.dilation, make_divisible(base, width_mult)
                layers.append(InvertedResidual(channels, out, tracker.step(wished), rate, expansion, wished == 1))
                channels = out
        if last_conv or num_classes:
            wide = make_divisible(1280, max(1.0, width_mult))
            layers.append(ConvNormAct(channels, wide, 1, act=nn.ReLU6))
            channels = wide
        ends.append((len(layers) - 1, channels, tracker.stride))
        self._finish(layers, ends)
        if num_classes:
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes))
        init_kaiming_normal(self)


@BACKBONES.register("mobilenetv2", tiny={"width_mult": 0.25}, paper=PAPER, year=2018)
def mobilenetv2(
    in_channels: int = 3,
    *,
    num_classes: int = 0,
    output_stride: int = 32,
    width_mult: float = 1.0,
    last_conv: bool = True,
) -> MobileNetV2:
    """MobileNetV2: inverted residuals, the last map at each stride."""
    return MobileNetV2(in_channels, num_classes, output_stride, width_mult, last_conv)
