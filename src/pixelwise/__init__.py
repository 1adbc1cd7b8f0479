"""pixelwise: a label for every pixel.

    import pixelwise

    m = pixelwise.load()                     # the shipped street-scene model; or a run, a checkpoint folder, a hub id
    p = m("photo.jpg")
    p.overlay().save("o.png")

Names are imported when they are first used, so that `import pixelwise` costs nothing and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbones import create_backbone, list_backbones
    from .core import Prediction, Taxonomy
    from .errors import PixelwiseError
    from .inference.segmenter import Segmenter, load
    from .models import create_model, list_models

__version__ = version("pixelwise")

_HOMES = {
    "load": "inference.segmenter",
    "Segmenter": "inference.segmenter",
    "create_model": "models",
    "list_models": "models",
    "create_backbone": "backbones",
    "list_backbones": "backbones",
    "Prediction": "core",
    "Taxonomy": "core",
    "PixelwiseError": "errors",
}

__all__ = [
    "PixelwiseError",
    "Prediction",
    "Segmenter",
    "Taxonomy",
    "__version__",
    "create_backbone",
    "create_model",
    "list_backbones",
    "list_models",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
