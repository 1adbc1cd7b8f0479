"""What a run needs to go on as if nothing had happened: one file, and the one before it.

Everything random is a function of the seed and the step, so the state is tensors (weights, moving average, optimiser)
and a few numbers. It is written aside, reopened, compared by digest, and only then takes the name; the file that it
replaces stays as `previous`, so that at every moment at least one whole state is on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError, ResourceError
from ..files import write_bytes

STATE = "state.safetensors"
PREVIOUS = "state.previous.safetensors"


@dataclass(frozen=True)
class Progress:
    """The numbers of a state: steps done, the best validation score and its step, bad images met."""

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    num_bad: int = 0


@dataclass(frozen=True)
class State:
    """What a state file holds: named tensors, progress, and the settings that it was trained with."""

    tensors: dict[str, Tensor]
    progress: Progress
    settings: dict[str, Any]


def save_state(folder: Path, tensors: Mapping[str, Tensor], progress: Progress, settings: Mapping[str, Any]) -> None:
    """Write the state and prove it: the new file is read back and its digest compared before the old one goes.

    Raises ResourceError when it cannot be written or does not read back.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(dict(settings))}
    metadata = {**facts, "digest": _digest(stored), "facts": _digest_of_facts(facts)}
    path, new = folder / STATE, folder / ("new." + STATE)
    write_bytes(new, safetensors.torch.save(stored, metadata=metadata))
    try:
        read_state_file(new)
    except CheckpointError as error:
        new.unlink(missing_ok=True)
        raise ResourceError(new, f"did not read back after writing: {error.what}", "check the disk") from error
    if path.exists():
        os.replace(path, folder / PREVIOUS)
    os.replace(new, path)


def load_state(folder: Path) -> tuple[State | None, list[str]]:
    """The newest whole state in the folder, None where none was ever saved; and a line for each file passed over.

    Raises CheckpointError when there are states and none is whole.
    """
    skipped: list[str] = []
    # A kill between the two renames leaves the newest state under its first name.
    for name in ("new." + STATE, STATE, PREVIOUS):
        if (folder / name).exists():
            try:
                return read_state_file(folder / name), skipped
            except CheckpointError as error:
                skipped.append(str(error))
    if skipped:
        what = "holds no whole training state: " + "; ".join(skipped)
        raise CheckpointError(folder, what, "start a new run from a checkpoint with --model.init_from")
    return None, skipped


def read_state_file(path: Path) -> State:
    """Raises CheckpointError when the file is cut, or does not hold what was written."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        progress, settings = Progress(**json.loads(metadata["progress"])), dict(json.loads(metadata["settings"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(path, f"is cut or damaged: {error!r}") from error
    # The digest of the facts came later than the tensors': states without it are read as well.
    facts = _digest_of_facts(metadata)
    if metadata.get("digest") != _digest(tensors) or metadata.get("facts", facts) != facts:
        raise CheckpointError(path, "holds other numbers than were written")
    return State(tensors, progress, settings)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


def _digest_of_facts(metadata: Mapping[str, str]) -> str:
    return hashlib.sha256(f"{metadata['progress']}\n{metadata['settings']}".encode()).hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's per-parameter tensors, named `optimizer.<parameter>.<key>`; plain numbers become 0-d tensors."""
    rows = optimizer.state_dict()["state"]
    named = {f"optimizer.{index}.{key}": value for index, row in rows.items() for key, value in row.items()}
    return {name: torch.as_tensor(value) for name, value in named.items() if value is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimizer_tensors` back, in their parameters' memory format; groups and rates stay as configured."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rows: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # Files know no memory format; other strides could take other instructions, which round differently.
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
            rows.setdefault(int(index), {})[key] = tensor
    # Files hand tensors over in any order.
    optimizer.load_state_dict(
        {"state": dict(sorted(rows.items())), "param_groups": optimizer.state_dict()["param_groups"]}
    )
