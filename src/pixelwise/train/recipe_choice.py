"""The recipe that `pixelwise train DATA` chooses itself: network, crop, loss, optimizer and length, with reasons.

    look_at         figures of the data, from the pass that every run makes before its first step
    choose_recipe   settings that follow from the figures, each with its reason
    measure_step    seconds per step and per validation image, measured on the data with these settings
    choose_length   number of steps that fit the time

Nothing is tried out: a choice is a rule with its reason beside it, and the user's own settings always win. The rules
are common practice for fine-tuning (docs/training.md); docs/decisions.md names the two that were compared.
"""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Container, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import Config
from ..core import size_text
from ..data.check import check_dataset
from ..data.counts import count_pixels
from ..data.crops import CROP_PIXELS, STRIDE, crop_size
from ..data.dataset import Split
from ..data.held_out import HeldOut
from ..data.inspection import Inspected
from ..errors import ConfigError, ResourceError, shown
from ..images import RGB, PixelFormat, read_pixels
from ..inference.device import find_device
from ..inference.label_map import label_map
from ..strict_yaml import to_yaml
from ..weights.pretrained_files import PRETRAINED, find_file
from .build import open_training_splits
from .pace import duration_text
from .precision import choose_precision
from .trial import take_step, trial
from .validation import validate

# A class of fewer pixels says nothing about thickness.
_MIN_SHARE = 1e-4
# Crops of `CROP_PIXELS` in a batch on a CPU: a step then takes one to two seconds on two cores.
_BATCH = 4
_GPU_BATCH = 16
# Below this thickness in pixels, a class has less than two positions of a map of stride 4 across.
_THIN_PX = 8
# Below this share of the pixels, a class is missing from most crops.
_RARE = 0.02
_BACKBONE = "efficientnet_lite0"
# Parts of the time: for validations, and for saving, the start and the report.
_VALIDATION_SHARE, _RESERVE = 0.12, 0.08
_MIN_STEPS = 20
# Steps that are timed: until this many or this many seconds.
_MAX_TIMED_STEPS, _TIMING_S = 12, 20.0


@dataclass(frozen=True)
class DataFacts:
    """Figures of a training split.

    num_images     images that can be read
    size           median height and width, in pixels
    shares         share of each class of all labeled pixels, by name
    thickness      mean width along each class in pixels, by name; classes that hardly occur are left out
    is_gray        whether no image has a color
    pixels         what the numbers of the images mean
    multilabel     whether a pixel may have several labels: `shares` are then of all pixels, and overlap
    """

    num_images: int
    size: tuple[int, int]
    shares: dict[str, float]
    thickness: dict[str, float]
    is_gray: bool
    pixels: PixelFormat = RGB
    multilabel: bool = False


@dataclass(frozen=True)
class Choice:
    """One chosen setting: `section.option`, its value, and why."""

    name: str
    value: Any
    reason: str


def look_at(split: Split, found: Sequence[Inspected]) -> DataFacts:
    """Return the figures of a split, from what `inspect_splits` found of it."""
    usable = [inspected for inspected in found if inspected.error is None and inspected.size is not None]
    heights, widths = zip(*(inspected.size for inspected in usable if inspected.size is not None), strict=True)
    taxonomy = split.taxonomy
    pixels = count_pixels(split, skip_bad=True, found=found)
    total = sum(map(math.prod, zip(heights, widths, strict=True))) if taxonomy.multilabel else pixels.sum()
    shares = pixels / total
    # Per class: its pixels, and the length of its outlines.
    areas, outlines = np.zeros(taxonomy.num_classes), np.zeros(taxonomy.num_classes)
    for inspected in usable:
        for class_id, shape in (inspected.shapes.classes if inspected.shapes is not None else {}).items():
            areas[class_id] += shape.area
            outlines[class_id] += shape.outline
    # A strip is half as long as its outline. A mean over pixels instead would be that of the thick parts alone.
    thickness = {
        name: float(2 * areas[k] / outlines[k])
        for k, name in enumerate(taxonomy.names)
        if outlines[k] and shares[k] >= _MIN_SHARE
    }
    is_gray = all(inspected.is_gray for inspected in usable)
    size = int(np.median(heights)), int(np.median(widths))
    by_name = dict(zip(taxonomy.names, shares.tolist(), strict=True))
    return DataFacts(len(usable), size, by_name, thickness, is_gray, split.pixels, taxonomy.multilabel)


def choose_recipe(facts: DataFacts, device: str, *, pretrained: str | None) -> list[Choice]:
    """Return the settings that follow from the data and the device.

    device      "cpu" or "cuda"
    pretrained  name of the pretrained backbone that is installed, None if none is
    """
    thin_class, thin = min(facts.thickness.items(), key=lambda entry: entry[1], default=("", math.inf))
    rare_class, rare = min(((n, s) for n, s in facts.shares.items() if s), key=lambda entry: entry[1])
    crop = list(crop_size(facts.size))
    batch = _GPU_BATCH if device == "cuda" else max(2, min(16, round(_BATCH * CROP_PIXELS / (crop[0] * crop[1]))))
    if pretrained:
        choices = [
            Choice("model.name", f"compact_{pretrained}", "few operations per pixel, so that it learns on a CPU"),
            Choice("model.init_from", pretrained, "ImageNet's features are a better start than random weights"),
            Choice("optimizer.backbone_lr_factor", 0.3, "the backbone only adapts; everything else is fresh"),
            Choice("train.freeze_norm", "backbone", "its statistics are better than those of a small batch"),
        ]
        if thin < _THIN_PX:
            fine = f"logits at stride 2: {thin_class} is {thin:.0f} pixels wide on average"
            choices.append(Choice("model.options", {"decoder_channels": [96, 64, 32]}, fine))
        else:
            choices.append(Choice("model.freeze_stride", 2, "edges need no adaptation; faster steps"))
    else:
        reason = "few operations per pixel; a pretrained backbone would do better: pip install 'pixelwise[pretrained]'"
        choices = [Choice("model.name", "compact", reason)]
    sizes = f"images of {size_text(facts.size)} (median)"
    choices += [
        Choice("augment.crop", crop, f"{sizes}; sides of {STRIDE}n + 1, on the grid of every map"),
        Choice("data.batch_size", batch, f"{batch * crop[0] * crop[1] / 1e6:.1f} megapixels per step"),
        Choice("augment.scale", [0.6, 1.9], "objects nearer and farther than in the images"),
        _choose_flip(facts),
    ]
    if facts.pixels.has_rgb:
        light = "other light" if facts.pixels.is_rgb else "other light, in red, green and blue alone"
        choices += [Choice(f"augment.{name}", 0.3, light) for name in ("brightness", "contrast", "gamma")]
    if facts.pixels.has_rgb and not facts.is_gray:
        choices.append(Choice("augment.saturation", 0.4, "other cameras"))
    if rare < _RARE:
        reason = f"{rare_class} covers {rare:.2%} of the pixels: three in ten crops are centered on a random class"
        choices.append(Choice("augment.class_balanced_prob", 0.3, reason))
    choices += _choose_loss(facts, rare_class, rare)
    choices += [
        Choice("optimizer.name", "adamw", "needs no tuning of the learning rate for each part"),
        Choice("optimizer.lr", 0.001, "AdamW's default; --lr-range tests others"),
        Choice("optimizer.weight_decay", 0.01, "AdamW's default"),
        Choice("optimizer.clip_norm", 5.0, "against single bad batches"),
    ]
    return choices


def _choose_flip(facts: DataFacts) -> Choice:
    """Return the probability of a mirror image, in which a left side is a right one."""
    sided = [name for name in facts.shares if re.search(r"(?:^|[\W_])(?:left|right|l|r)(?:[\W_]|$)", name.casefold())]
    if facts.multilabel and sided:
        return Choice("augment.flip", 0.0, f"class {sided[0]} names a side, which a mirror image swaps")
    return Choice("augment.flip", 0.5, "mirrored scenes are as likely")


def _choose_loss(facts: DataFacts, rare_class: str, rare: float) -> list[Choice]:
    """Return the settings of the loss; `rare` is the share of the rarest class."""
    if facts.multilabel:
        dice = f"several labels per pixel: binary cross entropy, and Dice, for which {rare_class} ({rare:.2%} of the "
        return [Choice("loss.dice", 1.0, f"{dice}pixels) counts as much as large classes")]
    choices = []
    if rare < _RARE:
        # Weights for a class that is less rare make the network claim too much of it, which lowers its IoU.
        choices.append(Choice("loss.class_weights", "log", f"{rare_class} covers {rare:.2%} of the pixels"))
    return [
        *choices,
        Choice("loss.lovasz", 0.5, "optimizes the IoU, which is scored, besides the cross entropy"),
        Choice("loss.lovasz_pixels", 32768, "a sample is enough, and sorting it is fast"),
    ]


@dataclass(frozen=True)
class Measured:
    """Seconds of one optimizer step, and of predicting one image of median size."""

    step_s: float
    image_s: float


def measure_step(config: Config, train_split: Split, found: Sequence[Inspected]) -> Measured:
    """Train a few steps that are thrown away and predict one image, with the settings of `config`."""
    timed = config.updated({"train": {"steps": _MAX_TIMED_STEPS}})
    times = [time.monotonic()]
    with redirect_stdout(io.StringIO()), trial(timed, train_split, found) as (module, steps):
        for batches in steps:
            take_step(module, batches)
            times.append(time.monotonic())
            if len(times) > 3 and times[-1] - times[0] > _TIMING_S:
                break
    intervals = np.diff(times)
    usable = [inspected for inspected in found if inspected.error is None and inspected.size is not None]
    median = sorted(usable, key=lambda inspected: math.prod(inspected.size or ()))[len(usable) // 2].item
    device, precision = module.device, choose_precision(config.train.precision, module.device.type)
    image, image_times = read_pixels(median.image, train_split.pixels), []
    module.model.eval()
    for _ in range(2):
        started = time.monotonic()
        if train_split.taxonomy.multilabel:
            # Masks of many classes take longer to read and to count than the labels to compute.
            validate(module.model, train_split.with_items([median]), device, precision=precision)
        else:
            label_map(module.model, image, device, precision=precision, source=median.image)
        image_times.append(time.monotonic() - started)
    # The first steps, and the first image, choose kernels and fill caches.
    return Measured(float(np.median(intervals[len(intervals) // 3 :])), min(image_times))


def choose_length(budget_s: float, measured: Measured, num_val: int) -> list[Choice]:
    """Return the number of steps that fit into a time, and how often to validate and save.

    budget_s  seconds from the first step to the report
    num_val   number of validation images
    Raises ConfigError if the time is too short for a training.
    """
    val_s = num_val * measured.image_s
    validations = max(1, min(8, int(_VALIDATION_SHARE * budget_s / val_s)))
    # The report scores the best checkpoint once more.
    steps = int((budget_s * (1 - _RESERVE) - (validations + 1) * val_s) / measured.step_s)
    if steps < _MIN_STEPS:
        needed = (_MIN_STEPS * measured.step_s + 2 * val_s) / (1 - _RESERVE)
        what = f"expected at least {duration_text(needed)} for {_MIN_STEPS} steps of {measured.step_s:.1f} s"
        what += f" and {num_val} validation images of {measured.image_s:.1f} s, got {duration_text(budget_s)}"
        raise ConfigError("--budget", what, "give more time, or a smaller --augment.crop or --data.batch_size")
    every = math.ceil(steps / validations)
    return [
        Choice("train.steps", steps, f"{measured.step_s:.2f} s per step were measured: {duration_text(budget_s)}"),
        Choice("train.validate_every", every, f"{num_val} images take {val_s:.0f} s; the best checkpoint is kept"),
        Choice("train.save_every", max(1, min(every, round(60 / measured.step_s))), "about once per minute"),
        *choose_schedule(steps),
    ]


def choose_schedule(steps: int) -> list[Choice]:
    """Return the settings that depend on the number of steps alone."""
    ema = round(1 - 1 / max(10, min(500, steps / 25)), 4)
    return [
        Choice("train.log_every", max(1, min(20, steps // 50)), "fifty points or more in the curve"),
        Choice("optimizer.warmup_steps", min(50, steps // 20), "a twentieth of the steps, at most 50"),
        Choice("train.ema", ema, "the mean over about a twenty-fifth of the steps"),
    ]


@dataclass(frozen=True)
class ChosenRecipe:
    """A configuration and what was chosen in it.

    found     what `check_dataset` found of the training split
    held_out  the images of the training split that are validated on, None if the dataset has a split for it
    """

    config: Config
    choices: tuple[Choice, ...]
    found: list[Inspected]
    held_out: HeldOut | None = None

    def to_yaml(self) -> str:
        """Return the choices as a recipe: YAML with each setting after its reason."""
        sections: dict[str, list[str]] = {"data": [f"  path: {to_yaml(self.config.data.path)}"]}
        for choice in self.choices:
            section, _, option = choice.name.partition(".")
            sections.setdefault(section, []).extend([f"  # {choice.reason}", f"  {option}: {to_yaml(choice.value)}"])
        lines = ["# Chosen by `pixelwise train`; edit it and run `pixelwise train recipe.yaml --out FOLDER`."]
        for section, rows in sections.items():
            lines += [f"{section}:", *rows]
        return "\n".join(lines) + "\n"


def chosen_recipe(config: Config, given: Container[str], budget_s: float | None, *, network: bool) -> ChosenRecipe:
    """Read the data once, choose the settings that are not given, and measure a step if the steps are among them.

    config    the settings so far, with the path of the data
    given     names `section.option` that the user has set: they are kept
    budget_s  seconds of the training, None to keep the number of steps
    network   whether network, crop, loss and optimizer are chosen as well
    Raises the errors of data and settings, before anything is written.
    """
    dataset, train_split, val_split, held_out = open_training_splits(config.data)
    found = check_dataset(dataset, train_split, val_split, skip_bad=config.train.on_read_error == "skip")
    choices: list[Choice] = []

    def choose(more: Iterable[Choice]) -> None:
        nonlocal config
        kept = [choice for choice in more if choice.name not in given]
        config = config.updated(as_changes(kept))
        choices.extend(kept)

    if network:
        device = find_device(config.train.device, "--train.device").type
        pretrained: str | None = _BACKBONE
        try:
            find_file(PRETRAINED[_BACKBONE])
        except ResourceError:
            # Not installed; another file than the published one is an error.
            pretrained = None
        choose(choose_recipe(look_at(train_split, found), device, pretrained=pretrained))
    if budget_s is not None:
        measured = measure_step(config, train_split, found)
        choose(choose_length(budget_s, measured, len(val_split)))
    elif network:
        choose(choose_schedule(config.train.steps))
    return ChosenRecipe(config, tuple(choices), found, held_out)


def as_changes(choices: Iterable[Choice]) -> dict[str, dict[str, Any]]:
    """Return choices as nested settings, for `Config.updated`."""
    changes: dict[str, dict[str, Any]] = {}
    for choice in choices:
        section, _, option = choice.name.partition(".")
        changes.setdefault(section, {})[option] = choice.value
    return changes


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 90s, 30m, 1h30m. Raises ConfigError."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    if not match or not any(match.groups()):
        raise ConfigError(
            "--budget", f"expected a time such as 90s, 30m or 1h30m, got {shown(text)}", "write --budget 30m"
        )
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if total == 0:
        raise ConfigError("--budget", f"must be above 0, got {shown(text)}", "write --budget 30m")
    return float(total)
