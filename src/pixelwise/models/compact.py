"""A compact network for street scenes, made of the parts of the classic line; the model that ships.

Paper: none of its own. Residual trunk: He et al. 2016 (https://arxiv.org/abs/1512.03385). Atrous spatial pyramid: Chen
et al. 2017, DeepLab v2/v3 (https://arxiv.org/abs/1706.05587). Skips from fine maps: Long et al. 2015, FCN
(https://arxiv.org/abs/1411.4038), in the form of DeepLab v3+ (https://arxiv.org/abs/1802.02611): reduced by 1x1, concatenated.

Deviations: from ResNet, few blocks and narrow maps, no max pooling, strides 2, 4, 8, 16. From DeepLab v3, no image
pooling, so that a pixel depends on a bounded window and tiles can equal the whole. From v3+, two skips (strides 8 and 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import Coarse
from ..errors import ConfigError
from ..nn.blocks import BasicBlock, ConvNormAct
from ..nn.model import SegmentationModel
from ..nn.resample import Bilinear
from .contract import MODELS


class Compact(SegmentationModel):
    """Residual trunk to stride 16, atrous pyramid, decoder over strides 8 and 4, scores at stride 4.

    widths     channels at strides 2, 4, 8, 16
    dilations  one residual block at stride 16 each, with that rate
    rates      of the pyramid's 3x3 branches
    decoder    channels of the stride-8 and the stride-4 decoder map
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
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if len(widths) != 4 or len(blocks) != 2 or len(decoder) != 2:
            raise ConfigError("compact", f"widths {widths}, blocks {blocks}, decoder {decoder}", "give 4, 2 and 2 numbers")
        half, quarter, eighth, deep = widths
        self.stem = ConvNormAct(in_channels, half, stride=2)
        self.stride4 = _stage(half, quarter, [1] * blocks[0])
        self.stride8 = _stage(quarter, eighth, [1] * blocks[1])
        self.stride16 = _stage(eighth, deep, dilations)
        self.pyramid = nn.ModuleList([ConvNormAct(deep, deep // 2, 1), *(ConvNormAct(deep, deep // 2, dilation=r) for r in rates)])
        self.project = ConvNormAct(len(self.pyramid) * (deep // 2), decoder[0], 1)
        self.skip8 = ConvNormAct(eighth, decoder[0] // 2, 1)
        self.fuse8 = ConvNormAct(decoder[0] + decoder[0] // 2, decoder[0])
        self.skip4 = ConvNormAct(quarter, decoder[1] // 2, 1)
        self.fuse4 = ConvNormAct(decoder[0] + decoder[1] // 2, decoder[1])
        self.score = nn.Conv2d(decoder[1], num_classes, 1)

    def coarse(self, images: Tensor) -> Coarse:
        """images (B, C, H, W) -> scores at stride 4."""
        size = (images.shape[-2], images.shape[-1])
        fine = self.stride4(self.stem(self.preprocess(images)))
        middle = self.stride8(fine)
        deep = self.stride16(middle)
        context = self.project(torch.cat([branch(deep) for branch in self.pyramid], 1))
        fused = self.fuse8(torch.cat([_resize(context, middle), self.skip8(middle)], 1))
        fused = self.fuse4(torch.cat([_resize(fused, fine), self.skip4(fine)], 1))
        return Coarse(self.score(fused), Bilinear(), size)

    def classifier_modules(self) -> list[nn.Module]:
        """The layers that turn features into class scores."""
        return [self.score]


def _stage(in_channels: int, out_channels: int, dilations: Sequence[int]) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride=2, dilation=dilations[0])
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, dilation=d) for d in dilations[1:]))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


@MODELS.register(
    "compact",
    tiny={"widths": (4, 4, 6, 8), "blocks": (1, 1), "dilations": (1, 2), "rates": (2,), "decoder": (8, 4)},
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
    decoder: Sequence[int] = (80, 48),
    preprocessing: str | Mapping[str, Any] = "torchvision",
) -> Compact:
    """The shipped street-scene network: residual trunk, atrous pyramid, two skips, no global pooling."""
    return Compact(num_classes, in_channels, widths, blocks, dilations, rates, decoder, preprocessing)
