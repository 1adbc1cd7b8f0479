"""Normalization of pixels as the published weights expect it: channel order, mean and standard deviation.

Weights trained with Caffe preprocessing silently lose accuracy under torchvision preprocessing, so the normalization is
part of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, shown
from ..registry import suggest

# mean and std in units of 0..255. Sources: torchvision's ImageNet transforms (0.485, 0.456, 0.406 times 255); FCN's
# `voc_layers.py` (BGR means); TensorFlow DeepLab's x * 2 / 255 - 1; EfficientNet-Lite's MEAN_RGB and STDDEV_RGB
# (efficientnet_lite_builder.py).
PREPROCESSING: dict[str, dict[str, Any]] = {
    "torchvision": {"order": "rgb", "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
    "caffe": {"order": "bgr", "mean": (104.00699, 116.66877, 122.67892), "std": (1.0, 1.0, 1.0)},
    "tensorflow": {"order": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3},
    "efficientnet_lite": {"order": "rgb", "mean": (127.0,) * 3, "std": (128.0,) * 3},
}


def _centered(order: str, *mean: float) -> dict[str, Any]:
    return {"order": order, "mean": list(mean), "std": [1.0] * len(mean)}


# Means of the authors' nets for NYUDv2 and SIFT Flow: color in BGR order, HHA as stored, depth as its natural
# logarithm. Source: nyud_layers.py, siftflow_layers.py.
_NYUD_MEAN = (116.190, 97.203, 92.318)
_HHA_MEAN = (132.431, 94.076, 118.477)
NYUD_COLOR = _centered("bgr", *_NYUD_MEAN)
NYUD_HHA = _centered("rgb", *_HHA_MEAN)
NYUD_COLOR_DEPTH = _centered("bgr", *_NYUD_MEAN, 7.844)
NYUD_COLOR_HHA = _centered("bgr", *_NYUD_MEAN, *_HHA_MEAN)
SIFT_FLOW = _centered("bgr", 114.578, 115.294, 108.353)


class Preprocess(nn.Module):
    """Images (B, C, H, W) of any numbers -> float, channels in the weights' order, (x - mean) / std.

    The named normalizations are those of RGB images, uint8 or float in 0..255. Others have means and divisors in the
    units of their images, such as uint16.

    spec  a name of PREPROCESSING, or {order, mean, std} with one mean and std per channel, in the weights' order
    Channels beyond the third (depth, infrared) are centered at 127.5 and scaled like the third. Raises ConfigError for
    an unknown name or values that do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: str | Mapping[str, Any], in_channels: int) -> None:
        super().__init__()
        if isinstance(spec, str) and spec not in PREPROCESSING:
            raise ConfigError("preprocessing", f"unknown name {shown(spec)}", suggest(spec, PREPROCESSING))
        values = PREPROCESSING[spec] if isinstance(spec, str) else spec
        self.order: str = values["order"]
        mean = _fit_channels(values["mean"], in_channels, 127.5)
        std = _fit_channels(values["std"], in_channels, values["std"][-1])
        if self.order not in ("rgb", "bgr") or len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
            what = f"got {shown(values)} for {in_channels} channels"
            raise ConfigError(
                "preprocessing", what, "order must be rgb or bgr; give one mean and one positive std per channel"
            )
        # Not part of the state: the configuration holds them, and published weight files do not contain them.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalize (B, C, H, W) -> (B, C, H, W) float. Raises ConfigError for another number of channels."""
        channels = images.shape[1]
        if channels != len(self.mean):
            what = f"expected {len(self.mean)} channels, got {channels}"
            raise ConfigError("images", what, f"create the model with in_channels={channels}")
        if images.dtype != torch.uint8:
            # torch cannot flip or concatenate uint16.
            images = images.to(self.mean.dtype)
        if self.order == "bgr":
            images = torch.cat([images[:, :3].flip(1), images[:, 3:]], 1)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def fill(self) -> list[float]:
        """Return the number of each channel, in the order of the images, that is zero after normalization."""
        mean: list[float] = self.mean.flatten().tolist()
        return [*mean[:3][::-1], *mean[3:]] if self.order == "bgr" else mean


def _fit_channels(values: Sequence[float], count: int, filler: float) -> list[float]:
    """Return one value per channel: three for RGB; their mean for a single channel; extended by `filler` for more."""
    if len(values) == count:
        return list(values)
    if count == 1:
        return [sum(values) / len(values)]
    return [*values, *[filler] * (count - len(values))]
