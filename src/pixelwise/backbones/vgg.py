"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

Stacks of 3x3 convolutions with a 2x2 max pooling after each stack, then three fully connected layers. The backbone of
FCN, DeepLab v1 and v2, and DeconvNet.

Paper: https://arxiv.org/abs/1409.1556

Faithful: networks A (11 layers), B (13), D (16) and E (19): 3x3 convolutions, five 2x2 poolings, fc6, fc7, fc8. State
names and shapes are torchvision's, so that its published weights load strictly.

Deviations: batch normalization (`_bn`, torchvision's variant) and `width_mult`; the padding and rounding that FCN
changes (`stem_padding`, `ceil_mode`); DeepLab v1's changes: 3x3 poolings (`pool_kernel`) and strides replaced by
dilation (`output_stride`). Initial weights are Kaiming normal; the paper started from network A and a normal with std
0.1.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from . import BACKBONES
from .classifier import ChainBackbone, max_pool

PAPER = "https://arxiv.org/abs/1409.1556"

# Convolutions of each of the five stages. Source: paper table 1, columns A, B, D, E.
DEPTHS: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(ChainBackbone):
    """VGG with `depth` weight layers; maps pool1 to pool5, strides 2 to 32.

    Options of single papers:
        stem_padding, ceil_mode    FCN: 100 and True
        output_stride, pool_kernel DeepLab v1: 8 and 3. An output stride below 32 needs 3x3 poolings: a 2x2 pooling
                                   without its stride has no center
    """

    architecture = "VGG"
    same_stem_padding = 1

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        *,
        batch_norm: bool = False,
        num_classes: int = 0,
        stem_padding: int = 1,
        ceil_mode: bool = False,
        pool_kernel: int = 2,
        output_stride: int = 32,
        width_mult: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        if pool_kernel not in (2, 3) or (pool_kernel == 2 and output_stride < 32):
            what = f"got {pool_kernel} at output stride {output_stride}"
            raise ConfigError(
                "pool_kernel", what, "use 2 (the paper's), or 3 (DeepLab's) for an output stride below 32"
            )
        tracker = StrideDilation(output_stride)
        layers: list[nn.Module] = []
        maps: dict[str, int] = {}
        for stage, (num_convs, base_channels) in enumerate(zip(DEPTHS[depth], CHANNELS, strict=True), start=1):
            out_channels = scale_channels(base_channels, width_mult)
            for _ in range(num_convs):
                padding = tracker.dilation if layers else stem_padding
                layers.append(nn.Conv2d(in_channels, out_channels, 3, 1, padding, tracker.dilation))
                layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                in_channels = out_channels
            # 224 -> 112 -> 56 -> 28 -> 14 -> 7
            layers.append(max_pool(pool_kernel, stride=tracker.step(2), ceil_mode=ceil_mode, padding=1))
            maps[f"pool{stage}"] = len(layers) - 1
        fc = scale_channels(4096, width_mult)
        classifier = nn.Sequential(
            nn.Linear(in_channels * 7 * 7, fc), nn.ReLU(inplace=True), nn.Dropout(dropout),  # fc6
            nn.Linear(fc, fc), nn.ReLU(inplace=True), nn.Dropout(dropout),  # fc7
            nn.Linear(fc, num_classes),  # fc8
        ) if num_classes else None  # fmt: skip
        features = nn.Sequential(*layers)
        super().__init__(features, classifier, maps=maps, fc_layers=((7, fc), (1, fc)), input_size=224)
        counts = enumerate(DEPTHS[depth], start=1)
        self.caffe_convs = tuple(f"conv{stage}_{i}" for stage, count in counts for i in range(1, count + 1))
        init_kaiming_normal(self)


for _depth in DEPTHS:
    for _batch_norm in (False, True):
        BACKBONES.register(
            f"vgg{_depth}" + ("_bn" if _batch_norm else ""),
            summary=f"VGG with {_depth} weight layers{' and batch norm' if _batch_norm else ''}, pool1 to pool5.",
            tiny={"width_mult": 1 / 16},
            paper=PAPER,
            year=2014,
        )(partial(VGG, _depth, batch_norm=_batch_norm))
