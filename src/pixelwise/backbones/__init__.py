"""Backbones of the papers: one paper, one file. `BACKBONES` imports a file when one of its backbones is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import lazy_names
from ..errors import ConfigError, shown
from ..registry import Registry

if TYPE_CHECKING:
    from .base import Backbone
else:
    __getattr__ = lazy_names(__name__, {"Backbone": "base"})

__all__ = ["BACKBONES", "Backbone", "backbone_at_stride", "create_backbone", "list_backbones"]

BACKBONES: Registry[Backbone] = Registry("backbone", "pixelwise backbones", package=__name__)
PREFIX = "timm:"
"""A name with it is that of a network of timm."""


def create_backbone(name: str, *, in_channels: int = 3, tiny: bool = False, **options: Any) -> Backbone:
    """Build a registered backbone, or `timm:NAME`, which takes `output_stride` and `pretrained` and has no tiny size.

    Raises UnknownNameError for the name, ConfigError for an unknown option or a value that does not fit, ResourceError
    without timm.
    """
    if name.startswith(PREFIX):
        unknown = sorted(set(options) - {"output_stride", "pretrained"})
        if unknown:
            fix = "backbones of timm take output_stride and pretrained"
            raise ConfigError(name, f"has no option {shown(unknown[0])}", fix)
        from .timm_backbone import TimmBackbone

        return TimmBackbone(name.removeprefix(PREFIX), in_channels, **options)
    return BACKBONES.create(name, tiny=tiny, in_channels=in_channels, **options)


def backbone_at_stride(name: str, output_stride: int, *, in_channels: int = 3, **options: Any) -> Backbone:
    """Build a backbone whose last map has the given stride, for networks that take any of them.

    The last 1x1 of the mobile networks, to 1280 channels for the classifier, is left out unless `last_conv` is given.
    Raises the errors of `create_backbone`, and ConfigError for a backbone that does not reach the stride.
    """
    known = {"output_stride"} if name.startswith(PREFIX) else set(BACKBONES[name].options)
    if "output_stride" in known:
        options["output_stride"] = output_stride
    if "last_conv" in known:
        options.setdefault("last_conv", False)
    backbone = create_backbone(name, in_channels=in_channels, **options)
    if backbone.strides[-1] != output_stride:
        what = f"{name} ends at stride {backbone.strides[-1]}, expected {output_stride}"
        raise ConfigError("output_stride", what, f"set output_stride {backbone.strides[-1]}, or take another backbone")
    return backbone


def list_backbones() -> list[str]:
    """Return the registered names, sorted."""
    return list(BACKBONES)
