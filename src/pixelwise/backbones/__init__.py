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
    """Build a registered backbone, or `timm:NAME`, which takes `output_stride` and `pretrained` and has no tiny size.

    Raises UnknownNameError for the name, ConfigError for an unknown option or a value that does not fit, ResourceError
    without timm.
    """
    if name.startswith(PREFIX):
        unknown = sorted(set(options) - {"output_stride", "pretrained"})
        if unknown:
            fix = "backbones of timm take output_stride and pretrained"
            raise ConfigError(name, f"has no option {unknown[0]!r}", fix)
        return TimmBackbone(name.removeprefix(PREFIX), in_channels, **options)
    return BACKBONES.create(name, tiny=tiny, in_channels=in_channels, **options)


def list_backbones() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(BACKBONES)
