"""`pixelwise train`: train a network on a dataset, with the settings of a recipe and the command line."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ..config import Config, setting_names
from ..errors import ConfigError, Interrupted, PixelwiseError, listed, printable
from ..overrides import parse_overrides
from ..recipes import recipe_file
from ..setting_value import asks_for_epochs, suggest_setting
from ._console import text
from ._options import OutPath, Switch

if TYPE_CHECKING:
    from ..train.recipe_choice import ChosenRecipe

DEFAULT_BUDGET = "30m"
OWN_OPTIONS = (
    "--out",
    "--model",
    "--budget",
    "--resume",
    "--dry-run",
    "--lr-range",
    "--print-config",
    "--help",
    "--debug",
)


def train(
    source: str,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    out: OutPath | None = None,
    model: str | None = None,
    budget: str | None = None,
    resume: Switch = False,
    dry_run: Switch = False,
    lr_range: Switch = False,
    print_config: Switch = False,
) -> int:
    """Train a network on a folder of images and masks.

    With a dataset folder alone, the recipe chooses itself: network, crop, loss, optimizer and length follow from the
    images, the masks and the time of a step, each with its reason. Your own options win.

    Every setting is an option, --section.option value, such as --train.steps 2000 or --augment.crop "[256, 256]".
    All are listed below; --print-config shows their values for this command line.

    Parameters
    ----------
    source
        A dataset folder, the name of a recipe, or a YAML file with settings.
    out
        Folder of the run: config.yaml, environment.json, metrics.csv, checkpoints, scores.json, samples, report.html.
    model
        A network of `pixelwise models`; short for --model.name. Nothing is chosen for it; the settings are the
        defaults.
    budget
        Time of the training, such as 30m or 1h30m: the number of steps follows from the time of a measured step. A
        dataset folder alone gets 30m.
    resume
        Continue the run in --out from its last saved state, with its settings and the options given here. SOURCE then
        only says where the data is.
    dry_run
        Check every image and mask, build the network, and stop before the first step.
    lr_range
        Train 100 steps with a learning rate that rises from 1e-6 to 10, print the loss at each and the rate that it
        suggests, and stop. Nothing is saved, but for lr_range.csv if --out is given.
    print_config
        Print all settings as YAML and stop.
    """
    resumed = out if resume else None
    config = read_settings(source, overrides, model=model, resumed=resumed)
    given = _given(overrides)
    chooses = Path(source).is_dir() and model is None and "model.name" not in given and not resume
    if not chooses and budget is None and print_config:
        print(config.to_yaml(), end="")
        return 0
    _check_names(config, chooses=chooses)
    if lr_range and (resume or dry_run):
        raise ConfigError("--lr-range", "starts from step 0, and trains", "leave out --resume and --dry-run")
    if out is None and not (print_config or dry_run or lr_range):
        raise ConfigError("--out", "is not set", "add --out runs/NAME")
    if not print_config and {os.environ.get("RANK", "0"), os.environ.get("LOCAL_RANK", "0")} == {"0"}:
        # A sign of life, by one of several ranks: importing torch takes seconds.
        print(printable(f"{config.data.path}: starting"), flush=True)
    if out is not None:
        _check_out(out, config, resume=resume)
    chosen = None
    if chooses or budget is not None:
        chosen = _choose(config, given, budget, network=chooses, resume=resume)
        config = chosen.config
    if print_config:
        print(config.to_yaml(), end="")
        return 0
    if dry_run:
        return _dry_run(config, chosen)
    if lr_range:
        return _lr_range(config, chosen, out)
    assert out is not None, "checked above"
    # Importing Lightning takes seconds: a mistake in the options is reported before it.
    from ..train.callbacks import silence_lightning
    from ..train.finish import finish_run
    from ..train.ranks import process_rank
    from ..train.run import train as train_network

    silence_lightning()
    command = shlex.join(["pixelwise", *sys.argv[1:]])
    train_network(config, out, resume=resume, command=command, chosen=chosen)
    if process_rank() == 0:
        try:
            finished = finish_run(config, out)
        except KeyboardInterrupt:
            what = "stopped; every step is trained and saved, but scores.json, samples and report.html are not complete"
            raise Interrupted(out, what, "run the command again with --resume to write them") from None
        print(f"{finished.checkpoint.name} checkpoint, step {finished.step}: {finished.scores.summary()}")
        print(printable(f"{finished.checkpoint}, report {finished.report}"))
    return 0


def _given(overrides: Sequence[str]) -> set[str]:
    """Return the names `section.option` of the settings on a command line."""
    changes = parse_overrides(overrides)
    return {f"{section}.{option}" for section, options in changes.items() for option in options}


def _choose(config: Config, given: set[str], budget: str | None, *, network: bool, resume: bool) -> ChosenRecipe:
    """Return the recipe that the data and the time ask for, and print each choice with its reason."""
    from ..strict_yaml import to_yaml
    from ..train.pace import duration_text
    from ..train.ranks import started_by_torchrun
    from ..train.recipe_choice import chosen_recipe, parse_duration

    if resume:
        raise ConfigError("--budget", "is for a new run: the steps of a resumed one are known", "set --train.steps")
    if started_by_torchrun() or config.train.devices * config.train.nodes > 1:
        fix = "write the choice with --print-config > recipe.yaml, and train that on all ranks"
        raise ConfigError("--budget" if budget else "train", "a recipe is chosen by one process", fix)
    if "train.steps" in given and budget is not None:
        raise ConfigError("--budget", "--train.steps is set as well", "give one of the two")
    budget_s = None if "train.steps" in given else parse_duration(budget or DEFAULT_BUDGET)
    chosen = chosen_recipe(config, given, budget_s, network=network)
    time = "" if budget_s is None else f" and {duration_text(budget_s)}"
    print(f"chosen for these images{time}; change any of it with --section.option VALUE:", file=sys.stderr)
    for choice in chosen.choices:
        print(f"  --{choice.name} {to_yaml(choice.value)}: {choice.reason}", file=sys.stderr)
    return chosen


def _lr_range(config: Config, chosen: ChosenRecipe | None, out: Path | None) -> int:
    """Print every fifth step of a learning-rate range test, and the rate that it suggests."""
    from ..train.lr_range import NUM_STEPS, RatePoint, check_folder, measure_rates, suggest_rate, write_points
    from ..train.ranks import started_by_torchrun

    if started_by_torchrun() or config.train.devices * config.train.nodes > 1:
        raise ConfigError("--lr-range", "one process tests rates", "leave out --train.devices and --train.nodes")
    if out is not None:
        check_folder(out)

    def report(step: int, point: RatePoint) -> None:
        if step % 5 == 0 or step == 1:
            print(f"{step:4} {point.rate:9.2g} {point.loss:10.4g} {point.smoothed:10.4g}", flush=True)

    print(f"{NUM_STEPS} steps with a rising learning rate\nstep      rate       loss   smoothed", flush=True)
    points = measure_rates(config, found=chosen.found if chosen else None, report=report)
    print(suggest_rate(points)[1])
    if out is not None:
        print(printable(str(write_points(out, points))))
    return 0


def _check_names(config: Config, *, chooses: bool) -> None:
    """Raise ConfigError if no dataset is named, UnknownNameError for the name of no network."""
    from ..models import MODELS

    if not config.data.path:
        raise ConfigError("--data.path", "is not set", "add --data.path FOLDER")
    if not chooses:
        MODELS.check_name(config.model.name)


def _check_out(out: Path, config: Config, *, resume: bool) -> None:
    """Raise InputError if the run must not be written to `out`, before the data are read."""
    from ..train.ranks import process_rank
    from ..train.run_folder import RunFolder

    # The other ranks start while the first one has the folder.
    if process_rank() == 0:
        RunFolder(out).check_target(resume=resume, data=config.data.path)


def read_settings(source: str, overrides: Sequence[str], *, model: str | None, resumed: Path | None) -> Config:
    """Return the settings of a command line: those of the resumed run or the recipe, with the given options on top.

    Prints a notice if those of the recipe would differ from those of the resumed run. Raises ConfigError for a wrong
    option or source, UnknownNameError for an unknown recipe.
    """
    for place, token in enumerate(overrides):
        name = token.partition("=")[0]
        if name.startswith("--") and "." not in name:
            fix = suggest_setting(name, [*setting_names(), *(option.lstrip("-") for option in OWN_OPTIONS)])
            if asks_for_epochs(name) and source:
                others = [*overrides[:place], *overrides[place + (1 if "=" in token else 2) :]]
                fix = _steps_of_an_epoch(source, others, model) or fix
            raise ConfigError(name, "unknown option of `pixelwise train`", fix)
    fix = "give a dataset folder, a recipe or a YAML file"
    if not source:
        raise ConfigError("train", "SOURCE is empty", fix)
    changes = parse_overrides(overrides)
    if model is not None:
        changes.setdefault("model", {})["name"] = model
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(path, "no such file", fix)
        config = Config.from_yaml(path)
    elif path.is_dir():
        config = Config()
    elif path.exists():
        raise ConfigError(source, "is neither a folder nor a .yaml file", fix)
    else:
        config = Config.from_yaml(recipe_file(source))
    saved = resumed / "config.yaml" if resumed else None
    if saved and saved.exists():
        of_source, config = config, Config.from_yaml(saved)
        if not path.is_dir():
            _print_differences(saved, config.updated(changes), source, of_source.updated(changes))
    if path.is_dir():
        changes.setdefault("data", {}).setdefault("path", source)
    return config.updated(changes)


def _steps_of_an_epoch(source: str, overrides: Sequence[str], model: str | None) -> str:
    """Return how many steps an epoch is with these settings, as a fix; empty if the data cannot be read."""
    with suppress(PixelwiseError):
        config = read_settings(source, overrides, model=model, resumed=None)
        from ..data import open_dataset

        num_images = len(open_dataset(config.data.path, config.data.format).split(config.data.train_split))
        settings = config.train
        per_step = config.data.batch_size * config.optimizer.grad_accum_steps * settings.devices * settings.nodes
        steps = -(-num_images // per_step)
        what = f"{num_images} images in steps of {per_step}: one epoch is {steps} step{'s' * (steps > 1)}"
        return f"a run is counted in steps; {what}, so write --train.steps {steps} times the epochs"
    return ""


def _print_differences(saved: Path, config: Config, source: str, of_source: Config) -> None:
    """Print which settings of SOURCE a resumed run does not take; a recipe without a dataset path does not count."""
    from ..train.ranks import process_rank

    differing = [
        f"--{section}.{option.name}"
        for (section, option, value), (_, _, other) in zip(config.items(), of_source.items(), strict=True)
        if value != other and (section, option.name, other) != ("data", "path", "")
    ]
    if differing and process_rank() == 0:
        line = f"{saved}: its settings are used, not those of {source}, which differ in {listed(differing, 8)}"
        print(printable(line), file=sys.stderr)


def _dry_run(config: Config, chosen: ChosenRecipe | None) -> int:
    """Read every image and mask of both splits and build the network. Raises InputError if some cannot be used."""
    # What training imports is imported here as well, so that packages that do not fit together are found.
    import lightning  # noqa: F401

    from ..data.check import check_dataset
    from ..inference.device import find_device
    from ..train.build import build_model, make_class_weights, open_training_splits
    from ..train.multilabel_losses import check_multilabel
    from ..train.ranks import check_launch

    check_launch(config.train, find_device(config.train.device, "--train.device").type)
    dataset, train_split, val_split, _ = open_training_splits(config.data, chosen.held_out if chosen else None)
    skip_bad = config.train.on_read_error == "skip"
    check_multilabel(config, dataset.taxonomy)
    found = chosen.found if chosen else check_dataset(dataset, train_split, val_split, skip_bad=skip_bad)
    make_class_weights(config.loss, train_split, skip_bad=skip_bad, found=found)
    model = build_model(config.model, dataset.taxonomy, split=train_split)
    count = sum(p.numel() for p in model.parameters())
    read = "images that cannot be used are skipped" if skip_bad else "all images can be read"
    print(f"{dataset.name}: {read}; {config.model.name} has {count:,} parameters; ready to train")
    return 0


def print_settings() -> None:
    """Print a table of every setting: option, default, sentence."""
    table = Table("setting", "default", "meaning", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for section, option, value in Config().items():
        shown = "" if value in ("", None, [], {}) else str(value)
        table.add_row(text(f"--{section}.{option.name}"), text(shown), text(option.metadata["doc"]))
    Console().print(table)
