"""DenseNet: Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017.

Every layer reads the concatenation of all earlier maps of its block and adds `growth` new channels. Four blocks, joined
by transitions that halve channels and resolution.

Paper: https://arxiv.org/abs/1608.06993

Faithful: DenseNet-BC of 121, 169, 201 and 161 layers (table 1): bottlenecks of 4k channels, growth k, compression 0.5.
State names and shapes are torchvision's, so that its published weights load strictly.

Deviations: `output_stride` leaves out the pooling of the last transitions and dilates the 3x3 convolutions after them;
`width_mult` scales stem and growth. Maps: the stem, and the output of each block before its transition (the last after
the final norm and ReLU).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from . import BACKBONES
from .classifier import ClassifierBackbone

PAPER = "https://arxiv.org/abs/1608.06993"

# Layers of the four blocks, growth rate k. Source: paper table 1.
NETS: dict[int, tuple[tuple[int, int, int, int], int]] = {
    121: ((6, 12, 24, 16), 32),
    169: ((6, 12, 32, 32), 32),
    201: ((6, 12, 48, 32), 32),
    161: ((6, 12, 36, 24), 48),
}
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 to 4k channels, norm, ReLU, 3x3 to k (`growth`) new channels."""

    def __init__(self, in_channels: int, growth: int, *, dilation: int) -> None:
        super().__init__()
        bottleneck = BOTTLENECK * growth
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck, growth, 3, 1, dilation, dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, growth, H, W)."""
        x = self.conv1(self.relu1(self.norm1(x)))
        new: Tensor = self.conv2(self.relu2(self.norm2(x)))
        return new


class DenseBlock(nn.Sequential):
    """Layers that each read the concatenation of the block's input and the outputs of all earlier layers."""

    def __init__(self, in_channels: int, num_layers: int, *, growth: int, dilation: int) -> None:
        super().__init__()
        for i in range(num_layers):
            layer = DenseLayer(in_channels + i * growth, growth, dilation=dilation)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, in_channels + num_layers * growth, H, W)."""
        for layer in self:
            x = torch.cat([x, layer(x)], 1)
        return x


class Transition(nn.Sequential):
    """Norm, ReLU, 1x1 to half the channels, 2x2 average pooling (left out where the stride is replaced by dilation)."""

    def __init__(self, in_channels: int, *, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2, 2) if stride == 2 else nn.Identity()


class DenseNet(ClassifierBackbone):
    """Maps relu0, denseblock1 to denseblock3, relu5: strides 2 to 32."""

    input_size = 224
    map_names = ("relu0", "denseblock1", "denseblock2", "denseblock3", "relu5")

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        counts, base_growth = NETS[depth]
        growth = scale_channels(base_growth, width_mult)
        channels = 2 * growth
        features = nn.Sequential()
        features.add_module("conv0", nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False))  # 224 -> 112
        features.add_module("norm0", nn.BatchNorm2d(channels))
        features.add_module("relu0", nn.ReLU(inplace=True))
        features.add_module("pool0", nn.MaxPool2d(3, 2, 1))  # 112 -> 56
        self.channels = (channels,)
        tracker = StrideDilation(output_stride, stride=4)
        for i, num_layers in enumerate(counts, start=1):
            block = DenseBlock(channels, num_layers, growth=growth, dilation=tracker.dilation)
            features.add_module(f"denseblock{i}", block)
            channels += num_layers * growth
            self.channels = (*self.channels, channels)
            if i < len(counts):
                features.add_module(
                    f"transition{i}", Transition(channels, stride=tracker.step(2))
                )  # 56 -> 28 -> 14 -> 7
                channels //= 2
        features.add_module("norm5", nn.BatchNorm2d(channels))
        # Not in place: the block's own output is a map too.
        features.add_module("relu5", nn.ReLU())
        self.features = features
        self.strides = self._read_strides()
        self.classifier = nn.Linear(channels, num_classes) if num_classes else None
        init_kaiming_normal(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        maps, x = [], images
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self.map_names:
                # The in-place ReLU of the next transition follows a norm, so it does not change this map.
                maps.append(x)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""
        names = [name for name, _ in self.features.named_children()]
        return list(self.features)[: names.index(self.map_names[index]) + 1]

    def head(self) -> nn.Sequential | None:
        """Return global average and fully connected layer."""
        if self.classifier is None:
            return None
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), self.classifier)


for _depth in NETS:
    BACKBONES.register(
        f"densenet{_depth}",
        summary=f"DenseNet-BC with {_depth} layers, maps of the stem and the four blocks.",
        tiny={"width_mult": 1 / 16},
        paper=PAPER,
        year=2017,
    )(partial(DenseNet, _depth))
