"""DenseNet: Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017.

Paper: https://arxiv.org/abs/1608.06993

Faithful: DenseNet-BC of 121, 169, 201 and 161 layers (table 1): bottlenecks of 4 k channels, growth k, compression 0.5; state
names and shapes are torchvision's, so that its files load strictly.

Deviations: `output_stride` leaves the last transitions' pooling out and gives the 3x3 convolutions behind them a rate; `width_mult`
scales stem and growth. Maps: the stem, and each block's output before its transition (the last behind the final norm and ReLU).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from .base import BACKBONES
from .classifier import ClassifierBackbone

PAPER = "https://arxiv.org/abs/1608.06993"

# Layers of the four blocks, growth rate. Source: paper table 1.
NETS: dict[int, tuple[tuple[int, int, int, int], int]] = {
    121: ((6, 12, 24, 16), 32),
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
    161: ((6, 12, 36, 24), 48),
}
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1, norm, ReLU, 3x3: `growth` new channels from all that came before."""

    def __init__(self, in_channels: int, growth: int, rate: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(inner, growth, 3, 1, rate, rate, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, growth, H, W)."""
        new: Tensor = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return new


class DenseBlock(nn.Sequential):
    """Each layer reads the concatenation of the block's input and all earlier layers' channels."""

    def __init__(self, num_layers: int, in_channels: int, growth: int, rate: int) -> None:
        super().__init__()
        for i in range(num_layers):
            self.add_module(f"denselayer{i + 1}", DenseLayer(in_channels + i * growth, growth, rate))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, in_channels + num_layers * growth, H, W)."""
        for layer in self:
            x = torch.cat([x, layer(x)], 1)
        return x


class Transition(nn.Sequential):
    """Norm, ReLU, 1x1 to half the channels, 2x2 average pooling (none where the stride became a rate)."""

    def __init__(self, in_channels: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()


class DenseNet(ClassifierBackbone):
    """Maps relu0, denseblock1 to denseblock3, relu5: strides 2 to 32, or to `output_stride`."""

    input_size = 224
    map_names = ("relu0", "denseblock1", "denseblock2", "denseblock3", "relu5")

    def __init__(self, depth: int, in_channels: int, num_classes: int, output_stride: int, width_mult: float) -> None:
        super().__init__()
        counts, base = NETS[depth]
        growth = scale_channels(base, width_mult)
        channels = 2 * growth
        features = nn.Sequential()
        features.add_module("conv0", nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False))
        features.add_module("norm0", nn.BatchNorm2d(channels))
        features.add_module("relu0", nn.ReLU(inplace=True))
        features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        self.strides, self.channels = (2,), (channels,)
        tracker = StrideDilation(output_stride, stride=4)
        for i, num_layers in enumerate(counts, start=1):
            features.add_module(f"denseblock{i}", DenseBlock(num_layers, channels, growth, tracker.dilation))
            channels += num_layers * growth
            self.strides, self.channels = (*self.strides, tracker.stride), (*self.channels, channels)
            if i < len(counts):
                features.add_module(f"transition{i}", Transition(channels, tracker.step(2)))
                channels //= 2
        features.add_module("norm5", nn.BatchNorm2d(channels))
        # Out of place: the block's own output is a map too.
        features.add_module("relu5", nn.ReLU())
        self.features = features
        if num_classes:
            self.classifier = nn.Linear(channels, num_classes)
        init_kaiming_normal(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        maps, cells = [], images
        for name, layer in self.features.named_children():
            cells = layer(cells)
            if name in self.map_names:
                # A transition's first ReLU works in place behind its norm: the block's output itself is not touched.
                maps.append(cells)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""
        children = dict(self.features.named_children())
        last = list(children).index(self.map_names[index])
        return list(children.values())[: last + 1]

    def head(self) -> nn.Sequential | None:
        """Global average, fully connected layer."""
        if not hasattr(self, "classifier"):
            return None
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), self.classifier)


def _register(depth: int) -> None:
    def build(
        in_channels: int = 3, *, num_classes: int = 0, output_stride: int = 32, width_mult: float = 1.0
    ) -> DenseNet:
        return DenseNet(depth, in_channels, num_classes, output_stride, width_mult)

    build.__doc__ = f"DenseNet-BC with {depth} layers, the stem's map and the four blocks'."
    tiny: dict[str, Any] = {"width_mult": 1 / 16}
    BACKBONES.register(f"densenet{depth}", tiny=tiny, paper=PAPER, year=2017)(build)


for _depth in NETS:
    _register(_depth)
