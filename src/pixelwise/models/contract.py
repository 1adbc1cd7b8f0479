"""What it takes to build a network again: a name and options, as a checkpoint stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..nn.model import SegmentationModel
from ..registry import Registry

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
