"""Draw results: figures of panels, and pages of one file.

Figures (PNG or JPEG) are `panels` in a grid: `compare` (models side by side), `explain` (the reasons for a model's
labels). Pages (HTML, by `pages` and `templates/`) are `gallery` (of `pixelwise demo`) and `report` (of a run), which
shows the `charts` of its metrics and `examples` of its best and worst images.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "charts",
    "check_page",
    "compare",
    "examples",
    "explain",
    "gallery",
    "pages",
    "panels",
    "report",
]

__getattr__ = lazy_modules(__name__, __all__)
