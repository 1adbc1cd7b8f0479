"""Channel counts of scaled mobile networks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError

DIVISOR = 8


def round_channels(num_channels: float, width: float) -> int:
    """num_channels * width as the nearest multiple of 8, at least 8 and at least nine tenths.

    Source: the authors' MobileNet and EfficientNet code. Raises ConfigError for a width of 0 or less.
    """
    if width <= 0:
        raise ConfigError("width", f"got {width}, allowed are numbers above 0")
    wished = num_channels * width
    rounded = max(DIVISOR, int(wished + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded + DIVISOR if rounded < 0.9 * wished else rounded


def scaled(num_channels: int, width: float) -> int:
    """A channel count times `width`, even (groups of two stay possible) and at least 2."""
    if width <= 0:
        raise ConfigError("width", f"got {width}, allowed are numbers above 0")
    return num_channels if width == 1 else max(2, 2 * round(num_channels * width / 2))


def inflate_first_conv(weight: Tensor, in_channels: int) -> Tensor:
    """(F, 3, k, k) -> (F, in_channels, k, k): the three colour planes, then their mean in every further plane.

    Raises ConfigError for fewer than three channels. Source: FCN's NYUDv2 early fusion (net surgery of the RGB-D net).
    """
    if in_channels < 3 or weight.shape[1] != 3:
        what = f"cannot turn {weight.shape[1]} input planes into {in_channels}"
        raise ConfigError("in_channels", what, "start from 3 and go to 3 or more")
    extra = weight.mean(1, keepdim=True).expand(-1, in_channels - 3, -1, -1)
    return torch.cat([weight, extra], 1)
