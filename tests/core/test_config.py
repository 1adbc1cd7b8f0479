"""Settings: nothing unknown, nothing of the wrong kind, nothing out of range; and what is printed can be fed back."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.config import Config, parse_overrides, read_yaml
from pixelwise.errors import ConfigError
from pixelwise.models import MODELS
from pixelwise.recipes import recipe_files, recipe_summary

SECTIONS = {f.name: type(getattr(Config(), f.name)) for f in dataclasses.fields(Config)}
OPTIONS = [
    (section, f.name, get_type_hints(kind)[f.name])
    for section, kind in SECTIONS.items()
    for f in dataclasses.fields(kind)
]
NUMBERS = [(section, name) for section, name, hint in OPTIONS if hint in (int, float)]

# One value that breaks each rule, with a word of what is allowed.
BROKEN = [
    ("data.batch_size", 0, "1 or more"),
    ("data.workers", -1, "0 to 256"),
    ("data.workers", 100_000, "0 to 256"),
    ("augment.crop", [5], "height, width"),
    ("augment.crop", [0, 5], "height, width"),
    ("augment.crop", [-1, 5], "height, width"),
    ("augment.crop", [10**9, 5], "height, width"),
    ("augment.scale", [1.0], "low, high"),
    ("augment.scale", [0.0, 1.0], "low, high"),
    ("augment.scale", [2.0, 1.0], "low <= high"),
    ("augment.aspect", 0.5, "1 to 10"),
    ("augment.flip", 1.5, "0 to 1"),
    ("augment.classmix_prob", 2, "0 to 1"),
    ("augment.class_balanced_prob", -0.5, "0 to 1"),
    ("augment.elastic", -1.0, "0 to 1000"),
    ("augment.context_px", -1, "0 to 1000"),
    ("augment.rotate", 181.0, "0 to 180"),
    ("augment.brightness", 1.1, "0 to 1"),
    ("augment.contrast", -0.1, "0 to 1"),
    ("augment.saturation", 2.0, "0 to 1"),
    ("augment.gamma", 2.0, "0 to 1"),
    ("augment.hue", 200.0, "0 to 180"),
    ("loss.border_weight", -1.0, "0 or more"),
    ("loss.border_sigma", 0.0, "above 0"),
    ("loss.patch_keep_prob", 0.0, "above 0"),
    ("loss.aux_weight", -1.0, "0 or more"),
    ("loss.class_weights", [1.0, -1.0], "0 or more"),
    ("loss.class_weights", [], "0 or more"),
    ("loss.bootstrap_top_k", -1, "0 or more"),
    ("optimizer.step_every", 0, "1 or more"),
    ("optimizer.step_factor", 0.0, "above 0"),
    ("data.cache_mib", -1, "0 or more"),
    ("loss.lovasz", math.inf, "0 or more"),
    ("loss.lovasz_pixels", -1, "0 or more"),
    ("optimizer.lr", -1.0, "0 or more"),
    ("optimizer.momentum", 1.0, "below 1"),
    ("optimizer.weight_decay", -1.0, "0 or more"),
    ("optimizer.bias_lr_factor", -1.0, "0 or more"),
    ("optimizer.head_lr_factor", -1.0, "0 or more"),
    ("optimizer.power", -1.0, "0 or more"),
    ("optimizer.warmup_steps", -1, "0 or more"),
    ("optimizer.clip_norm", math.inf, "0 or more"),
    ("optimizer.grad_accum_steps", 0, "1 or more"),
    ("train.steps", 0, "1 or more"),
    ("train.validate_every", 0, "1 or more"),
    ("train.save_every", 0, "1 or more"),
    ("train.log_every", 0, "1 or more"),
    ("train.seed", -1, "0 to 2147483647"),
    ("train.seed", 2**31, "0 to 2147483647"),
    ("train.ema", 1.0, "below 1"),
    ("train.devices", 0, "1 or more"),
    ("train.nodes", 0, "1 or more"),
]


def changed(option: str, value: Any) -> Config:
    section, name = option.split(".")
    return Config().updated({section: {name: value}}, "test")


@pytest.mark.parametrize(("option", "value", "allowed"), BROKEN)
def test_every_rule(option: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(option, value)
    assert str(caught.value).startswith(f"--{option}: got ")
    assert allowed in str(caught.value)


def test_whole_images_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match=r"^--augment\.classmix_prob: got 0\.5; fix: give 0, as"):
        Config().updated({"augment": {"crop": [0, 0], "classmix_prob": 0.5}, "data": {"batch_size": 1}}).check()


def test_whole_images_come_one_at_a_time() -> None:
    with pytest.raises(
        ConfigError, match=r"^--data\.batch_size: got 8; fix: give 1, as --augment\.crop \[0, 0\] keeps"
    ):
        changed("augment.crop", [0, 0])
    assert Config().updated({"augment": {"crop": [0, 0]}, "data": {"batch_size": 1}}).augment.crop == [0, 0]


@pytest.mark.parametrize("other", [{"crop": [0, 0]}, {"instance_crops": "ground_truth"}])
def test_whole_images_and_objects_have_no_windows(other: dict[str, Any]) -> None:
    whole = {"augment": {**other, "tiled_crops": True}, "data": {"batch_size": 1}}
    with pytest.raises(
        ConfigError, match=r"^--augment\.tiled_crops: got True; fix: give false with --augment\.crop \[0, 0\]"
    ):
        Config().updated(whole)


@pytest.mark.parametrize("other", [{"resolution": "logits"}, {"bootstrap_top_k": 5}])
def test_border_weights_need_the_loss_of_every_pixel(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^--loss\.border_weight: got 10\.0; fix: give 0 with --loss"):
        Config().updated({"loss": {"border_weight": 10, **other}})


def test_every_rule_is_broken_above() -> None:
    ruled = {option for option, _, _ in Config()._rules()}
    # Windows are a switch, refused beside another setting: test_whole_images_and_objects_have_no_windows.
    assert ruled - {"augment.tiled_crops"} == {option for option, _, _ in BROKEN}
    numeric = {f"{section}.{name}" for section, name in NUMBERS}
    assert numeric <= ruled, "a number without a rule"


@pytest.mark.parametrize(("section", "name"), NUMBERS)
@pytest.mark.parametrize("value", ["x", "", None, [], {}, True, math.nan, "nan", "∞", 10**400])
def test_what_is_no_number_is_refused(section: str, name: str, value: Any) -> None:
    if value == 10**400 and isinstance(getattr(getattr(Config(), section), name), int):
        value = 1.5
    with pytest.raises(ConfigError, match=name):
        changed(f"{section}.{name}", value)


@pytest.mark.parametrize(("section", "name", "hint"), OPTIONS)
def test_words_are_refused_with_the_known_ones(section: str, name: str, hint: Any) -> None:
    if get_origin(hint) is not Literal:
        return
    with pytest.raises(ConfigError) as caught:
        changed(f"{section}.{name}", "zzz")
    assert all(str(word) in str(caught.value) for word in get_args(hint))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimiser": {"lr": 1}}, ["unknown key `optimiser`", "did you mean optimizer?"]),
        ({"optimizer": {"learning_rate": 1}}, ["unknown key `optimizer.learning_rate`", "lr"]),
        ({"train": {"step": 1}}, ["unknown key `train.step`", "did you mean steps"]),
        ({"train": 5}, ["`train` is 5", "write its options below it"]),
        ({"train": {1: 5}}, ["unknown key `train.1`"]),
        ({"model": {"options": [1]}}, ["`model.options` is [1]"]),
        ({"train": {"loggers": "wandb"}}, ["`train.loggers` is 'wandb'"]),
        ({"loss": {"class_weights": "lof"}}, ["log"]),
        ({"optimizer": {"name": "sdg"}}, ["did you mean sgd?"]),
        ({"train": {"compile": "maybe"}}, ["`train.compile` is 'maybe'"]),
    ],
)
def test_unknown_and_misplaced(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().updated(changes, "run.yaml")
    assert str(caught.value).startswith("run.yaml: ")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def values_of(section: str, name: str, hint: Any) -> st.SearchStrategy[Any]:
    """Values that the rules allow."""
    special = {
        "augment.crop": st.lists(st.integers(1, 900), min_size=2, max_size=2),
        "augment.scale": st.lists(st.floats(0.01, 100), min_size=2, max_size=2).map(sorted),
        "augment.aspect": st.floats(1, 10),
        "augment.context_px": st.integers(0, 1000),
        "augment.tiled_crops": st.just(False),
        "loss.border_weight": st.just(0.0),
        "loss.bootstrap_top_k": st.just(0),
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
    }
    if f"{section}.{name}" in special:
        return special[f"{section}.{name}"]
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if type(None) in get_args(hint):
        return st.one_of(st.none(), st.text(max_size=20))
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(1, 2**31 - 1),
        float: st.floats(0, 0.99),
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


@given(ANYTHING)
def test_any_tree_is_read_or_refused(tree: Any) -> None:
    with suppress(ConfigError):
        Config().updated(tree, "file").check()


@pytest.mark.parametrize(
    ("text", "line"),
    [("train:\n  steps: [1\n", 3), ("train: {steps: 1\nx: 2\n", 2), ("a: b: c\n", 1), ("train:\n\tsteps: 1\n", 2)],
)
def test_what_is_not_yaml_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:{line}: is not YAML")


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match="holds a list"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_yaml(tmp_path / "bytes.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert Config.from_yaml(tmp_path / "empty.yaml") == Config()


@pytest.mark.parametrize(
    ("tokens", "changes"),
    [
        (["--train.steps", "100"], {"train": {"steps": 100}}),
        (["--train.steps=100", "--train.ema", "0.9"], {"train": {"steps": 100, "ema": 0.9}}),
        (["--augment.crop", "[1, 2]"], {"augment": {"crop": [1, 2]}}),
        (["--model.options", "{a: 1}", "--model.options.b", "x"], {"model": {"options": {"a": 1, "b": "x"}}}),
        (["--train.save-every", "5"], {"train": {"save_every": 5}}),
        (["--optimizer.lr", "1e-3"], {"optimizer": {"lr": "1e-3"}}),
        (["--data.path", "a b=c"], {"data": {"path": "a b=c"}}),
        (["--data.path="], {"data": {"path": None}}),
    ],
)
def test_overrides(tokens: list[str], changes: dict[str, Any]) -> None:
    assert parse_overrides(tokens) == changes


def test_an_exponent_is_a_number() -> None:
    assert Config().updated(parse_overrides(["--optimizer.lr", "1e-3"])).optimizer.lr == 0.001


@pytest.mark.parametrize(
    "tokens",
    [
        ["steps"],
        ["--steps", "5"],
        ["--train.steps"],
        ["--augment.crop", "[1"],
        ["--a.b", "1", "--a.b.c", "2"],
        ["-x.y", "1"],
        [""],
    ],
)
def test_overrides_that_are_none(tokens: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_overrides(tokens)


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
