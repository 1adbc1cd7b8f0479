"""Reader of PyTorch's `.pth` and of `.safetensors` files: tensors by name, and nothing that could run.

A `.pth` is a pickle, a program in a small language. torch is asked to admit tensors only, and when it refuses, the file is
refused: there is no second way in.
"""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import CheckpointError
from .safe_open import refuse_other_kinds, regular_file

# What torch's reader was seen to raise on cut and damaged files. UnicodeDecodeError is a ValueError.
_DAMAGE = (
    RuntimeError, ValueError, LookupError, EOFError, AttributeError, AssertionError, TypeError, OSError,
    OverflowError, MemoryError, struct.error,
)  # fmt: skip
TORCH_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
_ZIP = b"pk\x03\x04"


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor on the CPU, from `.safetensors` or from what `torch.save(model.state_dict(), path)` wrote.

    Raises CheckpointError for a file that is cut, damaged, of another kind, or holds more than tensors.
    """
    path = regular_file(path)
    refuse_other_kinds(path, allowed=(_ZIP,))
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return _table(path, content)


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        raise CheckpointError(
            path, f"is no whole .safetensors file: {_first_line(error)}", "download it again"
        ) from None


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # A damaged header looks like an unusual pickle protocol; the error that follows says it better.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own text explains how to open the file anyway, so none of it is passed on.
        what = "is damaged, or holds objects besides tensors that could run code; it was not opened"
        raise CheckpointError(
            path, what, "get the weights as .safetensors, or as a plain state dict from a publisher you trust"
        ) from None
    except _DAMAGE:
        raise CheckpointError(path, "is cut, damaged or no PyTorch file", "download it again") from None


def _table(path: Path, content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(
            path, f"holds a {type(content).__name__}, not a table of tensors", "save `model.state_dict()`"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"is no flat table of tensors: {name!r} is a {type(value).__name__}"
            raise CheckpointError(path, what, "save `model.state_dict()` itself, not a dictionary around it")
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            raise CheckpointError(
                path, f"{name} is sparse, quantised or complex", "save ordinary floating-point weights"
            )
    return dict(content)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
