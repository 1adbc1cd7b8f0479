"""SourceArray files, opened safely: regular files only, and a wrong kind of file is called by its name."""

from __future__ import annotations

import mmap
import stat
from pathlib import Path

from ...errors import CheckpointError, ResourceError

# How a file begins -> what it is. The downloads that go wrong most often come first.
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


def regular_file(path: str | Path) -> Path:
    """The path, if it is an ordinary file with bytes in it.

    Raises CheckpointError for what is missing, empty, a folder or a pipe (reading a pipe would wait for ever).
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(path, f"cannot be opened: {error.strerror or error}", "check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(path, "is not a regular file", "pass the weight file itself")
    if status.st_size == 0:
        raise CheckpointError(path, "is empty", "download it again")
    return path


def refuse_other_kinds(path: Path, allowed: tuple[bytes, ...] = ()) -> None:
    """Raise CheckpointError when the first bytes show another kind of file; `allowed` beginnings are let through."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except OSError as error:
        raise ResourceError(path, f"cannot be read: {error.strerror or error}", "check the file's rights") from error
    start = head.lstrip().lower()
    for beginning, kind, fix in _BEGINNINGS:
        if start.startswith(beginning) and beginning not in allowed:
            raise CheckpointError(path, f"is {kind}", fix)


def map_file(path: str | Path) -> mmap.mmap:
    """The file's bytes as a read-only memory map, so that a file of 500 MB needs no copy of itself."""
    path = regular_file(path)
    refuse_other_kinds(path)
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
