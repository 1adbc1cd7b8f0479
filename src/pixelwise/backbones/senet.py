"""SE-ResNet: Hu, Shen, Albanie, Sun and Wu, "Squeeze-and-Excitation Networks", CVPR 2018.

A ResNet whose bottlenecks scale every channel of their branch by a factor computed from the average of the whole map.

Paper: https://arxiv.org/abs/1709.01507

Faithful: the SE block follows the last 1x1 and its norm, before the addition (figure 3); reduction 16; the stride is in
the first 1x1 of a stage, as in the authors' released files.

Deviations: the first pooling is torchvision's, padded by 1 and rounding down; in the released files it has no padding
and rounds up (`stem_pool="caffe"`). `output_stride`, `deep_stem` and `width_mult` as in `backbones/resnet.py`;
`se_bias=False` leaves out the biases of the two fully connected layers of the SE block, as some ports do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ..nn.squeeze_excitation import SqueezeExcitation
from . import BACKBONES
from .resnet import DEPTHS, Bottleneck, DeformableVersion, ResNet, StemPool, StrideLocation

PAPER = "https://arxiv.org/abs/1709.01507"


class SEBottleneck(Bottleneck):
    """A bottleneck with squeeze and excitation at the end of its branch."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        reduction: int,
        se_bias: bool,
        stride: int = 1,
        dilation: int = 1,
        stride_in: StrideLocation = "1x1",
        deformable: DeformableVersion = "none",
    ) -> None:
        super().__init__(
            in_channels, channels, stride=stride, dilation=dilation, stride_in=stride_in, deformable=deformable
        )
        out_channels = channels * self.expansion
        self.se = SqueezeExcitation(out_channels, max(out_channels // reduction, 1), bias=se_bias)

    def residual(self, x: Tensor) -> Tensor:
        """Compute the branch that is added to the shortcut."""
        scaled: Tensor = self.se(super().residual(x))
        return scaled


class SEResNet(ResNet):
    """A ResNet of `SEBottleneck` blocks; maps and options as `ResNet`."""

    def __init__(
        self,
        depths: Sequence[int],
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        stride_in: StrideLocation = "1x1",
        stem_pool: StemPool = "torchvision",
        deep_stem: bool = False,
        dilate_first: bool = True,
        reduction: int = 16,
        se_bias: bool = True,
        width_mult: float = 1.0,
    ) -> None:
        super().__init__(
            partial(SEBottleneck, reduction=reduction, se_bias=se_bias),
            depths,
            in_channels=in_channels,
            num_classes=num_classes,
            output_stride=output_stride,
            stride_in=stride_in,
            stem_pool=stem_pool,
            deep_stem=deep_stem,
            dilate_first=dilate_first,
            width_mult=width_mult,
        )


for _depth in (50, 101, 152):
    BACKBONES.register(
        f"se_resnet{_depth}",
        summary=f"SE-ResNet with {_depth} layers: a ResNet with squeeze and excitation.",
        tiny={"width_mult": 1 / 16},
        paper=PAPER,
        year=2018,
    )(partial(SEResNet, DEPTHS[_depth]))
