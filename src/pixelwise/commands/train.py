"""`pixelwise train`: from a folder of images and masks, or a recipe, to a run folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from ..config import Config, parse_overrides, read_yaml
from ..errors import ConfigError, InputError
from ..recipes import recipe_file


def train(
    source: str,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)],
    out: Path | None = None,
    model: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    print_config: bool = False,
) -> int:
    """Train a network on a folder of images and masks.

    Every setting is an option: --section.option value, such as --train.steps 2000 or --augment.crop "[256, 256]".
    The sections are data, augment, model, loss, optimizer, train; --print-config shows all of them with their values.

    Parameters
    ----------
    source
        A dataset's folder, a recipe's name, or a YAML file with settings.
    out
        The run's folder: checkpoints, metrics.csv, report.html.
    model
        A name that `pixelwise models` lists; short for --model.name.
    resume
        Go on from the newest whole state in --out.
    dry_run
        Read every picture and mask of the data, build the network, and stop before the first step.
    print_config
        Print the settings as YAML and stop.
    """
    config = resolve(source, list(overrides), model, out if resume else None)
    if print_config:
        print(config.to_yaml(), end="")
        return 0
    if not config.data.path:
        raise ConfigError("--data.path", "is not set, and the recipe names no data", "add --data.path FOLDER")
    if dry_run:
        return _dry_run(config)
    if out is None:
        raise ConfigError("--out", "is not set", "add --out runs/NAME")
    _train(config, out, resume)
    return 0


def resolve(source: str, overrides: list[str], model: str | None, resumed: Path | None) -> Config:
    """The configuration of a command line: recipe or data folder, on top of the resumed run's, options on top of both."""
    changes = parse_overrides(overrides)
    if model is not None:
        changes.setdefault("model", {})["name"] = model
    config = Config()
    path = Path(source)
    saved = resumed / "config.yaml" if resumed else None
    if saved and saved.exists():
        config = Config.from_yaml(saved)
    elif path.suffix in (".yaml", ".yml"):
        config = config.updated(read_yaml(path), path)
    elif not path.exists():
        config = Config.from_yaml(recipe_file(source))
    if path.is_dir():
        changes.setdefault("data", {}).setdefault("path", source)
    return config.updated(changes, "command line")


def _train(config: Config, out: Path, resume: bool) -> None:
    from ..train.lightning_parts import quiet_lightning
    from ..train.ranks import process_rank
    from ..train.run import train as run

    quiet_lightning()
    command = shlex.join(["pixelwise", *sys.argv[1:]])
    scores = run(config, out, resume=resume, command=command)
    if process_rank() == 0:
        from ..train.finish import finish

        page = finish(config, out)
        console = Console()
        if scores is not None:
            console.print(scores.summary())
        console.print(f"best checkpoint {out / 'checkpoints' / 'best'}, report {page}")


def _dry_run(config: Config) -> int:
    from ..data import open_dataset
    from ..train.build import build_model, class_weights

    dataset = open_dataset(config.data.path, config.data.layout)
    failures = []
    for name in (config.data.train_split, config.data.val_split):
        split = dataset.split(name)
        for index in range(len(split)):
            try:
                split[index]
            except InputError as error:
                failures.append(str(error))
    for line in failures:
        print(f"error: {line}", file=sys.stderr)
    if failures:
        raise InputError(config.data.path, f"{len(failures)} pictures or masks cannot be used (listed above)", "mend or remove them")
    class_weights(config.loss, dataset.split(config.data.train_split))
    model = build_model(config.model, dataset.taxonomy)
    count = sum(p.numel() for p in model.parameters())
    print(f"{dataset.name}: all pictures of both splits can be read; {config.model.name} has {count:,} parameters; ready to train")
    return 0
