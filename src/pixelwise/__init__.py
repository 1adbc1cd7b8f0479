"""pixelwise: semantic segmentation, from FCN to DeepLab v3+.

    import pixelwise

    model = pixelwise.load()                 # the shipped street-scene model; or a run, a checkpoint folder, a Hub id
    prediction = model("photo.jpg")
    prediction.overlay().save("overlay.png")

The packages are there as attributes: `pixelwise.data.open_dataset(...)`, `pixelwise.crf.refine(...)`. Everything is
imported when it is first used, so that `import pixelwise` is quick and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._lazy import lazy_modules, lazy_names

if TYPE_CHECKING:
    from . import (
        analysis,
        backbones,
        crf,
        data,
        evaluation,
        images,
        inference,
        models,
        nn,
        train,
        visualization,
        weights,
    )
    from .backbones import create_backbone, list_backbones
    from .core import Prediction, Taxonomy
    from .errors import PixelwiseError
    from .inference.exported import load_exported
    from .inference.segmenter import Segmenter, load
    from .models import create_model, list_models

# The build reads it here: importlib.metadata would cost every start a tenth of its time.
__version__ = "0.1.0"

__all__ = [
    "PixelwiseError",
    "Prediction",
    "Segmenter",
    "Taxonomy",
    "__version__",
    "analysis",
    "backbones",
    "create_backbone",
    "create_model",
    "crf",
    "data",
    "evaluation",
    "images",
    "inference",
    "list_backbones",
    "list_models",
    "load",
    "load_exported",
    "models",
    "nn",
    "train",
    "visualization",
    "weights",
]

# The module of each function and class above.
_HOMES = {
    "PixelwiseError": "errors",
    "Prediction": "core",
    "Segmenter": "inference.segmenter",
    "Taxonomy": "core",
    "create_backbone": "backbones",
    "create_model": "models",
    "list_backbones": "backbones",
    "list_models": "models",
    "load": "inference.segmenter",
    "load_exported": "inference.exported",
}
_import_name, _import_package = lazy_names(__name__, _HOMES), lazy_modules(__name__, __all__)


def __getattr__(name: str) -> Any:
    return _import_name(name) if name in _HOMES else _import_package(name)


def __dir__() -> list[str]:
    return __all__
