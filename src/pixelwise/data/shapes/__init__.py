"""Regions of pixels as annotation programs write them: run lengths, outlines, and how each program fills an outline.

Reading order: `run_lengths` (COCO, CVAT, Label Studio, submission files), `outlines` (regions to polygons), `fill`
(polygons to regions), `drawing` (the shapes of an image to its mask).
"""

from __future__ import annotations

from ..._lazy import lazy_modules

__all__ = [
    "drawing",
    "fill",
    "outlines",
    "run_lengths",
]
__getattr__ = lazy_modules(__name__, __all__)
