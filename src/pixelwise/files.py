"""Files appear whole or not at all: a temporary file in the same folder, fsync, `os.replace`."""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import ResourceError

# What asks Windows for no more than whether a process is there.
_PROCESS_QUERY_LIMITED_INFORMATION = 0x1000


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the name `path` only when the block ends without an error.

    Raises ResourceError when the disk is full, the folder is missing or not writable.
    """
    path = Path(path)
    temporary = path.parent / _temporary_name(path.name)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(path.parent)):
            # The block failed at a file of its own.
            raise
        what = f"cannot be written: {error.strerror or error}"
        raise ResourceError(path, what, "free space, or choose a writable folder") from error
    finally:
        # Where the folder itself is missing or closed, so is the temporary file, and the first error is the one to tell.
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: str | Path) -> Path:
    """Create the folder `path` with its parents and prove that a file can be written there."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / _temporary_name("probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        what = f"cannot be used as a folder: {error.strerror or error}"
        raise ResourceError(path, what, "choose a writable folder") from error
    return path


def _temporary_name(name: str) -> str:
    """Hidden, unique among threads, with the owner's process number; cut so that a long name stays a legal one."""
    return f".{name[:32]}.tmp-{secrets.token_hex(4)}-{os.getpid()}"


def sweep_temporaries(folder: str | Path, is_alive: Callable[[int], bool] | None = None) -> list[Path]:
    """Remove temporary files that a killed process left in `folder`; those of living processes stay."""
    alive = is_alive or process_is_alive
    swept = []
    for path in Path(folder).glob(".*.tmp-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not alive(int(pid)):
            path.unlink(missing_ok=True)
            swept.append(path)
    return swept


def process_is_alive(pid: int) -> bool:
    """True when a process of that number runs on this machine."""
    if sys.platform == "win32":
        # There os.kill would end the process.
        handle = ctypes.windll.kernel32.OpenProcess(_PROCESS_QUERY_LIMITED_INFORMATION, False, pid)
        return bool(handle and ctypes.windll.kernel32.CloseHandle(handle))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the rename durable; Windows has no handle on a folder, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
