"""AlexNet: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.

The network that won ImageNet 2012: five convolutions, three max poolings and three fully connected layers. FCN's
smallest backbone.

Paper: https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks

Faithful: `alexnet_caffe` is BVLC CaffeNet, which is the network that FCN calls AlexNet: groups of two in conv2, conv4
and conv5, one stream on one device, input 227. It pools before the local response normalization, the paper after it.
`alexnet` is torchvision's, the one-column network of Krizhevsky 2014 (https://arxiv.org/abs/1404.5997): fewer filters,
no groups, no normalization, input 224; its published weights load strictly.

Deviations: both also take `width_mult`, the padding and rounding that FCN changes (`stem_padding`, `ceil_mode`,
`pool_padding`), and `output_stride`, which replaces the strides of poolings by dilation. Initial weights are Kaiming
normal; the paper's are normal with std 0.01.
"""

from __future__ import annotations

from torch import nn

from ..nn.blocks import caffe_lrn
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import replace_stride_with_dilation
from . import BACKBONES
from .classifier import ChainBackbone, max_pool

PAPER = "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks"
ONE_COLUMN_PAPER = "https://arxiv.org/abs/1404.5997"

CAFFE_CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@BACKBONES.register("alexnet_caffe", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2012)
class CaffeNet(ChainBackbone):
    """BVLC CaffeNet: groups of two, pooling before normalization; maps norm1, norm2, pool5 at strides 8, 16, 32.

    Source: CaffeNet's prototxt.
    """

    caffe_convs = CAFFE_CONVS
    architecture = "AlexNet"
    same_stem_padding = 5

    def __init__(
        self,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        stem_padding: int = 0,
        ceil_mode: bool = True,
        pool_padding: int = 0,
        output_stride: int = 32,
        width_mult: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        c1, c2, c3, c4, c5, fc = (scale_channels(c, width_mult) for c in (96, 256, 384, 384, 256, 4096))

        def pool() -> nn.MaxPool2d:
            return max_pool(3, ceil_mode=ceil_mode, padding=pool_padding)

        features = nn.Sequential(
            # 227 -> 55 -> 27 -> 13 -> 6
            nn.Conv2d(in_channels, c1, 11, 4, stem_padding), nn.ReLU(inplace=True), pool(), caffe_lrn(),
            nn.Conv2d(c1, c2, 5, padding=2, groups=2), nn.ReLU(inplace=True), pool(), caffe_lrn(),
            nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1, groups=2), nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1, groups=2), nn.ReLU(inplace=True), pool(),
        )  # fmt: skip
        replace_stride_with_dilation(features, output_stride)
        classifier = nn.Sequential(
            nn.Linear(c5 * 6 * 6, fc), nn.ReLU(inplace=True), nn.Dropout(dropout),  # fc6
            nn.Linear(fc, fc), nn.ReLU(inplace=True), nn.Dropout(dropout),  # fc7
            nn.Linear(fc, num_classes),  # fc8
        ) if num_classes else None  # fmt: skip
        maps = {"norm1": 3, "norm2": 7, "pool5": 14}
        super().__init__(features, classifier, maps=maps, fc_layers=((6, fc), (1, fc)), input_size=227)
        init_kaiming_normal(self)


@BACKBONES.register("alexnet", tiny={"width_mult": 1 / 16}, paper=ONE_COLUMN_PAPER, year=2014)
class AlexNet(ChainBackbone):
    """torchvision's AlexNet: no groups, no normalization; maps pool1, pool2, pool5 at strides 8, 16, 32."""

    caffe_convs = CAFFE_CONVS
    architecture = "AlexNet"
    same_stem_padding = 5

    def __init__(
        self,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        stem_padding: int = 2,
        ceil_mode: bool = False,
        pool_padding: int = 0,
        output_stride: int = 32,
        width_mult: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        c1, c2, c3, c4, c5, fc = (scale_channels(c, width_mult) for c in (64, 192, 384, 256, 256, 4096))

        def pool() -> nn.MaxPool2d:
            return max_pool(3, ceil_mode=ceil_mode, padding=pool_padding)

        features = nn.Sequential(
            # 224 -> 55 -> 27 -> 13 -> 6
            nn.Conv2d(in_channels, c1, 11, 4, stem_padding), nn.ReLU(inplace=True), pool(),
            nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(inplace=True), pool(),
            nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(inplace=True), pool(),
        )  # fmt: skip
        replace_stride_with_dilation(features, output_stride)
        classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(c5 * 6 * 6, fc), nn.ReLU(inplace=True),  # fc6
            nn.Dropout(dropout), nn.Linear(fc, fc), nn.ReLU(inplace=True),  # fc7
            nn.Linear(fc, num_classes),  # fc8
        ) if num_classes else None  # fmt: skip
        maps = {"pool1": 2, "pool2": 5, "pool5": 12}
        super().__init__(features, classifier, maps=maps, fc_layers=((6, fc), (1, fc)), input_size=224)
        init_kaiming_normal(self)
