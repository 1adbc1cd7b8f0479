"""What it takes to build a network again: a name and options, as a checkpoint stores them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ..core import Coarse, Output
from ..errors import ConfigError
from ..nn.preprocessing import Preprocess
from ..registry import Registry


class SegmentationModel(nn.Module, ABC):
    """What every network here is to the outside: `coarse` reads like the paper's figure, `forward` finishes it.

    num_classes  K
    in_channels  C of the images
    fixed_input_size   pixels of the square that every image is resized to; 0 for a network of any size, the usual kind
    """

    fixed_input_size = 0

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
        """The layers that a trained backbone does not bring, which may learn faster: where nothing else is said, the classifier."""
        return self.classifier_modules()

    def forward(self, images: Tensor) -> Output:
        """images (B, C, H, W), uint8 or float 0..255, RGB -> logits (B, K, H, W) of the same size."""
        return self.coarse(images).output()


MODELS: Registry[SegmentationModel] = Registry("model")


@dataclass(frozen=True)
class ModelSpec:
    """The recipe of a network; `build` makes it with fresh weights and leaves the recipe on it as `model.spec`."""

    name: str
    num_classes: int = 21
    in_channels: int = 3
    tiny: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> SegmentationModel:
        """Raises UnknownNameError or ConfigError."""
        model = MODELS.create(self.name, tiny=self.tiny, num_classes=self.num_classes, in_channels=self.in_channels, **self.options)
        model.spec = self  # type: ignore[assignment]
        return model
