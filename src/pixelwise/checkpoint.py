"""One self-describing folder: `model.safetensors`, `config.json`, `README.md`. Tensors and JSON, never a pickle.

config.json carries everything that prediction needs: the network's name and options (its pixel normalisation among
them), the taxonomy, the recipe, the scores, and the SHA-256 of the weights. A folder that is cut, rotten, mixed up or
of another network is refused; there is no loading of a part.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .core import Taxonomy
from .errors import CheckpointError, ConfigError, UnknownNameError
from .files import make_folder, write_bytes, write_text
from .modelcard import render_card
from .models import ModelSpec
from .nn.model import SegmentationModel

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
FORMAT = 1


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
    state: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write the folder; each file appears whole or not at all, the weights first.

    model     built by `create_model`, so that its recipe is known
    state     tensors to store in place of the model's own (a moving average)
    dtype     of the stored floating-point tensors; float16 halves the file
    Raises EnvironmentFault when the disk is full or the folder is not writable.
    """
    if model.num_classes != taxonomy.num_classes:
        raise ConfigError("checkpoint", f"the model has {model.num_classes} classes, the taxonomy {taxonomy.num_classes}")
    spec = model.spec
    assert isinstance(spec, ModelSpec), "only models made by create_model can be saved"
    tensors = {name: _stored(tensor, dtype) for name, tensor in (state or model.state_dict()).items()}
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    config = {
        "format": FORMAT,
        "model": {"name": spec.name, "num_classes": spec.num_classes, "in_channels": spec.in_channels, "tiny": spec.tiny}
        | {"options": dict(spec.options)},
        "taxonomy": taxonomy.to_dict(),
        "weights": {"sha256": hashlib.sha256(data).hexdigest(), "dtype": str(dtype).removeprefix("torch.")},
        "card": dict(card or {}),
    }
    folder = make_folder(folder)
    write_bytes(folder / WEIGHTS, data)
    write_text(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / CARD, render_card(config, model))
    return folder


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a folder that `save_checkpoint` or `save_pretrained` wrote.

    Raises CheckpointError that names the file and what is wrong: missing, cut, changed after it was written, of another
    network, or with numbers that are not finite.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    model, taxonomy = _build(folder / CONFIG, config)
    path = folder / WEIGHTS
    tensors = read_safetensors(path, sha256=config["weights"]["sha256"])
    load_state(model, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, path)
    return Checkpoint(model.eval(), taxonomy, config["card"])


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(path, "no such file, so this is no checkpoint", f"name a folder that holds {CONFIG} and {WEIGHTS}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        complete = config["format"] == FORMAT and {"sha256"} <= set(config["weights"]) and isinstance(config["card"], dict)
        complete = complete and {"name", "num_classes", "in_channels", "tiny", "options"} == set(config["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(path, f"is damaged or of another program: {error!r}", "copy the folder again") from error
    if not complete:
        raise CheckpointError(path, f"is of format {config['format']!r}, this version reads {FORMAT}", "update pixelwise")
    return dict(config)


def _build(path: Path, config: Mapping[str, Any]) -> tuple[SegmentationModel, Taxonomy]:
    try:
        return ModelSpec(**config["model"]).build(), Taxonomy.from_dict(config["taxonomy"])
    except (UnknownNameError, ConfigError) as error:
        raise CheckpointError(path, f"describes a network this version cannot build: {error}", "update pixelwise") from error


def read_safetensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """All tensors of a file. Raises CheckpointError naming the file: missing, a pointer, cut, or not as when written."""
    if not path.is_file():
        raise CheckpointError(path, "no such file", "copy the whole folder")
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        raise CheckpointError(path, "is a Git LFS pointer, not the weights", "run `git lfs pull`")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(path, "is not the file that was written: its SHA-256 differs", "copy it again, or use an older checkpoint")
    try:
        return dict(safetensors.torch.load(data))
    except (SafetensorError, struct.error, KeyError, ValueError) as error:
        raise CheckpointError(path, f"is cut or damaged: {error}", "copy it again, or use an older checkpoint") from error


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
        raise CheckpointError(source, "does not fit the network: " + "; ".join(found), "use the network that it was saved from")
    broken = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        raise CheckpointError(source, f"{broken[0]} holds numbers that are not finite", "use an older checkpoint")
    model.load_state_dict(dict(tensors))
