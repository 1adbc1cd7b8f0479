"""MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

Inverted residual blocks: a 1x1 convolution expands the channels, a depthwise 3x3 filters them, and a linear 1x1
projects them back to the few channels that the shortcut carries.

Paper: https://arxiv.org/abs/1801.04381

Faithful: table 2. State names and shapes are torchvision's, so that its published weights load strictly.

Deviations: as in torchvision, paddings are symmetric; TensorFlow's are not where a stride of 2 meets an even size. So
the maps of TensorFlow's weights are shifted by a pixel at 224 pixels, and equal at odd sizes (DeepLab's 513). Norms
have torchvision's eps of 1e-5; TensorFlow's have 1e-3 (`norm_eps`). `output_stride` replaces strides by dilation (of
the depthwise convolutions, as section 6.3 does for DeepLab v3). `width_mult` is the paper's multiplier, rounded to
multiples of `divisor`: 8, or 1 as in DeepLab's code for multipliers other than 1. `last_conv=False` leaves out the 1x1
to 1280 channels, as DeepLab does.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.blocks import ConvNormAct
from ..nn.channels import make_divisible
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from . import BACKBONES
from .classifier import ChainBackbone

PAPER = "https://arxiv.org/abs/1801.04381"

# Expansion t, channels c, repeats n, stride s. Source: paper table 2.
STAGES = (
    (1, 16, 1, 1),  # 112 x 112
    (6, 24, 2, 2),  # 56 x 56
    (6, 32, 3, 2),  # 28 x 28
    (6, 64, 4, 2),  # 14 x 14
    (6, 96, 3, 1),
    (6, 160, 3, 2),  # 7 x 7
    (6, 320, 1, 1),
)


class InvertedResidual(MainPath):
    """1x1 to `expansion` times the channels, depthwise 3x3, linear 1x1; added to the input where the shape is kept.

    nominal_stride is the paper's; where it is replaced by dilation, `stride` is 1, and there is still no shortcut,
    because the classifier has no shortcut there. Source: paper table 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expansion: int,
        nominal_stride: int,
        stride: int,
        dilation: int,
    ) -> None:
        super().__init__()
        # TensorFlow's code rounds expanded channels to multiples of 8, which changes them only if `divisor` is not 8.
        hidden = in_channels if expansion == 1 else make_divisible(in_channels, expansion)
        expand = [ConvNormAct(in_channels, hidden, 1, act=nn.ReLU6)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, stride=stride, dilation=dilation, groups=hidden, act=nn.ReLU6),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.has_shortcut = nominal_stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))."""
        residual: Tensor = self.conv(x)
        return x + residual if self.has_shortcut else residual

    def main_path(self) -> list[nn.Module]:
        """Return the convolutions."""
        return [self.conv]


@BACKBONES.register("mobilenetv2", tiny={"width_mult": 0.25}, paper=PAPER, year=2018)
class MobileNetV2(ChainBackbone):
    """MobileNetV2: inverted residuals; the last map at each of the strides 2, 4, 8, 16 and 32.

    last_conv  False leaves out the 1x1 to 1280 channels
    divisor    number of which all channel counts are multiples
    norm_eps   eps of all batch norms
    """

    def __init__(
        self,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        width_mult: float = 1.0,
        last_conv: bool = True,
        divisor: int = 8,
        norm_eps: float = 1e-5,
    ) -> None:
        if divisor < 1:
            raise ConfigError("divisor", f"must be >= 1, got {divisor}", "8 is the paper's, 1 DeepLab's")
        channels = make_divisible(32, width_mult, divisor=divisor)
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, stride=2, act=nn.ReLU6)]
        tracker = StrideDilation(output_stride, stride=2)
        ends: list[int] = []  # positions of the maps: the last layer before each stride of 2
        for expansion, base_channels, repeats, stage_stride in STAGES:
            out_channels = make_divisible(base_channels, width_mult, divisor=divisor)
            for nominal_stride in (stage_stride, *[1] * (repeats - 1)):
                if nominal_stride == 2:
                    ends.append(len(layers) - 1)
                dilation, stride = tracker.dilation, tracker.step(nominal_stride)
                block = InvertedResidual(
                    channels,
                    out_channels,
                    expansion=expansion,
                    nominal_stride=nominal_stride,
                    stride=stride,
                    dilation=dilation,
                )
                layers.append(block)
                channels = out_channels
        if last_conv or num_classes:
            wide = make_divisible(1280, max(1.0, width_mult), divisor=divisor)
            layers.append(ConvNormAct(channels, wide, 1, act=nn.ReLU6))
            channels = wide
        maps = {f"features.{position}": position for position in (*ends, len(layers) - 1)}
        features = nn.Sequential(*layers)
        classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes)) if num_classes else None
        super().__init__(features, classifier, maps=maps, input_size=224)
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = norm_eps
