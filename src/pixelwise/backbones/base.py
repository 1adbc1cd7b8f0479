"""What a backbone says of itself, so that no model has to know it by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ..registry import Registry


class Backbone(nn.Module, ABC):
    """A backbone that returns feature maps, finest first, and describes them.

    channels  C of each map
    strides   pixels of the input per cell of each map
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images (B, C, H, W) float -> maps (B, channels[i], about H / strides[i], about W / strides[i])."""


BACKBONES: Registry[Backbone] = Registry("backbone")
