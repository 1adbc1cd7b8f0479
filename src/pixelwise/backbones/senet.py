"""SE-ResNet: Hu, Shen, Albanie, Sun and Wu, "Squeeze-and-Excitation Networks", CVPR 2018.

Paper: https://arxiv.org/abs/1709.01507

Faithful: the block stands on the last 1x1 and its norm, before the addition (figure 3); reduction 16; the stride lies in the
first 1x1 of a stage, as in the authors' released files.

Deviations: `output_stride`, `deep_stem` and `width_mult` as in `resnet.py`; `se_bias=False` leaves the biases of the two 1x1 out, as
some ports do.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..nn.squeeze_excitation import SqueezeExcitation
from .base import BACKBONES
from .resnet import DEPTHS, BlockConfig, Bottleneck, ResNet, StrideLocation

PAPER = "https://arxiv.org/abs/1709.01507"


class SEBottleneck(Bottleneck):
    """A bottleneck whose added map is weighed channel by channel."""

    def __init__(self, plan: BlockConfig, reduction: int, bias: bool) -> None:
        super().__init__(plan)
        channels = plan.channels * self.expansion
        self.se = SqueezeExcitation(channels, max(channels // reduction, 1), bias=bias)

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        weighed: Tensor = self.se(super().residual(x))
        return weighed


def _register(depth: int) -> None:
    def build(
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        stride_in: StrideLocation = "1x1",
        deep_stem: bool = False,
        dilate_first: bool = True,
        reduction: int = 16,
        se_bias: bool = True,
        width_mult: float = 1.0,
    ) -> ResNet:
        return ResNet(
            partial(SEBottleneck, reduction=reduction, bias=se_bias),
            DEPTHS[depth],
            in_channels,
            num_classes,
            output_stride,
            stride_in,
            deep_stem,
            dilate_first,
            (),
            0,
            "none",
            width_mult,
        )

    build.__doc__ = f"SE-ResNet with {depth} layers: a ResNet whose units weigh their channels."
    BACKBONES.register(f"se_resnet{depth}", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2018)(build)


for _depth in (50, 101, 152):
    _register(_depth)
