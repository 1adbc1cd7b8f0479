"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

Paper: https://arxiv.org/abs/1409.1556

Faithful: nets A (11), B (13), D (16), E (19): 3x3 convolutions, five 2x2 poolings, fc6, fc7, fc8; state names and shapes are
torchvision's, so that its files load strictly.

Deviations: batch normalisation (`_bn`, torchvision's variant), `width_mult`, the paddings that FCN changes (`stem_padding`, `ceil_mode`),
and what DeepLab v1 changes: poolings over 3x3 (`pool_kernel`), strides turned into rates (`output_stride`). Fresh weights are
He's, the paper's came from net A and a normal of 0.01.
"""

from __future__ import annotations

from torch import nn

from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.output_stride import StrideDilation
from .base import BACKBONES
from .classifier import ChainBackbone, pool

PAPER = "https://arxiv.org/abs/1409.1556"

# Convolutions of each of the five stages. Source: paper table 1, columns A, B, D, E.
DEPTHS: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class VGG(ChainBackbone):
    """Maps pool1 to pool5, strides 2 to 32 or to `output_stride`; below 32 the poolings take 3x3, which have a middle cell."""

    same_stem_padding = 1

    def __init__(
        self,
        depth: int,
        in_channels: int,
        num_classes: int,
        batch_norm: bool,
        stem_padding: int,
        ceil_mode: bool,
        pool_kernel: int,
        output_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        if pool_kernel not in (2, 3) or (pool_kernel == 2 and output_stride < 32):
            what = f"got {pool_kernel} at output stride {output_stride}"
            raise ConfigError(
                "pool_kernel", what, "2 is the paper's, 3 DeepLab's, which every output stride below 32 takes"
            )
        tracker = StrideDilation(output_stride)
        layers: list[nn.Module] = []
        taps: list[tuple[str, int]] = []
        channels = in_channels
        for stage, (num_convs, base) in enumerate(zip(DEPTHS[depth], CHANNELS, strict=True), start=1):
            for _ in range(num_convs):
                layers.append(
                    nn.Conv2d(
                        channels,
                        scale_channels(base, width_mult),
                        3,
                        1,
                        tracker.dilation if layers else stem_padding,
                        tracker.dilation,
                    )
                )
                channels = scale_channels(base, width_mult)
                layers += [nn.BatchNorm2d(channels)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
            layers.append(pool(pool_kernel, ceil_mode, 1, tracker.step(2)))
            taps.append((f"pool{stage}", len(layers) - 1))
        self.depth = depth
        hidden = scale_channels(4096, width_mult)
        classifier = _classifier(channels * 49, hidden, num_classes, dropout) if num_classes else None
        super().__init__(nn.Sequential(*layers), taps, classifier, ((7, hidden), (1, hidden)), input_size=224)
        init_kaiming_normal(self)

    def _caffe_convs(self) -> list[str]:
        return [
            f"conv{stage}_{i}" for stage, count in enumerate(DEPTHS[self.depth], start=1) for i in range(1, count + 1)
        ]


def _classifier(num_features: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_features, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    )


def _register(depth: int, batch_norm: bool) -> None:
    def build(
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        stem_padding: int = 1,
        ceil_mode: bool = False,
        pool_kernel: int = 2,
        output_stride: int = 32,
        width_mult: float = 1.0,
        dropout: float = 0.5,
    ) -> VGG:
        return VGG(
            depth,
            in_channels,
            num_classes,
            batch_norm,
            stem_padding,
            ceil_mode,
            pool_kernel,
            output_stride,
            width_mult,
            dropout,
        )

    build.__doc__ = f"VGG with {depth} weight layers{' and batch normalisation' if batch_norm else ''}, pool1 to pool5."
    name = f"vgg{depth}" + ("_bn" if batch_norm else "")
    BACKBONES.register(name, tiny={"width_mult": 1 / 16}, paper=PAPER, year=2014)(build)


for _depth in DEPTHS:
    _register(_depth, batch_norm=False)
    _register(_depth, batch_norm=True)
