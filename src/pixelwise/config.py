"""The settings of a run: one tree of dataclasses, read from YAML and from `--section.option value`.

Each field holds its default, its sentence and its limits in one place: `setting(default, "sentence", ge=0, le=1)`.
Limits that involve two fields stand in `Config.check`. A recipe is a YAML file with the fields that it changes.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import ConfigError, cut, shown
from .setting_value import BOUNDS, checked, suggest_setting, types_of

T = TypeVar("T")


def setting(
    default: T,
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    length: int | None = None,
) -> T:
    """Declare a field: default, sentence for `--help` and config files, bounds of its numbers, length of its list."""
    given = zip(BOUNDS, (ge, gt, le, lt), strict=True)
    metadata = {"doc": doc, "bounds": {sign: bound for sign, bound in given if bound is not None}, "length": length}
    declared: Any = field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return declared  # type: ignore[no-any-return]


@dataclass
class DataConfig:
    """Where the images come from."""

    path: str = setting("", "Folder of the dataset.")
    format: str | None = setting(None, "Format of the dataset, as `pixelwise datasets` lists it; null detects it.")
    train_split: str = setting("train", "Split to train on.")
    val_split: str = setting("val", "Split on which the best checkpoint is chosen; never the test split.")
    hold_out: str | None = setting(
        None,
        "Groups of the training split (drives, patients), separated by commas, to validate on instead of val_split.",
    )
    groups: str | None = setting(
        None, "CSV file with the columns name and group; null takes the groups from the file names."
    )
    split_by: Literal["group", "image"] = setting(
        "group", "A missing validation split is made of whole groups, where groups show, or of single images."
    )
    batch_size: int = setting(
        8, "Images per batch and device; a step takes `grad_accum_steps` batches.", ge=1, lt=2**31
    )
    sampling: Literal["shuffle", "replacement"] = setting(
        "shuffle",
        "`shuffle` shows each image once per epoch; "
        "`replacement` draws each image independently, like the FCN authors' data layer.",
    )
    workers: int = setting(
        1, "Processes that load and augment images; 0 does it in the training process.", ge=0, le=256
    )
    cache_mib: int = setting(
        2048, "MiB of decoded images kept in memory, all workers of a device together.", ge=0, lt=2**30
    )


@dataclass
class AugmentConfig:
    """Random changes of image and mask in training.

    Pixels outside the image have the mean color, or with `context_px` a reflection of the image; the loss ignores them.
    """

    crop: list[int] = setting(
        [320, 448], "Height and width of the crop; [0, 0] keeps whole images (batch size 1).", ge=0, le=2**15, length=2
    )
    scale: list[float] = setting(
        [0.6, 1.9],
        "Range of the random zoom: 2 shows objects at twice their size; uniform in its logarithm.",
        ge=0.01,
        le=100,
        length=2,
    )
    aspect: float = setting(1.0, "Largest random change of the aspect ratio, as a factor; 1 keeps it.", ge=1, le=10)
    instance_crops: Literal["none", "ground_truth", "proposals"] = setting(
        "none",
        "DeconvNet's two stages: `ground_truth` crops one object, all else is class 0; "
        "`proposals` crops boxes that overlap one.",
    )
    rotate: float = setting(0.0, "Largest rotation to either side, in degrees.", ge=0, le=180)
    flip: float = setting(0.5, "Probability of a left-right flip.", ge=0, le=1)
    brightness: float = setting(0.0, "Largest relative change of brightness.", ge=0, le=1)
    contrast: float = setting(0.0, "Largest relative change of contrast.", ge=0, le=1)
    saturation: float = setting(0.0, "Largest relative change of saturation.", ge=0, le=1)
    hue: float = setting(0.0, "Largest shift of hue, in degrees.", ge=0, le=180)
    gamma: float = setting(0.0, "Largest change of gamma: for g, the exponent is between 2**-g and 2**g.", ge=0, le=1)
    classmix_prob: float = setting(
        0.0, "Probability of ClassMix: half of the classes of a second image are pasted over the crop.", ge=0, le=1
    )
    elastic: float = setting(
        0.0, "Standard deviation of the elastic deformation on a 3 x 3 grid, in pixels (U-Net: 10).", ge=0, le=1000
    )
    context_px: int = setting(
        0, "Extra pixels on each side of the crop, for a network with valid convolutions (`unet`: 92).", ge=0, le=1000
    )
    tiled_crops: bool = setting(
        False, "Cut each image into adjacent crops and show each once per epoch, instead of crops at random positions."
    )
    class_balanced_prob: float = setting(
        0.0,
        "Probability that a crop is centered on a pixel of a random class, so that rare classes are seen.",
        ge=0,
        le=1,
    )


@dataclass
class ModelConfig:
    """The network."""

    name: str = setting("fcn8s_vgg16", "Name of the network, as `pixelwise models` lists it.")
    options: dict[str, Any] = setting({}, "Options of the network, such as {width_mult: 0.5}.")
    init_from: str | None = setting(
        None,
        "Checkpoint to start from, or a name of pretrained weights such as efficientnet_lite0 (see `pixelwise"
        " backbones`); tensors that do not fit are listed.",
    )
    train_only: Literal["all", "score_layers"] = setting(
        "all", "`score_layers` freezes everything but the score layers."
    )
    freeze_stride: int = setting(
        0,
        "Freeze the backbone up to its last map of at most this stride, weights and norms; 0 freezes nothing.",
        ge=0,
        le=32,
    )


@dataclass
class LossConfig:
    """The loss: one of the pixels, by name, plus `dice` and `lovasz` of the regions."""

    name: Literal["cross_entropy", "focal", "ohem", "bootstrapped", "none"] = setting(
        "cross_entropy",
        "Loss of the pixels: `ohem` and `bootstrapped` take the hard ones alone; `none` leaves it to dice and lovasz.",
    )
    focal_gamma: float = setting(2.0, "`focal`: the cross entropy counts (1 - probability) ** gamma.", ge=0, le=100)
    ohem_threshold: float = setting(
        0.7, "`ohem`: pixels are hard if their class has a probability below it.", gt=0, le=1
    )
    ohem_min_kept: int = setting(
        0, "`ohem`: pixels of each image that are hard in any case; 0 is a 16th of them.", ge=0
    )
    bootstrap_top_k: int = setting(
        0, "`bootstrapped` (FRRN): mean over the k pixels of highest loss of each image.", ge=0
    )
    dice: float = setting(0.0, "Weight of the soft Dice loss (V-Net), a mean over the classes.", ge=0)
    lovasz: float = setting(0.0, "Weight of the Lovász-softmax loss, a surrogate of the mean IoU.", ge=0)
    lovasz_pixels: int = setting(65536, "Pixels per batch sampled for the Lovász loss; 0 takes (and sorts) all.", ge=0)
    reduction: Literal["mean", "sum"] = setting(
        "mean",
        "`mean` over all labeled pixels of a step; `sum` over the pixels, mean over the images (FCN in Caffe).",
    )
    resolution: Literal["image", "logits"] = setting(
        "image",
        "`logits` computes the loss before the last upsampling, as DeepLab v1: "
        "against the label at each logit's center.",
    )
    class_weights: Literal["none", "log", "inverse"] | list[float] = setting(
        "none",
        "`log`: 1 / log(1.1 + frequency); `inverse`: median frequency / frequency; or a list with a number per class.",
        ge=0,
        le=1e30,
    )
    border_weight: float = setting(
        0.0, "U-Net's w0 (paper: 10): extra weight of class-0 pixels between two touching objects.", ge=0
    )
    border_sigma: float = setting(5.0, "U-Net's sigma: width of that border, in pixels.", gt=0, le=1000)
    patch_keep_prob: float = setting(
        1.0, "FCN's patchwise training: probability that a position of the logits counts in the loss.", gt=0, le=1
    )
    aux_weight: float = setting(0.4, "Weight of each auxiliary output, which has the same loss.", ge=0)


@dataclass
class OptimizerConfig:
    """The optimizer and the learning rate schedule."""

    name: Literal["sgd", "adamw"] = setting("sgd", "`sgd` with momentum, or `adamw`.")
    lr: float = setting(0.01, "Peak learning rate.", gt=0)
    momentum: float = setting(0.9, "Momentum of `sgd`; first beta of `adamw`.", ge=0, lt=1)
    weight_decay: float = setting(0.0005, "Weight decay; not applied to biases, norms and bilinear kernels.", ge=0)
    decay_depthwise: bool = setting(True, "Also decay depthwise kernels (TensorFlow's DeepLab: false).")
    bias_lr_factor: float = setting(1.0, "Learning rate factor of biases (Caffe recipes: 2).", ge=0)
    head_lr_factor: float = setting(
        1.0, "Learning rate factor of the score layers (DeepLab: 10; PSPNet: of all layers after the backbone).", ge=0
    )
    backbone_lr_factor: float = setting(
        1.0, "Learning rate factor of the backbone; 0.1 to 0.3 for one that starts from published weights.", ge=0
    )
    schedule: Literal["constant", "poly", "cosine", "step"] = setting("poly", "Learning rate schedule.")
    step_every: int = setting(2000, "`step`: steps between two drops of the learning rate.", ge=1, lt=2**31)
    step_factor: float = setting(0.1, "`step`: factor of each drop.", gt=0, le=1)
    power: float = setting(0.9, "`poly`: exponent.", ge=0)
    warmup_steps: int = setting(0, "Steps over which the learning rate rises from 0.", ge=0)
    clip_norm: float = setting(
        1.0,
        "Largest gradient norm; 0 does not clip, as in the papers. "
        "Needed to train a VGG without batch norm from scratch.",
        ge=0,
    )
    grad_accum_steps: int = setting(
        1, "Batches per optimizer step, with the gradient of one large batch.", ge=1, lt=2**31
    )


@dataclass
class TrainConfig:
    """The run."""

    steps: int = setting(10000, "Optimizer steps.", ge=1, lt=2**31)
    validate_every: int = setting(500, "Steps between validations (also after the last step).", ge=1, lt=2**31)
    early_stop: int = setting(0, "Stop after this many validations without a better mean IoU; 0 never stops.", ge=0)
    save_every: int = setting(250, "Save `checkpoints/last` every this many steps.", ge=1, lt=2**31)
    log_every: int = setting(20, "Steps between lines of metrics.csv.", ge=1, lt=2**31)
    seed: int = setting(0, "Seed; all randomness is a function of the seed and the step.", ge=0, lt=2**31)
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "`auto` is bfloat16 where the hardware supports it."
    )
    ema: float = setting(
        0.0, "Decay of the moving average of the weights, which is validated and saved; 0 is off.", ge=0, lt=1
    )
    compile: bool = setting(False, "Use torch.compile: faster steps after a minute; on a CPU it needs a C++ compiler.")
    freeze_norm: Literal["none", "backbone", "all"] = setting(
        "none",
        "Batch norms whose running statistics stay fixed; `backbone` for one that starts from published weights.",
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "`auto` is a GPU if there is one; how many is `train.devices`."
    )
    devices: int = setting(1, "Devices of this node.", ge=1, lt=2**31)
    nodes: int = setting(1, "Nodes; start one process group on each with torchrun.", ge=1, lt=2**31)
    loggers: list[str] = setting([], "Further loggers: tensorboard, wandb (offline unless WANDB_MODE=online).")
    on_read_error: Literal["stop", "skip"] = setting(
        "stop", "An unreadable image: `stop` with its name, or `skip` to the next image and count it."
    )


@dataclass
class Config:
    """The settings of one run. Raises ConfigError naming the first option that is wrong."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise ConfigError for the first value that has a wrong type, is out of range, or conflicts with another."""
        for section, option, value in self.items():
            checked(value, option, type(getattr(self, section)), f"--{section}.{option.name}")
        data, augment, loss = self.data, self.augment, self.loss

        def require(
            ok: bool, name: str, expected: str, fix: str = "change one of the settings, or leave it out"
        ) -> None:
            if not ok:
                what = f"must be {expected}, got {shown(operator.attrgetter(name)(self))}"
                raise ConfigError(f"--{name}", what, fix)

        require(augment.scale[0] <= augment.scale[1], "augment.scale", "[low, high] with low <= high")
        if augment.crop == [0, 0]:
            # Whole images differ in size, so neither a batch nor a mix of two is possible.
            reason = "with --augment.crop [0, 0], as images differ in size"
            require(data.batch_size == 1, "data.batch_size", f"1 {reason}")
            require(augment.classmix_prob == 0, "augment.classmix_prob", f"0 {reason}")
            require(not augment.tiled_crops, "augment.tiled_crops", f"false {reason}")
            if loss.resolution == "logits":
                # How many logits have a label is known after the forward pass, which is too late for other sizes.
                require(self.optimizer.grad_accum_steps == 1, "optimizer.grad_accum_steps", f"1 {reason}")
        else:
            require(0 not in augment.crop, "augment.crop", "two sizes >= 1, or [0, 0]")
        if augment.instance_crops != "none":
            require(not augment.tiled_crops, "augment.tiled_crops", "false with --augment.instance_crops")
        require(loss.class_weights != [], "loss.class_weights", "a word, or one number per class")
        named = f"--loss.name {loss.name}"
        if loss.name == "bootstrapped":
            fix = "set it to a part of the pixels of an image, such as a quarter"
            require(loss.bootstrap_top_k > 0, "loss.bootstrap_top_k", f"> 0 with {named}", fix)
            require(loss.reduction == "mean", "loss.reduction", f"mean with {named}")
        else:
            fix = "set --loss.name bootstrapped"
            require(loss.bootstrap_top_k == 0, "loss.bootstrap_top_k", f"0 with {named}", fix)
        if loss.name == "none":
            fix = "set one of the two above 0, or another --loss.name"
            require(loss.dice + loss.lovasz > 0, "loss.name", "another loss without --loss.dice or --loss.lovasz", fix)
            # The terms of the regions are means over classes, without weights of pixels.
            require(loss.class_weights == "none", "loss.class_weights", f"none with {named}")
            require(loss.reduction == "mean", "loss.reduction", f"mean with {named}")
        if loss.resolution == "logits" or loss.name in ("ohem", "bootstrapped", "none"):
            # Pixels are left out for which the border weights are meant.
            reason = "--loss.resolution logits" if loss.resolution == "logits" else named
            require(loss.border_weight == 0, "loss.border_weight", f"0 with {reason}")

    def items(self) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
        """Yield section, field and value of every setting, in order; `field.metadata["doc"]` is its sentence."""
        for section in fields(self):
            tree = getattr(self, section.name)
            for option in fields(tree):
                yield section.name, option, getattr(tree, option.name)

    def to_yaml(self) -> str:
        """Return all settings as YAML, each after its sentence; `from_yaml` reads it back."""
        from .strict_yaml import to_yaml

        lines: list[str] = []
        for section, option, value in self.items():
            if f"{section}:" not in lines:
                lines.append(f"{section}:")
            lines += [f"  # {option.metadata['doc']}", f"  {option.name}: {to_yaml(value)}"]
        return "\n".join(lines) + "\n"

    def updated(self, changes: Mapping[str, Any], source: object = None) -> Config:
        """Return a copy with the nested `changes` applied.

        Raises ConfigError naming the option, with the nearest known one for an unknown name. `source`, a file, is named
        too.
        """
        prefix = "--" if source is None else f"{source}: "
        sections = {}
        for section, options in changes.items():
            if section not in (known := [f.name for f in fields(self)]):
                if isinstance(options, Mapping) and len(options) == 1:
                    # One option of a command line, in a section that does not exist.
                    name = f"{section}.{next(iter(options))}"
                    raise ConfigError(f"{prefix}{cut(name)}", "unknown setting", self._suggest(name, source))
                near = difflib.get_close_matches(str(section), known, n=1)
                fix = f"did you mean {near[0]}?" if near else self._suggest(section, source)
                raise ConfigError(f"{prefix}{cut(section)}", "unknown section", fix)
            if not isinstance(options, Mapping):
                what = f"expected a mapping of options, got {shown(options)}"
                raise ConfigError(f"{prefix}{section}", what, f"write `{section}: {{option: value}}`")
            tree = getattr(self, section)
            by_name = {option.name: option for option in fields(tree)}
            values = {}
            for key, value in options.items():
                if key not in by_name:
                    name = f"{section}.{key}"
                    raise ConfigError(f"{prefix}{cut(name)}", "unknown setting", self._suggest(name, source))
                values[key] = checked(value, by_name[key], type(tree), f"{prefix}{section}.{key}")
            sections[section] = dataclasses.replace(tree, **values)
        try:
            return dataclasses.replace(self, **sections)
        except ConfigError as error:
            if source is None:
                raise
            raise ConfigError(f"{prefix}{error.subject.removeprefix('--')}", error.what, error.fix) from None

    def _suggest(self, name: object, source: object) -> str:
        return suggest_setting(str(name), setting_names(), prefix="--" if source is None else "")

    @classmethod
    def from_yaml(cls, path: str | Path) -> Config:
        """Read a recipe or a saved config. Raises ConfigError naming the file, the line or the option."""
        from .strict_yaml import read_yaml

        return cls().updated(read_yaml(path), path)


def setting_names() -> list[str]:
    """Return the names of all settings, as "section.option"."""
    return [f"{section}.{name}" for section, kind in types_of(Config).items() for name in types_of(kind)]
