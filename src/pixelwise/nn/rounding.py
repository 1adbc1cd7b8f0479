"""Channel counts of scaled mobile networks."""

from __future__ import annotations

from ..errors import ConfigError


def round_channels(num_channels: float, width: float, divisor: int = 8) -> int:
    """num_channels * width as the nearest multiple of `divisor`, at least one of them and at least nine tenths.

    Source: the authors' MobileNet and EfficientNet code. Raises ConfigError for a width of 0 or less.
    """
    if width <= 0:
        raise ConfigError("width", f"got {width}, allowed are numbers above 0")
    wished = num_channels * width
    rounded = max(divisor, int(wished + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wished else rounded
