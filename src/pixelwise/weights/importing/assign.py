"""SourceArray arrays into a network: every one has its place, or the whole import is refused with one list of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import CheckpointError
from ...models import ModelSpec
from ...models.base import SegmentationModel

NUM_LISTED = 5
PIECE = 1 << 22


@dataclass(frozen=True)
class SourceArray:
    """An array of a foreign file: its shape, and `part(start, stop)`, which gives that stretch of its values as a tensor."""

    shape: tuple[int, ...]
    part: Callable[[int, int], Tensor]

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> SourceArray:
        """A tensor that is in memory already."""
        flat = tensor.detach().reshape(-1)
        return cls(tuple(tensor.shape), lambda start, stop: flat[start:stop])

    @classmethod
    def of_array(cls, array: NDArray[Any]) -> SourceArray:
        """A view of a mapped file. It may be read-only and lie at any byte, so what is used of it is copied."""
        flat = array.reshape(-1)
        return cls(array.shape, lambda start, stop: torch.from_numpy(np.array(flat[start:stop])))

    def read(self) -> Tensor:
        """The whole array."""
        return self.part(0, prod(self.shape)).reshape(self.shape)

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """(place of the first value, values) of short stretches: a layer of 400 MB is never in memory twice."""
        for start in range(0, prod(self.shape), PIECE):
            yield start, self.part(start, start + PIECE)


@dataclass
class KeyMapping:
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


@dataclass(frozen=True)
class Imported:
    """A network with published weights, and what was done with the file."""

    model: SegmentationModel
    spec: ModelSpec
    report: Report


def fill(network: nn.Module, arrays: Mapping[str, SourceArray], plan: KeyMapping, source: object, fix: str) -> Report:
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
    _refuse(
        {"not as they must be": [c for name, check in plan.checks.items() if (c := check(arrays[name].read()))]},
        source,
        fix,
    )
    _refuse({"not finite": [plan.moves[key] for key, array in moved.items() if not _finite(array)]}, source, fix)
    with torch.no_grad():
        for key, array in moved.items():
            flat = own[key].view(-1)
            for start, piece in array.pieces():
                flat[start : start + len(piece)].copy_(piece)
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


def _finite(array: SourceArray) -> bool:
    return all(bool(piece.isfinite().all()) for _, piece in array.pieces())


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
