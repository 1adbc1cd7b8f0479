"""Files appear whole or not at all: a temporary file in the same folder, fsync, `os.replace`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import EnvironmentFault

_TEMPORARY = ".{name}.tmp-{pid}"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the name `path` only when the block ends without an error.

    Raises EnvironmentFault when the disk is full, the folder is missing or not writable.
    """
    path = Path(path)
    temporary = path.with_name(_TEMPORARY.format(name=path.name, pid=os.getpid()))
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(path, f"cannot be written: {error.strerror or error}", "free space, or choose a writable folder") from error
    finally:
        temporary.unlink(missing_ok=True)


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
        probe = path / _TEMPORARY.format(name="probe", pid=os.getpid())
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EnvironmentFault(path, f"cannot be used as a folder: {error.strerror or error}", "choose a writable folder") from error
    return path


def sweep_temporaries(folder: str | Path, is_alive: Callable[[int], bool] | None = None) -> list[Path]:
    """Remove temporary files that a killed process left in `folder`; those of living processes stay."""
    alive = is_alive or _process_is_alive
    swept = []
    for path in Path(folder).glob(".*.tmp-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and not alive(int(pid)):
            path.unlink(missing_ok=True)
            swept.append(path)
    return swept


def _process_is_alive(pid: int) -> bool:
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
