"""Images and pages that show what a network does: comparisons, explanations, galleries and reports of runs.

Reading order: `panels` (a labelled grid of images) under `compare` and `explain`; `charts` and `examples` under `report`; `gallery`.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "charts",
    "compare",
    "examples",
    "explain",
    "gallery",
    "panels",
    "report",
]

__getattr__ = lazy_modules(__name__, __all__)
