"""The outer contract of a network: any image size in, logits of that size out, pixels normalised inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Coarse, Output
from ..errors import ConfigError
from ..registry import suggest

# mean and std are in units of 0..255. Sources: torchvision's ImageNet transforms; FCN's `voc_layers.py` (BGR means);
# TF DeepLab's x * 2 / 255 - 1.
PREPROCESSING: dict[str, dict[str, Any]] = {
    "torchvision": {"order": "rgb", "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
    "caffe": {"order": "bgr", "mean": (104.00699, 116.66877, 122.67892), "std": (1.0, 1.0, 1.0)},
    "tensorflow": {"order": "rgb", "mean": (127.5,) * 3, "std": (127.5,) * 3},
}


class Preprocess(nn.Module):
    """RGB (B, C, H, W), uint8 or float of 0..255 -> float, channels in the trunk's order, (x - mean) / std.

    spec: a name of PREPROCESSING, or {order, mean, std} with `in_channels` numbers each, in the trunk's order.
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
        mean, std = _stretch(values["mean"], in_channels, 127.5), _stretch(values["std"], in_channels, values["std"][-1])
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
    """Presets hold three numbers; a one-channel trunk takes their mean, a wider one the filler behind them."""
    if len(values) == count:
        return list(values)
    if count == 1:
        return [sum(values) / len(values)]
    return [*values, *[filler] * (count - len(values))]


class SegmentationModel(nn.Module, ABC):
    """What every network here is to the outside: `coarse` reads like the paper's figure, `forward` finishes it.

    num_classes  K
    in_channels  C of the images
    fixed_side   pixels of the square that every image is resized to; 0 for a network of any size, the usual kind
    """

    fixed_side = 0

    def __init__(self, num_classes: int, in_channels: int, preprocessing: str | Mapping[str, Any]) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            raise ConfigError("model", f"num_classes {num_classes}, in_channels {in_channels}", "both are at least 1")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.preprocess = Preprocess(preprocessing, in_channels)

    @abstractmethod
    def coarse(self, images: Tensor) -> Coarse:
        """images (B, C, H, W), uint8 or float 0..255, RGB -> scores before the last upsampling."""

    def classifier_modules(self) -> list[nn.Module]:
        """The layers that turn features into class scores, if the network names them."""
        return []

    def new_modules(self) -> list[nn.Module]:
        """The layers that a trained trunk does not bring, which may learn faster: where nothing else is said, the classifier."""
        return self.classifier_modules()

    def forward(self, images: Tensor) -> Output:
        """images (B, C, H, W), uint8 or float 0..255, RGB -> logits (B, K, H, W) of the same size."""
        return self.coarse(images).output()
