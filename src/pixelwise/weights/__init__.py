"""Weights on disk: checkpoints, model cards, downloads of published weights, import from other libraries.

Reading order: `checkpoint` (safetensors and JSON, never pickle), `spec_shapes`, `model_card`, `published` (addresses
and digests), `importing`, `pretrained_files` and `pretrained` (backbones from installed packages).
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "checkpoint",
    "importing",
    "model_card",
    "pretrained",
    "pretrained_files",
    "published",
    "second_map",
    "spec_shapes",
]

__getattr__ = lazy_modules(__name__, __all__)
