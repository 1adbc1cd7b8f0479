"""Loops that numba compiles: how they are compiled, cached and run on several threads, and vectors for them."""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = ["compiled", "simd", "threads"]

__getattr__ = lazy_modules(__name__, __all__)
