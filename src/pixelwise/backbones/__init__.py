"""Trunks of the papers: one paper, one file. Importing this package registers every file in it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from .contract import BACKBONES, Backbone

__all__ = ["BACKBONES", "Backbone", "create_backbone", "list_backbones"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def create_backbone(name: str, *, in_channels: int = 3, tiny: bool = False, **options: Any) -> Backbone:
    """Build a registered trunk. Raises UnknownNameError, or ConfigError for an option that it does not have."""
    return BACKBONES.create(name, tiny=tiny, in_channels=in_channels, **options)


def list_backbones() -> list[str]:
    """The registered names, in order."""
    return sorted(BACKBONES)
