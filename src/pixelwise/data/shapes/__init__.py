"""Regions of pixels as annotation programs write them: run lengths, outlines, and how each program fills an outline.

Reading order: `run_lengths` (COCO, CVAT, Label Studio, submission files), `outlines` (regions to polygons), `fill`
(polygons to regions), `drawing` (the shapes of an image to its mask).
"""

from __future__ import annotations
