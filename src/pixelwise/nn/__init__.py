"""Layers that several networks share, and the arithmetic of their geometry, one topic per module."""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "blocks",
    "channels",
    "constant_margin",
    "convolutionalize",
    "deform_conv",
    "depthwise_conv",
    "depthwise_loops",
    "geometry",
    "init",
    "interpolation",
    "output_stride",
    "preprocessing",
    "pyramid_pooling",
    "reflect_pad",
    "separable_conv",
    "shift_and_stitch",
    "squeeze_excitation",
    "upsampling",
]

__getattr__ = lazy_modules(__name__, __all__)
