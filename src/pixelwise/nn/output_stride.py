"""Stride turned into rate: how a backbone keeps a finer map without losing what its deeper layers see.

Source: Chen et al., DeepLab v1, section 3.1 (https://arxiv.org/abs/1412.7062); v3, section 3.1, figure 3
(https://arxiv.org/abs/1706.05587).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..errors import ConfigError


@dataclass
class StrideDilation:
    """Walks down a backbone: once the wished stride is reached, each further stride becomes a factor of the rate.

    target  coarsest stride wished for, 8, 16 or 32
    stride  pixels per cell so far
    rate    dilation that 3x3 layers take so far
    """

    output_stride: int
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16, 32):
            raise ConfigError(
                "output_stride", f"got {self.output_stride!r}, allowed are 8, 16 and 32", "32 is the classifier's own"
            )

    def step(self, stride: int) -> int:
        """The stride that a layer of nominal `stride` takes; where it is turned into rate, `self.dilation` grows for what follows.

        The layer that loses its stride still samples the old grid: it takes the rate from before the step.
        """
        if self.stride * stride <= self.output_stride:
            self.stride *= stride
            return stride
        self.dilation *= stride
        return 1


def replace_stride_with_dilation(chain: Iterable[nn.Module], output_stride: int) -> None:
    """Give a chain of layers, or of blocks that keep their stride inside, an output stride; 32 leaves it as it is.

    A pooling that loses its stride is padded, where its kernel has a middle, so that the map keeps its size; convolutions behind it
    take the rate, and their padding grows with it.
    """
    tracker = StrideDilation(output_stride)
    for layer in (layer for part in chain for layer in part.modules()):
        if isinstance(layer, nn.Conv2d):
            rate, stride = tracker.dilation, tracker.step(layer.stride[0])
            layer.stride = (stride, stride)
            if layer.kernel_size[0] > 1 and rate > 1:
                layer.dilation = (rate, rate)
                assert not isinstance(layer.padding, str), "paddings are numbers here"
                layer.padding = tuple(side * rate for side in layer.padding)
        elif isinstance(layer, nn.MaxPool2d) and layer.stride == 2:
            layer.stride = tracker.step(2)
            if layer.stride == 1 and layer.kernel_size == 3:
                layer.padding = 1
