"""Trained networks as files for other runtimes, each compared with its source before it is written.

Reading order: `graphs` (what of a network goes into the file), `formats` (ONNX, OpenVINO, torch), `float16` (half the
bytes), `metadata` (the keys that other programs read), `proof` (the comparison), `run` (all of it in order).
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = ["float16", "formats", "graphs", "metadata", "proof", "run"]

__getattr__ = lazy_modules(__name__, __all__)
