"""The settings that a resumed run must share with the run that it continues."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import Config
from ..errors import CheckpointError

# Sections that may not change, and options that change which images and crops are drawn (None: all of the section).
# `train.steps` may change, but stretches these learning rate schedules: their rate depends on step / steps.
_FIXED_SECTIONS = ("model", "loss", "optimizer")
_STRETCHED_SCHEDULES = ("poly", "cosine")
_SAMPLING_KEYS = {
    "data": ("batch_size", "sampling", "train_split"),
    "train": ("seed", "devices", "nodes"),
    "augment": None,
}


def run_settings(config: Config) -> dict[str, Any]:
    """Return the settings that a state remembers: the fixed sections, the sampling options, the number of steps."""
    settings: dict[str, Any] = {name: dataclasses.asdict(getattr(config, name)) for name in _FIXED_SECTIONS}
    sampling: dict[str, Any] = {}
    for section, names in _SAMPLING_KEYS.items():
        values = dataclasses.asdict(getattr(config, section))
        sampling |= {f"{section}.{name}": values[name] for name in names or values}
    return {**settings, "sampling": sampling, "steps": config.train.steps}


def check_settings(config: Config, saved: dict[str, Any], source: object) -> list[str]:
    """Compare the configuration with the settings that a state was saved with; settings that it lacks are ignored.

    Returns one line per change after which the result differs from that of an unbroken run. Raises CheckpointError
    naming `source` if a fixed section changed.
    """
    now = run_settings(config)
    changed = [
        name
        for name in _FIXED_SECTIONS
        if any(now[name].get(key, value) != value for key, value in saved.get(name, {}).items())
    ]
    if changed:
        what = f"was trained with other settings in {', '.join(changed)}"
        fix = "resume without these options, or start a new run with --model.init_from"
        raise CheckpointError(source, what, fix)
    before = saved.get("sampling", {})
    redrawn = [name for name, value in now["sampling"].items() if before.get(name, value) != value]
    notices = []
    if redrawn:
        notices.append(
            f"{', '.join(redrawn)} changed: from here on, images and crops differ from those of an unbroken run"
        )
    steps_before, steps, schedule = saved.get("steps", now["steps"]), now["steps"], config.optimizer.schedule
    if steps != steps_before and schedule in _STRETCHED_SCHEDULES:
        what = f"train.steps changed from {steps_before} to {steps}: the {schedule} learning rate schedule is stretched"
        notices.append(f"{what}, so the result differs from that of an unbroken run of {steps} steps")
    return notices
