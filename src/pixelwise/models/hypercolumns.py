"""Hypercolumns: Hariharan, Arbelaez, Girshick and Malik, "Hypercolumns for Object Segmentation and Fine-grained Localization",
CVPR 2015.

Paper: https://arxiv.org/abs/1411.5752

Faithful: a pixel is described by all maps above it, each brought to a heat map of 50x50 cells by bilinear interpolation; a linear
classifier on them is a score layer a map, whose scores are upsampled and summed. The box is divided into K x K places with a
classifier each; a pixel's answer is the bilinear interpolation of the answers of the classifiers around it (`mixing`
"probabilities", as in the authors' layer). Fully connected layers see the whole box and say the same everywhere. AlexNet is
CaffeNet, box of 227 pixels: pool2, conv4 and fc7, 4736 numbers a pixel. VGG16 is the authors' later net, box of 224 pixels: pool3
by a 3x3 score layer, pool4 and fc7, with their fixed factors.

Deviations: the box is the whole image, resized to `side` pixels as the paper warps its boxes, and its heat map is brought to the
image's size; detections, and the projection to superpixels, are no part of the network. Classes exclude each other (softmax),
where the paper tells each class's objects from their background (sigmoid). Without a published net the backbone starts from He's
weights; the authors train only the score layers of VGG16. mixing "scores" interpolates before the softmax, which keeps all behind
the maps linear. `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1411.5752"
SCORES = "SDS mean AP 60.0 at an overlap of 0.5 (AlexNet)"
MIXINGS = ("probabilities", "scores")


@dataclass(frozen=True)
class Tap:
    """A map of the backbone: its name, the place of its layer in `features`, its score layer's kernel, what it is multiplied with."""

    name: str
    position: int
    kernel: int = 1
    factor: float = 1.0


# Before the normalisation that CaffeNet has behind its pooling; conv4 behind its ReLU. Source: paper section 3.
ALEXNET = (Tap("pool2", 6), Tap("conv4", 11))
# Source: the authors' hypercolumn_train_cropped.prototxt.
VGG16 = (Tap("pool3", 16, kernel=3, factor=0.0027), Tap("pool4", 23, factor=0.063))


class ClassifierGrid(nn.Module):
    """K x K classifiers in their places: the scores of all at each pixel -> one answer a pixel. Source: paper section 3.

    Places divide the heat map evenly; a pixel mixes the four whose centres are nearest, at the border fewer.
    """

    shares: Tensor

    def __init__(self, places: int, heat: int, mixing: str) -> None:
        super().__init__()
        if mixing not in MIXINGS:
            raise ConfigError("mixing", f"got {mixing!r}, allowed are {', '.join(MIXINGS)}")
        self.mixing = mixing
        alone = torch.eye(places**2).view(-1, 1, places, places)
        shares = F.interpolate(alone, size=(heat, heat), mode="bilinear", align_corners=False)[:, 0]
        self.register_buffer("shares", shares, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (B, K, places^2, h, w) -> logits (B, K, h, w)."""
        if self.mixing == "scores":
            return (scores * self.shares).sum(2)
        # The mean of probabilities, in logarithms so that none is lost: a place without a share counts for exactly nothing.
        return (scores.log_softmax(1) + self.shares.log()).logsumexp(2)


class Hypercolumns(SegmentationModel):
    """Score layers on maps of a backbone, summed on a heat map; classifiers of K x K places mixed.

    side    pixels of the square that every image is resized to; fc6 covers all of its last map
    places  K: classifiers along each axis; 1 is one for the whole image
    heat    cells a side of the heat map
    """

    def __init__(
        self,
        backbone: str,
        taps: Sequence[Tap],
        num_classes: int,
        in_channels: int,
        places: int,
        heat: int,
        side: int,
        mixing: str,
        dropout: float,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if min(places, heat) < 1:
            raise ConfigError("places", f"got {places}, and {heat} for heat", "both are at least 1")
        self.fixed_input_size = side
        self.input_size = (side, side)
        self.logits_stride = 1
        self.heat = heat
        built = create_backbone(backbone, in_channels=in_channels, width_mult=width_mult)
        assert isinstance(built, ChainBackbone)
        self.features = built.features
        self.taps = {tap.position: tap for tap in taps}
        self.fc = _fully_connected(built, side, dropout)
        channels = [_channels_at(built, tap.position) for tap in taps] + [built.fc_layers[-1][1]]
        self.names = (*(tap.name for tap in taps), "fc7")
        self.column = sum(channels)
        # Source: the fillers in the authors' file.
        self.scores = nn.ModuleList(
            normal_conv(count, num_classes * places**2, kernel, std=0.01, padding=kernel // 2)
            for count, kernel in zip(channels, (*(tap.kernel for tap in taps), 1), strict=True)
        )
        self.grid = ClassifierGrid(places, heat, mixing)

    def maps(self, images: Tensor) -> list[Tensor]:
        """images (B, C, H, W) -> the maps that make up a hypercolumn, each (B, c, h, w), finest first."""
        cells = self.preprocess(images)
        if cells.shape[-2:] != self.input_size:
            cells = F.interpolate(cells, size=self.input_size, mode="bilinear", align_corners=False)
        found = []
        for position, layer in enumerate(self.features):
            cells = layer(cells)
            if position in self.taps:
                found.append(cells * self.taps[position].factor)
        return [*found, self.fc(cells)]

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores of the heat map."""
        parts = [_spread(layer(cells), self.heat) for layer, cells in zip(self.scores, self.maps(images), strict=True)]
        summed = torch.stack(parts).sum(0)
        per_place = summed.view(len(summed), self.num_classes, -1, self.heat, self.heat)
        return LowResLogits(self.grid(per_place), Bilinear())

    def classifier_modules(self) -> list[nn.Module]:
        """The score layers: all that the authors' later net trains."""
        return list(self.scores)


def _spread(cells: Tensor, heat: int) -> Tensor:
    """(B, c, h, w) -> (B, c, heat, heat), the whole map over the whole box."""
    return F.interpolate(cells, size=(heat, heat), mode="bilinear", align_corners=False)


def _fully_connected(backbone: ChainBackbone, side: int, dropout: float) -> nn.Sequential:
    """fc6 over all of the last map, and fc7: a single cell. Raises ConfigError for a side that leaves no last map."""
    kernel = output_size(layers_of(backbone.modules_to()), side)
    if kernel < 1:
        raise ConfigError("side", f"got {side}", "give the pixels that the backbone was made for, 227 or 224")
    (_, hidden), (_, last) = backbone.fc_layers
    fc = nn.Sequential(
        nn.Conv2d(backbone.channels[-1], hidden, kernel),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(hidden, last, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )
    init_kaiming_normal(fc)
    return fc


def _channels_at(backbone: ChainBackbone, position: int) -> int:
    convs = [layer for layer in list(backbone.features)[: position + 1] if isinstance(layer, nn.Conv2d)]
    return convs[-1].out_channels


@MODELS.register(
    "hypercolumns_alexnet",
    tiny={"width_mult": 1 / 16, "side": 67, "places": 2, "heat": 8},
    paper=PAPER,
    year=2015,
    scores=SCORES,
)
def hypercolumns_alexnet(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    places: int = 10,
    heat: int = 50,
    side: int = 227,
    mixing: str = "probabilities",
    dropout: float = 0.5,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> Hypercolumns:
    """Hypercolumns on CaffeNet: pool2, conv4 and fc7, classifiers of 10 x 10 places."""
    return Hypercolumns(
        "alexnet_caffe",
        ALEXNET,
        num_classes,
        in_channels,
        places,
        heat,
        side,
        mixing,
        dropout,
        width_mult,
        preprocessing,
    )


@MODELS.register(
    "hypercolumns_vgg16",
    tiny={"width_mult": 1 / 16, "side": 64, "places": 2, "heat": 8},
    paper=PAPER,
    year=2015,
    scores=SCORES,
)
def hypercolumns_vgg16(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    places: int = 5,
    heat: int = 50,
    side: int = 224,
    mixing: str = "probabilities",
    dropout: float = 0.5,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> Hypercolumns:
    """Hypercolumns on VGG16: pool3, pool4 and fc7, classifiers of 5 x 5 places."""
    return Hypercolumns(
        "vgg16", VGG16, num_classes, in_channels, places, heat, side, mixing, dropout, width_mult, preprocessing
    )
