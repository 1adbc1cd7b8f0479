"""Stride turned into rate: how a trunk keeps a finer map without losing what its deeper layers see.

Source: Chen et al., DeepLab v1, section 3.1 (https://arxiv.org/abs/1412.7062); v3, section 3.1, figure 3
(https://arxiv.org/abs/1706.05587).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass
class OutputStride:
    """Walks down a trunk: once the wished stride is reached, each further stride becomes a factor of the rate.

    target  coarsest stride wished for, 8, 16 or 32
    stride  pixels per cell so far
    rate    dilation that 3x3 layers take so far
    """

    target: int
    stride: int = 1
    rate: int = 1

    def __post_init__(self) -> None:
        if self.target not in (8, 16, 32):
            raise ConfigError("output_stride", f"got {self.target!r}, allowed are 8, 16 and 32", "32 is the classifier's own")

    def step(self, stride: int) -> int:
        """The stride that a layer of nominal `stride` takes; where it is turned into rate, `self.rate` grows for what follows.

        The layer that loses its stride still samples the old grid: it takes the rate from before the step.
        """
        if self.stride * stride <= self.target:
            self.stride *= stride
            return stride
        self.rate *= stride
        return 1
