"""U-Net: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

An encoder halves the resolution four times and doubles the channels; a decoder mirrors it, and each of its levels also
reads the encoder's feature map of the same resolution. No convolution is padded, so every logit depends on true pixels
only, and large images can be labeled in tiles without seams.

Paper: https://arxiv.org/abs/1505.04597

Faithful: figure 1, layer by layer: valid 3x3 convolutions, so an input of 572 pixels gives logits of 388; 2x2
up-convolutions, whose arrows in the figure have no ReLU; encoder maps cropped about their center and concatenated; no
batch normalization; He's initialization. An image of any size is extended by reflection (figure 2): by 92 pixels, plus
up to 15 at the bottom and right that make every pooling see an even size. Tiling is in `inference/tiles.py`; the border
loss and elastic deformation are training settings. `create_model("unet", 2, 1)` is the network of the paper.

Deviations: the authors' release, a Caffe network, differs from figure 1 and is followed in one point: the paper places
dropout "at the end of the contracting path" without a probability, here 0.5 after the last two encoder levels, as
there. Not followed are its ReLU after each up-convolution and the 128 channels (not 64) of its last up-convolution,
31,100,354 parameters instead of 31,030,658, so that its weights do not fit. Reflected pixels start after the border
pixel, which is not repeated. Pixels are scaled to -1..1. Tiles move in steps of a multiple of 16; others shift the
pooling grid and change the logits. `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits
from ..nn.blocks import double_conv
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal, init_kaiming_upconv
from ..nn.reflect_pad import reflect_pad
from ..nn.upsampling import Identity
from . import MODELS
from .base import SegmentationModel


class UNet(SegmentationModel):
    """The network of figure 1 and the reflection of figure 2; logits at full size."""

    logits_stride = 1
    # (572 - 388) / 2 in figure 1.
    context_px = 92
    # Four 2x2 poolings: the network computes the same function at every 16th pixel.
    tile_step = 16

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        *,
        dropout: float = 0.5,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "tensorflow",  # (x - 127.5) / 127.5; the paper names none
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        c1, c2, c3, c4, c5 = (scale_channels(channels, width_mult) for channels in (64, 128, 256, 512, 1024))
        # Sizes in figure 1: the input, and after each of the two 3x3 convolutions.
        self.down1 = double_conv(in_channels, c1)  # 572 -> 570 -> 568
        self.down2 = double_conv(c1, c2)  # pooled to 284 -> 282 -> 280
        self.down3 = double_conv(c2, c3)  # pooled to 140 -> 138 -> 136
        self.down4 = double_conv(c3, c4)  # pooled to 68 -> 66 -> 64
        self.bottom = double_conv(c4, c5)  # pooled to 32 -> 30 -> 28
        self.upconv4 = nn.ConvTranspose2d(c5, c4, 2, 2)  # 28 -> 56
        self.upconv3 = nn.ConvTranspose2d(c4, c3, 2, 2)  # 52 -> 104
        self.upconv2 = nn.ConvTranspose2d(c3, c2, 2, 2)  # 100 -> 200
        self.upconv1 = nn.ConvTranspose2d(c2, c1, 2, 2)  # 196 -> 392
        # The channels of an up-convolution and of the cropped encoder map, concatenated.
        self.up4 = double_conv(2 * c4, c4)  # 56 -> 54 -> 52
        self.up3 = double_conv(2 * c3, c3)  # 104 -> 102 -> 100
        self.up2 = double_conv(2 * c2, c2)  # 200 -> 198 -> 196
        self.up1 = double_conv(2 * c1, c1)  # 392 -> 390 -> 388
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(c1, num_classes, 1)
        # Standard deviation sqrt(2 / N) for N incoming nodes (section 3): 9 * 64 for a 3x3 on 64 channels, 128 for an
        # up-convolution on 128.
        init_kaiming_normal(self)
        for upconv in (self.upconv4, self.upconv3, self.upconv2, self.upconv1):
            init_kaiming_upconv(upconv)

    def forward_valid(self, x: Tensor) -> Tensor:
        """Compute figure 1: normalized pixels (B, C, n, m) -> logits (B, K, n - 184, m - 184).

        n and m are sizes that `input_size` returns.
        """
        down1 = self.down1(x)
        down2 = self.down2(F.max_pool2d(down1, 2))
        down3 = self.down3(F.max_pool2d(down2, 2))
        down4 = self.dropout(self.down4(F.max_pool2d(down3, 2)))
        bottom = self.dropout(self.bottom(F.max_pool2d(down4, 2)))
        up4 = self.up4(crop_and_concat(down4, self.upconv4(bottom)))  # 64 cropped by 4 to 56
        up3 = self.up3(crop_and_concat(down3, self.upconv3(up4)))  # 136 cropped by 16 to 104
        up2 = self.up2(crop_and_concat(down2, self.upconv2(up3)))  # 280 cropped by 40 to 200
        up1 = self.up1(crop_and_concat(down1, self.upconv1(up2)))  # 568 cropped by 88 to 392
        logits: Tensor = self.score(up1)
        return logits

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute figure 2: mirror 92 pixels around images (B, C, H, W), run figure 1, cut to the image.

        The logits (B, K, H, W) have full size: U-Net has no last upsampling.
        """
        return self._extend_and_run(images, self.context_px, (images.shape[-2], images.shape[-1]))

    def forward_with_context(self, images: Tensor) -> LowResLogits:
        """Compute logits (B, K, H, W) of images (B, C, H + 184, W + 184) that include 92 pixels on each side."""
        height, width = (size - 2 * self.context_px for size in images.shape[-2:])
        return self._extend_and_run(images, 0, (height, width))

    def _extend_and_run(self, images: Tensor, context: int, size: tuple[int, int]) -> LowResLogits:
        """Mirror `context` pixels on each side, and what the poolings need at the bottom and right; run figure 1."""
        height, width = size
        x = reflect_pad(self.preprocess(images), context, (self.input_size(height), self.input_size(width)))
        return LowResLogits(self.forward_valid(x)[..., :height, :width], Identity())

    def input_size(self, size: int) -> int:
        """Return the smallest input size that gives `size` logits or more and that every pooling halves evenly.

        For an input of n pixels the poolings see n - 4, (n - 4) / 2 - 4 and so on; in figure 1 568, 280, 136 and 64.
        All four are even only if n is 12 modulo 16: 572 = 35 * 16 + 12.
        """
        least = size + 2 * self.context_px
        return least + (12 - least) % self.tile_step


def crop_and_concat(skip: Tensor, x: Tensor) -> Tensor:
    """Concatenate the middle of an encoder map `skip`, cropped to the size of `x`, with `x`."""
    height, width = x.shape[-2:]
    top, left = (skip.shape[-2] - height) // 2, (skip.shape[-1] - width) // 2
    return torch.cat([skip[..., top : top + height, left : left + width], x], 1)


MODELS.register(
    "unet",
    summary="U-Net as published: valid convolutions, center crops, reflected context.",
    tiny={"width_mult": 1 / 16},
    paper="https://arxiv.org/abs/1505.04597",
    year=2015,
    scores="PhC-U373 92.03, DIC-HeLa 77.56 (table 2)",
)(UNet)
