"""Open the weight files of strangers safely: regular files only, tensors only, nothing that could run.

A `.pth` is a pickle, a program in a small language. torch is asked to admit tensors only (`weights_only`); a file that
it refuses stays refused, there is no second way in. A wrong kind of file is named, with what to do instead.
"""

from __future__ import annotations

import mmap
import pickle
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import CheckpointError, ResourceError, os_reason, shown

# First bytes of a file, its kind, and the fix. The most frequent wrong downloads come first.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "fetch the file itself with `git lfs pull`"),
    (b"<!doctype", "an HTML page, not the weights", "download the file itself, not the page about it"),
    (b"<html", "an HTML page, not the weights", "download the file itself, not the page about it"),
    (b"<?xml", "an XML page, not the weights", "download the file itself, not the page about it"),
    (b"\x89hdf", "an HDF5 file", "save the Caffe net as a binary .caffemodel (snapshot_format: BINARYPROTO)"),
    (b"pk\x03\x04", "a zip archive or a PyTorch file", "give it its own ending: .pth or .pt if PyTorch wrote it"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (b"name:", "a text prototxt: layers without weights", "pass the binary .caffemodel"),
    (b"layer", "a text prototxt: layers without weights", "pass the binary .caffemodel"),
    (b"input:", "a text prototxt: layers without weights", "pass the binary .caffemodel"),
)

# Errors that torch's reader raises on truncated and damaged files. UnicodeDecodeError is a ValueError.
_DAMAGE = (
    RuntimeError, ValueError, LookupError, EOFError, AttributeError, AssertionError, TypeError, OSError,
    OverflowError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
TORCH_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
_ZIP = b"pk\x03\x04"


def regular_file(path: str | Path) -> Path:
    """Return the path if it is an ordinary file with bytes in it.

    Raises CheckpointError for a missing or empty file, a folder, or a pipe (reading a pipe could wait for ever).
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(path, f"cannot be opened: {os_reason(error)}", "check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(path, "is not a regular file", "pass the weight file itself")
    if status.st_size == 0:
        raise CheckpointError(path, "is empty", "download it again")
    return path


def refuse_other_kinds(path: Path, allowed: tuple[bytes, ...] = ()) -> None:
    """Raise CheckpointError when the first bytes show another kind of file, except the `allowed` beginnings."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError as error:
        raise ResourceError(path, f"cannot be read: {os_reason(error)}", "check the file's permissions") from error
    start = head.lstrip().lower()
    for beginning, kind, fix in _BEGINNINGS:
        if start.startswith(beginning) and beginning not in allowed:
            raise CheckpointError(path, f"is {kind}", fix)


def map_file(path: str | Path) -> mmap.mmap:
    """Return the file's bytes as a read-only memory map: a file of 500 MB is not copied."""
    path = regular_file(path)
    refuse_other_kinds(path)
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return name -> tensor on the CPU, from `.safetensors` or from `torch.save(model.state_dict(), path)`.

    Raises CheckpointError for a file that is truncated, damaged, of another kind, or holds more than tensors.
    """
    path = regular_file(path)
    refuse_other_kinds(path, allowed=(_ZIP,))
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, Mapping) or not content:
        what = f"expected a table of tensors, got a {type(content).__name__}"
        raise CheckpointError(path, what, "save `model.state_dict()`")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            what = f"expected a flat table of tensors, got {shown(name)} of type {type(value).__name__}"
            raise CheckpointError(path, what, "save `model.state_dict()` itself, not a dictionary around it")
        if value.layout is not torch.strided or value.is_quantized or value.is_complex():
            what = f"{name} is sparse, quantized or complex"
            raise CheckpointError(path, what, "save ordinary floating-point weights")
    return dict(content)


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, *_DAMAGE) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(path, f"not a complete .safetensors file: {reason}", "download it again") from None


def _check_sums(path: Path) -> None:
    """Raise ValueError if the bytes of a file in torch's zip format differ from their checksums; torch ignores them."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch packs nothing; a packed file could be far larger than it looks.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()) or archive.testzip():
                raise ValueError


def _read_pickle(path: Path) -> Any:
    try:
        _check_sums(path)
        with warnings.catch_warnings():
            # A damaged header looks like an unusual pickle protocol; the error that follows is clearer.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own text explains how to open the file anyway, so none of it is passed on.
        what = "damaged, or holds objects besides tensors that could run code; it was not opened"
        fix = "get the weights as .safetensors, or as a plain state dict from a publisher you trust"
        raise CheckpointError(path, what, fix) from None
    except _DAMAGE:
        raise CheckpointError(path, "truncated, damaged, or not a PyTorch file", "download it again") from None
