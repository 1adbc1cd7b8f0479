"""Training: from a configuration to checkpoints, such that a run killed at any moment resumes with the same result.

Reading order: `run` (the whole run), `module` (one step), `losses`, `schedule`, `state` (what is saved to resume),
`run_folder`. Of the others, `build` makes the network and its transform, `validation` and `ema` serve the score,
`callbacks`, `ranks` and `precision` are the side of Lightning and the hardware, `resume` and `finish` are the two ends
of a run.
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
