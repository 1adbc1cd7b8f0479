"""The settings that a resumed run must share with the run that it continues."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.dataset import Split
from ..errors import CheckpointError, cut, shown
from ..images import RGB, PixelFormat

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


def data_fingerprint(train: Split, val: Split) -> dict[str, Any]:
    """Return what a state remembers of the data: classes, pixel format, and number, names and sizes of its images.

    A dataset that was moved, or whose splits have other names, has the same fingerprint.
    """
    encoding = train.encoding
    classes = {
        **train.taxonomy.to_dict(),
        "by_color": encoding.by_color,
        "ignore_colors": [list(color) for color in encoding.ignored],
    }
    if train.second is not None:
        classes["second"] = train.second.taxonomy.to_dict()
    images = {}
    for name, split in (("training", train), ("validation", val)):
        keys = "\n".join(item.key for item in split.items).encode("utf-8", "surrogateescape")
        paths = [path for item in split.items for path in (item.image, *item.label_files)]
        sizes = repr([_file_size(path) for path in paths]).encode()
        images[name] = {"count": len(split.items), "keys": hashlib.sha256(keys).hexdigest()}
        images[name]["sizes"] = hashlib.sha256(sizes).hexdigest()
    pixels = {} if train.pixels.is_rgb else {"pixels": train.pixels.to_dict()["parts"]}
    return {"classes": classes, "images": images, **pixels}


def short_hash(fingerprint: dict[str, Any]) -> str:
    """Return eight characters that differ for other fingerprints."""
    return hashlib.sha256(json.dumps(fingerprint).encode()).hexdigest()[:8]


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def check_data(now: dict[str, Any], saved: dict[str, Any] | None, source: object) -> list[str]:
    """Compare the `data_fingerprint` of a run with the one that a state was saved with; None, of an older state, fits.

    The weights mean the classes that they were trained on, and the best score holds on the images that it was measured
    on, so raises CheckpointError naming `source` if either changed. Returns a line for each split whose files have
    other sizes: a mask may have been corrected, so that the run can go on.
    """
    if saved is None:
        return []
    notices = []
    before, after = saved["classes"], now["classes"]
    if before != after:
        what = f"was trained with other classes: {_first_difference(before, after)}"
        fix = "restore the classes of the data, or start a new run with --model.init_from"
        raise CheckpointError(source, what, fix)
    if saved.get("pixels") != now.get("pixels"):
        then, today = (
            PixelFormat.from_dict({"parts": data["pixels"]}) if "pixels" in data else RGB for data in (saved, now)
        )
        what = f"was trained on images with {then.in_words()}; they now have {today.in_words()}"
        fix = "restore `images` in classes.yaml, or start a new run with --model.init_from"
        raise CheckpointError(source, what, fix)
    for name, images in now["images"].items():
        then = saved["images"][name]
        if any(images[key] != then[key] for key in ("count", "keys")):
            num_before, num_after = then["count"], images["count"]
            numbers = f"{num_before} then, {num_after} now" if num_before != num_after else "as many, with other names"
            what = f"was trained with other {name} images ({numbers})"
            fix = "restore the images and the split, or start a new run with --model.init_from"
            raise CheckpointError(source, what, fix)
        if images["sizes"] != then.get("sizes", images["sizes"]):
            notices.append(
                f"{name} images or masks have changed: from here on, the result differs from an unbroken run's"
            )
    return notices


def _first_difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    if len(before["classes"]) != len(after["classes"]):
        return f"{len(before['classes'])} then, {len(after['classes'])} now"
    for k, (old, new) in enumerate(zip(before["classes"], after["classes"], strict=True)):
        key = next((key for key in ("name", "value", "color") if old[key] != new[key]), None)
        if key:
            name = "" if key == "name" else f" ({cut(new['name'])})"
            return f"the {key} of class {k}{name} was {shown(old[key])}, now {shown(new[key])}"
    key = next(key for key in after if before.get(key) != after[key])
    return f"`{key}` was {shown(before.get(key))}, now {shown(after[key])}"
