"""Pixels as the weights expect them: channel order, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import suggest

# mean and std are in units of 0..255. Sources: torchvision's ImageNet transforms; FCN's `voc_layers.py` (BGR means);
# TF DeepLab's x * 2 / 255 - 1.
PREPROCESSING: dict[str, dict[str, Any]] = {
    "torchvision": {"order": "rgb", "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
    "caffe": {"order": "bgr", "mean": (104.00699, 116.66877, 122.67892), "std": (1.0, 1.0, 1.0)},
    "tensorflow": {"order": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3},
}


def _centred(order: str, *mean: float) -> dict[str, Any]:
    return {"order": order, "mean": list(mean), "std": [1.0] * len(mean)}


# What the authors' nets of NYUDv2 and SIFT Flow subtract: colour in BGR order, HHA as stored, depth as its natural logarithm.
# Source: nyud_layers.py, siftflow_layers.py.
_NYUD_MEAN = (116.190, 97.203, 92.318)
_HHA_MEAN = (132.431, 94.076, 118.477)
NYUD_COLOR = _centred("bgr", *_NYUD_MEAN)
NYUD_HHA = _centred("rgb", *_HHA_MEAN)
NYUD_COLOR_DEPTH = _centred("bgr", *_NYUD_MEAN, 7.844)
NYUD_COLOR_HHA = _centred("bgr", *_NYUD_MEAN, *_HHA_MEAN)
SIFT_FLOW = _centred("bgr", 114.578, 115.294, 108.353)


class Preprocess(nn.Module):
    """RGB (B, C, H, W), uint8 or float of 0..255 -> float, channels in the backbone's order, (x - mean) / std.

    spec: a name of PREPROCESSING, or {order, mean, std} with `in_channels` numbers each, in the backbone's order.
    Channels beyond the third (depth, infrared) are centred at 127.5 and scaled like the third.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: str | Mapping[str, Any], in_channels: int) -> None:
        super().__init__()
        if isinstance(spec, str) and spec not in PREPROCESSING:
            raise ConfigError("preprocessing", f"got {spec!r}", suggest(spec, PREPROCESSING))
        values = PREPROCESSING[spec] if isinstance(spec, str) else spec
        self.order: str = values["order"]
        mean, std = (
            _stretch(values["mean"], in_channels, 127.5),
            _stretch(values["std"], in_channels, values["std"][-1]),
        )
        if self.order not in ("rgb", "bgr") or len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
            what = f"got {values!r} for {in_channels} channels"
            raise ConfigError("preprocessing", what, "order is rgb or bgr; mean and positive std per channel")
        # Not part of the state: the configuration holds them, and published weight files know nothing of them.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) float."""
        channels = images.shape[1]
        if channels != len(self.mean):
            what = f"have {channels} channels, the model takes {len(self.mean)}"
            raise ConfigError("images", what, f"create the model with in_channels={channels}")
        if self.order == "bgr":
            images = torch.cat([images[:, :3].flip(1), images[:, 3:]], 1)
        return (images.to(self.mean.dtype) - self.mean) / self.std


def _stretch(values: Sequence[float], count: int, filler: float) -> list[float]:
    """Presets hold three numbers; a one-channel backbone takes their mean, a wider one the filler behind them."""
    if len(values) == count:
        return list(values)
    if count == 1:
        return [sum(values) / len(values)]
    return [*values, *[filler] * (count - len(values))]
