"""One self-describing folder: `model.safetensors`, `config.json`, `README.md`. Tensors and JSON, never a pickle.

config.json carries everything that prediction needs: the network's name and options (its pixel normalisation among
them), the taxonomy, the recipe, the scores, and the SHA-256 of the weights. A folder that is cut, rotten, mixed up or
of another network is refused; there is no loading of a part.

Three files cannot be renamed at once. So they are written aside as `new.*`, `new.config.json` last: with it the new
checkpoint is there, without it the old one is. Whoever finds it finishes the renaming (writers) or reads through it
(readers), so that a kill at any moment leaves the old checkpoint or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..core import Taxonomy
from ..errors import CheckpointError, ConfigError, ResourceError, UnknownNameError
from ..files import make_folder, write_bytes, write_text
from ..models import ModelSpec
from ..models.base import SegmentationModel
from .model_card import render_card

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FORMAT = 1

_NEW = "new."
_ATTEMPTS = 5
_MODEL_KEYS = {"name", "num_classes", "in_channels", "tiny", "options"}


@dataclass(frozen=True)
class Checkpoint:
    """A network in eval mode with float32 weights, what its classes mean, and its card (recipe, data, scores, licence)."""

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
    """Write the folder; it changes from the old checkpoint to the new one in a single step.

    model     built by `create_model`, so that its recipe is known
    dtype     of the stored floating-point tensors; float16 halves the file
    Raises ResourceError when the disk is full or the folder is not writable, CheckpointError for weights that are not
    finite (or too large for `dtype`).
    """
    if model.num_classes != taxonomy.num_classes:
        raise ConfigError(
            "checkpoint", f"the model has {model.num_classes} classes, the taxonomy {taxonomy.num_classes}"
        )
    spec = model.spec
    assert isinstance(spec, ModelSpec), "only models made by create_model can be saved"
    tensors = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    refuse_broken(tensors, folder)
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    digest = hashlib.sha256(data).hexdigest()
    config = {
        "format": FORMAT,
        "model": {
            "name": spec.name,
            "num_classes": spec.num_classes,
            "in_channels": spec.in_channels,
            "tiny": spec.tiny,
        }
        | {"options": dict(spec.options)},
        "taxonomy": taxonomy.to_dict(),
        "weights": {"sha256": digest, "dtype": str(dtype).removeprefix("torch.")},
        "card": dict(card or {}),
    }
    folder = make_folder(folder)
    finish_save(folder)
    write_text(folder / (_NEW + CARD), render_card(config, model))
    write_bytes(folder / (_NEW + WEIGHTS), data)
    try:
        read_safetensors(folder / (_NEW + WEIGHTS), digest)
    except CheckpointError as error:
        raise ResourceError(
            folder / WEIGHTS, f"did not read back after writing: {error.what}", "check the disk"
        ) from error
    write_text(folder / (_NEW + CONFIG), json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    finish_save(folder)
    return folder


def finish_save(folder: Path) -> None:
    """End what a killed `save_checkpoint` began: rename the new files if all are there, else remove them."""
    complete = (folder / (_NEW + CONFIG)).exists()
    # The configuration last: it is what says that there is something to finish.
    for name in (WEIGHTS, CARD, CONFIG):
        new = folder / (_NEW + name)
        if complete and new.exists():
            os.replace(new, folder / name)
        new.unlink(missing_ok=True)


def is_checkpoint(folder: Path) -> bool:
    """True when the folder holds a checkpoint, be its renaming finished or not."""
    return (folder / CONFIG).is_file() or (folder / (_NEW + CONFIG)).is_file()


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path means: a run's best one, else its last one, else the folder itself.

    Raises CheckpointError where there is no folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file, not a checkpoint folder" if folder.exists() else "no such folder"
        fix = "name a run or a checkpoint folder; `pixelwise import` turns foreign weight files into one"
        raise CheckpointError(folder, what, fix)
    parts = (folder / "checkpoints" / name for name in ("best", "last"))
    return next((part for part in parts if is_checkpoint(part)), folder)


def refuse_broken(tensors: Mapping[str, Tensor], source: object) -> None:
    """Raise CheckpointError naming the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            what = f"{name} holds numbers that are not finite"
            raise CheckpointError(source, what, "use an older checkpoint; when training, lower --optimizer.lr")


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()


def load_checkpoint(folder: str | Path, options: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a folder that `save_checkpoint` or `save_pretrained` wrote.

    options  of the network in place of those that it was trained with; the weights must fit all the same: `output_stride`
    Raises CheckpointError that names the file and what is wrong: missing, cut, changed after it was written, of another
    network, or with numbers that are not finite; ConfigError for an option that the network does not have.
    """
    folder = Path(folder)
    for _ in range(_ATTEMPTS):
        config_path, weights_path = _current_files(folder)
        config = _read_config(config_path)
        try:
            tensors = read_safetensors(weights_path, sha256=config["weights"]["sha256"])
            break
        except CheckpointError:
            # A training run may have replaced the files between the two readings.
            if _current_files(folder) == (config_path, weights_path) and _read_config(config_path) == config:
                raise
    else:
        raise CheckpointError(folder, "is being written over and over", "wait for the run, or copy the folder")
    model, taxonomy = _build(config_path, config)
    if options:
        model = _build_with(ModelSpec(**config["model"]), options)
    load_state(model, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, weights_path)
    return Checkpoint(model.eval(), taxonomy, config["card"])


def _build_with(own: ModelSpec, options: Mapping[str, Any]) -> SegmentationModel:
    """The network with other options. Raises ConfigError for those that it does not have or cannot be built with."""
    fix = f"see `pixelwise models {own.name}`"
    fixed = sorted(_MODEL_KEYS & set(options))
    if fixed:
        raise ConfigError("options", f"{fixed[0]} is the checkpoint's own", fix)
    try:
        return replace(own, options={**own.options, **options}).build()
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"model {own.name}", f"cannot be built with {dict(options)}: {error}", fix) from error


def _current_files(folder: Path) -> tuple[Path, Path]:
    """Configuration and weights that belong together, though a kill may have come before their renaming."""
    if not (folder / (_NEW + CONFIG)).is_file():
        return folder / CONFIG, folder / WEIGHTS
    new = folder / (_NEW + WEIGHTS)
    return folder / (_NEW + CONFIG), new if new.is_file() else folder / WEIGHTS


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            path, "no such file, so this is no checkpoint", f"name a folder that holds {CONFIG} and {WEIGHTS}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        known = config["format"] == FORMAT
        complete = isinstance(config["weights"]["sha256"], str) and isinstance(config["card"], dict)
        complete = complete and set(config["model"]) == _MODEL_KEYS and isinstance(config["taxonomy"], dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(path, f"is damaged or of another program: {error!r}", "copy the folder again") from error
    if not known:
        raise CheckpointError(
            path, f"is of format {config['format']!r}, this version reads {FORMAT}", "update pixelwise"
        )
    if not complete:
        raise CheckpointError(path, "is damaged or of another program", "copy the folder again")
    return dict(config)


def _build(path: Path, config: Mapping[str, Any]) -> tuple[SegmentationModel, Taxonomy]:
    try:
        taxonomy = Taxonomy.from_dict(config["taxonomy"])
        model = ModelSpec(**config["model"]).build()
    # RuntimeError: sizes that no memory holds.
    except (UnknownNameError, ConfigError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            path, f"describes a network this version cannot build: {error}", "update pixelwise"
        ) from error
    if model.num_classes != taxonomy.num_classes:
        what = f"has {model.num_classes} classes in the network and {taxonomy.num_classes} in the taxonomy"
        raise CheckpointError(path, what, "copy the folder again")
    return model, taxonomy


def read_safetensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """All tensors of a file. Raises CheckpointError naming the file: missing, a pointer, cut, or not as when written."""
    if not path.is_file():
        raise CheckpointError(path, "no such file", "copy the whole folder")
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        raise CheckpointError(path, "is a Git LFS pointer, not the weights", "run `git lfs pull`")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        what = "is not the file that was written: its SHA-256 differs"
        raise CheckpointError(path, what, "copy it again, or use an older checkpoint")
    try:
        return dict(safetensors.torch.load(data))
    except (SafetensorError, struct.error, KeyError, ValueError) as error:
        raise CheckpointError(
            path, f"is cut or damaged: {error}", "copy it again, or use an older checkpoint"
        ) from error


def load_state(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Copy tensors into the model, all of them or none.

    Raises CheckpointError that lists missing, unexpected and mis-shaped names, or names a tensor with NaN or infinity.
    """
    own = model.state_dict()
    wrong = {
        "missing": sorted(set(own) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(own)),
        "mis-shaped": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
            for name in sorted(set(own) & set(tensors))
            if own[name].shape != tensors[name].shape
        ],
    }
    found = [f"{len(names)} {word} ({', '.join(names[:5])})" for word, names in wrong.items() if names]
    if found:
        raise CheckpointError(
            source, "does not fit the network: " + "; ".join(found), "use the network that it was saved from"
        )
    refuse_broken(tensors, source)
    model.load_state_dict(dict(tensors))
