"""The residual backbone of the compact network: few blocks, narrow maps, strides 2, 4, 8 and 16.

A 3x3 convolution of stride 2, then one stage of residual blocks per stride. The last stage dilates its blocks and stays
at stride 16, so that a deep map sees far without becoming too coarse for poles and signs.

Paper: none of its own. Residual blocks: He et al. 2016 (https://arxiv.org/abs/1512.03385). Dilation in the last stage:
Chen et al. 2017, DeepLab v3 (https://arxiv.org/abs/1706.05587).

Deviations: from ResNet, few blocks and narrow maps, and no max pooling.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import ConfigError
from ..nn.blocks import ConvNormAct, ResidualBlock
from . import BACKBONES
from .base import Backbone


@BACKBONES.register(
    "compact",
    summary="Backbone of the compact network: residual blocks to stride 16, the last stage dilated.",
    tiny={"channels": (8, 8, 8, 8), "num_blocks": (1, 1), "dilations": (1, 2)},
    paper="https://arxiv.org/abs/1512.03385",
    year=2026,
)
class CompactBackbone(Backbone):
    """Maps stem, stride4, stride8, stride16 at strides 2, 4, 8, 16.

    channels    channels of the four maps
    num_blocks  residual blocks at strides 4 and 8
    dilations   dilation of each residual block at stride 16
    """

    strides = (2, 4, 8, 16)
    map_names = ("stem", "stride4", "stride8", "stride16")

    def __init__(
        self,
        in_channels: int = 3,
        *,
        channels: Sequence[int] = (32, 48, 80, 160),
        num_blocks: Sequence[int] = (1, 2),
        dilations: Sequence[int] = (1, 2, 1, 4),
    ) -> None:
        super().__init__()
        if (len(channels), len(num_blocks)) != (4, 2) or not dilations:
            what = f"got {channels}, {num_blocks} and {dilations}"
            raise ConfigError("channels, num_blocks, dilations", what, "give 4, 2 and at least 1 number")
        self.channels = tuple(channels)
        c2, c4, c8, c16 = channels
        self.stem = ConvNormAct(in_channels, c2, stride=2)
        self.stride4 = stage(c2, c4, [1] * num_blocks[0])
        self.stride8 = stage(c4, c8, [1] * num_blocks[1])
        self.stride16 = stage(c8, c16, dilations)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of normalized images (B, C, H, W), finest first."""
        stride2 = self.stem(images)
        stride4 = self.stride4(stride2)
        stride8 = self.stride8(stride4)
        return [stride2, stride4, stride8, self.stride16(stride8)]

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """Return the chain of modules from the image to map `index`."""
        chain: list[nn.Module] = [self.stem, self.stride4, self.stride8, self.stride16]
        return chain[: index % len(chain) + 1]


def stage(in_channels: int, out_channels: int, dilations: Sequence[int]) -> nn.Sequential:
    """Return one residual block per dilation, the first of stride 2."""
    first = ResidualBlock(in_channels, out_channels, stride=2, dilation=dilations[0])
    return nn.Sequential(first, *(ResidualBlock(out_channels, out_channels, dilation=d) for d in dilations[1:]))
