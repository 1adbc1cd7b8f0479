"""Command lines with options and values of any kind, on a small photo, dataset and model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from fuzz.folders import COMMAND_MIB, judge_command, run_command, tiny_model
from fuzz.harness import Attempt
from fuzz.texts import SCALARS, value
from helpers.tiny_data import write_dataset
from pixelwise.commands import check, compare, demo, evaluate, explain, import_, listings, predict, profile, report
from pixelwise.config import Config

COMMANDS: dict[str, Callable[..., Any]] = {
    "check": check.check,
    "predict": predict.predict,
    "evaluate": evaluate.evaluate,
    "compare": compare.compare,
    "explain": explain.explain,
    "demo": demo.demo,
    "import": import_.import_,
    "report": report.report,
    "models": listings.models,
    "recipes": listings.recipes,
    "datasets": listings.datasets,
    "profile": profile.profile,
}
SETTINGS = [f"--{section}.{option.name}" for section, option, _ in Config().items()]


def argument(rng: Random) -> str:
    """Return a value as a shell passes it: no null characters."""
    numbers = ("0", "1", "-1", "2", "1e9", "99999999999", "0.5", "nan", "")
    words = ("auto", "cpu", "cuda:9", "run", "deeplabv2", "float32", "val", "true", "compact")
    text = rng.choice((rng.choice(SCALARS), rng.choice(numbers), rng.choice(words), value(rng)))
    return text.replace("\x00", "")[:9999]


def command_case(rng: Random, folder: Path) -> Attempt:
    """Run a command with a few right and a few random arguments."""
    data, out = write_dataset(folder / "data", 2, 1, (6, 9)), folder / "out"
    if rng.random() < 0.4:
        argv = ["train", str(data), "--print-config"]
        for _ in range(rng.randrange(1, 4)):
            name = rng.choice(SETTINGS) if rng.random() < 0.9 else f"--{rng.choice(('x', 'lr', 'train', 'train.x'))}"
            argv += [f"{name}={argument(rng)}"] if rng.random() < 0.3 else [name, argument(rng)]
        return Attempt(partial(run_command, argv), partial(judge_command, out), COMMAND_MIB)
    name = rng.choice(list(COMMANDS))
    photo, model = str(data / "images" / "val" / "p0.png"), str(tiny_model())
    usual = {
        "check": [str(data), "--fix", str(out)],
        "predict": [photo, "--out", str(out), "--model", model],
        "evaluate": ["--data", str(data), "--split", "val", "--model", model],
        "compare": [photo, "--model", model, "--out", str(out / "x.png")],
        "explain": [photo, "--model", model, "--out", str(out)],
        "demo": [str(data / "images"), "--out", str(out), "--model", model],
        "import": [str(data / "classes.yaml"), "--as", "fcn32s_alexnet", "--out", str(out)],
        "report": [str(data)],
        "profile": ["compact", "--size", "33", "33"],
    }
    argv = [name, *usual.get(name, [])]
    options = [
        "--" + (parameter.name.rstrip("_") if parameter.name != "num_classes" else "num-classes")
        for parameter in inspect.signature(COMMANDS[name]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for _ in range(rng.randrange(4)):
        # The model of a name without a slash, and the output outside of the folder, are no business of a test.
        option = rng.choice([option for option in options if option not in ("--out", "--fix", "--model")] or ["--x"])
        argv += rng.choice(([option], [option, argument(rng)], [option, argument(rng)], [argument(rng)]))
    if rng.random() < 0.15:
        argv.remove(rng.choice(argv))
    return Attempt(partial(run_command, argv), partial(judge_command, out), COMMAND_MIB)
