"""Networks of the papers, one family per file. `MODELS` imports a file when one of its networks is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._lazy import lazy_names
from ..registry import Registry

if TYPE_CHECKING:
    from .base import ModelSpec, SegmentationModel
else:
    __getattr__ = lazy_names(__name__, {"ModelSpec": "base", "SegmentationModel": "base"})

__all__ = ["MODELS", "ModelSpec", "SegmentationModel", "create_model", "list_models"]

MODELS: Registry[SegmentationModel] = Registry("model", "pixelwise models", package=__name__)


def create_model(
    name: str, num_classes: int = 21, in_channels: int | None = None, *, tiny: bool = False, **options: Any
) -> SegmentationModel:
    """Build a registered network with fresh weights; options default to the paper's.

    in_channels  of the images; None is the network's own default: 3, or 6 for networks that take two images
    tiny         a version of the network that is small enough for a test; its options are recorded like any others
    Raises UnknownNameError for an unknown name, ConfigError for an unknown option or a value out of range.
    """
    from .base import ModelSpec

    if in_channels is None:
        in_channels = MODELS[name].options["in_channels"].default
    if tiny:
        options = {**MODELS[name].tiny, **options}
    return ModelSpec(name, num_classes, in_channels, options).build()


def list_models() -> list[str]:
    """Return the registered names, sorted."""
    return list(MODELS)
