"""The numbers of the last upsampling, without torch: of each output pixel of one axis, two sources and their weights.

`nn/upsampling.py` has the same operators as layers, under the names of `TABLES`. An exported network carries the name
and the numbers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = tuple[NDArray[np.intp], NDArray[np.float32]]
"""Source indices (out_size, 2) and their weights (out_size, 2), per output pixel of one axis."""


def bilinear_table(in_size: int, out_size: int, *, align_corners: bool = False) -> Table:
    """Return the table of `Bilinear`: interpolation to any size, as `F.interpolate` does it."""
    pixels = np.arange(out_size, dtype=np.float64)
    if align_corners:
        # The first and last logit lie on the first and last pixel.
        position = pixels * ((in_size - 1) / max(out_size - 1, 1))
    else:
        # Each logit is an average of out_size / in_size pixels and lies at their center.
        position = np.maximum((pixels + 0.5) * (in_size / out_size) - 0.5, 0)
    first = np.minimum(position.astype(np.intp), in_size - 1)
    second = np.minimum(first + 1, in_size - 1)
    weight = (position - first).astype(np.float32)
    return np.stack([first, second], 1), np.stack([1 - weight, weight], 1)


def by_factor_table(in_size: int, out_size: int, *, factor: int) -> Table:
    """Return the table of `BilinearByFactor`: interpolation by a whole factor, cut to the image's size."""
    indices, weights = bilinear_table(in_size, in_size * factor)
    return indices[:out_size], weights[:out_size]


def aligned_table(in_size: int, out_size: int, *, stride: int) -> Table:
    """Return the table of `AlignedBilinear`: logits on the pixels 0, stride, 2 * stride, ..."""
    pixels = np.arange(out_size)
    first = pixels // stride
    weight = (pixels % stride / stride).astype(np.float32)
    return np.stack([first, np.minimum(first + 1, in_size - 1)], 1), np.stack([1 - weight, weight], 1)


def transposed_table(in_size: int, out_size: int, *, kernel: int, stride: int, crop: int) -> Table:
    """Return the table of `TransposedBilinear`: FCN's cropped one; logits beyond the map have weight 0."""
    profile = bilinear_profile(kernel)
    position = np.arange(out_size) + crop
    # Logit i writes to the positions i * stride .. i * stride + kernel - 1, so position p receives from p // stride and
    # the logit before it.
    last = position // stride
    indices = np.stack([last - 1, last], 1)
    in_kernel = position[:, None] - indices * stride
    inside = (indices >= 0) & (indices < in_size) & (in_kernel < kernel)
    weights = np.where(inside, profile[np.minimum(in_kernel, kernel - 1)], 0)
    return np.clip(indices, 0, in_size - 1), weights.astype(np.float32)


def identity_table(in_size: int, out_size: int) -> Table:
    """Return the table of `Identity`: every pixel is its own source, with weight 1."""
    indices = np.arange(out_size)
    return np.stack([indices, indices], 1), np.tile(np.array([1, 0], np.float32), (out_size, 1))


def bilinear_profile(kernel: int) -> NDArray[np.float64]:
    """Return the 1-D profile of a bilinear upsampling kernel: a triangle; the 2-D kernel is its outer product.

    Kernel 4 (stride 2): .25 .75 .75 .25. Kernel 3: .5 1 .5. The profile sums to the stride, so that every output
    pixel's weights sum to 1. Source: Caffe's bilinear filler; FCN's `surgery.py`.
    """
    half = (kernel + 1) // 2
    center = half - 1 if kernel % 2 else half - 0.5
    profile: NDArray[np.float64] = 1 - np.abs(np.arange(kernel) - center) / half
    return profile


TABLES: Mapping[str, Callable[..., Table]] = {
    "Bilinear": bilinear_table,
    "BilinearByFactor": by_factor_table,
    "AlignedBilinear": aligned_table,
    "TransposedBilinear": transposed_table,
    "Identity": identity_table,
}
"""Name of an upsampling -> the function of its table; further arguments are the fields of its class."""


def make_table(name: str, numbers: Mapping[str, Any], in_size: int, out_size: int) -> Table:
    """Return the table of a named upsampling. Raises KeyError for an unknown one, TypeError for other fields."""
    return TABLES[name](in_size, out_size, **numbers)
