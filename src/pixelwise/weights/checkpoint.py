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
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core import Taxonomy
from ..errors import CheckpointError, ConfigError, ResourceError, UnknownNameError, os_reason, shown
from ..files import make_folder, read_json, write_bytes, write_text
from ..models import ModelSpec, SegmentationModel
from .model_card import render_card

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FORMAT = 1

_NEW = "new."
# Readings of a folder that another process writes to, before giving up.
_ATTEMPTS = 5
# A configuration of 65,535 classes, the most that there can be, has 10 MB.
_MAX_CONFIG_BYTES = 32 * 2**20
_MODEL_KEYS = {"name", "num_classes", "in_channels", "options"}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    model     in eval mode, with float32 weights
    taxonomy  the classes of its logits
    card      what is known about it: title, license, data, recipe, scores; see `model_card.render_card`
    """

    model: SegmentationModel
    taxonomy: Taxonomy
    card: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(
    folder: str | Path,
    model: SegmentationModel,
    taxonomy: Taxonomy,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint and return its folder; an older checkpoint there is replaced in one step.

    model  built by `create_model`, which records its name and options
    dtype  of the stored floating-point tensors; float16 halves the file
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
    config = {
        "format": FORMAT,
        "model": asdict(model.spec),
        "taxonomy": taxonomy.to_dict(),
        "weights": {"sha256": digest, "dtype": str(dtype).removeprefix("torch.")},
        "card": dict(card or {}),
    }
    folder = make_folder(folder)
    finish_save(folder)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    write_text(folder / (_NEW + CARD), render_card(config, num_parameters))
    write_bytes(folder / (_NEW + WEIGHTS), data)
    try:
        read_safetensors(folder / (_NEW + WEIGHTS), digest)
    except CheckpointError as error:
        what = f"cannot be read back after writing: {error.what}"
        raise ResourceError(folder / WEIGHTS, what, "check the disk") from error
    write_text(folder / (_NEW + CONFIG), json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    finish_save(folder)
    return folder


def finish_save(folder: Path) -> None:
    """Finish or undo a `save_checkpoint` that was killed: rename the new files if all are there, else remove them."""
    complete = (folder / (_NEW + CONFIG)).exists()
    # The configuration last: it marks the new files as complete.
    for name in (WEIGHTS, CARD, CONFIG):
        new = folder / (_NEW + name)
        if complete and new.exists():
            os.replace(new, folder / name)
        new.unlink(missing_ok=True)


def is_checkpoint(folder: Path) -> bool:
    """Return whether the folder holds a checkpoint, its renaming finished or not."""
    return (folder / CONFIG).is_file() or (folder / (_NEW + CONFIG)).is_file()


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint folder of a run, `checkpoints/best` or else `checkpoints/last`.

    Any other folder is returned itself. Raises CheckpointError if there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "expected a checkpoint folder, got a file" if folder.exists() else "no such folder"
        fix = "name a run or a checkpoint folder; `pixelwise import` makes one from a foreign weight file"
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
            tensors = read_safetensors(weights_path, sha256=config["weights"]["sha256"])
            break
        except CheckpointError:
            # A training run may have replaced the checkpoint after its configuration was read.
            if _current_files(folder) == (config_path, weights_path) and _read_config(config_path) == config:
                raise
    else:
        what = f"changed while it was being read ({_ATTEMPTS} attempts)"
        raise CheckpointError(folder, what, "wait for the run, or copy the folder")
    model, taxonomy = _build(config_path, config)
    if options:
        model = _build_with_options(model.spec, options)
    load_weights(model, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, weights_path)
    return Checkpoint(model.eval(), taxonomy, config["card"])


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
        has_known_format = config["format"] == FORMAT
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
        raise CheckpointError(path, f"expected format {FORMAT}, got {shown(config['format'])}", "update pixelwise")
    if not is_complete:
        raise CheckpointError(path, "is damaged or from another program", "copy the folder again")
    return dict(config)


def _build(path: Path, config: Mapping[str, Any]) -> tuple[SegmentationModel, Taxonomy]:
    try:
        taxonomy = Taxonomy.from_dict(config["taxonomy"])
        model = ModelSpec(**config["model"]).build()
    except (UnknownNameError, ConfigError) as error:
        what = f"describes a network that this version cannot build: {error.subject}: {error.what}"
        raise CheckpointError(path, what, f"{error.fix or 'copy the folder again'} (or update pixelwise)") from error
    # The options come from a file, so the builder may fail in any of these ways; RuntimeError if a size exceeds memory.
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        what = f"describes a network that this version cannot build: {error}"
        raise CheckpointError(path, what, "update pixelwise") from error
    if model.num_classes != taxonomy.num_classes:
        what = f"has {model.num_classes} classes in the network and {taxonomy.num_classes} in the taxonomy"
        raise CheckpointError(path, what, "copy the folder again")
    return model, taxonomy


def _build_with_options(spec: ModelSpec, options: Mapping[str, Any]) -> SegmentationModel:
    """Build the checkpoint's network with other options. Raises ConfigError for options that do not fit it."""
    fix = f"see `pixelwise models {spec.name}`"
    fixed = sorted(_MODEL_KEYS & set(options))
    if fixed:
        raise ConfigError("options", f"{fixed[0]} is fixed by the checkpoint", fix)
    try:
        return replace(spec, options={**spec.options, **options}).build()
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"model {spec.name}", f"cannot be built with {dict(options)}: {error}", fix) from error


def read_safetensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read all tensors of a file.

    Raises CheckpointError that names the file and the reason: missing, a Git LFS pointer, incomplete, changed after
    writing.
    """
    if not path.is_file():
        raise CheckpointError(path, "no such file", "copy the whole folder")
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        raise CheckpointError(path, "is a Git LFS pointer, not the weights", "run `git lfs pull`")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        what = "has changed since it was written: its SHA-256 differs"
        raise CheckpointError(path, what, "copy it again, or use an older checkpoint")
    try:
        return dict(safetensors.torch.load(data))
    except (SafetensorError, struct.error, KeyError, ValueError) as error:
        what = f"is incomplete or damaged: {error}"
        raise CheckpointError(path, what, "copy it again, or use an older checkpoint") from error


def load_weights(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Copy tensors into the model, all of them or none; `source` is named in errors.

    Raises CheckpointError that lists missing, unexpected and mis-shaped tensors, or names a tensor with NaN or
    infinity.
    """
    own = model.state_dict()
    mismatches = {
        "missing": sorted(set(own) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(own)),
        "mis-shaped": [
            f"{name}: expected {tuple(own[name].shape)}, got {tuple(tensors[name].shape)}"
            for name in sorted(set(own) & set(tensors))
            if own[name].shape != tensors[name].shape
        ],
    }
    found = [f"{len(names)} {kind} ({', '.join(names[:5])})" for kind, names in mismatches.items() if names]
    if found:
        what = "does not fit the network: " + "; ".join(found)
        raise CheckpointError(source, what, "use the network that it was saved from")
    check_finite(tensors, source)
    model.load_state_dict(dict(tensors))


def check_finite(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise CheckpointError that names the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            what = f"{name} holds numbers that are not finite"
            raise CheckpointError(source, what, "use an older checkpoint; when training, lower --optimizer.lr")
