"""ResNet: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.

Paper: https://arxiv.org/abs/1512.03385

Faithful: nets of 18, 34, 50, 101 and 152 layers (table 1), projection shortcuts where the shape changes (option B); state
names and shapes are torchvision's, so that its files load strictly.

Deviations: as torchvision, the stride of a bottleneck lies in its 3x3 convolution; `stride_in="1x1"` is the paper's, `"last"` puts
it into the last unit of a stage, as TensorFlow's DeepLab. The first pooling is padded by one and rounds down, in all of them;
Caffe's has no padding and rounds up, so that its cells lie two pixels further. `output_stride` turns stride into rate;
`dilate_first` gives the new rate to all units of such a stage, as DeepLab and PSPNet, or to all but the first, as torchvision.
`deep_stem` is PSPNet's: three 3x3 convolutions for the 7x7. `multi_grid` and `cascade` are DeepLab v3's; `deformable` is section
4.1 of "Deformable Convolutional Networks"; `width_mult` is ours.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.deform_conv import DeformConv2d
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from .base import BACKBONES
from .classifier import ClassifierBackbone

PAPER = "https://arxiv.org/abs/1512.03385"

# Units of each stage. Source: paper table 1.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
StrideLocation = Literal["3x3", "1x1", "last"]
DeformableVersion = Literal["none", "v1", "v2"]


@dataclass(frozen=True)
class BlockConfig:
    """Where a unit stands: channels in and inside, its stride and rate, and which of its convolutions takes the stride."""

    in_channels: int
    channels: int
    stride: int = 1
    rate: int = 1
    place: StrideLocation = "3x3"
    deformable: DeformableVersion = "none"


class ResidualUnit(MainPath):
    """A branch added to a shortcut, and a ReLU."""

    expansion: int
    downsample: nn.Module

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""

    def tapped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The unit's output, and what it adds to the shortcut."""
        added = self.residual(x)
        return F.relu(added + self.downsample(x)), added

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, expansion * channels, about H / stride, about W / stride)."""
        return self.tapped(x)[0]


class BasicBlock(ResidualUnit):
    """Two 3x3 convolutions beside a shortcut. Source: paper figure 5, left."""

    expansion = 1

    def __init__(self, plan: BlockConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(plan.in_channels, plan.channels, 3, plan.stride, plan.rate, plan.rate, bias=False)
        self.bn1 = nn.BatchNorm2d(plan.channels)
        self.conv2 = _conv3x3(plan, stride=1)
        self.bn2 = nn.BatchNorm2d(plan.channels)
        self.downsample = _shortcut(plan, plan.channels)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        added: Tensor = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return added

    def main_path(self) -> list[nn.Module]:
        """The longer branch."""
        return [self.conv1, self.conv2]


class Bottleneck(ResidualUnit):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, beside a shortcut. Source: paper figure 5, right."""

    expansion = 4

    def __init__(self, plan: BlockConfig) -> None:
        super().__init__()
        strides = (plan.stride, 1) if plan.place == "1x1" else (1, plan.stride)
        out_channels = plan.channels * self.expansion
        self.conv1 = nn.Conv2d(plan.in_channels, plan.channels, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(plan.channels)
        self.conv2 = _conv3x3(plan, strides[1])
        self.bn2 = nn.BatchNorm2d(plan.channels)
        self.conv3 = nn.Conv2d(plan.channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(plan, out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        added: Tensor = self.bn3(self.conv3(inner))
        return added

    def main_path(self) -> list[nn.Module]:
        """The longer branch."""
        return [self.conv1, self.conv2, self.conv3]


Unit = Callable[[BlockConfig], ResidualUnit]
"""A class of units, or one with further arguments given."""


def _conv3x3(plan: BlockConfig, stride: int) -> nn.Module:
    if plan.deformable == "none":
        return nn.Conv2d(plan.channels, plan.channels, 3, stride, plan.rate, plan.rate, bias=False)
    modulated = plan.deformable == "v2"
    return DeformConv2d(plan.channels, plan.channels, 3, stride, plan.rate, plan.rate, bias=False, modulated=modulated)


def _shortcut(plan: BlockConfig, out_channels: int) -> nn.Module:
    if plan.in_channels != out_channels:
        conv = nn.Conv2d(plan.in_channels, out_channels, 1, plan.stride, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    # A stride without a change of channels (the last unit of a stage): every second cell, as TensorFlow's subsampling.
    return nn.Identity() if plan.stride == 1 else nn.MaxPool2d(1, plan.stride)


class ResNet(ClassifierBackbone):
    """Maps conv1, layer1 to layer4 (and layer5 ... with `cascade`), strides 2 to 32 or to `output_stride`.

    With `place` "last" the map of a strided stage is what its last but one unit adds, before the stride: the map that
    TensorFlow's DeepLab v3+ hands to its decoder.
    """

    input_size = 224

    def __init__(
        self,
        unit: Unit,
        counts: Sequence[int],
        in_channels: int,
        num_classes: int,
        output_stride: int,
        place: StrideLocation,
        deep_stem: bool,
        dilate_first: bool,
        multi_grid: Sequence[int],
        cascade: int,
        deformable: DeformableVersion,
        width_mult: float,
    ) -> None:
        super().__init__()
        _check(place, multi_grid, counts, deformable)
        self.place = place
        channels = self._build_stem(in_channels, deep_stem, width_mult)
        stem_channels = channels
        tracker = StrideDilation(output_stride, stride=4)
        strides, widths = [2], [stem_channels]
        stages = [*counts, *[counts[3]] * cascade]
        for i, count in enumerate(stages):
            inner = scale_channels(64 * 2 ** min(i, 3), width_mult)
            grid = tuple(multi_grid) if multi_grid and i >= 3 else (1,) * count
            stride_before = tracker.stride
            sampling: DeformableVersion = deformable if i == 3 else "none"
            units: list[ResidualUnit] = []
            for stride, rate in _plan_stage(tracker, i, i + 1 == len(stages), grid, place, dilate_first):
                units.append(unit(BlockConfig(channels, inner, stride, rate, place, sampling)))
                channels = inner * units[-1].expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*units))
            strides.append(stride_before if place == "last" else tracker.stride)
            widths.append(channels)
        self.strides, self.channels = tuple(strides), tuple(widths)
        self.num_stages = len(stages)
        self.map_names = ("conv1", *(f"layer{i + 1}" for i in range(len(stages))))
        if num_classes:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(channels, num_classes)
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, DeformConv2d):
                layer.reset_offsets()

    def _build_stem(self, in_channels: int, deep: bool, width_mult: float) -> int:
        """Channels behind it. Source: paper table 1; PSPNet's and TensorFlow's three 3x3 convolutions."""
        first = scale_channels(64, width_mult)
        if not deep:
            self.conv1 = nn.Conv2d(in_channels, first, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(first)
        else:
            self.conv1 = nn.Conv2d(in_channels, first, 3, 2, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(first)
            self.conv2 = nn.Conv2d(first, first, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(first)
            self.conv3 = nn.Conv2d(first, 2 * first, 3, 1, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(2 * first)
        self.deep_stem = deep
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        return 2 * first if deep else first

    def _stem(self) -> list[nn.Module]:
        layers: list[nn.Module] = [self.conv1, self.bn1, self.relu]
        if self.deep_stem:
            layers += [self.conv2, self.bn2, self.relu, self.conv3, self.bn3, self.relu]
        return layers

    def stage(self, number: int) -> nn.Sequential:
        """`layer<number>`, counted from 1."""
        found = getattr(self, f"layer{number}")
        assert isinstance(found, nn.Sequential)
        return found

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        cells = images
        for layer in self._stem():
            cells = layer(cells)
        maps = [cells]
        cells = self.maxpool(cells)
        for number in range(1, self.num_stages + 1):
            stage = self.stage(number)
            if self.place == "last" and number < self.num_stages:
                cells, added = stage[-2].tapped(stage[:-2](cells))  # type: ignore[operator]
                cells = stage[-1](cells)
                maps.append(added)
            else:
                cells = stage(cells)
                maps.append(cells)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""
        index %= len(self.map_names)
        behind: list[nn.Module] = [] if index == 0 else [self.maxpool]
        units = chain.from_iterable(self.stage(number) for number in range(1, index + 1))
        listed = [*self._stem(), *behind, *units]
        return listed[:-1] if self.place == "last" and 0 < index < self.num_stages else listed

    def head(self) -> nn.Sequential | None:
        """Global average, fully connected layer."""
        return nn.Sequential(self.avgpool, nn.Flatten(1), self.fc) if hasattr(self, "fc") else None

    def caffe_names(self) -> Mapping[str, str]:
        """Convolutions under the names of the authors' files, `res2a_branch2a`; those of the first 7x7 and of the classifier."""
        names = {"conv1": "conv1"}
        for number in range(1, 5):
            stage = self.stage(number)
            # Stages of more than six units are numbered b1, b2, ... in the authors' deep nets.
            deep = len(self.stage(3)) > 6 and number in (2, 3)
            for i, unit in enumerate(stage):
                letter = "a" if i == 0 else f"b{i}" if deep else "abcdef"[i]
                prefix = f"res{number + 1}{letter}_branch"
                names |= {
                    f"{prefix}2{'abc'[j]}": f"layer{number}.{i}.conv{j + 1}"
                    for j in range(len(unit.main_path()))  # type: ignore[operator]
                }
                if isinstance(unit.downsample, nn.Sequential):
                    names[f"{prefix}1"] = f"layer{number}.{i}.downsample.0"
        return names | ({"fc1000": "fc"} if hasattr(self, "fc") else {})


def _check(
    place: StrideLocation, multi_grid: Sequence[int], counts: Sequence[int], deformable: DeformableVersion
) -> None:
    if place not in ("3x3", "1x1", "last"):
        raise ConfigError(
            "stride_in", f"got {place!r}, allowed are 3x3, 1x1 and last", "3x3 is torchvision's, 1x1 the paper's"
        )
    if multi_grid and len(multi_grid) != counts[3]:
        raise ConfigError(
            "multi_grid", f"got {tuple(multi_grid)}", f"give {counts[3]} factors, one a unit of the last stage"
        )
    if deformable not in ("none", "v1", "v2"):
        raise ConfigError(
            "deformable", f"got {deformable!r}, allowed are none, v1 and v2", "none is an ordinary convolution"
        )


def _plan_stage(
    tracker: StrideDilation, index: int, is_final: bool, grid: Sequence[int], place: StrideLocation, dilate_first: bool
) -> list[tuple[int, int]]:
    """(stride, rate) of each unit of a stage; `tracker` moves on behind it. `grid` multiplies the rates."""
    before, count = tracker.dilation, len(grid)
    if place == "last":
        stride = tracker.step(1 if is_final else 2)
        strides, rates = [1] * (count - 1) + [stride], [before] * count
    else:
        stride = tracker.step(1 if index == 0 else 2)
        strides = [stride] + [1] * (count - 1)
        rates = [tracker.dilation if dilate_first else before] + [tracker.dilation] * (count - 1)
    return [(s, r * g) for s, r, g in zip(strides, rates, grid, strict=True)]


def _register(depth: int, unit: Unit) -> None:
    def build(
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        stride_in: StrideLocation = "3x3",
        deep_stem: bool = False,
        dilate_first: bool = True,
        multi_grid: Sequence[int] = (),
        cascade: int = 0,
        deformable: DeformableVersion = "none",
        width_mult: float = 1.0,
    ) -> ResNet:
        return ResNet(
            unit,
            DEPTHS[depth],
            in_channels,
            num_classes,
            output_stride,
            stride_in,
            deep_stem,
            dilate_first,
            multi_grid,
            cascade,
            deformable,
            width_mult,
        )

    build.__doc__ = f"ResNet with {depth} weight layers, conv1 and layer1 to layer4."
    BACKBONES.register(f"resnet{depth}", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015)(build)


for _depth in DEPTHS:
    _register(_depth, BasicBlock if _depth < 50 else Bottleneck)
