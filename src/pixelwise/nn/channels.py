"""Channel counts of scaled networks, and first layers for more than three input channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import ConfigError


def make_divisible(num_channels: float, width_mult: float, *, divisor: int = 8) -> int:
    """Return num_channels * width_mult, rounded to a multiple of `divisor`: the nearest not more than 10 % smaller.

    32 * 0.75 = 24 -> 24, 24 * 0.5 = 12 -> 16, and never less than the divisor. Raises ConfigError for a width_mult of 0
    or less. Source: the MobileNet and EfficientNet code of the authors.
    """
    if width_mult <= 0:
        raise ConfigError("width_mult", f"must be > 0, got {width_mult}", "1 is the paper's width")
    exact = num_channels * width_mult
    rounded = max(divisor, int(exact + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


def scale_channels(num_channels: int, width_mult: float) -> int:
    """Return num_channels * width_mult, rounded to an even number (for groups of two) of at least 2.

    Raises ConfigError for a width_mult of 0 or less.
    """
    if width_mult <= 0:
        raise ConfigError("width_mult", f"must be > 0, got {width_mult}", "1 is the paper's width")
    return num_channels if width_mult == 1 else max(2, 2 * round(num_channels * width_mult / 2))


def inflate_first_conv(weight: Tensor, in_channels: int, planes: Sequence[int] = (0, 1, 2)) -> Tensor:
    """Extend the weights of a first convolution from (F, 3, k, k) to (F, in_channels, k, k).

    planes  input channel of each of the three color planes, which are kept; every other channel gets their mean. Empty
            if no channel is a color: each then gets the mean times 3 / in_channels, so that a gray image has the
            response that it had as RGB
    Raises ConfigError for weights of another shape, and for planes beyond the channels. Source: FCN's early fusion on
    NYUDv2 (the net surgery of its RGB-D net).
    """
    if weight.shape[1] != 3 or len(planes) not in (0, 3) or any(not 0 <= place < in_channels for place in planes):
        what = f"cannot extend {weight.shape[1]} input channels to {in_channels}"
        raise ConfigError("in_channels", what, "start from weights of 3 channels and ask for 3 or more")
    mean = weight.mean(1, keepdim=True)
    if not planes:
        return (mean * (3 / in_channels)).repeat(1, in_channels, 1, 1)
    inflated = mean.repeat(1, in_channels, 1, 1)
    inflated[:, list(planes)] = weight
    return inflated
