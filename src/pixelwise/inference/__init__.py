"""From an image to its label map.

docs/design.md follows one image through its eight files. Here, `segmenter` labels an image, `label_map` turns logits
into class ids, `tiles` and `proposals` label it in parts, `jobs` and `predict_files` label folders.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "crf_settings",
    "device",
    "jobs",
    "label_map",
    "predict_files",
    "proposals",
    "segmenter",
    "tiles",
]

__getattr__ = lazy_modules(__name__, __all__)
