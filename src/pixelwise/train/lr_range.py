"""The learning-rate range test: a few steps with a rising rate show which rates lower the loss.

Source: Smith 2017 (https://arxiv.org/abs/1506.01186), section 3.3.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Config
from ..data.inspection import Inspected
from ..errors import InputError
from ..files import make_folder, write_text
from .build import open_training_splits
from .schedule import set_lr
from .trial import take_step, trial

NUM_STEPS = 100
LOWEST_RATE, HIGHEST_RATE = 1e-6, 10.0
_WINDOW = 7
# The test ends where the smoothed loss is so many times the lowest one.
_DIVERGED = 4.0
# A loss that falls by less than this share has not reacted to the rate.
_MIN_FALL = 0.05


@dataclass(frozen=True)
class RatePoint:
    """One step: its learning rate, its loss, and the mean of the losses of the steps around it."""

    rate: float
    loss: float
    smoothed: float


def measure_rates(
    config: Config, *, found: Sequence[Inspected] | None = None, report: Callable[[int, RatePoint], None] | None = None
) -> list[RatePoint]:
    """Train `NUM_STEPS` steps from the start of `config` with a rising rate, and return one point per step.

    The rates rise exponentially from 1e-6 to 10; parts of the network keep their factors. The test ends early where the
    loss is four times its lowest mean, or not finite. The network is thrown away.

    found   what `check_dataset` found of the training split, to read no mask again
    report  called after each step with its number, from 1, and a point that is smoothed over the steps before it
    """
    split = open_training_splits(config.data).train
    config = config.updated({"train": {"steps": NUM_STEPS, "compile": False}})
    points: list[RatePoint] = []
    with trial(config, split, found) as (module, steps):
        for batches in steps:
            rate = LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** (len(points) / (NUM_STEPS - 1))
            module.step = len(points)
            set_lr(module.optimizer, rate / config.optimizer.lr)
            loss = take_step(module, batches)
            if not math.isfinite(loss):
                break
            recent = [*(point.loss for point in points[1 - _WINDOW :]), loss]
            points.append(RatePoint(rate, loss, sum(recent) / len(recent)))
            if report is not None:
                report(len(points), points[-1])
            if points[-1].smoothed > _DIVERGED * min(point.smoothed for point in points):
                break
    return smooth(points)


def smooth(points: Sequence[RatePoint]) -> list[RatePoint]:
    """Return the points with the mean of the up to seven losses around each: a mean of the past would lag."""
    losses, half = [point.loss for point in points], _WINDOW // 2
    windows = (losses[max(k - half, 0) : k + half + 1] for k in range(len(losses)))
    return [replace(point, smoothed=sum(w) / len(w)) for point, w in zip(points, windows, strict=True)]


def suggest_rate(points: Sequence[RatePoint]) -> tuple[float | None, str]:
    """Return a tenth of the rate at which the smoothed loss turns up, with two digits, and a line that explains it.

    The rate is None if the loss did not fall by a twentieth.
    """
    if not points:
        return None, "the loss is not finite at the lowest rate"
    lowest = min(points, key=lambda point: point.smoothed)
    first = points[0].smoothed
    if lowest.smoothed > (1 - _MIN_FALL) * first:
        return None, f"no rate up to {points[-1].rate:.2g} lowers the loss: it is {first:.4g} at first"
    suggested = float(f"{lowest.rate / 10:.1e}")
    end = "still falls" if lowest is points[-1] else "is lowest"
    line = f"the smoothed loss {end} at rate {lowest.rate:.2g}: {lowest.smoothed:.4g}, {first:.4g} at first"
    return suggested, f"{line}; a tenth of that rate: --optimizer.lr {suggested:g}"


def check_folder(folder: Path) -> None:
    """Raise InputError unless the folder is missing or empty, so that no run loses a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(folder, "expected a new or empty folder", "choose another --out")


def write_points(folder: Path, points: Sequence[RatePoint]) -> Path:
    """Write `lr_range.csv` with the columns rate, loss and smoothed into a folder, and return its path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rate", "loss", "smoothed"))
    writer.writerows((f"{p.rate:.6g}", f"{p.loss:.6g}", f"{p.smoothed:.6g}") for p in points)
    make_folder(folder)
    write_text(folder / "lr_range.csv", text.getvalue())
    return folder / "lr_range.csv"
