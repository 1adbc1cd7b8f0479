"""Hypercolumns: Hariharan, Arbelaez, Girshick and Malik, "Hypercolumns for Object Segmentation and Fine-grained
Localization", CVPR 2015.

A pixel is described by its hypercolumn: the activations above it in several layers of a classifier, upsampled and
concatenated. Linear classifiers, one per position of a coarse grid over the image and interpolated between positions,
turn it into class scores.

Paper: https://arxiv.org/abs/1411.5752

Faithful: each layer is resized to a heat map of 50x50 by bilinear interpolation. A linear classifier on the
concatenation equals one score layer per map, whose scores are upsampled and summed. The box is divided into K x K parts
with a classifier each; a pixel's answer interpolates those of the four nearest classifiers (`interpolate`
"probabilities", as in the authors' layer). Fully connected layers see the whole box and say the same everywhere.
AlexNet is CaffeNet, box of 227 pixels: pool2, conv4 and fc7, 4736 numbers per pixel. VGG16 is the authors' later
network, box of 224 pixels: pool3 with a 3x3 score layer, pool4 and fc7, with their fixed factors.

Deviations: the box is the whole image, resized to `input_size` pixels as the paper warps its boxes, and its heat map is
resized to the image; detections and the projection to superpixels are not part of the network. Classes exclude each
other (softmax); the paper separates each class from its background (sigmoid). Without published weights the backbone
starts from He's initialization; the authors train only the score layers of VGG16. `interpolate` "scores" interpolates
before the softmax, so that everything after the maps is linear. `width_mult` is ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import create_backbone
from ..backbones.classifier import ChainBackbone
from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.geometry import layers_of, output_size
from ..nn.init import init_kaiming_normal, normal_conv
from ..nn.upsampling import Bilinear
from . import MODELS
from .base import SegmentationModel

Interpolate = Literal["probabilities", "scores"]


@dataclass(frozen=True)
class HypercolumnLayer:
    """A layer of the hypercolumn.

    name    name of the layer in the paper
    index   position in the backbone's `features`
    kernel  kernel size of its score layer
    factor  fixed factor on its activations
    """

    name: str
    index: int
    kernel: int = 1
    factor: float = 1.0


# pool2 before CaffeNet's normalization, conv4 after its ReLU. Source: paper section 3.
ALEXNET_LAYERS = (HypercolumnLayer("pool2", 6), HypercolumnLayer("conv4", 11))
# Source: the authors' hypercolumn_train_cropped.prototxt.
VGG16_LAYERS = (
    HypercolumnLayer("pool3", 16, kernel=3, factor=0.0027),
    HypercolumnLayer("pool4", 23, factor=0.063),
)


class ClassifierGrid(nn.Module):
    """K x K classifiers, one per cell of the heat map: combines their scores at a pixel into one answer per pixel.

    A pixel interpolates the four classifiers whose cell centers are nearest, fewer at the border.
    Source: paper section 3.
    """

    weights: Tensor

    def __init__(self, grid_size: int, heatmap_size: int, interpolate: Interpolate) -> None:
        super().__init__()
        self.interpolate = interpolate
        # Weight of each classifier at each pixel: bilinear interpolation of a one in its own cell.
        one_hot = torch.eye(grid_size**2).view(-1, 1, grid_size, grid_size)
        weights = resize(one_hot, heatmap_size)[:, 0]
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Compute logits (B, num_classes, h, w) from scores (B, num_classes, grid_size^2, h, w)."""
        if self.interpolate == "scores":
            return (scores * self.weights).sum(2)
        # The mean of probabilities, in logarithms so that none underflows; log 0 = -inf leaves out the other
        # classifiers.
        return (scores.log_softmax(1) + self.weights.log()).logsumexp(2)


class Hypercolumns(SegmentationModel):
    """Score layers on layers of a backbone, summed on a heat map, interpolated over K x K classifiers.

    layers        layers of the hypercolumn, without fc7, which is always its last
    grid_size     K, classifiers along each axis; 1 for a single one
    heatmap_size  side of the heat map
    input_size    side in pixels of the square that every image is resized to; fc6 covers all of the last map
    interpolate   probabilities or scores between the classifiers
    """

    logits_stride = 1
    # The only layers that the authors train in their later network.
    score_layer_names = ("scores",)
    backbone_names = ("features", "fc")

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        backbone: str,
        layers: Sequence[HypercolumnLayer],
        grid_size: int = 5,
        heatmap_size: int = 50,
        input_size: int = 224,
        interpolate: Interpolate = "probabilities",
        dropout: float = 0.5,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if not (1 <= grid_size <= 100 and 1 <= heatmap_size <= 1000):
            what = f"expected grid_size in 1..100 and heatmap_size in 1..1000, got {grid_size} and {heatmap_size}"
            raise ConfigError("hypercolumns", what, "leave both out: the defaults are those of the paper")
        net = create_backbone(backbone, in_channels=in_channels, width_mult=width_mult)
        assert isinstance(net, ChainBackbone)
        self.fixed_input_size = input_size
        self.heatmap_size = heatmap_size
        self.features = net.features
        self.layers = {layer.index: layer for layer in layers}
        self.fc = fully_connected(net, input_size, dropout)
        chain = list(net.features)
        channels = [*(last_conv_channels(chain[: layer.index + 1]) for layer in layers), last_conv_channels(self.fc)]
        kernels = [*(layer.kernel for layer in layers), 1]
        # Source: the fillers in the authors' file.
        self.scores = nn.ModuleList(
            normal_conv(c, num_classes * grid_size**2, kernel, std=0.01, padding=kernel // 2)
            for c, kernel in zip(channels, kernels, strict=True)
        )
        self.grid = ClassifierGrid(grid_size, heatmap_size, interpolate)

    def hypercolumn(self, images: Tensor) -> list[Tensor]:
        """Return the maps of the hypercolumn of images (B, C, H, W), each (B, c, h, w), finest first, fc7 last."""
        x = self.resize_to_input(self.preprocess(images))
        maps = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index in self.layers:
                maps.append(x * self.layers[index].factor)
        return [*maps, self.fc(x)]

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute heat maps (B, num_classes, heatmap_size, heatmap_size) of images (B, C, H, W).

        Section 3.2: upsampling is linear, so each map is scored first, at its own size, and its scores are upsampled.
        """
        maps = self.hypercolumn(images)
        parts = [resize(score(x), self.heatmap_size) for score, x in zip(self.scores, maps, strict=True)]
        summed = torch.stack(parts).sum(0)
        per_classifier = summed.view(len(summed), self.num_classes, -1, self.heatmap_size, self.heatmap_size)
        return LowResLogits(self.grid(per_classifier), Bilinear())


def resize(x: Tensor, size: int) -> Tensor:
    """Resize (B, c, h, w) bilinearly to (B, c, size, size), the whole map over the whole box."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def fully_connected(backbone: ChainBackbone, input_size: int, dropout: float) -> nn.Sequential:
    """Return fc6 over all of the last map, and fc7: one position. Raises ConfigError for sizes without a last map."""
    kernel = output_size(layers_of(backbone.modules_to()), input_size)
    if kernel < 1:
        what = f"got {input_size}, too small for the poolings of the backbone"
        raise ConfigError("input_size", what, f"its classifier takes {backbone.input_size}")
    (_, fc6_channels), (_, fc7_channels) = backbone.fc_layers
    fc = nn.Sequential(
        OrderedDict[str, nn.Module](
            fc6=nn.Conv2d(backbone.channels[-1], fc6_channels, kernel),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(dropout),
            fc7=nn.Conv2d(fc6_channels, fc7_channels, 1),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(dropout),
        )
    )
    init_kaiming_normal(fc)
    return fc


def last_conv_channels(chain: Iterable[nn.Module]) -> int:
    """Return the channels after a chain of layers, those of its last convolution."""
    return [layer.out_channels for layer in chain if isinstance(layer, nn.Conv2d)][-1]


MODELS.register(
    "hypercolumns_alexnet",
    summary="Hypercolumns on CaffeNet: pool2, conv4 and fc7, 10 x 10 classifiers.",
    tiny={"width_mult": 1 / 16, "input_size": 67, "grid_size": 2, "heatmap_size": 8},
    paper="https://arxiv.org/abs/1411.5752",
    year=2015,
    scores="SDS mean AP 60.0 at an overlap of 0.5",
    defaults={"grid_size": 10, "input_size": 227},
)(partial(Hypercolumns, backbone="alexnet_caffe", layers=ALEXNET_LAYERS))
MODELS.register(
    "hypercolumns_vgg16",
    summary="Hypercolumns on VGG16: pool3, pool4 and fc7, 5 x 5 classifiers.",
    tiny={"width_mult": 1 / 16, "input_size": 64, "grid_size": 2, "heatmap_size": 8},
    paper="https://arxiv.org/abs/1411.5752",
    year=2015,
)(partial(Hypercolumns, backbone="vgg16", layers=VGG16_LAYERS))
