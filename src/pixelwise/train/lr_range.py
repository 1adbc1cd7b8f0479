"""The learning-rate range test: a few steps with a rising rate show which rates lower the loss.

Source: Smith 2017 (https://arxiv.org/abs/1506.01186), section 3.3.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from lightning.fabric.utilities import move_data_to_device

from ..config import Config
from ..core import Batch
from ..data import open_dataset
from ..data.dataset import Inspected
from ..data.groups import training_data
from ..errors import InputError
from ..files import make_folder, write_text
from ..inference.device import find_device
from .build import build_model, make_class_weights, make_loader
from .module import TrainingModule
from .precision import choose_precision
from .schedule import set_lr

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
    device = find_device(config.train.device, "--train.device")
    dataset, _ = training_data(open_dataset(config.data.path, config.data.format), config.data)
    split = dataset.split(config.data.train_split, option="--data.train_split")
    config = config.updated({"train": {"steps": NUM_STEPS, "compile": False}})
    # As in a run, whose first step this repeats.
    torch.manual_seed(config.train.seed)
    skip_bad = config.train.on_read_error == "skip"
    class_weights = make_class_weights(config.loss, split, skip_bad=skip_bad, found=found)
    ignore_id = dataset.taxonomy.ignore_id
    model = build_model(config.model, dataset.taxonomy)
    module = TrainingModule(model, config, ignore_id, class_weights=class_weights, device=device.type).to(device)
    loader = make_loader(config, split, inspected=found)
    points: list[RatePoint] = []
    try:
        batches = iter(loader)
        while step := list(islice(batches, config.optimizer.grad_accum_steps)):
            rate = LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** (len(points) / (NUM_STEPS - 1))
            module.step = len(points)
            loss = _take_step(module, [move_data_to_device(batch, device) for batch in step], rate)
            if not math.isfinite(loss):
                break
            recent = [*(point.loss for point in points[1 - _WINDOW :]), loss]
            points.append(RatePoint(rate, loss, sum(recent) / len(recent)))
            if report is not None:
                report(len(points), points[-1])
            if points[-1].smoothed > _DIVERGED * min(point.smoothed for point in points):
                break
    finally:
        loader.close()
    return smooth(points)


def _take_step(module: TrainingModule, batches: Sequence[Batch], rate: float) -> float:
    """Take one optimizer step over accumulated batches and return its loss; none if the loss is not finite."""
    config, device_type = module.config, batches[0].images.device.type
    precision = choose_precision(config.train.precision, device_type)
    set_lr(module.optimizer, rate / config.optimizer.lr)
    labels = batches[0].step_labels or ((batches[0].masks, batches[0].pixel_weights),)
    seeds = [module.batch_seed(number) for number in range(len(batches))]
    total, weights = 0.0, None
    for batch, seed in zip(batches, seeds, strict=True):
        torch.manual_seed(seed)
        module.set_train_mode()
        with torch.autocast(device_type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = module.forward_model(batch.images.contiguous(memory_format=module.memory_format))
        weights = weights or module.loss.mean_label_weights(output, labels, seeds)
        loss = module.loss(output, batch.masks, batch.pixel_weights, seed=seed, mean_weights=weights) / len(batches)
        total += float(loss.detach())
        if not math.isfinite(total):
            return total
        loss.backward()
    if config.optimizer.clip_norm:
        torch.nn.utils.clip_grad_norm_(module.model.parameters(), config.optimizer.clip_norm)
    module.optimizer.step()
    module.optimizer.zero_grad()
    return total


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
