"""Channel counts of scaled mobile networks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError

DIVISOR = 8


def make_divisible(num_channels: float, width_mult: float) -> int:
    """num_channels * width as the nearest multiple of 8, at least 8 and at least nine tenths.

    Source: the authors' MobileNet and EfficientNet code. Raises ConfigError for a width of 0 or less.
    """
    if width_mult <= 0:
        raise ConfigError("width_mult", f"got {width_mult}, allowed are numbers above 0")
    wished = num_channels * width_mult
    rounded = max(DIVISOR, int(wished + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * wished else rounded


def scale_channels(num_channels: int, width_mult: float) -> int:
    """A channel count times `width_mult`, even (groups of two stay possible) and at least 2."""
    if width_mult <= 0:
        raise ConfigError("width_mult", f"got {width_mult}, allowed are numbers above 0")
    return num_channels if width_mult == 1 else max(2, 2 * round(num_channels * width_mult / 2))


def inflate_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """(F, 3, k, k) -> (F, in_channels, k, k): the three colour planes, then their mean in every further plane.

    Raises ConfigError for fewer than three channels. Source: FCN's NYUDv2 early fusion (net surgery of the RGB-D net).
    """
    if in_channels < 3 or weight.shape[1] != 3:
        what = f"cannot turn {weight.shape[1]} input planes into {in_channels}"
        raise ConfigError("in_channels", what, "start from 3 and go to 3 or more")
    extra = weight.mean(1, keepdim=True).expand(-1, in_channels - 3, -1, -1)
    return torch.cat([weight, extra], 1)
