"""The training state: all that a run needs to continue as if it had never stopped, in one file, and the file before it.

Everything random is a function of the seed and the step, so the state is tensors (weights, moving average, optimizer)
and a few numbers. It is written to a temporary name, read back, compared by digest, and renamed. The file that it
replaces stays as `previous`, so that at least one intact state is on disk at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import CheckpointError, ResourceError, os_reason
from ..files import check_regular, parse_json, write_bytes
from .loss_trend import LossTrend

STATE = "state.safetensors"
PREVIOUS = "state.previous.safetensors"
# What reading a file raises that is cut or damaged.
_DAMAGED = (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError)


@dataclass(frozen=True)
class TrainingProgress:
    """What a state remembers besides tensors.

    step           steps done
    best_score     best mean IoU of a validation
    best_step      the step after which it was
    num_skipped    images so far that could not be read
    num_no_better  validations since the best one
    losses         for the warning that the loss does not fall
    notes          warnings and early stop, by kind: each is printed once in a run, and kept for its report
    """

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    num_skipped: int = 0
    num_no_better: int = 0
    losses: LossTrend = field(default_factory=LossTrend)
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingState:
    """The contents of a state file: tensors by name, progress, and the settings that it was trained with.

    Names start with "model.", "ema." or "optimizer.".
    """

    tensors: dict[str, Tensor]
    progress: TrainingProgress
    settings: dict[str, Any]

    def named(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names start with `prefix`, under their names without it."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def save_state(
    folder: Path, tensors: Mapping[str, Tensor], progress: TrainingProgress, settings: Mapping[str, Any]
) -> None:
    """Write the state; the new file is read back and compared by digest before it replaces the old one.

    Raises ResourceError if it cannot be written or does not read back.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(dict(settings))}
    metadata = {**facts, "digest": _digest(stored, facts)}
    path, new = folder / STATE, folder / ("new." + STATE)
    write_bytes(new, safetensors.torch.save(stored, metadata=metadata))
    try:
        read_state(new)
    except CheckpointError as error:
        new.unlink(missing_ok=True)
        raise ResourceError(new, f"did not read back after writing: {error.what}", "check the disk") from error
    if path.exists():
        os.replace(path, folder / PREVIOUS)
    os.replace(new, path)


def read_newest_state(folder: Path) -> tuple[TrainingState | None, list[str]]:
    """Return the newest intact state in the folder, None if none was ever saved; and one line per damaged file.

    Raises CheckpointError if there are states and none is intact.
    """
    skipped: list[str] = []
    # A kill between the two renames leaves the newest state under its temporary name.
    for name in ("new." + STATE, STATE, PREVIOUS):
        if (folder / name).exists():
            try:
                return read_state(folder / name), skipped
            except CheckpointError as error:
                skipped.append(str(error))
    if skipped:
        what = "contains no intact training state: " + "; ".join(skipped)
        raise CheckpointError(folder, what, "start a new run from a checkpoint with --model.init_from")
    return None, skipped


_RESTART = "resume from another copy, or start a new run with --model.init_from"


def newest_step(folder: Path) -> int | None:
    """Return the step of the newest state in the folder, from its header alone; None if none was saved."""
    for name in ("new." + STATE, STATE, PREVIOUS):
        if (folder / name).exists():
            with suppress(*_DAMAGED):
                check_regular(folder / name)
                with safetensors.safe_open(folder / name, "pt") as file:
                    return int(parse_json((file.metadata() or {})["progress"])["step"])
    return None


def read_state(path: Path) -> TrainingState:
    """Read one state file. Raises CheckpointError if it is cut, or differs from what was written."""
    try:
        check_regular(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        numbers = dict(parse_json(metadata["progress"]))
        if "num_replaced" in numbers:
            # The name of `num_skipped` in states of earlier versions.
            numbers["num_skipped"] = numbers.pop("num_replaced")
        numbers["losses"] = LossTrend(**numbers.get("losses", {}))
        progress = TrainingProgress(**numbers)
        settings = dict(parse_json(metadata["settings"]))
        intact = metadata["digest"] == _digest(tensors, metadata)
    except _DAMAGED as error:
        what = f"is cut or damaged: {type(error).__name__} {os_reason(error)}"
        raise CheckpointError(path, what, _RESTART) from error
    if not intact:
        raise CheckpointError(path, "differs from what was written: its digest does not match", _RESTART)
    return TrainingState(tensors, progress, settings)


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """Hash names, types, shapes and bytes of the tensors, progress and settings."""
    total = hashlib.sha256(f"{facts['progress']}\n{facts['settings']}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `optimizer.<parameter index>.<key>`; plain numbers become 0-d tensors."""
    rows = optimizer.state_dict()["state"]
    named = {f"optimizer.{index}.{key}": value for index, row in rows.items() for key, value in row.items()}
    return {name: torch.as_tensor(value) for name, value in named.items() if value is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore `optimizer_tensors` in their parameters' memory format; groups and rates stay as configured."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rows: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            parameter = parameters[int(index)]
            if tensor.shape == parameter.shape:
                # Files know no memory format; other strides could select other instructions, which round differently.
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
            rows.setdefault(int(index), {})[key] = tensor
    # Files list tensors in any order.
    optimizer.load_state_dict(
        {"state": dict(sorted(rows.items())), "param_groups": optimizer.state_dict()["param_groups"]}
    )
