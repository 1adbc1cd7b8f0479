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

from ..errors import CheckpointError, EnvironmentFault
from ..files import write_bytes

STATE = "state.safetensors"
PREVIOUS = "state.previous.safetensors"


@dataclass(frozen=True)
class Progress:
    """The numbers of a state: steps done, the best validation score and its step, bad pictures met."""

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    num_bad: int = 0


def save_state(folder: Path, tensors: Mapping[str, Tensor], progress: Progress, settings: Mapping[str, Any]) -> None:
    """Write the state and prove it: the new file is read back and its digest compared before the old one goes.

    Raises EnvironmentFault when it cannot be written or does not read back.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(dict(settings)), "digest": _digest(stored)}
    path, new = folder / STATE, folder / ("new." + STATE)
    write_bytes(new, safetensors.torch.save(stored, metadata=metadata))
    try:
        read_state_file(new)
    except CheckpointError as error:
        raise EnvironmentFault(new, f"did not read back after writing: {error.what}", "check the disk") from error
    if path.exists():
        os.replace(path, folder / PREVIOUS)
    os.replace(new, path)


def load_state(folder: Path) -> tuple[dict[str, Tensor], Progress, dict[str, Any], list[str]]:
    """The newest whole state in the folder: tensors, progress, settings, and a line for each file that had to be passed over.

    Raises CheckpointError when there is none.
    """
    passed_over = []
    # A kill between the two renames leaves the newest state under its first name.
    for name in ("new." + STATE, STATE, PREVIOUS):
        if (folder / name).exists():
            try:
                return *read_state_file(folder / name), passed_over
            except CheckpointError as error:
                passed_over.append(str(error))
    raise CheckpointError(folder, "holds no whole training state" + "".join(f"; {line}" for line in passed_over), "start without --resume")


def read_state_file(path: Path) -> tuple[dict[str, Tensor], Progress, dict[str, Any]]:
    """Raises CheckpointError when the file is cut, or its tensors are not those that were written."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        progress, settings = Progress(**json.loads(metadata["progress"])), json.loads(metadata["settings"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(path, f"is cut or damaged: {error!r}") from error
    if metadata.get("digest") != _digest(tensors):
        raise CheckpointError(path, "holds other numbers than were written")
    return tensors, progress, settings


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's per-parameter tensors, named `optimizer.<parameter>.<key>`; plain numbers become 0-d tensors."""
    rows = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": torch.as_tensor(value) for index, row in rows.items() for key, value in row.items() if value is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimizer_tensors` back; groups and rates stay as configured."""
    rows: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            rows.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": rows, "param_groups": optimizer.state_dict()["param_groups"]})
