"""ResNet: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.

A 7x7 convolution and a pooling, then four stages of residual blocks, each block adding its output to its input. The
backbone of DeepLab v2 to v3+ and PSPNet.

Paper: https://arxiv.org/abs/1512.03385

Faithful: networks of 18, 34, 50, 101 and 152 layers (table 1), with projection shortcuts where the shape changes
(option B). State names and shapes are torchvision's, so that its published weights load strictly.

Deviations: as in torchvision, the stride of a bottleneck is in its 3x3 convolution (in the paper, in the first
1x1: `stride_in="1x1"`), and the first pooling is padded by 1 and rounds down. Caffe's (`stem_pool="caffe"`) has no
padding and rounds up, which shifts its map by two pixels. The options of later papers are listed at `ResNet`;
`width_mult` is ours.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.deform_conv import DeformConv2d
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from . import BACKBONES
from .classifier import ClassifierBackbone

PAPER = "https://arxiv.org/abs/1512.03385"

# Blocks of each stage. Source: paper table 1.
DEPTHS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
StrideLocation = Literal["3x3", "1x1", "last"]
StemPool = Literal["torchvision", "caffe"]
DeformableVersion = Literal["none", "v1", "v2"]


class ResNetBlock(MainPath):
    """A residual block: ReLU(residual(x) + shortcut(x)).

    Attributes: `downsample`, the shortcut, is an identity, or a 1x1 convolution where the shape changes; the block has
    `expansion * channels` output channels.
    """

    expansion: int
    downsample: nn.Module

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """Compute the branch that is added to the shortcut."""

    def forward_with_residual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the block's output and, separately, its residual branch."""
        residual = self.residual(x)
        return F.relu(residual + self.downsample(x)), residual

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, expansion * channels, ceil(H / stride), ceil(W / stride))."""
        return self.forward_with_residual(x)[0]


class BasicBlock(ResNetBlock):
    """Two 3x3 convolutions. Source: paper figure 5, left."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        stride_in: StrideLocation = "3x3",
        deformable: DeformableVersion = "none",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, stride=1, dilation=dilation, deformable=deformable)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        """Compute the branch that is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)))
        residual: Tensor = self.bn2(self.conv2(x))
        return residual

    def main_path(self) -> list[nn.Module]:
        """Return the convolutions of the branch."""
        return [self.conv1, self.conv2]


class Bottleneck(ResNetBlock):
    """1x1 to `channels`, 3x3, 1x1 to four times as many. Source: paper figure 5, right."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        stride_in: StrideLocation = "3x3",
        deformable: DeformableVersion = "none",
    ) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        stride1, stride2 = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, stride1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, stride=stride2, dilation=dilation, deformable=deformable)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def residual(self, x: Tensor) -> Tensor:
        """Compute the branch that is added to the shortcut."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        residual: Tensor = self.bn3(self.conv3(x))
        return residual

    def main_path(self) -> list[nn.Module]:
        """Return the convolutions of the branch."""
        return [self.conv1, self.conv2, self.conv3]


def _conv3x3(channels: int, *, stride: int, dilation: int, deformable: DeformableVersion) -> nn.Conv2d:
    if deformable == "none":
        return nn.Conv2d(channels, channels, 3, stride, dilation, dilation, bias=False)
    return DeformConv2d(
        channels, channels, stride=stride, padding=dilation, dilation=dilation, bias=False, modulated=deformable == "v2"
    )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    # A stride without a change of channels, in the last block of a stage: take every second position, as TensorFlow's
    # `subsample`.
    return nn.Identity() if stride == 1 else nn.MaxPool2d(1, stride)


class ResNet(ClassifierBackbone):
    """Maps conv1, layer1 to layer4 at strides 2, 4, 8, 16, 32.

    block   class of the residual blocks
    depths  number of blocks in each of the four stages

    Options of single papers:
        output_stride  DeepLab, PSPNet: 8 or 16 replaces the last strides by dilation
        dilate_first   DeepLab, PSPNet (True): a stage that lost its stride is dilated from its first block on;
                       torchvision (False): its first block keeps the dilation of the stage before
        stride_in      "3x3" torchvision; "1x1" the paper and Caffe; "last" TensorFlow's DeepLab: the stride is in the
                       last block of the stage before. There, the map of a strided stage is the residual of its last
                       block but one, which is the map that DeepLab v3+ feeds to its decoder
        stem_pool      "torchvision": the first pooling is padded by 1 and rounds down; "caffe": not padded, rounds up,
                       as in the authors' Caffe files of ResNet and SE-ResNet
        deep_stem      PSPNet, DeepLab v3+: three 3x3 convolutions instead of the 7x7
        multi_grid     DeepLab v3, section 3.2.1: a factor on the dilation per block of layer4 (and of its copies)
        cascade        DeepLab v3, section 3.2: number of copies of layer4 after it, layer5, layer6, ...
        deformable     "Deformable Convolutional Networks" v1 and v2, section 4.1: deformable 3x3 convolutions in layer4
    """

    input_size = 224

    def __init__(
        self,
        block: Callable[..., ResNetBlock],
        depths: Sequence[int],
        *,
        in_channels: int = 3,
        num_classes: int = 0,
        output_stride: int = 32,
        stride_in: StrideLocation = "3x3",
        stem_pool: StemPool = "torchvision",
        deep_stem: bool = False,
        dilate_first: bool = True,
        multi_grid: Sequence[int] = (),
        cascade: int = 0,
        deformable: DeformableVersion = "none",
        width_mult: float = 1.0,
    ) -> None:
        super().__init__()
        if multi_grid and len(multi_grid) != depths[3]:
            what = f"expected {depths[3]} factors, got {tuple(multi_grid)}"
            raise ConfigError("multi_grid", what, "give one factor per block of layer4, such as [1, 2, 4]")
        self.stride_in = stride_in
        self.dilate_first = dilate_first
        self.deep_stem = deep_stem
        self.channels = (self._make_stem(in_channels, scale_channels(64, width_mult)),)
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True) if stem_pool == "caffe" else nn.MaxPool2d(3, 2, 1)

        # layer1 to layer4, 56 -> 56 -> 28 -> 14 -> 7, and DeepLab v3's copies of layer4.
        self.depths = (*depths, *[depths[3]] * cascade)
        strides = [1, *[2] * (len(self.depths) - 1)]
        if stride_in == "last":
            strides = [*strides[1:], 1]  # each stage ends with the stride of the next one
        tracker = StrideDilation(output_stride, stride=4)
        for i, (depth, stride) in enumerate(zip(self.depths, strides, strict=True)):
            stage = self._make_layer(
                block,
                scale_channels(64 * 2 ** min(i, 3), width_mult),
                depth,
                stride=stride,
                tracker=tracker,
                multi_grid=multi_grid if multi_grid and i >= 3 else [1] * depth,
                deformable=deformable if i == 3 else "none",
            )
            self.add_module(f"layer{i + 1}", stage)
        self.map_names = ("conv1", *(f"layer{i + 1}" for i in range(len(self.depths))))
        self.strides = self._read_strides()
        self.fc = nn.Linear(self.channels[-1], num_classes) if num_classes else None

        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, DeformConv2d):
                layer.reset_offsets()

    def _make_stem(self, in_channels: int, channels: int) -> int:
        """Build the layers before the first pooling, 224 -> 112 (paper table 1), and return their output channels."""
        if self.deep_stem:
            self.conv1 = nn.Conv2d(in_channels, channels, 3, 2, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.conv3 = nn.Conv2d(channels, 2 * channels, 3, 1, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(2 * channels)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        return 2 * channels if self.deep_stem else channels

    def _make_layer(
        self,
        block: Callable[..., ResNetBlock],
        channels: int,
        depth: int,
        *,
        stride: int,
        tracker: StrideDilation,
        multi_grid: Sequence[int],
        deformable: DeformableVersion,
    ) -> nn.Sequential:
        """Build a stage of `depth` blocks, the first (with `stride_in="last"`, the last) of nominal stride `stride`."""
        dilation_before = tracker.dilation
        stride = tracker.step(stride)
        strided_block = depth - 1 if self.stride_in == "last" else 0
        blocks: list[nn.Module] = []
        in_channels = self.channels[-1]
        for i in range(depth):
            # Blocks up to the one that lost its stride may keep the dilation of the stage before.
            keeps_dilation = self.stride_in == "last" or (i == 0 and not self.dilate_first)
            new = block(
                in_channels,
                channels,
                stride=stride if i == strided_block else 1,
                dilation=(dilation_before if keeps_dilation else tracker.dilation) * multi_grid[i],
                stride_in=self.stride_in,
                deformable=deformable,
            )
            blocks.append(new)
            in_channels = channels * new.expansion
        self.channels = (*self.channels, in_channels)
        return nn.Sequential(*blocks)

    def stem(self) -> list[nn.Module]:
        """Return the modules from the image to the first map."""
        layers: list[nn.Module] = [self.conv1, self.bn1, self.relu]
        if self.deep_stem:
            layers += [self.conv2, self.bn2, self.relu, self.conv3, self.bn3, self.relu]
        return layers

    def stage(self, number: int) -> nn.Sequential:
        """Return layer1, layer2, ..., counted from 1."""
        stage = self.get_submodule(f"layer{number}")
        assert isinstance(stage, nn.Sequential)
        return stage

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        x = images
        for layer in self.stem():
            x = layer(x)
        maps = [x]
        x = self.maxpool(x)
        for number in range(1, len(self.depths) + 1):
            stage = self.stage(number)
            if self.stride_in == "last" and number < len(self.depths):
                *blocks, last_but_one, strided = stage
                assert isinstance(last_but_one, ResNetBlock)
                for block in blocks:
                    x = block(x)
                x, residual = last_but_one.forward_with_residual(x)
                x = strided(x)
                maps.append(residual)
            else:
                x = stage(x)
                maps.append(x)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""
        index %= len(self.map_names)
        if index == 0:
            return self.stem()
        blocks = [block for number in range(1, index + 1) for block in self.stage(number)]
        if self.stride_in == "last" and index < len(self.depths):
            blocks = blocks[:-1]
        return [*self.stem(), self.maxpool, *blocks]

    def head(self) -> nn.Sequential | None:
        """Return global average and fully connected layer."""
        return None if self.fc is None else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), self.fc)

    def caffe_names(self) -> Mapping[str, str]:
        """Return the convolutions under the names of the authors' files, such as `res2a_branch2a`, and `fc1000`."""
        names = {"conv1": "conv1"}
        for number in range(1, 5):
            # The authors number the blocks of conv3 and conv4 a, b1, b2, ... in networks with more than six blocks
            # there, else a, b, c, ...
            is_numbered = len(self.stage(3)) > 6 and number in (2, 3)
            for i, block in enumerate(self.stage(number)):
                assert isinstance(block, ResNetBlock)
                letter = "a" if i == 0 else f"b{i}" if is_numbered else "abcdef"[i]
                prefix = f"res{number + 1}{letter}_branch"
                for j in range(len(block.main_path())):
                    names[f"{prefix}2{'abc'[j]}"] = f"layer{number}.{i}.conv{j + 1}"
                if isinstance(block.downsample, nn.Sequential):
                    names[f"{prefix}1"] = f"layer{number}.{i}.downsample.0"
        return names if self.fc is None else {**names, "fc1000": "fc"}


for _depth in DEPTHS:
    BACKBONES.register(
        f"resnet{_depth}",
        summary=f"ResNet with {_depth} weight layers, conv1 and layer1 to layer4.",
        tiny={"width_mult": 1 / 16},
        paper=PAPER,
        year=2015,
    )(partial(ResNet, BasicBlock if _depth < 50 else Bottleneck, DEPTHS[_depth]))
