"""Training: from a configuration to checkpoints, such that a run killed at any moment resumes with the same result.

Reading order: `run` (the whole run), `module` (one step), `after_step` (what follows it), `losses` with `pixel_losses`
and `region_losses` (`multilabel_losses` for several labels per pixel), `schedule`, `state` (what is saved to resume),
`run_folder`. Of the others, `build` makes the network and its batches; `recipe_choice` and `lr_range` choose settings,
with steps of `trial`; `validation` and `ema` serve the score; `callbacks`, `pace`, `run_checks` and `loss_trend` are
what a user sees; `ranks`, `watch`, `stop_signals` and `precision` are the side of processes and hardware; `resume` and
`finish` are the two ends of a run.
"""

from __future__ import annotations

from .._lazy import lazy_modules

__all__ = [
    "after_step",
    "build",
    "callbacks",
    "ema",
    "finish",
    "input_channels",
    "loss_trend",
    "losses",
    "lr_range",
    "module",
    "multilabel_losses",
    "pace",
    "pixel_losses",
    "precision",
    "ranks",
    "recipe_choice",
    "region_losses",
    "resume",
    "run",
    "run_checks",
    "run_folder",
    "schedule",
    "state",
    "stop_signals",
    "trial",
    "two_heads",
    "validation",
    "watch",
]

__getattr__ = lazy_modules(__name__, __all__)
