"""The first layer for images that are not ordinary ones: number of channels, normalization, inflated weights.

Fresh weights get channels of mean 0 and standard deviation 1, measured on training images. Weights that were trained on
RGB expect its normalization: an ordinary image keeps the published numbers, and every other channel gets the spread
that the colors of photos have after the published ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.dataset import Split
from ..errors import DatasetError, InputError, listed, printable
from ..images import PixelFormat, read_pixels
from ..nn.channels import inflate_first_conv
from ..nn.preprocessing import PREPROCESSING
from .ranks import process_rank

# Images that are measured, evenly spread over the split.
_MAX_IMAGES = 500
# Standard deviation of the colors of ImageNet's photos, in units of 0..255.
_PHOTO_STD = 57.6


@dataclass(frozen=True)
class InputLayer:
    """How images of a pixel format enter a network.

    options  of the network: `in_channels`, `preprocessing`
    planes   input channel of each of the three planes of weights that were trained on RGB; empty if no channel is a
             color
    """

    options: Mapping[str, Any]
    planes: tuple[int, ...] = (0, 1, 2)


def input_layer(split: Split, base: str | Mapping[str, Any] | None, *, measured: bool = True) -> InputLayer:
    """Return channels and normalization for the images of a training split; print what was measured.

    base      normalization of the RGB weights that a network starts from, None for fresh weights
    measured  whether a normalization is needed: False if the settings name one
    Raises DatasetError if a channel holds one number alone, or no image can be read.
    """
    pixels = split.pixels
    if pixels.is_rgb:
        return InputLayer({})
    numbers: Mapping[str, Any] = PREPROCESSING[base] if isinstance(base, str) else base or {"order": "rgb"}
    order, planes = _order(pixels, numbers["order"])
    if not measured:
        return InputLayer({"in_channels": pixels.num_channels}, planes)
    mean, std, num_images = _measure(split)
    if base is not None:
        std = std * float(np.mean(numbers["std"])) / _PHOTO_STD
        if pixels.has_rgb:
            step = -1 if numbers["order"] == "bgr" else 1
            mean[:3], std[:3] = numbers["mean"][:3][::step], numbers["std"][:3][::step]
    if process_rank() == 0:
        lines = [f"{name} {m:.5g} ± {s:.5g}" for name, m, s in zip(pixels.channels, mean, std, strict=True)]
        left_out = f", ... ({len(lines)} in total)" * (len(lines) > 16)
        shown = ", ".join(lines[:16]) + left_out
        print(printable(f"normalization (mean ± divisor, from {num_images} training images): {shown}"), flush=True)
    # In the order of the weights: that of Caffe begins with blue.
    place = [2, 1, 0, *range(3, len(mean))] if order == "bgr" else list(range(len(mean)))
    preprocessing = {"order": order, "mean": _rounded(mean[place]), "std": _rounded(std[place])}
    return InputLayer({"in_channels": pixels.num_channels, "preprocessing": preprocessing}, planes)


def _order(pixels: PixelFormat, order: str) -> tuple[str, tuple[int, ...]]:
    """Return the order in which channels enter the network, and the channel of each plane of its RGB weights.

    order  of the RGB weights: rgb, or bgr for Caffe's
    """
    reverse = {"rgb": "bgr", "bgr": "rgb"}
    if pixels.num_channels == 3:
        return reverse[order] if pixels.colors == (2, 1, 0) else order, (0, 1, 2)
    if pixels.colors == (0, 1, 2):
        return order, (0, 1, 2)
    return "rgb", pixels.colors if order == "rgb" else pixels.colors[::-1]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.8g}") for value in values]


def _measure(split: Split) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return mean and standard deviation (C,) of the channels, and the number of images that were read."""
    places = np.unique(np.linspace(0, len(split) - 1, min(len(split), _MAX_IMAGES)).astype(int))

    def sums(place: int) -> NDArray[np.float64] | None:
        try:
            image = read_pixels(split.items[place].image, split.pixels)
        except InputError:
            # Its error comes in the check of the data, or when it is its turn.
            return None
        values = image.reshape(-1, image.shape[2]).astype(np.float64)
        return np.stack([np.full(values.shape[1], len(values), float), values.sum(0), (values**2).sum(0)])

    with ThreadPoolExecutor() as executor:
        found = [total for total in executor.map(sums, places.tolist()) if total is not None]
    if not found:
        raise DatasetError(
            f"split {split.name}", "none of its images can be read", "run `pixelwise train DATA --dry-run`"
        )
    count, total, squares = np.sum(found, axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    empty = [
        name
        for name, value, low in zip(split.pixels.channels, std, split.pixels.limits, strict=True)
        if value <= 1e-6 * (low[1] - low[0])
    ]
    if empty:
        what = f"the channel {listed(empty)} holds one number alone in all of {len(found)} images"
        raise DatasetError(f"split {split.name}", what, "leave it out of the images and of `images` in classes.yaml")
    return mean, std, len(found)


def inflate_weights(own: Mapping[str, Tensor], given: dict[str, Tensor], layer: InputLayer) -> list[str]:
    """Fit the first layers of weights for RGB in `given`, in place, to more channels; return their names.

    own  the network's tensors
    """
    inflated = []
    for name, tensor in given.items():
        shape = own[name].shape if name in own else torch.Size()
        if (
            tensor.ndim == 4
            and len(shape) == 4
            and tensor.shape[1] == 3 != shape[1]
            and _same_but_inputs(tensor, shape)
        ):
            planes = layer.planes if shape[1] == layer.options.get("in_channels") else ()
            given[name] = inflate_first_conv(tensor, shape[1], planes)
            inflated.append(name)
    return inflated


def _same_but_inputs(tensor: Tensor, shape: Sequence[int]) -> bool:
    return tensor.shape[0] == shape[0] and tuple(tensor.shape[2:]) == tuple(shape[2:])
