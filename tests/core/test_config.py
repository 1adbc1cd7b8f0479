"""Settings: nothing unknown, of the wrong type or out of range gets in, and what is printed can be read back."""

from __future__ import annotations

import dataclasses
import math
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.commands.train import OWN_OPTIONS
from pixelwise.config import Config, setting_names
from pixelwise.errors import ConfigError
from pixelwise.models import MODELS
from pixelwise.overrides import parse_overrides
from pixelwise.recipes import recipe_files, recipe_summary
from pixelwise.setting_value import TERMS, suggest_setting

SECTIONS = {f.name: type(getattr(Config(), f.name)) for f in dataclasses.fields(Config)}
OPTIONS = [
    (section, f.name, get_type_hints(kind)[f.name])
    for section, kind in SECTIONS.items()
    for f in dataclasses.fields(kind)
]
NUMBERS = [f"{section}.{name}" for section, name, hint in OPTIONS if hint in (int, float)]
WORDS = [(f"{section}.{name}", get_args(hint)) for section, name, hint in OPTIONS if get_origin(hint) is Literal]

# A value beyond each bound of each number, with the words that say what is allowed.
BROKEN = [
    ("data.batch_size", 0, ">= 1"),
    ("data.workers", -1, ">= 0 and <= 256"),
    ("data.workers", 257, ">= 0 and <= 256"),
    ("data.cache_mib", -1, ">= 0 and < 1073741824"),
    ("augment.crop", [5], "expected 2 numbers"),
    ("augment.crop", [0, 5], "two sizes >= 1, or [0, 0]"),
    ("augment.crop", [-1, 5], ">= 0 and <= 32768"),
    ("augment.crop", [10**9, 5], ">= 0 and <= 32768"),
    ("augment.scale", [1.0], "expected 2 numbers"),
    ("augment.scale", [0.0, 1.0], ">= 0.01 and <= 100"),
    ("augment.scale", [2.0, 1.0], "low <= high"),
    ("augment.aspect", 0.5, ">= 1 and <= 10"),
    ("augment.flip", 1.5, ">= 0 and <= 1"),
    ("augment.classmix_prob", 2, ">= 0 and <= 1"),
    ("augment.class_balanced_prob", -0.5, ">= 0 and <= 1"),
    ("augment.elastic", -1.0, ">= 0 and <= 1000"),
    ("augment.context_px", -1, ">= 0 and <= 1000"),
    ("augment.rotate", 181.0, ">= 0 and <= 180"),
    ("augment.brightness", 1.1, ">= 0 and <= 1"),
    ("augment.contrast", -0.1, ">= 0 and <= 1"),
    ("augment.saturation", 2.0, ">= 0 and <= 1"),
    ("augment.gamma", 2.0, ">= 0 and <= 1"),
    ("augment.hue", 200.0, ">= 0 and <= 180"),
    ("model.freeze_stride", -1, ">= 0 and <= 32"),
    ("model.freeze_stride", 33, ">= 0 and <= 32"),
    ("loss.border_weight", -1.0, ">= 0"),
    ("loss.border_sigma", 0.0, "> 0 and <= 1000"),
    ("loss.patch_keep_prob", 0.0, "> 0 and <= 1"),
    ("loss.aux_weight", -1.0, ">= 0"),
    ("loss.class_weights", [1.0, -1.0], ">= 0"),
    ("loss.class_weights", [], "one number per class"),
    ("loss.bootstrap_top_k", -1, ">= 0"),
    ("loss.focal_gamma", -0.5, ">= 0 and <= 100"),
    ("loss.ohem_threshold", 0.0, "> 0 and <= 1"),
    ("loss.ohem_min_kept", -1, ">= 0"),
    ("loss.dice", -1.0, ">= 0"),
    ("loss.lovasz", math.inf, "finite"),
    ("loss.lovasz_pixels", -1, ">= 0"),
    ("optimizer.grad_accum_steps", 10**20, "< 2147483648"),
    ("train.steps", 2**31, "< 2147483648"),
    ("optimizer.lr", 0, "> 0"),
    ("optimizer.momentum", 1.0, ">= 0 and < 1"),
    ("optimizer.weight_decay", -1.0, ">= 0"),
    ("optimizer.bias_lr_factor", -1.0, ">= 0"),
    ("optimizer.head_lr_factor", -1.0, ">= 0"),
    ("optimizer.backbone_lr_factor", -0.1, ">= 0"),
    ("optimizer.step_every", 0, ">= 1"),
    ("optimizer.step_factor", 0.0, "> 0 and <= 1"),
    ("optimizer.power", -1.0, ">= 0"),
    ("optimizer.warmup_steps", -1, ">= 0"),
    ("optimizer.clip_norm", math.inf, "finite"),
    ("optimizer.grad_accum_steps", 0, ">= 1"),
    ("train.steps", 0, ">= 1"),
    ("train.early_stop", -1, ">= 0"),
    ("train.validate_every", 0, ">= 1"),
    ("train.save_every", 0, ">= 1"),
    ("train.log_every", 0, ">= 1"),
    ("train.seed", -1, ">= 0 and < 2147483648"),
    ("train.seed", 2**31, ">= 0 and < 2147483648"),
    ("train.ema", 1.0, ">= 0 and < 1"),
    ("train.devices", 0, ">= 1"),
    ("train.nodes", 0, ">= 1"),
]


def changed(option: str, value: Any) -> Config:
    section, name = option.split(".")
    return Config().updated({section: {name: value}})


def test_every_number_has_a_bound_below() -> None:
    assert set(NUMBERS) <= {option for option, _, _ in BROKEN}


@pytest.mark.parametrize(("option", "value", "allowed"), BROKEN)
def test_numbers_out_of_range(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(option, value)
    assert caught.value.subject == f"--{option}"
    assert allowed in caught.value.what
    assert caught.value.what.endswith(f", got {value!r}")


def test_an_error_from_a_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("optimizer: {lr: -1}\n")
    with pytest.raises(ConfigError) as caught:
        Config.from_yaml(path)
    assert str(caught.value) == f"{path}: optimizer.lr: must be > 0, got -1; fix: write `lr: 0.01`"
    path.write_text("augment: {scale: [2, 1]}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: augment\.scale: must be \[low, high\] with low <= high, got"):
        Config.from_yaml(path)


@pytest.mark.parametrize(
    ("option", "value", "other", "expected"),
    [
        ("data.batch_size", 8, {"augment": {"crop": [0, 0]}}, "1 with --augment.crop [0, 0]"),
        (
            "augment.classmix_prob",
            0.5,
            {"augment": {"crop": [0, 0]}, "data": {"batch_size": 1}},
            "0 with --augment.crop [0, 0]",
        ),
        (
            "augment.tiled_crops",
            True,
            {"augment": {"crop": [0, 0]}, "data": {"batch_size": 1}},
            "false with --augment.crop [0, 0]",
        ),
        (
            "augment.tiled_crops",
            True,
            {"augment": {"instance_crops": "ground_truth"}},
            "false with --augment.instance_crops",
        ),
        (
            "optimizer.grad_accum_steps",
            2,
            {"augment": {"crop": [0, 0]}, "data": {"batch_size": 1}, "loss": {"resolution": "logits"}},
            "1 with --augment.crop [0, 0]",
        ),
        ("loss.border_weight", 10.0, {"loss": {"resolution": "logits"}}, "0 with --loss.resolution logits"),
        ("loss.border_weight", 10.0, {"loss": {"name": "ohem"}}, "0 with --loss.name ohem"),
        ("loss.border_weight", 10.0, {"loss": {"name": "none", "dice": 1.0}}, "0 with --loss.name none"),
        ("loss.bootstrap_top_k", 5, {}, "0 with --loss.name cross_entropy"),
        ("loss.bootstrap_top_k", 0, {"loss": {"name": "bootstrapped"}}, "> 0 with --loss.name bootstrapped"),
        (
            "loss.reduction",
            "sum",
            {"loss": {"name": "bootstrapped", "bootstrap_top_k": 5}},
            "mean with --loss.name bootstrapped",
        ),
        ("loss.reduction", "sum", {"loss": {"name": "none", "lovasz": 1.0}}, "mean with --loss.name none"),
        ("loss.class_weights", "log", {"loss": {"name": "none", "dice": 1.0}}, "none with --loss.name none"),
        ("loss.name", "none", {}, "another loss without --loss.dice or --loss.lovasz"),
    ],
)
def test_options_that_conflict(option: str, value: Any, other: dict[str, Any], expected: str) -> None:
    section, name = option.split(".")
    both = {**other, section: {**other.get(section, {}), name: value}}
    with pytest.raises(ConfigError) as caught:
        Config().updated(both)
    line = str(caught.value)
    assert line.startswith(f"--{option}: must be {expected}")
    assert f", got {value!r}; fix: " in line


def test_whole_images_are_allowed_one_at_a_time() -> None:
    assert Config().updated({"augment": {"crop": [0, 0]}, "data": {"batch_size": 1}}).augment.crop == [0, 0]


@pytest.mark.parametrize("value", ["x", "5", "", None, [], {}, True, math.nan, math.inf, 10**400])
@pytest.mark.parametrize("option", ["train.steps", "optimizer.lr"])
def test_values_that_are_not_numbers_are_refused(option: str, value: Any) -> None:
    if value == 10**400 and option == "train.steps":
        value = 1.5
    with pytest.raises(ConfigError, match=rf"^--{option}: (expected|must be finite)"):
        changed(option, value)


@pytest.mark.parametrize(("option", "words"), WORDS)
def test_unknown_words_are_refused_with_the_known_ones(option: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(option, "zzz")
    line, _, fix = str(caught.value).partition("; fix: ")
    assert line == f"--{option}: expected one of {', '.join(words)}, got 'zzz'"
    assert fix in [f"write --{option} {word}" for word in words]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimzer": {"lr": 1, "name": "sgd"}}, "run.yaml: optimzer: unknown section; fix: did you mean optimizer?"),
        ({"optimzer": {"lr": 1}}, "run.yaml: optimzer.lr: unknown setting; fix: did you mean optimizer.lr?"),
        ({"optimizer": {"lrr": 1}}, "run.yaml: optimizer.lrr: unknown setting; fix: did you mean optimizer.lr?"),
        ({"train": {"stps": 1}}, "run.yaml: train.stps: unknown setting; fix: did you mean train.steps"),
        ({"train": {"lr": 1}}, "run.yaml: train.lr: unknown setting; fix: did you mean optimizer.lr?"),
        ({"lr": 1}, "run.yaml: lr: unknown section; fix: did you mean optimizer.lr?"),
        ({"batch_size": 4, "train": {}}, "run.yaml: batch_size: unknown section; fix: did you mean data.batch_size?"),
        ({"train": 5}, "run.yaml: train: expected a mapping of options, got 5"),
        ({"train": {1: 5}}, "run.yaml: train.1: unknown setting; fix: see `pixelwise train --help`"),
        ({"model": {"options": [1]}}, "run.yaml: model.options: expected a mapping like {name: value}, got [1]"),
        ({"model": {"name": 5}}, "run.yaml: model.name: expected a string, got 5"),
        ({"data": {"format": 5}}, "run.yaml: data.format: expected a string or null, got 5"),
        (
            {"train": {"loggers": "wandb"}},
            "run.yaml: train.loggers: expected a list of strings, got 'wandb'; fix: write `loggers: [wandb]`",
        ),
        ({"train": {"loggers": [1]}}, "run.yaml: train.loggers: expected a list of strings, got [1]"),
        (
            {"loss": {"class_weights": "lof"}},
            "run.yaml: loss.class_weights: expected one of none, log, inverse or a list of numbers, got 'lof'; "
            "fix: did you mean log?",
        ),
        (
            {"optimizer": {"name": "sdg"}},
            "run.yaml: optimizer.name: expected one of sgd, adamw, got 'sdg'; fix: did you mean sgd?",
        ),
        ({"train": {"compile": "yes"}}, "run.yaml: train.compile: expected true or false, got 'yes'"),
        (
            {"train": {"steps": 100.0}},
            "run.yaml: train.steps: expected an integer, got 100.0; fix: write `steps: 10000`",
        ),
    ],
)
def test_unknown_and_misplaced(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().updated(changes, "run.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "what", "crop"),
    [
        ("augment.crop", "100", "expected a list of integers, got 100", [100, 100]),
        ("augment.crop", "[64]", "expected 2 numbers, got [64]", [320, 448]),
        ("augment.scale", "2", "expected a list of numbers, got 2", [2, 2]),
        ("optimizer.lr", "abc", "expected a number, got 'abc'", 0.01),
        ("train.loggers", "wandb", "expected a list of strings, got 'wandb'", ["wandb"]),
        ("augment.crop", "abc", "expected a list of integers, got 'abc'", [320, 448]),
    ],
)
def test_the_fix_of_a_wrong_form_can_be_typed(option: str, value: str, what: str, crop: Any) -> None:
    """The command line in the message is split as a shell does and parsed again."""
    with pytest.raises(ConfigError) as caught:
        Config().updated(parse_overrides([f"--{option}", value]))
    assert caught.value.what == what
    command, *tokens = shlex.split(caught.value.fix)
    assert command == "write"
    fixed = Config().updated(parse_overrides(tokens))
    section, name = option.split(".")
    assert getattr(getattr(fixed, section), name) == crop


def values_of(section: str, name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of values within the bounds."""
    special = {
        "augment.crop": st.lists(st.integers(1, 900), min_size=2, max_size=2),
        "augment.scale": st.lists(st.floats(0.01, 100), min_size=2, max_size=2).map(sorted),
        "augment.aspect": st.floats(1, 10),
        "augment.context_px": st.integers(0, 1000),
        "augment.tiled_crops": st.just(False),
        "loss.border_weight": st.just(0.0),
        "loss.bootstrap_top_k": st.just(0),
        "loss.name": st.sampled_from(["cross_entropy", "focal", "ohem"]),
        "loss.border_sigma": st.floats(0.1, 9),
        "loss.patch_keep_prob": st.floats(0.01, 1),
        "loss.class_weights": st.sampled_from(["none", "log", "inverse"])
        | st.lists(st.floats(0, 9), min_size=1, max_size=4),
        "model.options": st.dictionaries(
            st.text(max_size=8), st.one_of(st.integers(), st.text(), st.lists(st.integers()))
        ),
        "train.loggers": st.lists(st.text(max_size=5), max_size=2),
        "optimizer.step_factor": st.floats(0.01, 1),
        "data.workers": st.integers(0, 256),
        "model.freeze_stride": st.integers(0, 32),
        "data.cache_mib": st.integers(0, 2**30 - 1),
    }
    if f"{section}.{name}" in special:
        return special[f"{section}.{name}"]
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if type(None) in get_args(hint):
        return st.one_of(st.none(), st.text(max_size=20))
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(1, 2**31 - 1),
        float: st.floats(0.01, 0.99),
        bool: st.booleans(),
        str: st.text(max_size=20),
    }
    return kinds[hint]


TREES = st.fixed_dictionaries(
    {},
    optional={
        s: st.fixed_dictionaries({}, optional={n: values_of(s, n, h) for t, n, h in OPTIONS if t == s})
        for s in SECTIONS
    },
)


@given(TREES)
def test_printed_and_read_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    config = Config().updated(tree)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert Config.from_yaml(path) == config


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from([*SECTIONS, *(name for _, name, _ in OPTIONS)]) | st.text(max_size=4)
ANYTHING = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(st.dictionaries(KEYS, ANYTHING))
def test_any_tree_is_read_or_refused(tree: dict[str, Any]) -> None:
    with suppress(ConfigError):
        Config().updated(tree, "file").check()


def test_saved_settings_explain_themselves() -> None:
    text = Config().to_yaml()
    assert (
        "optimizer:\n  # `sgd` with momentum, or `adamw`.\n  name: sgd\n  # Peak learning rate.\n  lr: 0.01\n" in text
    )


@pytest.mark.parametrize(
    ("tokens", "changes"),
    [
        (["--train.steps", "100"], {"train": {"steps": 100}}),
        (["--train.steps=100", "--train.ema", "0.9"], {"train": {"steps": 100, "ema": 0.9}}),
        (["--augment.crop", "[1, 2]"], {"augment": {"crop": [1, 2]}}),
        (["--model.options", "{a: 1}", "--model.options.b", "x"], {"model": {"options": {"a": 1, "b": "x"}}}),
        (["--train.save-every", "5"], {"train": {"save_every": 5}}),
        (["--optimizer.lr", "1e-3"], {"optimizer": {"lr": 0.001}}),
        (["--loss.class_weights", "[1, 2.5]"], {"loss": {"class_weights": [1, 2.5]}}),
        (["--loss.class_weights", "log"], {"loss": {"class_weights": "log"}}),
        # Text is taken as typed, whatever YAML would make of it.
        (["--data.path", "a b=c"], {"data": {"path": "a b=c"}}),
        (["--data.path", "2021_07"], {"data": {"path": "2021_07"}}),
        (["--data.path", "1e3"], {"data": {"path": "1e3"}}),
        (["--data.path", "[a: b"], {"data": {"path": "[a: b"}}),
        (["--data.path="], {"data": {"path": ""}}),
        (["--data.train_split", "0"], {"data": {"train_split": "0"}}),
        (["--model.init_from", "null"], {"model": {"init_from": "null"}}),
        (["--model.init_from="], {"model": {"init_from": None}}),
        (["--model.name", "no"], {"model": {"name": "no"}}),
    ],
)
def test_overrides(tokens: list[str], changes: dict[str, Any]) -> None:
    assert parse_overrides(tokens) == changes


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--lr", "optimizer.lr"),
        ("--learning-rate", "optimizer.lr"),
        ("--train.lr", "optimizer.lr"),
        ("--optim.lr", "optimizer.lr"),
        ("--optimizer-lr", "optimizer.lr"),
        ("--OPTIMIZER.LR", "optimizer.lr"),
        ("--batch", "data.batch_size"),
        ("--batch-size", "data.batch_size"),
        ("--train.batch_size", "data.batch_size"),
        ("--bs", "data.batch_size"),
        ("--workers", "data.workers"),
        ("--num_workers", "data.workers"),
        ("--crop", "augment.crop"),
        ("--size", "augment.crop"),
        ("--imgsz", "augment.crop"),
        ("--steps", "train.steps"),
        ("--max-iters", "train.steps"),
        ("--optimizer", "optimizer.name"),
        ("--weight-decay", "optimizer.weight_decay"),
        ("--wd", "optimizer.weight_decay"),
        ("--gpu", "train.device"),
        ("--device", "train.device"),
        ("--gpus", "train.devices"),
        ("--seed", "train.seed"),
        ("--weights", "model.init_from"),
        ("--pretrained", "model.init_from"),
        ("--hflip", "augment.flip"),
        ("--amp", "train.precision"),
        ("--class-weights", "loss.class_weights"),
        ("--save_interval", "train.save_every"),
        ("--tran.steps", "train.steps"),
        ("--train.stps", "train.steps"),
        ("--schedular", "optimizer.schedule"),
    ],
)
def test_terms_of_other_toolkits_lead_to_the_setting(typed: str, meant: str) -> None:
    assert meant in setting_names()
    first = suggest_setting(typed, setting_names()).removeprefix("did you mean ").rstrip("?").split(" or ")[0]
    assert first == f"--{meant}"


def test_a_section_alone_is_answered_with_its_settings() -> None:
    names = ", ".join(f"--loss.{name}" for name in vars(Config().loss))
    assert suggest_setting("--loss", setting_names()) == f"choose one of {names}"
    assert suggest_setting("--augment", setting_names()).startswith("choose one of --augment.crop, --augment.scale, ")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("--epochs", "counted in steps, --train.steps"),
        ("--num-classes", "`classes` stands in the dataset's classes.yaml"),
        ("--ignore_index", "`ignore` stands in the dataset's classes.yaml"),
        ("--qqqq", "see `pixelwise train --help`"),
    ],
)
def test_what_is_no_setting_is_explained(typed: str, words: str) -> None:
    assert words in suggest_setting(typed, setting_names())


def test_the_table_of_terms_names_settings_and_each_term_once() -> None:
    own = {option.lstrip("-") for option in OWN_OPTIONS}
    assert set(TERMS) <= {*setting_names(), *own}
    terms = [term for words in TERMS.values() for term in words.split()]
    assert len(set(terms)) == len(terms)
    assert not {name.split(".")[1] for name in setting_names()} & (set(terms) - {"name"})


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["steps"], "steps: is not an option of this command"),
        (["--steps", "5"], "--steps: is not an option of this command; fix: did you mean --train.steps?"),
        (["-lr", "5"], "-lr: is not an option of this command; fix: did you mean --optimizer.lr?"),
        (["optimizer.lr=5"], "optimizer.lr=5: is not an option of this command; fix: write `--optimizer.lr 5`"),
        (["--train.steps"], "--train.steps: expected a value; fix: write `--train.steps VALUE`"),
        (["--augment.crop", "[1"], "--augment.crop: invalid YAML: expected ',' or ']'"),
        (["--a.b", "1", "--a.b.c", "2"], "--a.b.c: `b` already has a value"),
        (["-x.y", "1"], "-x.y: is not an option of this command"),
        ([""], ": is not an option of this command"),
    ],
)
def test_malformed_overrides(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(tokens)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", sorted(recipe_files()))
def test_recipes_load_and_name_their_command(name: str) -> None:
    path = recipe_files()[name]
    config = Config.from_yaml(path)
    assert config.model.name in MODELS
    unknown = set(config.model.options) - set(MODELS[config.model.name].options)
    assert not unknown
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"pixelwise train {name} --data.path " in line for line in header)
    assert recipe_summary(path)


# Source: the authors' solver.prototxt of each net (lr, decay 5e-4, momentum 0.99, 100,000 iterations, at once 300,000).
HEAVY = {
    "fcn32s": (1e-10, 100_000),
    "fcn16s": (1e-12, 100_000),
    "fcn8s": (1e-14, 100_000),
    "fcn8s_atonce": (1e-10, 300_000),
}


@pytest.mark.parametrize(("net", "rate", "steps"), [(net, *numbers) for net, numbers in HEAVY.items()])
def test_heavy_recipes_are_the_published_ones(net: str, rate: float, steps: int) -> None:
    config = Config.from_yaml(recipe_files()[f"{net}_vgg16_heavy"])
    optimizer, augment = config.optimizer, config.augment
    assert config.model.name == f"{net}_vgg16"
    assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", rate, 0.99, 5e-4)
    assert (optimizer.schedule, optimizer.bias_lr_factor, optimizer.grad_accum_steps) == ("constant", 2.0, 1)
    assert (config.data.batch_size, config.data.sampling, config.loss.reduction) == (1, "replacement", "sum")
    assert (augment.crop, augment.scale, augment.flip, augment.rotate, augment.class_balanced_prob) == (
        [0, 0],
        [1.0, 1.0],
        0.0,
        0.0,
        0.0,
    )
    assert (config.train.steps, config.train.validate_every, config.train.seed) == (steps, 4000, 1337)


def test_the_accumulated_recipe_is_the_conference_papers() -> None:
    config = Config.from_yaml(recipe_files()["fcn32s_vgg16_accumulated"])
    optimizer = config.optimizer
    assert optimizer.grad_accum_steps * config.data.batch_size == 20
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay, optimizer.bias_lr_factor) == (
        1e-4,
        0.9,
        5e-4,
        2.0,
    )
    assert (optimizer.schedule, config.loss.reduction) == ("constant", "mean")
