"""One run, as one typed tree: YAML in and out, `--section.option value` on top, unknown keys refused.

Each field carries its own sentence. A recipe file is this tree with the fields that it changes.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from .errors import ConfigError
from .registry import suggest


@dataclass
class DataConfig:
    """Where the images come from."""

    path: str = ""
    """Folder of the dataset."""
    format: str | None = None
    """DatasetFormat of the folder; None recognises it by looking."""
    train_split: str = "train"
    """Split that is learned from."""
    val_split: str = "val"
    """Split that chooses the best checkpoint; never the test split."""
    batch_size: int = 8
    """Images a step and rank."""
    sampling: Literal["shuffle", "replacement"] = "shuffle"
    """`shuffle` shows each image once an epoch; `replacement` draws any image each time, as FCN's data layer."""
    workers: int = 1
    """Processes that read and transform images; 0 does it in the training process."""
    cache_mib: int = 2048
    """MiB of decoded images that the workers of a rank keep in memory, all together."""


@dataclass
class AugmentConfig:
    """Changes made to an image and its mask alike while training. Image border = mean, mask border = ignore."""

    crop: list[int] = field(default_factory=lambda: [320, 448])
    """Height and width of what the network sees; [0, 0] keeps the image whole (batch size 1)."""
    scale: list[float] = field(default_factory=lambda: [0.6, 1.9])
    """Range of the random zoom, drawn evenly in its logarithm."""
    aspect: float = 1.0
    """Largest random stretch of width against height; 1 keeps the shape."""
    instance_crops: Literal["none", "ground_truth", "proposals"] = "none"
    """DeconvNet's two stages: one object at a time (`ground_truth`), then boxes that overlap an object (`proposals`)."""
    rotate: float = 0.0
    """Largest rotation to either side, in degrees."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    brightness: float = 0.0
    """Largest relative change of brightness."""
    contrast: float = 0.0
    """Largest relative change of contrast."""
    saturation: float = 0.0
    """Largest relative change of saturation."""
    hue: float = 0.0
    """Largest shift of hue, in degrees."""
    gamma: float = 0.0
    """Largest change of the tone curve's exponent, in powers of two."""
    classmix_prob: float = 0.0
    """Probability that half of the classes of a second image are pasted over the crop (ClassMix)."""
    elastic: float = 0.0
    """Deviation, in pixels, of the random displacements of 3 x 3 points that the crop is bent by (U-Net: 10)."""
    context_px: int = 0
    """Pixels of true surroundings on each side of the crop, for a network that loses so many (`unet`: 92); mirrored at borders."""
    tiled_crops: bool = False
    """Cut images into crops side by side and show each once an epoch, in place of crops drawn anywhere."""
    class_balanced_prob: float = 0.0
    """Share of crops that are centred on a pixel of a class drawn evenly among those of the image."""


@dataclass
class ModelConfig:
    """What is trained."""

    name: str = "fcn8s_vgg16"
    """A name that `pixelwise models` lists."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the network's builder."""
    init_from: str | None = None
    """Checkpoint to start from; tensors that do not fit are listed."""
    train_only: Literal["all", "classifier"] = "all"
    """`classifier` freezes everything but the score layers."""


@dataclass
class LossConfig:
    """What is minimised."""

    reduction: Literal["mean", "sum"] = "mean"
    """`mean` over the pixels that count, on all ranks; `sum` over an image's pixels, mean over the batch (FCN, Caffe)."""
    resolution: Literal["image", "logits"] = "image"
    """`logits` computes the loss before the last upsampling, against the label under each logit's centre, as DeepLab v1: cheaper."""
    class_weights: Literal["none", "log", "inverse"] | list[float] = "none"
    """`log`: 1 / log(1.1 + share) of the training pixels; `inverse`: median frequency balancing; or K numbers."""
    border_weight: float = 0.0
    """U-Net's w0 (paper: 10): how much more a pixel of class 0 weighs that lies between two regions of the other classes."""
    border_sigma: float = 5.0
    """U-Net's sigma: over how many pixels between the two the weight falls."""
    patch_keep_prob: float = 1.0
    """FCN's patchwise training: each cell of the scores stays in the loss with this probability."""
    bootstrap_top_k: int = 0
    """FRRN's bootstrapping: the mean is over so many pixels of each image, those of the highest loss; 0 takes all."""
    aux_weight: float = 0.4
    """Weight of each auxiliary output."""
    lovasz: float = 0.0
    """Weight of the Lovász-softmax term, a surrogate of the mean IoU."""
    lovasz_pixels: int = 65536
    """Pixels of a batch that the term is taken over, drawn anew each step; 0 takes all, and sorts them all."""


@dataclass
class OptimizerConfig:
    """How the weights move."""

    name: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with momentum, or `adamw`."""
    lr: float = 0.01
    """Learning rate at its highest."""
    momentum: float = 0.9
    """Momentum of `sgd`; first beta of `adamw`."""
    weight_decay: float = 0.0005
    """Decay of weights with two or more axes; never of biases, norms and bilinear kernels."""
    bias_lr_factor: float = 1.0
    """Learning rate of biases, relative (Caffe doubles it)."""
    head_lr_factor: float = 1.0
    """Learning rate of the layers that a trained backbone does not bring, relative (DeepLab, PSPNet: 10)."""
    schedule: Literal["constant", "poly", "cosine", "step"] = "poly"
    """How the learning rate falls over the steps."""
    step_every: int = 2000
    """Steps of `step` between two falls."""
    step_factor: float = 0.1
    """What the learning rate is multiplied with at each."""
    power: float = 0.9
    """Exponent of `poly`."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 leaves it alone, as the papers' recipes do. A backbone without norms needs it from scratch."""
    grad_accum_steps: int = 1
    """Batches whose gradients are averaged into one step."""


@dataclass
class TrainConfig:
    """The run."""

    steps: int = 10000
    """Optimiser steps."""
    validate_every: int = 500
    """Steps between validations (and after the last step)."""
    save_every: int = 250
    """Steps between checkpoints `last`."""
    log_every: int = 20
    """Steps between lines of metrics.csv."""
    seed: int = 0
    """Everything random is a function of this number and the step."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` takes bfloat16 where the hardware computes it."""
    ema: float = 0.0
    """Decay of the moving average of weights that is validated and saved; 0 turns it off."""
    compile: bool = False
    """Compile the network with torch.compile: faster steps after a minute's start; on a CPU it needs a C++ compiler."""
    freeze_norm: bool = False
    """Keep batch-norm statistics as they are."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes GPUs where there are any."""
    devices: int = 1
    """Devices of this node."""
    nodes: int = 1
    """Nodes; start one process group each with torchrun."""
    loggers: list[str] = field(default_factory=list)
    """Further loggers by name: tensorboard, wandb (wandb stays offline unless WANDB_MODE=online)."""
    on_read_error: Literal["stop", "skip"] = "stop"
    """What an image that cannot be read does: stop with its name, or be replaced by the next and counted."""


_MOST_WORKERS = 256
_LARGEST = 1e30
_EVERY_PIXEL = "0 with --loss.resolution logits or --loss.bootstrap_top_k"
_WINDOWS = "false with --augment.crop [0, 0] or --augment.instance_crops"
_CROPS = "[height, width] of 1 to 32768, or [0, 0]"


def _in_range(numbers: Sequence[float], low: float, high: float) -> bool:
    return bool(numbers) and all(low <= number <= high for number in numbers)


@dataclass
class Config:
    """One run."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ConfigError for the first number that cannot be meant, naming its option."""
        for option, ok, allowed in self._rules():
            if not ok:
                section, name = option.split(".")
                raise ConfigError(f"--{option}", f"got {getattr(getattr(self, section), name)!r}", f"give {allowed}")

    def _rules(self) -> list[tuple[str, bool, str]]:
        data, augment, loss, optimizer, train = self.data, self.augment, self.loss, self.optimizer, self.train
        whole, weights = augment.crop == [0, 0], loss.class_weights
        return [
            ("data.batch_size", data.batch_size >= 1, "1 or more"),
            (
                "data.batch_size",
                not whole or data.batch_size == 1,
                "1, as --augment.crop [0, 0] keeps images of many sizes",
            ),
            ("data.workers", 0 <= data.workers <= _MOST_WORKERS, f"0 to {_MOST_WORKERS}"),
            ("data.cache_mib", 0 <= data.cache_mib < 2**30, "0 or more"),
            ("augment.crop", len(augment.crop) == 2 and (whole or _in_range(augment.crop, 1, 2**15)), _CROPS),
            (
                "augment.scale",
                len(augment.scale) == 2 and _in_range(augment.scale, 0.01, 100),
                "[low, high] of 0.01 to 100",
            ),
            ("augment.scale", augment.scale == sorted(augment.scale), "[low, high] with low <= high"),
            ("augment.aspect", 1 <= augment.aspect <= 10, "1 to 10"),
            ("augment.flip", 0 <= augment.flip <= 1, "0 to 1"),
            ("augment.classmix_prob", 0 <= augment.classmix_prob <= 1, "0 to 1"),
            (
                "augment.classmix_prob",
                not (augment.classmix_prob and whole),
                "0, as --augment.crop [0, 0] keeps images of many sizes",
            ),
            ("augment.class_balanced_prob", 0 <= augment.class_balanced_prob <= 1, "0 to 1"),
            ("augment.elastic", 0 <= augment.elastic <= 1000, "0 to 1000"),
            ("augment.context_px", 0 <= augment.context_px <= 1000, "0 to 1000"),
            (
                "augment.tiled_crops",
                not augment.tiled_crops or not (whole or augment.instance_crops != "none"),
                _WINDOWS,
            ),
            ("augment.rotate", 0 <= augment.rotate <= 180, "0 to 180"),
            *(
                (f"augment.{n}", 0 <= getattr(augment, n) <= 1, "0 to 1")
                for n in ("brightness", "contrast", "saturation", "gamma")
            ),
            ("augment.hue", 0 <= augment.hue <= 180, "0 to 180"),
            ("loss.border_weight", 0 <= loss.border_weight < math.inf, "0 or more"),
            (
                "loss.border_weight",
                not loss.border_weight or (loss.resolution == "image" and not loss.bootstrap_top_k),
                _EVERY_PIXEL,
            ),
            ("loss.border_sigma", 0 < loss.border_sigma <= 1000, "above 0, up to 1000"),
            ("loss.patch_keep_prob", 0 < loss.patch_keep_prob <= 1, "above 0, up to 1"),
            ("loss.aux_weight", 0 <= loss.aux_weight < math.inf, "0 or more"),
            ("loss.class_weights", isinstance(weights, str) or _in_range(weights, 0, _LARGEST), "numbers of 0 or more"),
            ("loss.lovasz", 0 <= loss.lovasz < math.inf, "0 or more"),
            ("loss.bootstrap_top_k", loss.bootstrap_top_k >= 0, "0 or more"),
            (
                "loss.bootstrap_top_k",
                not loss.bootstrap_top_k or loss.reduction == "mean",
                "0 with --loss.reduction sum",
            ),
            ("loss.lovasz_pixels", loss.lovasz_pixels >= 0, "0 or more"),
            ("optimizer.lr", 0 <= optimizer.lr < math.inf, "0 or more"),
            ("optimizer.momentum", 0 <= optimizer.momentum < 1, "0 up to below 1"),
            ("optimizer.weight_decay", 0 <= optimizer.weight_decay < math.inf, "0 or more"),
            ("optimizer.bias_lr_factor", 0 <= optimizer.bias_lr_factor < math.inf, "0 or more"),
            ("optimizer.head_lr_factor", 0 <= optimizer.head_lr_factor < math.inf, "0 or more"),
            ("optimizer.power", 0 <= optimizer.power < math.inf, "0 or more"),
            ("optimizer.step_every", optimizer.step_every >= 1, "1 or more"),
            ("optimizer.step_factor", 0 < optimizer.step_factor <= 1, "above 0, up to 1"),
            ("optimizer.warmup_steps", optimizer.warmup_steps >= 0, "0 or more"),
            ("optimizer.clip_norm", 0 <= optimizer.clip_norm < math.inf, "0 or more"),
            ("optimizer.grad_accum_steps", optimizer.grad_accum_steps >= 1, "1 or more"),
            *(
                (f"train.{n}", getattr(train, n) >= 1, "1 or more")
                for n in ("steps", "validate_every", "save_every", "log_every")
            ),
            ("train.ema", 0 <= train.ema < 1, "0 up to below 1"),
            *((f"train.{n}", getattr(train, n) >= 1, "1 or more") for n in ("devices", "nodes")),
            ("train.seed", 0 <= train.seed < 2**31, "0 to 2147483647"),
        ]

    def to_yaml(self) -> str:
        """The whole tree as YAML; `from_yaml` reads it back."""
        tree = dataclasses.asdict(self)
        readable, exact = (
            yaml.safe_dump(tree, sort_keys=False, allow_unicode=a, default_flow_style=None) for a in (True, False)
        )
        # Letters stay letters; control characters that YAML would read as spaces are escaped.
        with suppress(yaml.YAMLError):
            if yaml.safe_load(readable) == tree:
                return readable
        return exact

    def updated(self, changes: Mapping[str, Any], source: object = "config") -> Config:
        """A copy with the nested `changes` applied. Raises ConfigError naming `source`, the key and the nearest known one."""
        merged: Config = _merge(self, changes, source, "")
        return merged

    @classmethod
    def from_yaml(cls, path: str | Path) -> Config:
        """Read a recipe or a saved config. Raises ConfigError naming the file, the line or the key."""
        return cls().updated(read_yaml(path), path)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError naming the file and the line."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError(place, f"is not YAML: {getattr(error, 'problem', None) or error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(path, f"holds a {type(content).__name__}", "write `key: value` lines")
    return content


def parse_overrides(tokens: Sequence[str]) -> dict[str, Any]:
    """`["--train.steps", "100"]` or `["--train.steps=100"]` -> `{"train": {"steps": 100}}`. Raises ConfigError."""
    changes: dict[str, Any] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        name, equals, text = token.partition("=")
        if not name.startswith("--") or name.count(".") < 1:
            fix = "write `--section.option value`; `--print-config` lists them"
            raise ConfigError(token, "is not an option of this command", fix)
        if not equals:
            if not rest:
                raise ConfigError(name, "has no value", f"write `{name} VALUE`")
            text = rest.pop(0)
        keys = name[2:].replace("-", "_").split(".")
        level = changes
        for key in keys[:-1]:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise ConfigError(name, f"`{key}` has a value already", "write each option once")
        level[keys[-1]] = _parse_value(name, text)
    return changes


def _parse_value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(name, f"got {text!r}", "write a number, a word, or a list like [1, 2]") from None


def _merge(tree: Any, changes: Any, source: object, prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(tree)}
    if not isinstance(changes, Mapping):
        raise ConfigError(source, f"`{prefix.rstrip('.')}` is {changes!r}", "write its options below it")
    hints = get_type_hints(type(tree))
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in fields:
            raise ConfigError(source, f"unknown key `{prefix}{key}`", suggest(str(key), fields))
        current = getattr(tree, key)
        if dataclasses.is_dataclass(current):
            values[key] = _merge(current, value, source, f"{prefix}{key}.")
        else:
            values[key] = _coerce(value, hints[key], source, prefix + key)
    return dataclasses.replace(tree, **values)


def _coerce(value: Any, hint: Any, source: object, key: str) -> Any:
    """`value` as the field's type, or ConfigError; YAML's `1e-3` (a string) and whole numbers become floats."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for option in get_args(hint):
            if _fits(value, option):
                return value
        return _coerce(value, get_args(hint)[0], source, key)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isnan(number):
            return number
        raise ConfigError(source, f"`{key}` is {value!r}", "write a number")
    if origin is list and isinstance(value, list):
        return [_coerce(item, get_args(hint)[0], source, key) for item in value]
    if _fits(value, hint):
        return value
    raise ConfigError(source, f"`{key}` is {value!r}", _expectation(value, hint))


def _expectation(value: Any, hint: Any) -> str:
    if get_origin(hint) is Literal:
        return suggest(str(value), [str(option) for option in get_args(hint)])
    return f"write a {getattr(hint, '__name__', hint)}"


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if hint is type(None):
        return value is None
    if origin is Literal:
        return value in get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
