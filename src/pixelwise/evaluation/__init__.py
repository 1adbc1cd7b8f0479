"""Score labels against truth: metrics, boundary IoU, the evaluator, the CRF search and VOC's submission archive.

Reading order: `metrics` (one confusion matrix and its ratios), `multilabel_scores` and `thresholds` (several labels per
pixel), `boundary_iou`, `trimap`, `bootstrap` (intervals by group), `calibration`, `result`, `evaluator` (a model, or a
folder of masks, on a split), `folds`.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "bootstrap",
    "boundary_iou",
    "calibration",
    "crf_search",
    "crf_search_cache",
    "evaluator",
    "folds",
    "loops",
    "metrics",
    "multilabel_scores",
    "result",
    "thresholds",
    "trimap",
    "voc_submission",
]

__getattr__ = lazy_modules(__name__, __all__)
