"""Backbone interface: feature maps with their names, channels and strides."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A network that turns images into feature maps, finest first, and describes them.

    channels   C of each map
    strides    image pixels per position of each map
    map_names  name of each map, the paper's where it has one
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    map_names: tuple[str, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first.

        Map i is (B, channels[i], about H / strides[i], about W / strides[i]).
        """

    @abstractmethod
    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""

    def modules_within(self, stride: int) -> list[nn.Module]:
        """Return the modules from the image to the last map of at most the given stride; empty if all are coarser.

        Layers between that map and the next stride, such as conv3 of a VGG whose map of stride 4 is pool2, are not
        among them.
        """
        within = [index for index, own in enumerate(self.strides) if own <= stride]
        return self.modules_to(within[-1]) if within else []
