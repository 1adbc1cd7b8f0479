"""A compact network for street scenes, made of the parts of the classic line; the model that ships.

Paper: none of its own. Residual backbone: He et al. 2016 (https://arxiv.org/abs/1512.03385). Atrous spatial pyramid: Chen
et al. 2017, DeepLab v2/v3 (https://arxiv.org/abs/1706.05587). Skips from fine maps: Long et al. 2015, FCN
(https://arxiv.org/abs/1411.4038), in the form of DeepLab v3+ (https://arxiv.org/abs/1802.02611): reduced by 1x1, concatenated.

Deviations: from ResNet, few blocks and narrow maps, no max pooling, strides 2, 4, 8, 16. From DeepLab v3, no image
pooling, so that a pixel depends on a bounded window and tiles can equal the whole. From v3+, three skips (strides 8, 4, 2): poles
and signs are a few pixels wide.
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
    """Residual backbone to stride 16, atrous pyramid, decoder over strides 8, 4 and 2, scores at stride 2.

    widths     channels at strides 2, 4, 8, 16
    dilations  one residual block at stride 16 each, with that rate
    rates      of the pyramid's 3x3 branches
    decoder    channels of the decoder's maps at strides 8, 4, 2
    dropout    probability with which a channel of the pyramid's map is left out in training
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        dilations: Sequence[int],
        rates: Sequence[int],
        decoder: Sequence[int],
        dropout: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if len(widths) != 4 or len(blocks) != 2 or len(decoder) != 3:
            raise ConfigError(
                "compact", f"widths {widths}, blocks {blocks}, decoder {decoder}", "give 4, 2 and 3 numbers"
            )
        self.logits_stride = 2
        half, quarter, eighth, deep = widths
        self.stem = ConvNormAct(in_channels, half, stride=2)
        self.stride4 = _stage(half, quarter, [1] * blocks[0])
        self.stride8 = _stage(quarter, eighth, [1] * blocks[1])
        self.stride16 = _stage(eighth, deep, dilations)
        self.pyramid = nn.ModuleList(
            [ConvNormAct(deep, deep // 2, 1), *(ConvNormAct(deep, deep // 2, dilation=r) for r in rates)]
        )
        self.project = ConvNormAct(len(self.pyramid) * (deep // 2), decoder[0], 1)
        self.dropout = nn.Dropout2d(dropout)
        self.up8 = Fusion(decoder[0], eighth, decoder[0])
        self.up4 = Fusion(decoder[0], quarter, decoder[1])
        self.up2 = Fusion(decoder[1], half, decoder[2])
        self.score = nn.Conv2d(decoder[2], num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at stride 2."""
        half = self.stem(self.preprocess(images))
        quarter = self.stride4(half)
        eighth = self.stride8(quarter)
        deep = self.stride16(eighth)
        context = self.dropout(self.project(torch.cat([branch(deep) for branch in self.pyramid], 1)))
        fused = self.up2(self.up4(self.up8(context, eighth), quarter), half)
        return LowResLogits(self.score(fused), Bilinear())


class Fusion(nn.Module):
    """A coarse map brought to the size of a finer one, concatenated with it, mixed by a 3x3 convolution.

    Both are reduced first: a 1x1 convolution and an interpolation may change places, and few channels are cheaper to enlarge.
    """

    def __init__(self, coarse: int, fine: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(coarse, out_channels, 1)
        self.skip = ConvNormAct(fine, out_channels // 2, 1)
        self.mix = ConvNormAct(out_channels + out_channels // 2, out_channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, coarse, h, w) and (B, fine, H, W) -> (B, out_channels, H, W)."""
        enlarged = F.interpolate(self.reduce(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(torch.cat([enlarged, self.skip(fine)], 1))
        return mixed


def _stage(in_channels: int, out_channels: int, dilations: Sequence[int]) -> nn.Sequential:
    first = ResidualBlock(in_channels, out_channels, stride=2, dilation=dilations[0])
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, dilation=d) for d in dilations[1:]))


@MODELS.register(
    "compact",
    tiny={"widths": (8, 8, 8, 8), "blocks": (1, 1), "dilations": (1, 2), "rates": (2,), "decoder": (8, 4, 4)},
    year=2026,
    scores="CamVid test: docs/results.md",
)
def compact(
    num_classes: int = 11,
    in_channels: int = 3,
    *,
    widths: Sequence[int] = (32, 48, 80, 160),
    blocks: Sequence[int] = (1, 2),
    dilations: Sequence[int] = (1, 2, 1, 4),
    rates: Sequence[int] = (4, 8),
    decoder: Sequence[int] = (80, 48, 16),
    dropout: float = 0.1,
    preprocessing: str | Mapping[str, Any] = "torchvision",
) -> Compact:
    """The shipped street-scene network: residual backbone, atrous pyramid, three skips, no global pooling."""
    return Compact(num_classes, in_channels, widths, blocks, dilations, rates, decoder, dropout, preprocessing)
