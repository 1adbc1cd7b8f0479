"""U-Net with padded convolutions on any backbone: what is called a U-Net today.

The backbone is the encoder. The decoder climbs back one feature map at a time: up-convolution, concatenation with the
backbone's map of that resolution, two 3x3 convolutions. Padding keeps every size, so nothing is cropped.

Paper: https://arxiv.org/abs/1505.04597

Faithful: the expanding path: up-convolutions without a ReLU, concatenation, two 3x3 convolutions, one block per encoder
map with the channels of that map. With the backbone `unet` the parameter count is the paper's 31,030,658 (1 -> 2
channels). The network as published is `unet`.

Deviations: convolutions are padded; image sizes that are not a multiple of the coarsest stride are extended by
reflection at the bottom and right. An up-convolution has the kernel and stride of the step between two maps; a backbone
whose finest map is strided gets one more block, with half of that map's channels and no skip connection. Dropout
follows the last two maps of the backbone. If the poolings of a backbone are not padded (AlexNet), maps are aligned at
their top left corner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import create_backbone
from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.blocks import double_conv
from ..nn.init import init_kaiming_normal, init_kaiming_upconv
from ..nn.reflect_pad import reflect_pad
from ..nn.upsampling import Identity
from ..registry import NO_OPTIONS
from . import MODELS
from .base import SegmentationModel


class UpBlock(nn.Module):
    """One level of the decoder: up-convolution by `factor`, concatenation with a skip map, two 3x3 convolutions."""

    def __init__(
        self, in_channels: int, out_channels: int, *, skip_channels: int, factor: int, batch_norm: bool
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, factor, factor)
        self.conv = double_conv(skip_channels + out_channels, out_channels, padding=1, batch_norm=batch_norm)
        init_kaiming_normal(self.conv)
        init_kaiming_upconv(self.up)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, in_channels, h, w) and (B, skip_channels, H, W) -> (B, out_channels, H, W).

        Without a skip map the output has `factor` times the size.
        """
        x = self.up(x)
        if skip is not None:
            x = torch.cat([skip, _fit(x, skip.shape[-2:])], 1)
        x = self.conv(x)
        return x


class UNetPadded(SegmentationModel):
    """Any backbone, then one UpBlock per feature map; logits at full size.

    backbone_options  its options, such as {output_stride: 16}
    decoder_channels  output channels of the blocks, coarsest first; empty for those of the backbone's maps
    width_mult        of the backbone; None for a backbone without that option
    """

    logits_stride = 1
    backbone_names = ("backbone",)
    import_format = "backbone"

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        *,
        backbone: str = "unet",
        backbone_options: Mapping[str, Any] = NO_OPTIONS,
        batch_norm: bool = False,
        decoder_channels: Sequence[int] = (),
        dropout: float = 0.5,
        width_mult: float | None = None,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        options: dict[str, Any] = {} if width_mult is None else {"width_mult": width_mult}
        self.backbone = create_backbone(backbone, in_channels=in_channels, **options, **backbone_options)
        # From the coarsest map up; channels 0 stand for the block to full size, which has no skip map.
        deepest, *skip_channels = reversed(self.backbone.channels)
        strides = [*reversed(self.backbone.strides)]
        if strides[-1] > 1:
            skip_channels.append(0)
            strides.append(1)
        half = max(self.backbone.channels[0] // 2, 2)
        out_channels = [*decoder_channels] or [channels or half for channels in skip_channels]
        if len(out_channels) != len(skip_channels) or min(out_channels) < 1:
            what = f"got {list(decoder_channels)}, {backbone} takes {len(skip_channels)} blocks"
            raise ConfigError("decoder_channels", what, "give one number >= 1 per block, coarsest first, or none")
        self.blocks = nn.ModuleList()
        block_in = deepest
        for skip, block_out, (coarse, fine) in zip(skip_channels, out_channels, pairwise(strides), strict=True):
            factor = coarse // fine
            self.blocks.append(UpBlock(block_in, block_out, skip_channels=skip, factor=factor, batch_norm=batch_norm))
            block_in = block_out
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Conv2d(block_in, num_classes, 1)
        init_kaiming_normal(self.score)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at full size of images (B, C, H, W)."""
        height, width = images.shape[-2:]
        stride = self.backbone.strides[-1]
        # At least two strides per side: unpadded backbones have no map of fewer pixels.
        # Rounded up without negative numbers, whose quotients ONNX rounds to the other side.
        padded = (max((height + stride - 1) // stride, 2) * stride, max((width + stride - 1) // stride, 2) * stride)
        *skips, x = self.backbone(reflect_pad(self.preprocess(images), 0, padded))
        skips[-1], x = self.dropout(skips[-1]), self.dropout(x)
        for block in self.blocks:
            x = block(x, skips.pop() if skips else None)
        return LowResLogits(_fit(self.score(x), padded)[..., :height, :width], Identity())


def _fit(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crop `x` to (height, width), or repeat its last row and column up to it."""
    if torch.compiler.is_exporting():
        # As indices, for ONNX repeats no border by a number that depends on the image.
        for axis, length in zip((2, 3), size, strict=True):
            x = x.index_select(axis, torch.arange(length, device=x.device).clamp_max(x.shape[axis] - 1))
        return x
    down, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if down > 0 or right > 0:
        x = F.pad(x, (0, max(right, 0), 0, max(down, 0)), mode="replicate")
    return x[..., : size[0], : size[1]]


MODELS.register(
    "unet_padded",
    summary="U-Net with padded convolutions, on any backbone.",
    tiny={"width_mult": 1 / 16},
    paper="https://arxiv.org/abs/1505.04597",
    year=2015,
)(UNetPadded)
