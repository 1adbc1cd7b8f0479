"""Checkpoints: one folder with `model.safetensors`, `config.json` and `README.md`. Tensors and JSON, never a pickle.

config.json holds everything that prediction needs: the network's name and options (its pixel normalization among them),
the taxonomy, the recipe, the scores, and the SHA-256 of the weights. A folder that is incomplete, damaged, mixed up or
of another network is refused as a whole.

Saving is atomic, although three files cannot be renamed at once. All three are first written as `new.*`,
`new.config.json` last. As soon as it exists, the new checkpoint counts; before that, the old one does. A writer that
finds it finishes the renaming, a reader reads the `new.*` files, so a kill at any moment leaves the old checkpoint or
the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core import Taxonomy
from ..errors import CheckpointError, ConfigError, ResourceError, UnknownNameError, cut, listed, os_reason, shown
from ..files import WRITTEN, make_folder, read_json, write_bytes, write_text
from ..images import RGB, PixelFormat
from ..models import MODELS, ModelSpec, SegmentationModel
from .model_card import render_card
from .second_map import read_second
from .spec_shapes import bounded_shapes

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
DEFAULT_THRESHOLD = 0.5
FORMAT, PIXELS_FORMAT = 1, 2
"""Of ordinary images; of others, whose `pixels` an older version would overlook."""

_NEW = "new."
# Attempts to read a folder that another process writes to.
_ATTEMPTS = 5
# A configuration with 65,535 classes, the maximum, has 10 MB.
_MAX_CONFIG_BYTES = 32 * 2**20
_MODEL_KEYS = {"name", "num_classes", "in_channels", "options"}
# The options come from a file, so a builder may fail in any of these ways; RuntimeError for sizes beyond torch's.
_BUILD_ERRORS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError, AssertionError
)  # fmt: skip
_READ_ERRORS = (SafetensorError, OSError, struct.error, KeyError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    model       in eval mode, with float32 weights
    taxonomy    the classes of its logits
    card        title, license, data, recipe, scores and more; see `model_card.render_card`
    thresholds  of several labels per pixel: the probability per class above which a pixel has its label, K numbers;
                empty for one label per pixel
    pixels      channels, bits and ranges of the images that it was trained on
    second      name and classes of the label map of a second head
    digest      sha256 of the file of the weights, "" for weights that come from no file
    """

    model: SegmentationModel
    taxonomy: Taxonomy
    card: dict[str, Any] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()
    pixels: PixelFormat = RGB
    second: tuple[str, Taxonomy] | None = None
    digest: str = ""


def save_checkpoint(
    folder: str | Path,
    model: SegmentationModel,
    taxonomy: Taxonomy,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    thresholds: Sequence[float] = (),
    pixels: PixelFormat | None = None,
    second: tuple[str, Taxonomy] | None = None,
) -> Path:
    """Write a checkpoint and return its folder; an older checkpoint there is replaced in one step.

    model  built by `create_model`, which records its name and options
    dtype  of the stored floating-point tensors; float16 halves the file
    thresholds  of several labels per pixel, K numbers; 0.5 each if left out
    pixels  of the images; if left out, 8 bits in as many channels as the model takes
    second  name and classes of the label map of a second head
    Raises ResourceError if the disk is full or the folder is not writable, ConfigError if the taxonomy has another
    number of classes, CheckpointError for weights that are not finite or too large for `dtype`.
    """
    if model.num_classes != taxonomy.num_classes:
        what = f"the model has {model.num_classes} classes, the taxonomy {taxonomy.num_classes}"
        raise ConfigError("checkpoint", what, "give both the same number of classes")
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in model.state_dict().items()
    }
    check_finite(tensors, folder)
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    digest = hashlib.sha256(data).hexdigest()
    is_usual = pixels is None or pixels == PixelFormat.of_channels(model.in_channels)
    config = {
        "format": FORMAT if is_usual else PIXELS_FORMAT,
        "model": asdict(model.spec),
        "taxonomy": taxonomy.to_dict(),
        **({} if is_usual or pixels is None else {"pixels": pixels.to_dict()}),
        "weights": {"sha256": digest, "dtype": str(dtype).removeprefix("torch.")},
        "card": dict(card or {}),
    }
    if second is not None:
        config["second"] = {"name": second[0], **second[1].to_dict()}
    if taxonomy.multilabel:
        config["thresholds"] = list(map(float, thresholds)) or [DEFAULT_THRESHOLD] * taxonomy.num_classes
    folder = make_folder(folder)
    finish_save(folder)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        write_text(folder / (_NEW + CARD), render_card(config, num_parameters))
        write_bytes(folder / (_NEW + WEIGHTS), data)
        try:
            read_safetensors(folder / (_NEW + WEIGHTS), digest)
        except CheckpointError as error:
            what = f"cannot be read back after writing: {error.what}"
            raise ResourceError(folder / WEIGHTS, what, "check the disk") from error
        write_text(folder / (_NEW + CONFIG), json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    except BaseException:
        # A full disk leaves no part of the new checkpoint.
        with suppress(OSError):
            finish_save(folder)
        raise
    finish_save(folder)
    return folder


def finish_save(folder: Path) -> None:
    """Finish or undo a `save_checkpoint` that was killed: rename the new files if all are there, else remove them."""
    complete = (folder / (_NEW + CONFIG)).exists()
    # The configuration last: it marks the new files as complete.
    for name in (WEIGHTS, CARD, CONFIG):
        new = folder / (_NEW + name)
        if complete and new.exists():
            WRITTEN.append(new.replace(folder / name))
        new.unlink(missing_ok=True)


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the files that `save_checkpoint` writes into a folder, the temporary ones too."""
    return [folder / (prefix + name) for prefix in ("", _NEW) for name in (WEIGHTS, CARD, CONFIG)]


def is_checkpoint(folder: Path) -> bool:
    """Return whether the folder holds a checkpoint, its renaming finished or not."""
    return (folder / CONFIG).is_file() or (folder / (_NEW + CONFIG)).is_file()


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint folder of a run, `checkpoints/best` or else `checkpoints/last`.

    Any other folder is returned unchanged. Raises CheckpointError if there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "expected a checkpoint folder, got a file" if folder.exists() else "no such folder"
        fix = "name a run or a checkpoint folder; `pixelwise import` makes one from a foreign weight file"
        if str(path) in MODELS and not folder.exists():
            what = "is the name of a network, which has no weights"
            fix += f", `pixelwise train DATA --model {path} --out runs/a` trains one"
        raise CheckpointError(folder, what, fix)
    parts = (folder / "checkpoints" / name for name in ("best", "last"))
    return next((part for part in parts if is_checkpoint(part)), folder)


def load_checkpoint(folder: str | Path, options: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a folder that `save_checkpoint` or `save_pretrained` wrote.

    options  replace options of the training, such as `output_stride`; the weights still have to fit
    Raises CheckpointError that names the file and the reason: missing, incomplete, changed after it was written, of
    another network, or not finite; ConfigError for an option that the network does not have.
    """
    folder = Path(folder)
    for _ in range(_ATTEMPTS):
        config_path, weights_path = _current_files(folder)
        config = _read_config(config_path)
        try:
            shapes = read_shapes(weights_path)
            spec, taxonomy, pixels = _check_config(config_path, config, shapes)
            if options:
                spec = _with_options(spec, options, shapes)
            check_shapes(bounded_shapes(spec, shapes), shapes, weights_path)
            tensors = read_safetensors(weights_path, sha256=config["weights"]["sha256"])
            break
        except CheckpointError:
            # A training run may have replaced the checkpoint after its configuration was read.
            if _current_files(folder) == (config_path, weights_path) and _read_config(config_path) == config:
                raise
    else:
        what = f"changed while it was being read ({_ATTEMPTS} attempts)"
        raise CheckpointError(folder, what, "wait for the run, or copy the folder")
    model = spec.build()
    load_weights(model, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, weights_path)
    thresholds, second = _read_thresholds(config, taxonomy, folder), read_second(config, model, folder)
    return Checkpoint(model.eval(), taxonomy, config["card"], thresholds, pixels, second, config["weights"]["sha256"])


def _current_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the configuration and the weights that belong together."""
    if not (folder / (_NEW + CONFIG)).is_file():
        return folder / CONFIG, folder / WEIGHTS
    # The writer was killed while it renamed; the weights come first, so they may have their name already.
    new_weights = folder / (_NEW + WEIGHTS)
    return folder / (_NEW + CONFIG), new_weights if new_weights.is_file() else folder / WEIGHTS


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(path, "no such file", f"name a checkpoint: a folder with {CONFIG} and {WEIGHTS}")
    try:
        config = read_json(path, _MAX_CONFIG_BYTES)
        has_known_format = config["format"] in (FORMAT, PIXELS_FORMAT)
        is_complete = (
            isinstance(config["weights"]["sha256"], str)
            and isinstance(config["card"], dict)
            and isinstance(config["taxonomy"], dict)
            and set(config["model"]) == _MODEL_KEYS
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"is damaged or from another program: {type(error).__name__} {os_reason(error)}"
        raise CheckpointError(path, what, "copy the folder again") from error
    if not has_known_format:
        what = f"expected format {FORMAT} or {PIXELS_FORMAT}, got {shown(config['format'])}"
        raise CheckpointError(path, what, "update pixelwise")
    if not is_complete:
        raise CheckpointError(path, "is damaged or from another program", "copy the folder again")
    return dict(config)


def _read_thresholds(config: Mapping[str, Any], taxonomy: Taxonomy, source: object) -> tuple[float, ...]:
    """Return the thresholds of a configuration, none for one label per pixel. Raises CheckpointError."""
    if not taxonomy.multilabel:
        return ()
    found = config.get("thresholds")
    numbers = found if isinstance(found, list) else []
    if len(numbers) != taxonomy.num_classes or not all(type(n) is float and 0 < n < 1 for n in numbers):
        what = f"expected {taxonomy.num_classes} `thresholds` between 0 and 1, got {shown(found)}"
        raise CheckpointError(source, what, "copy the folder again")
    return tuple(numbers)


def saved_thresholds(folder: Path) -> tuple[float, ...]:
    """Return the thresholds of a checkpoint without its weights. Raises CheckpointError."""
    config = _read_config(_current_files(folder)[0])
    return _read_thresholds(config, Taxonomy.from_dict(config["taxonomy"]), folder)


def _check_config(
    path: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[ModelSpec, Taxonomy, PixelFormat]:
    """Return network, taxonomy and pixel format. Raises CheckpointError if they cannot be those of the tensors."""
    try:
        taxonomy = Taxonomy.from_dict(config["taxonomy"])
        spec = ModelSpec(**config["model"])
        bounded_shapes(spec, shapes)
        count = spec.in_channels
        pixels = PixelFormat.from_dict(config["pixels"]) if "pixels" in config else PixelFormat.of_channels(count)
    except (UnknownNameError, ConfigError) as error:
        what = f"describes a network that this version cannot build: {cut(error.subject)}: {error.what}"
        raise CheckpointError(path, what, f"{error.fix or 'copy the folder again'} (or update pixelwise)") from error
    except _BUILD_ERRORS as error:
        what = f"describes a network that this version cannot build: {_first_line(error)}"
        raise CheckpointError(path, what, "copy the folder again, or update pixelwise") from error
    if spec.num_classes != taxonomy.num_classes:
        what = f"has {spec.num_classes} classes in the network and {taxonomy.num_classes} in the taxonomy"
        raise CheckpointError(path, what, "copy the folder again")
    if pixels.num_channels != count:
        what = f"has {count} channels in the network and {pixels.num_channels} in its images"
        raise CheckpointError(path, what, "copy the folder again")
    return spec, taxonomy, pixels


def _with_options(spec: ModelSpec, options: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    """Return the checkpoint's network with other options. Raises ConfigError for options that do not fit it."""
    fix = f"see `pixelwise models {spec.name}`"
    fixed = sorted(_MODEL_KEYS & set(options))
    if fixed:
        raise ConfigError("options", f"{fixed[0]} is fixed by the checkpoint", fix)
    spec = replace(spec, options={**spec.options, **options})
    try:
        bounded_shapes(spec, shapes)
    except _BUILD_ERRORS as error:
        what = f"cannot be built with {shown(dict(options))}: {_first_line(error)}"
        raise ConfigError(f"model {spec.name}", what, fix) from error
    return spec


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text, cut: torch appends a stack of its own."""
    return cut((str(error).splitlines() or [type(error).__name__])[0])


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a file, from its header alone. Raises CheckpointError."""
    _check_weights_file(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error


def _check_weights_file(path: Path) -> None:
    """Raise CheckpointError if the weights are missing or a Git LFS pointer."""
    if not path.is_file():
        raise CheckpointError(path, "no such file", "copy the whole folder")
    with open(path, "rb") as file:
        if file.read(32).startswith(b"version https://git-lfs"):
            raise CheckpointError(path, "is a Git LFS pointer, not the weights", "run `git lfs pull`")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    what = f"is incomplete or damaged: {_first_line(error)}"
    return CheckpointError(path, what, "copy it again, or use an older checkpoint")


def read_safetensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Raises CheckpointError that names the file and the reason: missing, a Git LFS pointer, incomplete, changed.
    """
    _check_weights_file(path)
    data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        what = "has changed since it was written: its SHA-256 differs"
        raise CheckpointError(path, what, "copy it again, or use an older checkpoint")
    try:
        return dict(safetensors.torch.load(data))
    except _READ_ERRORS as error:
        raise _damaged(path, error) from error


def load_weights(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Copy tensors into the model, all of them or none; `source` is named in errors.

    Raises CheckpointError that lists missing, unexpected and mis-shaped tensors, or names a tensor with NaN or
    infinity.
    """
    own, given = (
        {name: tuple(tensor.shape) for name, tensor in table.items()} for table in (model.state_dict(), tensors)
    )
    check_shapes(own, given, source)
    check_finite(tensors, source)
    model.load_state_dict(dict(tensors))


def check_shapes(own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], source: object) -> None:
    """Raise CheckpointError that lists missing, unexpected and mis-shaped tensors of `given`, name -> shape."""
    mismatches = {
        "missing": sorted(set(own) - set(given)),
        "unexpected": sorted(set(given) - set(own)),
        "mis-shaped": [
            f"{name}: expected {own[name]}, got {given[name]}"
            for name in sorted(set(own) & set(given))
            if own[name] != given[name]
        ],
    }
    num_kinds = sum(map(bool, mismatches.values()))
    found = [f"{len(n)} {kind} ({listed(n, limit=4 // num_kinds)})" for kind, n in mismatches.items() if n]
    if found:
        what = "does not fit the network: " + "; ".join(found)
        raise CheckpointError(source, what, "use the network that it was saved from")


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise CheckpointError that names the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            what = f"{name} holds numbers that are not finite"
            raise CheckpointError(source, what, "use an older checkpoint; when training, lower --optimizer.lr")
