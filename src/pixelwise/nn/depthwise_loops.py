"""The compiled loops of `nn/depthwise_conv.py`: a depthwise convolution in either direction, and its weight gradient.

Arrays are flat, with the channels last: (B, H, W, C) maps, (k, k, C) weights. Maps may hold the bits of bfloat16
(uint16). `BLOCKS` vectors of eight channels are computed at once and stay in registers. The last ones begin at C - 32,
so that channels are computed twice, to the same values, where C is no multiple of 32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..jit.compiled import compiled
from ..jit.simd import LANES, load, plus_product, store, zeros

BLOCKS = (0, 0, 0, 0)
"""Its length is the number of vectors: four independent sums hide the latency of a multiply-add."""
CHANNELS = len(BLOCKS) * LANES
"""Channels computed at once, the fewest that a map may have: 32."""


class Taps(NamedTuple):
    """Along one axis: taps bounds[i] ... bounds[i + 1] - 1 reach position i of the result; offsets in elements.

    source   offset of the source's position that the tap reads
    weights  offset of the tap's weights
    """

    bounds: Any
    source: Any
    weights: Any


def taps(
    size: int, source_size: int, kernel: int, *, scale: int, shift: int, step: int, divisor: int = 1, units: Any
) -> Taps:
    """List the taps along an axis: tap t of position i reads the source at (scale * i + shift + step * t) / divisor.

    Taps that read between the source's positions, or outside of it, are left out. `units` are the distances between
    neighboring positions of the source and between neighboring taps, in elements.
    """
    position, tap = np.meshgrid(np.arange(size), np.arange(kernel), indexing="ij")
    source = scale * position + shift + step * tap
    is_read = (source % divisor == 0) & (source >= 0) & (source < source_size * divisor)
    bounds = np.concatenate([[0], np.cumsum(is_read.sum(1))])
    return Taps(bounds, source[is_read] // divisor * units[0], tap[is_read] * units[1])


def first_channels(channels: int) -> Any:
    """Return the first channel of each group of 32: 0, 32, ..., the last one C - 32."""
    return np.minimum(np.arange(0, channels, CHANNELS), channels - CHANNELS)


@compiled
def convolve(source: Any, weights: Any, result: Any, rows: Any, columns: Any, first: Any, begin: int, end: int) -> None:
    """Compute rows begin ... end - 1 of a map: at each position the weighted sum over the taps of both axes."""
    channels, width = first[-1] + CHANNELS, len(columns.bounds) - 1
    for y in range(begin, end):
        for x in range(width):
            for channel in first:
                total = zeros(result, BLOCKS)
                for i in range(rows.bounds[y], rows.bounds[y + 1]):
                    from_row, from_weights = rows.source[i] + channel, rows.weights[i] + channel
                    for j in range(columns.bounds[x], columns.bounds[x + 1]):
                        read = load(source, from_row + columns.source[j], LANES, BLOCKS)
                        factor = load(weights, from_weights + columns.weights[j], LANES, BLOCKS)
                        total = plus_product(total, read, factor)
                store(result, (y * width + x) * channels + channel, LANES, total)


class Shape(NamedTuple):
    """Sizes of a convolution's map x and of the gradient of its result; its kernel, stride, padding and dilation."""

    x_height: int
    x_width: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    dilation: int


@compiled
def sum_products(x: Any, grad: Any, result: Any, shape: Any, first: Any) -> None:
    """Compute the gradient of the weights of some channels: for each tap, the sum of x * grad over all positions."""
    channels = len(result) // (shape.kernel * shape.kernel)
    for channel in first:
        for tap in range(shape.kernel * shape.kernel):
            store(result, tap * channels + channel, LANES, zeros(result, BLOCKS))
        for y in range(shape.height):
            for i in range(shape.kernel):
                x_row = y * shape.stride - shape.padding + i * shape.dilation
                if not 0 <= x_row < shape.x_height:
                    continue
                for j in range(shape.kernel):
                    shift = j * shape.dilation - shape.padding
                    # Columns whose tap lies on the map: 0 <= column * stride + shift < x_width.
                    begin = max(0, -(shift // shape.stride))
                    end = min(shape.width, -((shift - shape.x_width) // shape.stride))
                    tap = (i * shape.kernel + j) * channels + channel
                    total = load(result, tap, LANES, BLOCKS)
                    for column in range(begin, end):
                        one = load(grad, (y * shape.width + column) * channels + channel, LANES, BLOCKS)
                        place = x_row * shape.x_width + column * shape.stride + shift
                        total = plus_product(total, one, load(x, place * channels + channel, LANES, BLOCKS))
                    store(result, tap, LANES, total)
