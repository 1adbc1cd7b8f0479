"""AlexNet: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.

Paper: https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks

`alexnet_caffe` is BVLC CaffeNet, the net that FCN means by AlexNet: groups at conv2, conv4 and conv5, pooling *before* the
local response normalisation (the paper: behind it), one stream on one device, input 227. `alexnet` is torchvision's, the
one-column net of Krizhevsky 2014: fewer filters, no groups, no normalisation, input 224; its state names load strictly.

Deviations: both also take `width_mult`, the paddings that FCN changes, and `output_stride`, which turns poolings' strides into rates.
Fresh weights are He's, the paper's a normal of 0.01.
"""

from __future__ import annotations

from torch import nn

from ..nn.blocks import caffe_lrn
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import replace_stride_with_dilation
from .base import BACKBONES
from .classifier import ChainBackbone, pool

PAPER = "https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks"


class AlexNet(ChainBackbone):
    """The maps behind the three poolings (behind the normalisation, where one follows), strides 8, 16, 32."""

    same_stem_padding = 5

    def _caffe_convs(self) -> list[str]:
        return [f"conv{i}" for i in range(1, 6)]


@BACKBONES.register("alexnet_caffe", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2012)
def alexnet_caffe(
    in_channels: int = 3,
    *,
    num_classes: int = 0,
    stem_padding: int = 0,
    ceil_mode: bool = True,
    pool_padding: int = 0,
    output_stride: int = 32,
    width_mult: float = 1.0,
    dropout: float = 0.5,
) -> AlexNet:
    """BVLC CaffeNet: groups of two, pooling before normalisation; norm1, norm2, pool5. Source: CaffeNet's prototxt."""
    c1, c2, c3, c4, c5, hidden = (scale_channels(c, width_mult) for c in (96, 256, 384, 384, 256, 4096))
    features = nn.Sequential(
        nn.Conv2d(in_channels, c1, 11, 4, stem_padding), nn.ReLU(inplace=True), pool(3, ceil_mode, pool_padding), caffe_lrn(),
        nn.Conv2d(c1, c2, 5, padding=2, groups=2), nn.ReLU(inplace=True), pool(3, ceil_mode, pool_padding), caffe_lrn(),
        nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, 3, padding=1, groups=2), nn.ReLU(inplace=True),
        nn.Conv2d(c4, c5, 3, padding=1, groups=2), nn.ReLU(inplace=True), pool(3, ceil_mode, pool_padding),
    )  # fmt: skip
    replace_stride_with_dilation(features, output_stride)
    classifier = nn.Sequential(
        nn.Linear(c5 * 36, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
        nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    ) if num_classes else None  # fmt: skip
    taps = (("norm1", 3), ("norm2", 7), ("pool5", 14))
    net = AlexNet(features, taps, classifier, ((6, hidden), (1, hidden)), input_size=227)
    init_kaiming_normal(net)
    return net


@BACKBONES.register("alexnet", tiny={"width_mult": 1 / 16}, paper="https://arxiv.org/abs/1404.5997", year=2014)
def alexnet(
    in_channels: int = 3,
    *,
    num_classes: int = 0,
    stem_padding: int = 2,
    ceil_mode: bool = False,
    pool_padding: int = 0,
    output_stride: int = 32,
    width_mult: float = 1.0,
    dropout: float = 0.5,
) -> AlexNet:
    """torchvision's AlexNet: no groups, no normalisation; pool1, pool2, pool5."""
    c1, c2, c3, c4, c5, hidden = (scale_channels(c, width_mult) for c in (64, 192, 384, 256, 256, 4096))
    features = nn.Sequential(
        nn.Conv2d(in_channels, c1, 11, 4, stem_padding), nn.ReLU(inplace=True), pool(3, ceil_mode, pool_padding),
        nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(inplace=True), pool(3, ceil_mode, pool_padding),
        nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(inplace=True), pool(3, ceil_mode, pool_padding),
    )  # fmt: skip
    replace_stride_with_dilation(features, output_stride)
    classifier = nn.Sequential(
        nn.Dropout(dropout), nn.Linear(c5 * 36, hidden), nn.ReLU(inplace=True),
        nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(inplace=True),
        nn.Linear(hidden, num_classes),
    ) if num_classes else None  # fmt: skip
    taps = (("pool1", 2), ("pool2", 5), ("pool5", 12))
    net = AlexNet(features, taps, classifier, ((6, hidden), (1, hidden)), input_size=224)
    init_kaiming_normal(net)
    return net
