"""Open the weight files of other projects as arrays, and load mapped arrays into a network, all or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import CheckpointError, listed, shown
from ...models import ModelSpec
from ...models.base import SegmentationModel
from .caffemodel import read_caffemodel
from .safe_open import TORCH_ENDINGS, read_tensors, regular_file

CAFFE_ENDING = ".caffemodel"
# Values per copy: a layer of 400 MB is never in memory twice.
PIECE = 1 << 22


@dataclass(frozen=True)
class SourceArray:
    """An array of a weight file: its shape, and `part(start, stop)`, which returns that range of its flat values."""

    shape: tuple[int, ...]
    part: Callable[[int, int], Tensor]

    @classmethod
    def of_tensor(cls, tensor: Tensor) -> SourceArray:
        """Wrap a tensor in memory."""
        flat = tensor.detach().reshape(-1)
        return cls(tuple(tensor.shape), lambda start, stop: flat[start:stop])

    @classmethod
    def of_array(cls, array: NDArray[Any]) -> SourceArray:
        """Wrap a view of a mapped file, which may be read-only and unaligned: `part` copies."""
        flat = array.reshape(-1)
        return cls(array.shape, lambda start, stop: torch.from_numpy(np.array(flat[start:stop])))

    def read(self) -> Tensor:
        """Return the whole array."""
        return self.part(0, prod(self.shape)).reshape(self.shape)

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of the first value, values) in ranges of at most `PIECE` values."""
        for start in range(0, prod(self.shape), PIECE):
            yield start, self.part(start, start + PIECE)


@dataclass(frozen=True)
class WeightFile:
    """The arrays of a file under the file's own names, such as "conv1_1.weight".

    stripped       parts of the names that were removed, each with the number of names: wrappers of PyTorch that say
                   nothing about the network
    preprocessing  pixel normalization of the training, where the names tell it
    """

    path: Path
    arrays: Mapping[str, SourceArray]
    stripped: Mapping[str, int] = field(default_factory=dict)
    preprocessing: str = ""

    @property
    def is_caffe(self) -> bool:
        """Whether Caffe wrote the file, rather than PyTorch."""
        return self.path.suffix == CAFFE_ENDING


def read_weight_file(path: str | Path, endings: Sequence[str] = (CAFFE_ENDING, *TORCH_ENDINGS)) -> WeightFile:
    """Open a file by its ending. Raises CheckpointError for another ending, and for a damaged or dangerous file."""
    path = regular_file(path)
    if path.suffix not in endings:
        what = f"ends in {shown(path.suffix)}, expected {', '.join(endings)}"
        raise CheckpointError(path, what, "give the file the ending of its kind")
    if path.suffix != CAFFE_ENDING:
        tensors, stripped = strip_wrappers(read_tensors(path), path)
        return WeightFile(path, {name: SourceArray.of_tensor(t) for name, t in tensors.items()}, stripped)
    arrays = {}
    for layer in read_caffemodel(path):
        for i, blob in enumerate(layer.blobs):
            # Caffe numbers the arrays of a layer: the weight, then the bias.
            kind = ("weight", "bias")[i] if i < 2 else f"blob{i}"
            arrays[f"{layer.name}.{kind}"] = SourceArray.of_array(blob)
    return WeightFile(path, arrays)


def strip_wrappers(tensors: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors without the parts of their names that PyTorch's wrappers add, and how many names had each.

    `torch.compile` adds "_orig_mod." to the names of the module that it wraps, which may be a part of the network;
    DataParallel adds "module." in front of every name. Raises CheckpointError if two names become one.
    """
    names = {name: ".".join(part for part in name.split(".") if part != "_orig_mod") for name in tensors}
    stripped = {"_orig_mod.": sum(name != short for name, short in names.items())}
    stripped["module."] = len(names) if all(name.startswith("module.") for name in names.values()) else 0
    if stripped["module."]:
        names = {name: short.removeprefix("module.") for name, short in names.items()}
    if len(set(names.values())) < len(names):
        twice = next(short for short in names.values() if list(names.values()).count(short) > 1)
        what = f"holds {shown(twice)} twice, with and without the prefix of torch.compile"
        raise CheckpointError(path, what, "save `model.state_dict()` of one of the two")
    return {names[name]: tensor for name, tensor in tensors.items()}, {p: n for p, n in stripped.items() if n}


@dataclass(frozen=True)
class Request:
    """What the caller asks for: a registered network and its options; None for a number that follows from the file."""

    name: str
    num_classes: int | None
    in_channels: int | None
    options: Mapping[str, Any]


@dataclass
class KeyMapping:
    """The place of every array of a file in a network.

    moves    state name of the network -> array name
    fresh    state names that keep their fresh weights: the file cannot have them
    dropped  array names without a place in the network, each with the reason
    checks   array names that must hold certain numbers; the function returns a complaint or ""
    derived  further arrays that `moves` may name, computed from the file's
    """

    moves: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    checks: dict[str, Callable[[Tensor], str]] = field(default_factory=dict)
    derived: dict[str, SourceArray] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What was done with a file: array names `loaded`, `checked`, `dropped` (with the reason), state names `fresh`.

    stripped       parts that were removed from the names, each with the number of names
    preprocessing  the pixel normalization that the file was trained with; empty where the caller chose it
    """

    loaded: tuple[str, ...]
    checked: tuple[str, ...]
    dropped: Mapping[str, str]
    fresh: tuple[str, ...]
    num_values: int
    stripped: Mapping[str, int] = field(default_factory=dict)
    preprocessing: str = ""


@dataclass(frozen=True)
class Imported:
    """A network with published weights in eval mode, and what was done with the file."""

    model: SegmentationModel
    spec: ModelSpec
    report: Report


def load_mapped(network: nn.Module, file: WeightFile, mapping: KeyMapping, fix: str) -> Report:
    """Copy the arrays into the network as mapped, all of them or none.

    Raises one CheckpointError that lists the arrays that are missing, unexpected, mis-shaped, not finite, or fail a
    check.
    """
    own, moves = network.state_dict(), mapping.moves
    arrays = {**file.arrays, **mapping.derived}
    known = {*moves.values(), *mapping.dropped, *mapping.checks}

    def refuse_if_any(problems: dict[str, list[str]]) -> None:
        num_kinds = sum(map(bool, problems.values()))
        found = [f"{len(n)} {problem} ({listed(n, limit=4 // num_kinds)})" for problem, n in problems.items() if n]
        if found:
            raise CheckpointError(file.path, "does not fit the network: " + "; ".join(found), fix)

    missing = [f"{name} (for {key})" for key, name in moves.items() if name not in arrays]
    missing += [name for name in mapping.checks if name not in arrays]
    missing += sorted(set(own) - set(moves) - set(mapping.fresh))
    misshaped = [
        f"{name} {_size(arrays[name].shape)} for {_size(own[key].shape)}"
        for key, name in moves.items()
        if name in arrays and not fits(arrays[name].shape, own[key].shape)
    ]
    unexpected = [name for name in file.arrays if name not in known]
    refuse_if_any({"missing": missing, "unexpected": unexpected, "mis-shaped": misshaped})
    complaints = (check(arrays[name].read()) for name, check in mapping.checks.items())
    refuse_if_any({"not as expected": [complaint for complaint in complaints if complaint]})
    finite = {name: all(bool(piece.isfinite().all()) for _, piece in arrays[name].pieces()) for name in moves.values()}
    refuse_if_any({"not finite": [name for name, is_finite in finite.items() if not is_finite]})

    with torch.no_grad():
        for key, name in moves.items():
            flat = own[key].view(-1)
            for start, piece in arrays[name].pieces():
                flat[start : start + len(piece)].copy_(piece)
    dropped = {name: reason for name, reason in mapping.dropped.items() if name in arrays}
    num_values = sum(own[key].numel() for key in moves)
    return Report(
        tuple(moves.values()), tuple(mapping.checks), dropped, tuple(mapping.fresh), num_values, file.stripped
    )


def fits(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Return whether an array may be reshaped to `target` without changing the meaning of its numbers.

    Besides equal shapes: Caffe's old sizes with leading ones (1, 1, n, m), and a fully connected layer (n, c * h * w)
    as the equivalent convolution (n, c, h, w); both flatten their input as c, h, w.
    """
    shape, target = tuple(shape), tuple(target)
    if shape == target:
        return True
    while len(shape) > max(1, min(2, len(target))) and shape[0] == 1:
        shape = shape[1:]
    return shape == target or (len(shape) == 2 and len(target) == 4 and shape == (target[0], prod(target[1:])))


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(axis) for axis in shape) or "scalar"
