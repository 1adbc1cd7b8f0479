"""Foreign arrays into a network: every one has its place, or the whole import is refused with one list of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import CheckpointError

NUM_LISTED = 5


@dataclass(frozen=True)
class Foreign:
    """An array of a foreign file: its shape, and `read`, which gives it as a tensor."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> Foreign:
        """A tensor that is in memory already."""
        return cls(tuple(tensor.shape), lambda: tensor)

    @classmethod
    def of_array(cls, array: NDArray[Any]) -> Foreign:
        """A view of a mapped file, copied only while it is used: it may be read-only and lie at any byte."""
        return cls(array.shape, lambda: torch.from_numpy(np.array(array)))


@dataclass
class Plan:
    """Where each foreign array goes.

    moves    state name of the network -> foreign name
    fresh    state names that keep their fresh weights: the file cannot have them
    dropped  foreign names that the network has no place for, each with the reason
    checks   foreign names that must hold certain numbers; the function returns a complaint or ""
    """

    moves: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    checks: dict[str, Callable[[Tensor], str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What an import did, in the file's own names: `loaded`, `checked`, `dropped` (name -> reason), and `fresh` state names."""

    loaded: tuple[str, ...]
    checked: tuple[str, ...]
    dropped: Mapping[str, str]
    fresh: tuple[str, ...]
    num_values: int


def assign(network: nn.Module, arrays: Mapping[str, Foreign], plan: Plan, source: object, fix: str) -> Report:
    """Copy the arrays into the network as planned, all of them or none.

    Raises one CheckpointError that counts and lists what is missing, unexpected, mis-shaped, not finite or not as it must be.
    """
    own = network.state_dict()
    problems = {
        "missing": [f"{name} (for {key})" for key, name in plan.moves.items() if name not in arrays]
        + [name for name in plan.checks if name not in arrays]
        + sorted(set(own) - set(plan.moves) - set(plan.fresh)),
        "unexpected": [name for name in arrays if name not in {*plan.moves.values(), *plan.dropped, *plan.checks}],
        "mis-shaped": [
            f"{name} {_shown(arrays[name].shape)} for {_shown(own[key].shape)}"
            for key, name in plan.moves.items()
            if name in arrays and not fits(arrays[name].shape, tuple(own[key].shape))
        ],
    }
    _refuse(problems, source, fix)
    moved = {key: arrays[name] for key, name in plan.moves.items()}
    _refuse({"not as they must be": [c for name, check in plan.checks.items() if (c := check(arrays[name].read()))]}, source, fix)
    _refuse({"not finite": [plan.moves[key] for key, array in moved.items() if not _finite(array.read())]}, source, fix)
    with torch.no_grad():
        for key, array in moved.items():
            own[key].copy_(array.read().reshape(own[key].shape))
    dropped = {name: reason for name, reason in plan.dropped.items() if name in arrays}
    num_values = sum(prod(array.shape) for array in moved.values())
    return Report(tuple(plan.moves.values()), tuple(plan.checks), dropped, tuple(plan.fresh), num_values)


def fits(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Whether an array may be reshaped to `target` without changing what its numbers mean.

    Besides equal shapes: Caffe's old sizes with ones in front (1, 1, n, m), and a fully connected layer (n, c * h * w) as
    the convolution (n, c, h, w) that it is; both flatten their input as c, h, w.
    """
    shape, target = tuple(shape), tuple(target)
    if shape == target:
        return True
    while len(shape) > max(1, min(2, len(target))) and shape[0] == 1:
        shape = shape[1:]
    return shape == target or (len(shape) == 2 and len(target) == 4 and shape == (target[0], prod(target[1:])))


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _refuse(problems: Mapping[str, Sequence[str]], source: object, fix: str) -> None:
    found = [
        f"{len(names)} {word} ({', '.join(names[:NUM_LISTED])}{', ...' if len(names) > NUM_LISTED else ''})"
        for word, names in problems.items()
        if names
    ]
    if found:
        raise CheckpointError(source, "does not fit the network: " + "; ".join(found), fix)


def _shown(shape: Sequence[int]) -> str:
    return "x".join(str(axis) for axis in shape) or "scalar"
