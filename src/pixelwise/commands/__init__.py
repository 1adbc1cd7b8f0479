"""The commands, one per module: the function is the command, its signature the options, its docstring the help."""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "check",
    "compare",
    "convert",
    "crf_search",
    "demo",
    "evaluate",
    "explain",
    "export",
    "import_",
    "listings",
    "predict",
    "profile",
    "report",
    "train",
]

__getattr__ = lazy_modules(__name__, __all__)
