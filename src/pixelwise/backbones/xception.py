"""Aligned Xception: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.

Paper: https://arxiv.org/abs/1802.02611 (figure 4), after Chollet, https://arxiv.org/abs/1610.02357

Faithful to the authors' TensorFlow code: entry, middle and exit flow of 41, 65 and 71 layers; every pooling is a strided
separable convolution; batch normalisation (eps 0.001) behind each depthwise 3x3; the shortcut reads the map before the ReLU.
The finer maps are tapped behind the second separable convolution of a strided unit, as their decoder does.

Deviations: the paper's text has a ReLU behind every depthwise 3x3; the released code, followed here, only in the last unit.
`output_stride` 8, 16 or 32; `width_mult` is ours.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..nn.channels import scale_channels
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from ..nn.separable_conv import relu_separable_conv, separable_conv_relu
from .base import BACKBONES
from .classifier import ClassifierBackbone

PAPER = "https://arxiv.org/abs/1802.02611"
EPS = 1e-3

# (channels, stride) of the entry flow's units, and how many units the middle flow has. Source: the authors' xception.py.
ENTRY_41_65 = ((128, 2), (256, 2), (728, 2))
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))
FLOWS: dict[int, tuple[tuple[tuple[int, int], ...], int]] = {
    41: (ENTRY_41_65, 8),
    65: (ENTRY_41_65, 16),
    71: (ENTRY_71, 16),
}


class Unit(MainPath):
    """Three separable convolutions behind ReLUs, added to the unit's input, which passes a 1x1 where `shortcut` says so."""

    def __init__(
        self, in_channels: int, channels: tuple[int, int, int], stride: int, rate: int, shortcut: bool
    ) -> None:
        super().__init__()
        first, second, third = channels
        self.separable1 = relu_separable_conv(in_channels, first, 1, rate, EPS)
        self.separable2 = relu_separable_conv(first, second, 1, rate, EPS)
        self.separable3 = relu_separable_conv(second, third, stride, rate, EPS)
        self.shortcut: nn.Module = nn.Identity()
        if shortcut:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, third, 1, stride, bias=False), nn.BatchNorm2d(third, EPS)
            )

    def tapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The unit's output, and the map behind its second separable convolution, before stride and ReLU."""
        fine = self.separable2(self.separable1(x))
        return self.separable3(fine) + self.shortcut(x), fine

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels[2], about H / stride, about W / stride)."""
        return self.tapped(x)[0]

    def main_path(self) -> list[nn.Module]:
        """The longer branch."""
        return [self.separable1, self.separable2, self.separable3]


class Xception(ClassifierBackbone):
    """Maps conv, entry1 (and on) at strides 4 and 8, middle, exit: strides 2, 4, 8, 16, 32 or to `output_stride`."""

    input_size = 299
    map_names = ("conv", "low_level", "entry", "middle", "exit")

    def __init__(self, depth: int, in_channels: int, num_classes: int, output_stride: int, width_mult: float) -> None:
        super().__init__()
        entry, num_middle = FLOWS[depth]
        stem, channels = scale_channels(32, width_mult), scale_channels(64, width_mult)
        self.stem = nn.Sequential(*_conv3x3(in_channels, stem, 2), *_conv3x3(stem, channels, 1))
        tracker = StrideDilation(output_stride, stride=2)
        self.strides, self.channels = (2,), (channels,)
        entry_units: list[Unit] = []
        self.taps = tuple(i for i, (_, stride) in enumerate(entry) if stride == 2)[1:]
        for i, (base, nominal) in enumerate(entry):
            out = scale_channels(base, width_mult)
            rate, stride_before = tracker.dilation, tracker.stride
            entry_units.append(Unit(channels, (out, out, out), tracker.step(nominal), rate, shortcut=True))
            channels = out
            if i in self.taps:
                self.strides, self.channels = (*self.strides, stride_before), (*self.channels, out)
        self.entry = nn.Sequential(*entry_units)
        self.middle = nn.Sequential(
            *(Unit(channels, (channels,) * 3, 1, tracker.dilation, shortcut=False) for _ in range(num_middle))
        )
        self.strides, self.channels = (*self.strides, tracker.stride), (*self.channels, channels)
        wide, deep, last = (
            scale_channels(1024, width_mult),
            scale_channels(1536, width_mult),
            scale_channels(2048, width_mult),
        )
        rate = tracker.dilation
        self.exit1 = Unit(channels, (channels, wide, wide), tracker.step(2), rate, shortcut=True)
        self.exit2 = nn.Sequential(
            *(separable_conv_relu(a, b, tracker.dilation, EPS) for a, b in ((wide, deep), (deep, deep), (deep, last)))
        )
        self.strides, self.channels = (*self.strides, tracker.stride), (*self.channels, last)
        if num_classes:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(last, num_classes)
        init_kaiming_normal(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        cells = self.stem(images)
        maps = [cells]
        for i, unit in enumerate(self.entry):
            cells, fine = unit.tapped(cells)  # type: ignore[operator]
            if i in self.taps:
                maps.append(fine)
        maps.append(self.middle(cells))
        maps.append(self.exit2(self.exit1(maps[-1])))
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""
        index %= len(self.map_names)
        if index == 0:
            return [self.stem]
        if index in (1, 2):
            tapped = self.entry[self.taps[index - 1]]
            return [self.stem, *self.entry[: self.taps[index - 1]], *tapped.main_path()[:2]]  # type: ignore[misc,operator]
        flow: list[nn.Module] = [self.stem, *self.entry, *self.middle]
        return flow if index == 3 else [*flow, self.exit1, self.exit2]

    def head(self) -> nn.Sequential | None:
        """Global average, fully connected layer."""
        return nn.Sequential(self.avgpool, nn.Flatten(1), self.fc) if hasattr(self, "fc") else None


def _conv3x3(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    return [conv, nn.BatchNorm2d(out_channels, EPS), nn.ReLU(inplace=True)]


def _register(depth: int) -> None:
    def build(
        in_channels: int = 3, *, num_classes: int = 0, output_stride: int = 32, width_mult: float = 1.0
    ) -> Xception:
        return Xception(depth, in_channels, num_classes, output_stride, width_mult)

    build.__doc__ = f"Aligned Xception with {depth} layers, as DeepLab v3+ changed it."
    BACKBONES.register(f"xception{depth}", tiny={"width_mult": 1 / 32}, paper=PAPER, year=2018)(build)


for _depth in FLOWS:
    _register(_depth)
