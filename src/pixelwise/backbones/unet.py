"""The contracting path of U-Net: Ronneberger, Fischer and Brox, MICCAI 2015.

Paper: https://arxiv.org/abs/1505.04597

Faithful: figure 1's left half: five stages of two 3x3 convolutions, 64 channels doubled with each 2x2 pooling, He's weights.

Deviations: convolutions are padded, so that each map is a stride's part of the image; batch normalisation (`_bn`) and `width_mult`.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import double_conv
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from .base import BACKBONES, Backbone

PAPER = "https://arxiv.org/abs/1505.04597"

# Source: paper figure 1.
CHANNELS = (64, 128, 256, 512, 1024)


class ContractingPath(Backbone):
    """Five maps of strides 1 to 16."""

    def __init__(self, in_channels: int, batch_norm: bool, width_mult: float) -> None:
        super().__init__()
        self.channels = tuple(scale_channels(base, width_mult) for base in CHANNELS)
        self.strides = tuple(2**i for i in range(len(CHANNELS)))
        self.stages = nn.ModuleList(
            double_conv(a, b, 1, batch_norm) for a, b in pairwise([in_channels, *self.channels])
        )
        init_kaiming_normal(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps, finest first; H and W are 16 or more."""
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(F.max_pool2d(maps[-1], 2) if maps else images))
        return maps


def _register(name: str, batch_norm: bool) -> None:
    def build(in_channels: int = 3, *, width_mult: float = 1.0) -> ContractingPath:
        return ContractingPath(in_channels, batch_norm, width_mult)

    build.__doc__ = (
        f"U-Net's contracting path, padded{', with batch normalisation' if batch_norm else ''}: strides 1 to 16."
    )
    BACKBONES.register(name, tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015)(build)


_register("unet", batch_norm=False)
_register("unet_bn", batch_norm=True)
