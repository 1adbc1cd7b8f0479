"""U-Net's contracting path: Ronneberger, Fischer and Brox, MICCAI 2015.

Five levels of two 3x3 convolutions, with a 2x2 max pooling between levels; the channels double per level. The network
itself is `models/unet.py`.

Paper: https://arxiv.org/abs/1505.04597

Faithful: the left half of figure 1: 64, 128, 256, 512, 1024 channels, Kaiming normal weights.

Deviations: convolutions are padded, so that each map is exactly 1, 1/2 ... 1/16 of the image; batch normalization
(`unet_bn`) and `width_mult`.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.blocks import double_conv
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from . import BACKBONES
from .base import Backbone

PAPER = "https://arxiv.org/abs/1505.04597"

# Source: paper figure 1.
CHANNELS = (64, 128, 256, 512, 1024)


class ContractingPath(Backbone):
    """Five maps of strides 1, 2, 4, 8, 16."""

    strides = (1, 2, 4, 8, 16)
    map_names = ("stage1", "stage2", "stage3", "stage4", "stage5")

    def __init__(self, in_channels: int = 3, *, batch_norm: bool, width_mult: float = 1.0) -> None:
        super().__init__()
        self.channels = tuple(scale_channels(base, width_mult) for base in CHANNELS)
        self.stages = nn.ModuleList(
            double_conv(in_, out, padding=1, batch_norm=batch_norm)
            for in_, out in pairwise([in_channels, *self.channels])
        )
        init_kaiming_normal(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first; H and W must be >= 16."""
        maps: list[Tensor] = []
        x = images
        for stage in self.stages:
            x = stage(F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        return maps

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the stages from the image to map `index`; the poolings between them are functions, not modules."""
        return list(self.stages)[: index % len(self.stages) + 1]


for _name, _batch_norm in (("unet", False), ("unet_bn", True)):
    BACKBONES.register(
        _name,
        summary=f"U-Net's contracting path, padded{', with batch norm' if _batch_norm else ''}: strides 1 to 16.",
        tiny={"width_mult": 1 / 16},
        paper=PAPER,
        year=2015,
    )(partial(ContractingPath, batch_norm=_batch_norm))
