"""Channel counts of scaled mobile networks."""

from __future__ import annotations

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
