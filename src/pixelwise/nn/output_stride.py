"""Output stride: replace strides by dilation to keep a higher output resolution with the same receptive field.

A classifier shrinks its input by 32. For an output stride of 8, the last two strides of 2 become 1, and the layers
after them read every 2nd, then every 4th position, so that their kernels cover the same pixels with the same weights:

    nominal stride     4   2   2   2          4   2   2   2
    output stride     32: 4   8  16  32       8: 4   8   8   8
    dilation           1   1   1   1          1   1   2   4

Sources: Chen et al., DeepLab v1, section 3.1 (https://arxiv.org/abs/1412.7062); v3, section 3.1 and figure 3
(https://arxiv.org/abs/1706.05587).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..errors import ConfigError, shown


@dataclass
class StrideDilation:
    """Tracks stride and dilation while a backbone is built, layer by layer.

    Once `output_stride` is reached, every further stride multiplies the dilation instead.

    output_stride  coarsest stride allowed, 8, 16 or 32
    stride         image pixels per position of the map so far
    dilation       dilation of the 3x3 layers so far
    """

    output_stride: int
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16, 32):
            what = f"expected 8, 16 or 32, got {shown(self.output_stride)}"
            raise ConfigError("output_stride", what, "32 is the stride of the classifier itself")

    def step(self, stride: int) -> int:
        """Return the stride of the next layer, whose nominal stride is `stride`, and update stride and dilation.

        A layer that loses its stride still reads the old grid: it takes the dilation from before the step.
        """
        if self.stride * stride <= self.output_stride:
            self.stride *= stride
            return stride
        self.dilation *= stride
        return 1


def replace_stride_with_dilation(chain: Iterable[nn.Module], output_stride: int) -> None:
    """Change a chain of layers in place to the given output stride; 32 leaves it as it is.

    The convolutions after a removed stride are dilated, and their padding grows with the dilation. A 3x3 max pooling
    that loses its stride is padded by 1, so that the map keeps its size.
    """
    tracker = StrideDilation(output_stride)
    for layer in (layer for part in chain for layer in part.modules()):
        if isinstance(layer, nn.Conv2d):
            dilation, stride = tracker.dilation, tracker.step(layer.stride[0])
            layer.stride = (stride, stride)
            if layer.kernel_size[0] > 1 and dilation > 1:
                layer.dilation = (dilation, dilation)
                assert not isinstance(layer.padding, str), f"expected a padding in numbers, got {layer.padding!r}"
                layer.padding = tuple(side * dilation for side in layer.padding)
        elif isinstance(layer, nn.MaxPool2d) and layer.stride == 2:
            layer.stride = tracker.step(2)
            if layer.stride == 1 and layer.kernel_size == 3:
                layer.padding = 1
