"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.

A stem of three convolutions and nine Inception modules, each of which runs 1x1, 3x3, 5x5 and pooling branches side by
side and concatenates them. One of FCN's three backbones.

Paper: https://arxiv.org/abs/1409.4842

Faithful: `googlenet` is the paper's network as BVLC published it: local response normalization, no batch normalization,
5x5 kernels in the third branch. `googlenet_torchvision` is torchvision's: batch normalization (eps 0.001), no response
normalization, 3x3 kernels in the third branch, a 2x2 fourth pooling. Module names are torchvision's in both. Both
auxiliary classifiers are an option (`aux_heads`), for training as in the paper and for loading published files
strictly.

Deviations: `width_mult`, the paddings that FCN changes, and `output_stride`, which replaces the strides of poolings by
dilation. torchvision converts its own normalization of pixels to that of the weights inside the network; here the
model's `preprocessing` is set to that of the weights instead. Initial weights are Kaiming normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.blocks import caffe_lrn
from ..nn.channels import scale_channels
from ..nn.geometry import MainPath
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import replace_stride_with_dilation
from . import BACKBONES
from .classifier import ClassifierBackbone, max_pool

PAPER = "https://arxiv.org/abs/1409.4842"

# Channels: 1x1 | 3x3 reduce, 3x3 | 5x5 reduce, 5x5 | pool projection. Source: paper table 1.
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),  # 28 x 28, 256 channels out
    "3b": (128, 128, 192, 32, 96, 64),  # 480
    "4a": (192, 96, 208, 16, 48, 64),  # 14 x 14, 512; auxiliary classifier 1
    "4b": (160, 112, 224, 24, 64, 64),  # 512
    "4c": (128, 128, 256, 24, 64, 64),  # 512
    "4d": (112, 144, 288, 32, 64, 64),  # 528; auxiliary classifier 2
    "4e": (256, 160, 320, 32, 128, 128),  # 832
    "5a": (256, 160, 320, 32, 128, 128),  # 7 x 7, 832
    "5b": (384, 192, 384, 48, 128, 128),  # 1024
}


class Variant(NamedTuple):
    """Differences between the paper's network and torchvision's.

    branch3_kernel   kernel of the third branch, 5x5 in the paper
    maxpool4_kernel  kernel of the pooling before inception5a
    dropout          probability of the dropout before the classifier
    """

    batch_norm: bool
    branch3_kernel: int
    maxpool4_kernel: int
    dropout: float


PAPER_VARIANT = Variant(batch_norm=False, branch3_kernel=5, maxpool4_kernel=3, dropout=0.4)
TORCHVISION_VARIANT = Variant(batch_norm=True, branch3_kernel=3, maxpool4_kernel=2, dropout=0.2)
AUX_DROPOUT = 0.7


class BasicConv2d(nn.Sequential):
    """Convolution, batch normalization where the variant has it, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        batch_norm: bool,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=not batch_norm)
        if batch_norm:
            self.bn = nn.BatchNorm2d(out_channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)


class Inception(MainPath):
    """Four branches side by side on one map, concatenated. Source: paper figure 2b."""

    def __init__(self, in_channels: int, widths: tuple[int, ...], variant: Variant) -> None:
        super().__init__()
        conv = partial(BasicConv2d, batch_norm=variant.batch_norm)
        conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, pool_proj = widths
        kernel = variant.branch3_kernel
        self.branch1 = conv(in_channels, conv1x1, 1)
        self.branch2 = nn.Sequential(conv(in_channels, reduce3x3, 1), conv(reduce3x3, conv3x3, 3, padding=1))
        self.branch3 = nn.Sequential(
            conv(in_channels, reduce5x5, 1), conv(reduce5x5, conv5x5, kernel, padding=kernel // 2)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), conv(in_channels, pool_proj, 1))
        self.out_channels = conv1x1 + conv3x3 + conv5x5 + pool_proj

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, out_channels, h, w)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)

    def main_path(self) -> list[nn.Module]:
        """Return the branch with the widest kernel."""
        return [self.branch3]


class AuxHead(nn.Module):
    """An auxiliary classifier on an inner map, for training only. Source: paper section 5."""

    def __init__(self, in_channels: int, num_classes: int, *, batch_norm: bool, width_mult: float) -> None:
        super().__init__()
        reduced, hidden = scale_channels(128, width_mult), scale_channels(1024, width_mult)
        # 14 -> 4 with either pooling.
        self.pool = nn.AdaptiveAvgPool2d(4) if batch_norm else nn.AvgPool2d(5, 3, ceil_mode=True)
        self.conv = BasicConv2d(in_channels, reduced, 1, batch_norm=batch_norm)
        self.fc1 = nn.Linear(reduced * 4 * 4, hidden)
        self.dropout = nn.Dropout(AUX_DROPOUT)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (B, num_classes) from a map (B, in_channels, 14, 14)."""
        features = self.conv(self.pool(x)).flatten(1)
        logits: Tensor = self.fc2(self.dropout(self.fc1(features).relu()))
        return logits


class GoogLeNet(ClassifierBackbone):
    """Maps conv1, conv3, inception3b, inception4e, inception5b, strides 2 to 32.

    Options of single papers: FCN changes `stem_padding`, `ceil_mode` and `pool_padding`; `output_stride` is DeepLab's.
    `dropout` None takes the value of the variant.
    """

    map_names = ("conv1", "conv3", "inception3b", "inception4e", "inception5b")
    input_size = 224
    architecture = "GoogLeNet"
    same_stem_padding = 3

    def __init__(
        self,
        variant: Variant,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        aux_heads: bool = False,
        stem_padding: int = 3,
        ceil_mode: bool = True,
        pool_padding: int = 0,
        output_stride: int = 32,
        width_mult: float = 1.0,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        if aux_heads and not num_classes:
            raise ConfigError("aux_heads", "needs classes, got num_classes=0", "set num_classes")
        conv = partial(BasicConv2d, batch_norm=variant.batch_norm)
        pool = partial(max_pool, ceil_mode=ceil_mode, padding=pool_padding)
        stem1, stem2 = scale_channels(64, width_mult), scale_channels(192, width_mult)

        # Stem, 224 -> 112 -> 56 -> 28.
        self.conv1 = conv(in_channels, stem1, 7, stride=2, padding=stem_padding)
        self.maxpool1 = pool(3)
        self.norm1 = nn.Identity() if variant.batch_norm else caffe_lrn()
        self.conv2 = conv(stem1, stem1, 1)
        self.conv3 = conv(stem1, stem2, 3, padding=1)
        self.norm2 = nn.Identity() if variant.batch_norm else caffe_lrn()
        self.maxpool2 = pool(3)
        self.maxpool3 = pool(3)  # before inception4a, 28 -> 14
        self.maxpool4 = pool(variant.maxpool4_kernel)  # before inception5a, 14 -> 7

        outputs, channels = {}, stem2
        for name, widths in INCEPTIONS.items():
            module = Inception(channels, tuple(scale_channels(c, width_mult) for c in widths), variant)
            self.add_module(f"inception{name}", module)
            channels = outputs[name] = module.out_channels
        self.channels = (stem1, stem2, outputs["3b"], outputs["4e"], outputs["5b"])
        replace_stride_with_dilation(self.modules_to(), output_stride)
        self.strides = self._read_strides()

        self.aux1 = self.aux2 = None
        if aux_heads:
            head = partial(AuxHead, num_classes=num_classes, batch_norm=variant.batch_norm, width_mult=width_mult)
            self.aux1, self.aux2 = head(outputs["4a"]), head(outputs["4d"])
        self.dropout = nn.Dropout(variant.dropout if dropout is None else dropout)
        self.fc = nn.Linear(outputs["5b"], num_classes) if num_classes else None
        init_kaiming_normal(self)

    def _inceptions(self, stage: str) -> list[nn.Module]:
        return [self.get_submodule(f"inception{name}") for name in INCEPTIONS if name.startswith(stage)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        conv1 = self.conv1(images)
        conv3 = self.conv3(self.conv2(self.norm1(self.maxpool1(conv1))))
        x = self.maxpool2(self.norm2(conv3))
        for inception in self._inceptions("3"):
            x = inception(x)
        inception3b = x
        x = self.maxpool3(x)
        for inception in self._inceptions("4"):
            x = inception(x)
        inception4e = x
        x = self.maxpool4(x)
        for inception in self._inceptions("5"):
            x = inception(x)
        return [conv1, conv3, inception3b, inception4e, x]

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""
        return self._modules_to(self.map_names[index])

    def _modules_to(self, name: str) -> list[nn.Module]:
        chain = [
            self.conv1, self.maxpool1, self.norm1, self.conv2, self.conv3, self.norm2,
            self.maxpool2, *self._inceptions("3"),
            self.maxpool3, *self._inceptions("4"),
            self.maxpool4, *self._inceptions("5"),
        ]  # fmt: skip
        return chain[: chain.index(self.get_submodule(name)) + 1]

    def head(self) -> nn.Sequential | None:
        """Return global average pooling, dropout and one fully connected layer."""
        if self.fc is None:
            return None
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), self.dropout, self.fc)

    def classify_with_aux(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the logits (B, num_classes) of the network and of both auxiliary classifiers.

        The paper weights their losses 1, 0.3, 0.3. Raises ConfigError without auxiliary classifiers.
        """
        if self.aux1 is None or self.aux2 is None:
            raise ConfigError("backbone", "has no auxiliary classifiers", "create it with aux_heads=True")
        inception4a, inception4d = (
            nn.Sequential(*self._modules_to(name))(images) for name in ("inception4a", "inception4d")
        )
        return self.classify(images), self.aux1(inception4a), self.aux2(inception4d)

    def caffe_names(self) -> Mapping[str, str]:
        """Return the module name of each layer name in bvlc_googlenet."""
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
            for layer, branch in branches.items():
                names[f"inception_{name}/{layer}"] = f"inception{name}.{branch}.conv"
        for i in (1, 2):
            names |= {
                f"loss{i}/conv": f"aux{i}.conv.conv",
                f"loss{i}/fc": f"aux{i}.fc1",
                f"loss{i}/classifier": f"aux{i}.fc2",
            }
        present = dict(self.named_modules())
        return {layer: module for layer, module in names.items() if module in present}


for _name, _variant, _summary in (
    (
        "googlenet",
        PAPER_VARIANT,
        "GoogLeNet as in the paper and BVLC's file: response normalization, 5x5 in the third branch.",
    ),
    (
        "googlenet_torchvision",
        TORCHVISION_VARIANT,
        "torchvision's GoogLeNet: batch normalization, 3x3 in the third branch.",
    ),
):
    BACKBONES.register(_name, summary=_summary, tiny={"width_mult": 1 / 8}, paper=PAPER, year=2014)(
        partial(GoogLeNet, _variant)
    )
