"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.

Paper: https://arxiv.org/abs/1409.4842

`googlenet` is the paper's net as BVLC published it: local response normalisation, no batch normalisation, a 5x5 kernel in the
third branch. `googlenet_torchvision` is torchvision's: batch normalisation (eps 0.001), no response normalisation, 3x3 in the
third branch, a 2x2 fourth pooling; it does not turn the pixels' normalisation around inside, as torchvision does with its
own weights. Module names are torchvision's in both. Both auxiliary heads are an option (`aux_heads`), for training as in
the paper and for loading published files strictly.

Deviations: `width_mult`, the paddings that FCN changes, and `output_stride`, which turns poolings' strides into rates. Fresh weights are
He's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.blocks import caffe_lrn
from ..nn.channels import scale_channels
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import replace_stride_with_dilation
from .base import BACKBONES
from .classifier import ClassifierBackbone, pool

PAPER = "https://arxiv.org/abs/1409.4842"

# 1x1 | 3x3 reduce, 3x3 | 5x5 reduce, 5x5 | pool projection. Source: paper table 1.
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# Channels that leave module 4a and 4d, where the auxiliary heads hang.
AUX_AT = {"aux1": "4a", "aux2": "4d"}


class Style(NamedTuple):
    """What differs between the paper's net and torchvision's."""

    batch_norm: bool
    third_kernel: int
    last_pool: int
    aux_dropout: float


PAPER_STYLE = Style(batch_norm=False, third_kernel=5, last_pool=3, aux_dropout=0.7)
TORCHVISION_STYLE = Style(batch_norm=True, third_kernel=3, last_pool=2, aux_dropout=0.7)


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation where the style has it, ReLU."""

    def __init__(
        self, style: Style, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=not style.batch_norm)
        if style.batch_norm:
            self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)


class Inception(MainPath):
    """Four branches side by side on one map, concatenated. Source: paper figure 2b."""

    def __init__(self, style: Style, in_channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, project = widths
        wide = style.third_kernel
        self.branch1 = ConvUnit(style, in_channels, one, 1)
        self.branch2 = nn.Sequential(
            ConvUnit(style, in_channels, reduce3, 1), ConvUnit(style, reduce3, three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            ConvUnit(style, in_channels, reduce5, 1), ConvUnit(style, reduce5, five, wide, padding=wide // 2)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), ConvUnit(style, in_channels, project, 1)
        )

    def forward(self, cells: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, one + three + five + project, h, w)."""
        return torch.cat([self.branch1(cells), self.branch2(cells), self.branch3(cells), self.branch4(cells)], 1)

    def main_path(self) -> list[nn.Module]:
        """The widest branch."""
        return [self.branch3]


class AuxHead(nn.Module):
    """A classifier on an inner map, for training only. Source: paper section 5."""

    def __init__(self, style: Style, in_channels: int, num_classes: int, width_mult: float) -> None:
        super().__init__()
        reduced, hidden = scale_channels(128, width_mult), scale_channels(1024, width_mult)
        # Both give 4x4 at the net's own 14x14.
        self.pool = nn.AdaptiveAvgPool2d(4) if style.batch_norm else nn.AvgPool2d(5, 3, ceil_mode=True)
        self.conv = ConvUnit(style, in_channels, reduced, 1)
        self.fc1 = nn.Linear(reduced * 16, hidden)
        self.dropout = nn.Dropout(style.aux_dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, cells: Tensor) -> Tensor:
        """(B, in_channels, 14, 14) -> (B, num_classes)."""
        features = self.conv(self.pool(cells)).flatten(1)
        logits: Tensor = self.fc2(self.dropout(self.fc1(features).relu()))
        return logits


class GoogLeNet(ClassifierBackbone):
    """Maps conv1, conv3, inception3b, inception4e, inception5b, strides 2 to 32."""

    map_names = ("conv1", "conv3", "inception3b", "inception4e", "inception5b")
    input_size = 224
    same_stem_padding = 3

    def __init__(
        self,
        style: Style,
        in_channels: int,
        num_classes: int,
        aux_heads: bool,
        stem_padding: int,
        ceil_mode: bool,
        pool_padding: int,
        output_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        if aux_heads and not num_classes:
            raise ConfigError("aux_heads", "are classifiers, and num_classes is 0", "set num_classes")
        stem1, stem2 = scale_channels(64, width_mult), scale_channels(192, width_mult)
        self.conv1 = ConvUnit(style, in_channels, stem1, 7, 2, stem_padding)
        self.maxpool1 = pool(3, ceil_mode, pool_padding)
        self.norm1 = nn.Identity() if style.batch_norm else caffe_lrn()
        self.conv2 = ConvUnit(style, stem1, stem1, 1)
        self.conv3 = ConvUnit(style, stem1, stem2, 3, padding=1)
        self.norm2 = nn.Identity() if style.batch_norm else caffe_lrn()
        self.maxpool2 = pool(3, ceil_mode, pool_padding)
        self.maxpool3 = pool(3, ceil_mode, pool_padding)
        self.maxpool4 = pool(style.last_pool, ceil_mode, pool_padding)
        outputs = self._add_inceptions(style, stem2, width_mult)
        self.channels = (stem1, stem2, outputs["3b"], outputs["4e"], outputs["5b"])
        replace_stride_with_dilation(self.modules_to(), output_stride)
        self.strides = self._read_strides()
        if num_classes:
            if aux_heads:
                self.aux1, self.aux2 = (AuxHead(style, outputs[at], num_classes, width_mult) for at in AUX_AT.values())
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(outputs["5b"], num_classes)
        init_kaiming_normal(self)

    def _add_inceptions(self, style: Style, channels: int, width_mult: float) -> dict[str, int]:
        outputs = {}
        for name, widths in INCEPTIONS.items():
            narrow = tuple(scale_channels(c, width_mult) for c in widths)
            self.add_module(f"inception{name}", Inception(style, channels, narrow))
            channels = outputs[name] = narrow[0] + narrow[2] + narrow[4] + narrow[5]
        return outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first."""
        conv1 = self.conv1(images)
        conv3 = self.conv3(self.conv2(self.norm1(self.maxpool1(conv1))))
        third = self._stage("3", self.maxpool2(self.norm2(conv3)))
        fourth = self._stage("4", self.maxpool3(third))
        fifth = self._stage("5", self.maxpool4(fourth))
        return [conv1, conv3, third, fourth, fifth]

    def _stage(self, number: str, cells: Tensor) -> Tensor:
        for name in INCEPTIONS:
            if name[0] == number:
                cells = self.get_submodule(f"inception{name}")(cells)
        return cells

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain of modules from the image to map `index`."""
        return self._path_to(self.map_names[index])

    def _path_to(self, last: str) -> list[nn.Module]:
        chain = ["conv1", "maxpool1", "norm1", "conv2", "conv3", "norm2", "maxpool2"]
        for number, pooling in (("3", "maxpool3"), ("4", "maxpool4"), ("5", "")):
            chain += [f"inception{name}" for name in INCEPTIONS if name[0] == number] + [pooling]
        return [self.get_submodule(name) for name in chain[: chain.index(last) + 1]]

    def head(self) -> nn.Sequential | None:
        """Global average pool, dropout, one fully connected layer."""
        if not hasattr(self, "fc"):
            return None
        return nn.Sequential(self.avgpool, nn.Flatten(1), self.dropout, self.fc)

    def classify_with_aux(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised images -> logits (B, num_classes) of the net and of both auxiliary heads (loss weights 1, 0.3, 0.3)."""
        if not hasattr(self, "aux1"):
            raise ConfigError("backbone", "was built without auxiliary heads", "create it with aux_heads=True")
        maps = {at: nn.Sequential(*self._path_to(f"inception{at}"))(images) for at in AUX_AT.values()}
        return self.classify(images), self.aux1(maps["4a"]), self.aux2(maps["4d"])

    def caffe_names(self) -> Mapping[str, str]:
        """Layer names of bvlc_googlenet -> modules here."""
        names = {
            "conv1/7x7_s2": "conv1.conv",
            "conv2/3x3_reduce": "conv2.conv",
            "conv2/3x3": "conv3.conv",
            "loss3/classifier": "fc",
        }
        branches = {
            "1x1": "branch1", "3x3_reduce": "branch2.0", "3x3": "branch2.1",
            "5x5_reduce": "branch3.0", "5x5": "branch3.1", "pool_proj": "branch4.1",
        }  # fmt: skip
        for name in INCEPTIONS:
            names |= {
                f"inception_{name}/{layer}": f"inception{name}.{branch}.conv" for layer, branch in branches.items()
            }
        for i in (1, 2):
            names |= {
                f"loss{i}/conv": f"aux{i}.conv.conv",
                f"loss{i}/fc": f"aux{i}.fc1",
                f"loss{i}/classifier": f"aux{i}.fc2",
            }
        present = dict(self.named_modules())
        return {layer: module for layer, module in names.items() if module in present}


@BACKBONES.register("googlenet", tiny={"width_mult": 1 / 8}, paper=PAPER, year=2014)
def googlenet(
    in_channels: int = 3,
    *,
    num_classes: int = 0,
    aux_heads: bool = False,
    stem_padding: int = 3,
    ceil_mode: bool = True,
    pool_padding: int = 0,
    output_stride: int = 32,
    width_mult: float = 1.0,
    dropout: float = 0.4,
) -> GoogLeNet:
    """GoogLeNet as in the paper and in BVLC's file: response normalisation, 5x5 in the third branch."""
    return GoogLeNet(
        PAPER_STYLE,
        in_channels,
        num_classes,
        aux_heads,
        stem_padding,
        ceil_mode,
        pool_padding,
        output_stride,
        width_mult,
        dropout,
    )


@BACKBONES.register("googlenet_torchvision", tiny={"width_mult": 1 / 8}, paper=PAPER, year=2014)
def googlenet_torchvision(
    in_channels: int = 3,
    *,
    num_classes: int = 0,
    aux_heads: bool = False,
    stem_padding: int = 3,
    ceil_mode: bool = True,
    pool_padding: int = 0,
    output_stride: int = 32,
    width_mult: float = 1.0,
    dropout: float = 0.2,
) -> GoogLeNet:
    """torchvision's GoogLeNet: batch normalisation, 3x3 in the third branch."""
    return GoogLeNet(
        TORCHVISION_STYLE,
        in_channels,
        num_classes,
        aux_heads,
        stem_padding,
        ceil_mode,
        pool_padding,
        output_stride,
        width_mult,
        dropout,
    )
