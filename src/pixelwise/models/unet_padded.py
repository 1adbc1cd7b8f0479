"""U-Net with padded convolutions and any backbone: what the field came to call a U-Net.

Paper: https://arxiv.org/abs/1505.04597

Faithful: the expanding path: up-convolution without a ReLU, concatenation with the backbone's map, two 3x3 convolutions, a stage for
each map; a stage has the channels of the map that it joins. With the backbone `unet` the parameters are the paper's 31,030,658
(1 -> 2). The net as published is `unet`.

Deviations: convolutions are padded, so nothing is cropped and scores have the image's size; sides that are no multiple of the
coarsest stride are mirrored at the bottom and right. Up-convolutions have the kernel and stride of the step between two maps; a
backbone whose finest map has a stride gets one more stage, with half of that map's channels and nothing to join. Dropout stands
behind the backbone's last two maps. Of a backbone whose poolings are not padded (AlexNet) maps are joined at their first cell.
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
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1505.04597"


class UpBlock(nn.Module):
    """One step up: an up-convolution by `factor`, concatenated with a map of `joined` channels, mixed twice."""

    def __init__(self, in_channels: int, joined: int, out_channels: int, factor: int, batch_norm: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, factor, factor)
        self.mix = double_conv(joined + out_channels, out_channels, 1, batch_norm)
        init_kaiming_normal(self.mix)
        init_kaiming_upconv(self.up)

    def forward(self, cells: Tensor, joined: Tensor | None = None) -> Tensor:
        """(B, in_channels, h, w) and (B, joined, H, W) -> (B, out_channels, H, W); without a map, of `factor` times the size."""
        enlarged = self.up(cells)
        if joined is not None:
            enlarged = torch.cat([joined, _fitted(enlarged, joined)], 1)
        mixed: Tensor = self.mix(enlarged)
        return mixed


class UNetPadded(SegmentationModel):
    """Any backbone, then a stage for each of its maps; scores at full size."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        backbone: str,
        batch_norm: bool,
        channels: Sequence[int],
        dropout: float,
        width_mult: float | None,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        options: dict[str, Any] = {} if width_mult is None else {"width_mult": width_mult}
        self.backbone = create_backbone(backbone, in_channels=in_channels, **options)
        joined = [*reversed(self.backbone.channels[:-1])]
        strides = [*reversed(self.backbone.strides)]
        if strides[-1] > 1:
            joined, strides = [*joined, 0], [*strides, 1]
        wanted = list(channels) or [c or max(self.backbone.channels[0] // 2, 2) for c in joined]
        if len(wanted) != len(joined) or min(wanted) < 1:
            what = f"got {list(channels)}, {backbone} has {len(joined)} stages above its coarsest map"
            raise ConfigError("channels", what, "give one number of 1 or more a stage, coarsest first, or none")
        inputs = [self.backbone.channels[-1], *wanted[:-1]]
        factors = [coarse // fine for coarse, fine in pairwise(strides)]
        plans = zip(inputs, joined, wanted, factors, strict=True)
        self.stages = nn.ModuleList(UpBlock(a, j, b, factor, batch_norm) for a, j, b, factor in plans)
        self.dropout = nn.Dropout(dropout)
        self.logits_stride = 1
        self.score = nn.Conv2d(wanted[-1], num_classes, 1)
        init_kaiming_normal(self.score)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at full size."""
        height, width = images.shape[-2:]
        multiple = self.backbone.strides[-1]
        # Two cells of the coarsest map at least: backbones without padding have none on fewer pixels.
        padded = tuple(max(-(-side // multiple), 2) * multiple for side in (height, width))
        maps = self.backbone(reflect_pad(self.preprocess(images), 0, (padded[0], padded[1])))
        maps[-2:] = [self.dropout(cells) for cells in maps[-2:]]
        cells = maps.pop()
        for stage in self.stages:
            cells = stage(cells, maps.pop() if maps else None)
        return LowResLogits(self.score(cells)[..., :height, :width], Identity())


def _fitted(x: Tensor, like: Tensor) -> Tensor:
    """`x` cut, or its last row and column repeated, to the size of `like`."""
    down, right = (wanted - have for have, wanted in zip(x.shape[-2:], like.shape[-2:], strict=True))
    if down > 0 or right > 0:
        x = F.pad(x, (0, max(right, 0), 0, max(down, 0)), mode="replicate")
    return x[..., : like.shape[-2], : like.shape[-1]]


@MODELS.register("unet_padded", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015)
def unet_padded(
    num_classes: int = 2,
    in_channels: int = 3,
    *,
    backbone: str = "unet",
    batch_norm: bool = False,
    channels: Sequence[int] = (),
    dropout: float = 0.5,
    width_mult: float | None = None,
    preprocessing: str | Mapping[str, Any] = "torchvision",
) -> UNetPadded:
    """U-Net with padded convolutions, on any backbone."""
    return UNetPadded(num_classes, in_channels, backbone, batch_norm, channels, dropout, width_mult, preprocessing)
