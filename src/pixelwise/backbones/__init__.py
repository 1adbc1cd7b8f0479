"""Backbones of the papers: one paper, one file. Importing this package registers every file in it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from ..errors import ConfigError
from .base import BACKBONES, Backbone
from .timm_backbone import PREFIX, TimmBackbone

__all__ = ["BACKBONES", "Backbone", "create_backbone", "list_backbones"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def create_backbone(name: str, *, in_channels: int = 3, tiny: bool = False, **options: Any) -> Backbone:
    """Build a registered backbone, or timm's `timm:NAME`. Raises UnknownNameError, or ConfigError for an option that it does not have.

    A backbone of timm takes `output_stride` and `pretrained`; it has no tiny size. Raises ResourceError without timm.
    """
    if name.startswith(PREFIX):
        unknown = sorted(set(options) - {"output_stride", "pretrained"})
        if unknown:
            raise ConfigError(
                name, f"has no option {unknown[0]!r}", "a backbone of timm takes output_stride and pretrained"
            )
        return TimmBackbone(name.removeprefix(PREFIX), in_channels, **options)
    return BACKBONES.create(name, tiny=tiny, in_channels=in_channels, **options)


def list_backbones() -> list[str]:
    """The registered names, in order."""
    return sorted(BACKBONES)
