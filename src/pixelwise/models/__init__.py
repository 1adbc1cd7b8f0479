"""Networks of the papers, one family per file. Importing this package registers every file in it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from .base import MODELS, ModelSpec, SegmentationModel

__all__ = ["MODELS", "ModelSpec", "SegmentationModel", "create_model", "list_models"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def create_model(
    name: str, num_classes: int = 21, in_channels: int | None = None, *, tiny: bool = False, **options: Any
) -> SegmentationModel:
    """Build a registered network with fresh weights; options default to the paper's.

    in_channels  of the images; None is the network's own default: 3, or 6 for networks that take two images
    tiny         a version of the network that is small enough for a test; its options are recorded like any others
    Raises UnknownNameError for an unknown name, ConfigError for an unknown option or a value out of range.
    """
    if in_channels is None:
        in_channels = MODELS[name].options["in_channels"].default
    if tiny:
        options = {**MODELS[name].tiny, **options}
    return ModelSpec(name, num_classes, in_channels, options).build()


def list_models() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(MODELS)
