"""A compact network for street scenes, built from parts of ResNet, FCN and DeepLab; the model that ships.

A small residual encoder to stride 16, an atrous spatial pyramid without image pooling, and a decoder that returns to
stride 2 over three skip connections. It is small enough to run on a CPU.

Paper: none of its own. Residual backbone: He et al. 2016 (https://arxiv.org/abs/1512.03385). Atrous spatial pyramid:
Chen et al. 2017, DeepLab v2/v3 (https://arxiv.org/abs/1706.05587). Skips from fine maps: Long et al. 2015, FCN
(https://arxiv.org/abs/1411.4038), in the form of DeepLab v3+ (https://arxiv.org/abs/1802.02611): reduced by 1x1,
concatenated.

Deviations: from ResNet, few blocks and narrow maps, no max pooling, strides 2, 4, 8, 16. From DeepLab v3, no image
pooling, so that a label depends on a bounded window and labels of tiles equal those of the image. From v3+, three skips
(strides 8, 4, 2): poles and signs are a few pixels wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.blocks import ConvNormAct, ResidualBlock
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel


class Compact(SegmentationModel):
    """Residual backbone to stride 16, ASPP without image pooling, decoder over strides 8, 4 and 2; logits at stride 2.

    channels          channels at strides 2, 4, 8, 16
    num_blocks        residual blocks at strides 4 and 8
    dilations         dilation of each residual block at stride 16
    atrous_rates      rates of the pyramid's 3x3 branches
    decoder_channels  channels at strides 8, 4, 2
    dropout           probability with which a channel of the pyramid's map is dropped in training
    """

    logits_stride = 2

    def __init__(
        self,
        num_classes: int = 11,
        in_channels: int = 3,
        *,
        channels: Sequence[int] = (32, 48, 80, 160),
        num_blocks: Sequence[int] = (1, 2),
        dilations: Sequence[int] = (1, 2, 1, 4),
        atrous_rates: Sequence[int] = (4, 8),
        decoder_channels: Sequence[int] = (80, 48, 16),
        dropout: float = 0.1,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if (len(channels), len(num_blocks), len(decoder_channels)) != (4, 2, 3):
            what = f"got {channels}, {num_blocks} and {decoder_channels}"
            raise ConfigError("channels, num_blocks, decoder_channels", what, "give 4, 2 and 3 numbers")
        c2, c4, c8, c16 = channels
        d8, d4, d2 = decoder_channels
        # Encoder: a 3x3 of stride 2, then one stage per stride; the last four blocks stay at stride 16 and dilate
        # instead.
        self.stem = ConvNormAct(in_channels, c2, stride=2)
        self.stride4 = stage(c2, c4, [1] * num_blocks[0])
        self.stride8 = stage(c4, c8, [1] * num_blocks[1])
        self.stride16 = stage(c8, c16, dilations)
        # ASPP: a 1x1 and atrous 3x3 of half the channels, concatenated, projected.
        self.pyramid = nn.ModuleList([ConvNormAct(c16, c16 // 2, 1)])
        self.pyramid.extend(ConvNormAct(c16, c16 // 2, dilation=rate) for rate in atrous_rates)
        self.project = ConvNormAct(len(self.pyramid) * (c16 // 2), d8, 1)
        self.dropout = nn.Dropout2d(dropout)
        # Decoder: each step joins the encoder's map of that stride.
        self.up8 = Fusion(d8, c8, d8)
        self.up4 = Fusion(d8, c4, d4)
        self.up2 = Fusion(d4, c2, d2)
        self.score = nn.Conv2d(d2, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at stride 2 of images (B, C, H, W)."""
        stride2 = self.stem(self.preprocess(images))
        stride4 = self.stride4(stride2)
        stride8 = self.stride8(stride4)
        stride16 = self.stride16(stride8)
        x = self.dropout(self.project(torch.cat([branch(stride16) for branch in self.pyramid], 1)))
        x = self.up2(self.up4(self.up8(x, stride8), stride4), stride2)
        return LowResLogits(self.score(x), Bilinear())


class Fusion(nn.Module):
    """A coarse map upsampled to the size of a finer one, concatenated with it and mixed by a 3x3 convolution.

    Both are reduced first: a 1x1 convolution and an interpolation commute, and fewer channels are cheaper to upsample.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, out_channels, 1)
        self.skip = ConvNormAct(skip_channels, out_channels // 2, 1)
        self.mix = ConvNormAct(out_channels + out_channels // 2, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) and (B, skip_channels, H, W) -> (B, out_channels, H, W)."""
        x = F.interpolate(self.reduce(x), size=skip.shape[-2:], mode="bilinear", align_corners=False)
        x = self.mix(torch.cat([x, self.skip(skip)], 1))
        return x


def stage(in_channels: int, out_channels: int, dilations: Sequence[int]) -> nn.Sequential:
    """Return one residual block per dilation, the first of stride 2."""
    first = ResidualBlock(in_channels, out_channels, stride=2, dilation=dilations[0])
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, dilation=d) for d in dilations[1:]))


MODELS.register(
    "compact",
    summary="The shipped street-scene network: residual backbone, ASPP, three skips, no global pooling.",
    tiny={
        "channels": (8, 8, 8, 8),
        "num_blocks": (1, 1),
        "dilations": (1, 2),
        "atrous_rates": (2,),
        "decoder_channels": (8, 4, 4),
    },
    year=2026,
    scores="CamVid test 61.06 (docs/results.md)",
)(Compact)
