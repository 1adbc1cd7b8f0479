"""Training: from a configuration to checkpoints, such that a run killed at any moment resumes with the same result.

Reading order: `run` (the whole run), `module` (one step), `losses`, `schedule`, `state` (what is saved to resume),
`run_folder`.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "build",
    "callbacks",
    "ema",
    "finish",
    "losses",
    "module",
    "precision",
    "ranks",
    "resume",
    "run",
    "run_folder",
    "schedule",
    "state",
    "validation",
]

__getattr__ = lazy_modules(__name__, __all__)
