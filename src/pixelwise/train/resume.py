"""What a resumed run must share with the run that it continues."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import Config
from ..errors import CheckpointError

# Sections that may not change, and options that change which images and crops are drawn (None: all of the section).
_FIXED_SECTIONS = ("model", "loss", "optimizer")
_SAMPLING_KEYS = {
    "data": ("batch_size", "sampling", "train_split"),
    "train": ("seed", "devices", "nodes"),
    "augment": None,
}


def run_settings(config: Config) -> dict[str, Any]:
    """Return the settings that a state remembers: the fixed sections, and the sampling options under "sampling"."""
    settings: dict[str, Any] = {name: dataclasses.asdict(getattr(config, name)) for name in _FIXED_SECTIONS}
    sampling: dict[str, Any] = {}
    for section, names in _SAMPLING_KEYS.items():
        values = dataclasses.asdict(getattr(config, section))
        sampling |= {f"{section}.{name}": values[name] for name in names or values}
    return {**settings, "sampling": sampling}


def check_settings(config: Config, saved: dict[str, Any], source: object) -> None:
    """Compare the configuration with the settings that a state was saved with; settings that it lacks are ignored.

    Raises CheckpointError naming `source` if a fixed section changed; prints a line if other images will be drawn.
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
    if redrawn:
        print(f"{', '.join(redrawn)} changed: from here on, images and crops differ from those of an unbroken run")
