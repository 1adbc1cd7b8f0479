"""U-Net: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

Paper: https://arxiv.org/abs/1505.04597

Faithful: figure 1, layer by layer: valid 3x3 convolutions, so that a tile of 572 pixels gives scores of 388; 2x2 up-convolutions
without a ReLU; the contracting path's maps cropped about their centre and concatenated; no norm; He's weights. An image of any
size is mirrored at its border (figure 2), 92 pixels and what the poolings need to see even sides; `tile` scores it in
overlapping tiles, which gives what scoring it whole gives. The border's loss and elastic deformation are settings of training.
`create_model("unet", 2, 1)` is the paper's net.

Deviations: the paper puts dropout "at the end of the contracting path" without a rate: here 0.5 behind its last two stages, as in
the authors' release. Mirrored pixels begin behind the border's, which are not repeated. Pixels are scaled to -1..1.
Tiles are laid in steps of a multiple of 16, because a pooling's grid that moved would give other scores. `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.blocks import double_conv
from ..nn.channels import scale_channels
from ..nn.geometry import coordinates, layers_of
from ..nn.init import init_kaiming_normal, init_kaiming_upconv
from ..nn.reflect_pad import reflect_pad
from ..nn.upsampling import Identity
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1505.04597"
SCORES = "PhC-U373 92.03, DIC-HeLa 77.56 (table 2)"

# Of the contracting path's stages. Source: paper figure 1.
CHANNELS = (64, 128, 256, 512, 1024)
# Cells that two valid 3x3 convolutions take from a side's length.
LOST = 4


class UNet(SegmentationModel):
    """Down by valid convolutions and poolings, up by up-convolutions and cropped maps; scores at full size.

    context_px  pixels beyond each border of the scores that the net has to see
    step     pixels between two places of the net at which its poolings fall alike
    tile     side in pixels of the pieces in which scores are computed; 0 computes them at once
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        dropout: float,
        tile: int,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        channels = [scale_channels(base, width_mult) for base in CHANNELS]
        ways_up = [(coarse, fine) for fine, coarse in reversed(list(pairwise(channels)))]
        self.down = nn.ModuleList(double_conv(a, b) for a, b in pairwise([in_channels, *channels]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, 2) for coarse, fine in ways_up)
        self.merge = nn.ModuleList(double_conv(2 * fine, fine) for _, fine in ways_up)
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(channels[0], num_classes, 1)
        self.logits_stride = 1
        self.step = 2 ** len(ways_up)
        self.context_px = int(coordinates(layers_of(self.path())).inverse()(0))
        self.tile = self._checked_tile(tile)
        init_kaiming_normal(self)
        for layer in self.up.children():
            assert isinstance(layer, nn.ConvTranspose2d)
            init_kaiming_upconv(layer)

    def path(self) -> list[nn.Module]:
        """The longest chain of layers from the image to the scores."""
        down = [layer for stage in self.down for layer in (nn.MaxPool2d(2), stage)][1:]
        return [*down, *(layer for pair in zip(self.up, self.merge, strict=True) for layer in pair), self.score]

    def valid(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, C, n, m) -> scores (B, K, n - 2 context, m - 2 context). n and m: see `input_side`."""
        maps: list[Tensor] = []
        for i, stage in enumerate(self.down):
            cells = stage(F.max_pool2d(maps[-1], 2) if maps else pixels)
            maps.append(self.dropout(cells) if i >= len(self.down) - 2 else cells)
        cells = maps.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            cells = up(cells)
            cells = merge(torch.cat([_center(maps.pop(), cells), cells], 1))
        scores: Tensor = self.score(cells)
        return scores

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at full size."""
        height, width = images.shape[-2:]
        pixels = reflect_pad(
            self.preprocess(images), self.context_px, (self.input_side(height), self.input_side(width))
        )
        scores = self._tiled(pixels) if self.tile else self.valid(pixels)
        return LowResLogits(scores[..., :height, :width], Identity())

    def forward_with_context(self, images: Tensor) -> LowResLogits:
        """images (B, C, H + 2 context, W + 2 context), which bring their own surroundings -> scores (B, K, H, W)."""
        height, width = (side - 2 * self.context_px for side in images.shape[-2:])
        pixels = reflect_pad(self.preprocess(images), 0, (self.input_side(height), self.input_side(width)))
        return LowResLogits(self.valid(pixels)[..., :height, :width], Identity())

    def input_side(self, side: int) -> int:
        """The smallest side of an input that gives scores of `side` pixels or more and that every pooling halves evenly."""
        for _ in self.up:
            side = -(-(side + LOST) // 2)
        for _ in self.down:
            side = 2 * (side + LOST)
        return side // 2

    def _tiled(self, pixels: Tensor) -> Tensor:
        """`valid`, tile by tile; tiles share the four pixels by which their side exceeds the step."""
        height, width = (side - 2 * self.context_px for side in pixels.shape[-2:])
        scores = pixels.new_empty(len(pixels), self.num_classes, height, width)
        stride, window = self.tile - self.tile % self.step, self.tile + 2 * self.context_px
        for top in range(0, max(height - self.step, 1), stride):
            for left in range(0, max(width - self.step, 1), stride):
                part = self.valid(pixels[..., top : top + window, left : left + window])
                scores[..., top : top + self.tile, left : left + self.tile] = part
        return scores

    def _checked_tile(self, tile: int) -> int:
        """The side itself, if the net gives scores of it and tiles of it move on by a step at least."""
        smallest = self.input_side(1) - 2 * self.context_px + self.step
        if tile and (tile < smallest or (tile - smallest) % self.step):
            low = max((tile - smallest) // self.step, 0) * self.step + smallest
            what = f"got {tile}, allowed are 0 and {smallest} + {self.step} k"
            raise ConfigError("tile", what, f"take {low} or {low + self.step}")
        return tile


def _center(x: Tensor, like: Tensor) -> Tensor:
    """The middle of `x`, of the size of `like`."""
    top, left = ((whole - part) // 2 for whole, part in zip(x.shape[-2:], like.shape[-2:], strict=True))
    return x[..., top : top + like.shape[-2], left : left + like.shape[-1]]


@MODELS.register("unet", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015, scores=SCORES)
def unet(
    num_classes: int = 2,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    tile: int = 0,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "tensorflow",
) -> UNet:
    """U-Net as published: valid convolutions, centre crops, mirrored context."""
    return UNet(num_classes, in_channels, dropout, tile, width_mult, preprocessing)
