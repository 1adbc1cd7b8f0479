"""From an image to its label map.

docs/design.md follows one image through its eight files. Here, `segmenter` labels an image, `label_map` turns logits
into class ids, by `argmax_numpy` or the compiled `argmax_loops`, `class_masks` into one mask per class, `tiles` and
`proposals` label it in parts, `augmented` averages its mirrored and scaled copies, `temperature` makes probabilities
honest, `certainty` says how sure a label is, `jobs` and `predict_files` label folders, `exports` writes labels for
other programs. `base` is what every segmenter shares; `exported` and `runtimes` run exported files, `load_any` opens
either; `stored_config` reads what a model's folder says of itself.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "argmax_loops",
    "argmax_numpy",
    "augmented",
    "base",
    "certainty",
    "class_masks",
    "crf_settings",
    "device",
    "export_info",
    "exported",
    "exports",
    "jobs",
    "label_map",
    "load_any",
    "predict_files",
    "proposals",
    "run_file",
    "runtimes",
    "segmenter",
    "stored_config",
    "temperature",
    "tiles",
]

__getattr__ = lazy_modules(__name__, __all__)
