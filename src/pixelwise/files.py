"""File access: atomic writes that never replace an input, and reads within limits."""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import re
import secrets
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .errors import InputError, ResourceError, os_reason

# The access right of Windows to ask whether a process exists, without any other access.
_PROCESS_QUERY_LIMITED_INFORMATION = 0x1000

MAX_BYTES = 256 * 2**20
"""The largest file of text that is read: metrics, scores, settings. The largest real ones have some 10 MB."""
# Seconds after which a temporary file of another machine counts as left over: no write lasts a day.
_MAX_WRITE_SECONDS = 24 * 3600
# What this process has written, in order, for messages; a file may have been renamed or removed since.
WRITTEN: list[Path] = []


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file that replaces `path` when the block ends without an error.

    Only a regular file is replaced. A link stays, and the file that it names is replaced. A pipe, a character device
    and a standard stream of this process (such as `/dev/stdout`) get the bytes when the block ends.
    Raises ResourceError if the disk is full, the folder is missing or not writable, `path` is a folder or a disk, or no
    process reads from the pipe.
    """
    path = Path(path)
    status = _status(path)
    if status is not None and _takes_a_stream(status):
        collected = io.BytesIO()
        yield collected
        _write_through(path, status, collected.getvalue())
        return
    target = Path(os.path.realpath(path))
    temporary = target.parent / _temporary_name(target.name)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # A folder fails below. A disk and a loop of links would be replaced.
        if status is not None and stat.S_ISBLK(status.st_mode):
            raise OSError(None, "is a disk, not a file")
        if target.is_symlink():
            raise OSError(None, "is a loop of links")
        os.replace(temporary, target)
        WRITTEN.append(Path(path))
        if os.name != "nt":
            # Make the rename durable, too. Windows cannot open a folder, and does not need to.
            handle = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        if error.filename not in (None, str(temporary), str(target.parent)):
            # An error of the block at another file.
            raise
        what = f"cannot be written: {os_reason(error)}"
        raise ResourceError(path, what, "free space, or choose a writable folder") from error
    finally:
        # If the folder is missing or closed, so is the temporary file; the first error is the one to report.
        with suppress(OSError):
            temporary.unlink()


def _status(path: Path) -> os.stat_result | None:
    """Return the status of the file that `path` names, links followed; None if there is none."""
    try:
        return path.stat()
    except (OSError, ValueError):
        return None


def _stream_number(status: os.stat_result) -> int | None:
    """Return 1 or 2 for the file that is this process's standard output or error, None for any other."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(status, os.fstat(number)):
                return number
    return None


def _takes_a_stream(status: os.stat_result) -> bool:
    """Return whether bytes are written into the file, which is never replaced: a pipe, a device, a standard stream."""
    is_stored = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return not is_stored or _stream_number(status) is not None


def _write_through(path: Path, status: os.stat_result, data: bytes) -> None:
    """Write into a pipe, a device or a standard stream. Raises ResourceError."""
    number = _stream_number(status)
    try:
        if number is None:
            # Without O_NONBLOCK, a pipe that nobody reads from would stop the process for ever.
            handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            if os.name != "nt":
                os.set_blocking(handle, True)
        else:
            # Not opened again: if standard output is a regular file, it would lose the text printed so far.
            handle = os.dup(number)
        with open(handle, "wb") as file:
            file.write(data)
    except OSError as error:
        what = f"cannot be written: {os_reason(error)}"
        raise ResourceError(path, what, "name a file, or a pipe that a process reads from") from error


def check_outputs(
    outputs: Iterable[str | Path],
    *,
    inputs: Iterable[str | Path | None] = (),
    data: str | Path | None = None,
    overwrite: bool = False,
    fix: str = "choose another --out",
) -> None:
    """Raise InputError if writing the files `outputs` would destroy something. Every command calls it first.

    inputs     files and folders that the command reads: no output may be one of the files or lie among the existing
               files of the folders, not as a link or a hard link either. Names that are not paths are ignored
    data       the folder of the dataset, like `inputs`; no new file may be written into it either
    overwrite  whether other existing files may be replaced
    fix        how to write elsewhere
    """
    found: list[tuple[Path, os.stat_result]] = []
    for path in (given if isinstance(given, Path) else Path(given) for given in outputs):
        if data is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(data)):
            raise InputError(path, f"would be written into the data folder {data}", fix)
        status = _status(path)
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise InputError(path, "is a folder, but a file is to be written there", "name a file")
        if status is not None and not _takes_a_stream(status):
            found.append((path, status))
    if not found:
        return
    sources: dict[tuple[int, int], Path] = {}
    for source in (file for given in (*inputs, data) if given is not None for file in _files_below(Path(given))):
        if status := _status(source):
            sources[status.st_dev, status.st_ino] = source
    for path, status in found:
        over = sources.get((status.st_dev, status.st_ino))
        if over is not None:
            name = "an input" if over == path else f"the input {over}"
            raise InputError(path, f"would be written over {name}", fix)
    if not overwrite:
        count = f" ({len(found)} such files)" if len(found) > 1 else ""
        raise InputError(found[0][0], f"exists already{count}", f"{fix}, or add --overwrite")


def _files_below(path: Path) -> Iterator[Path]:
    """Yield a file itself, or the files of a folder at any depth; links to folders are followed once."""
    if not path.is_dir():
        yield path
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
        else:
            seen.add(real)
            yield from (Path(folder, name) for name in names)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all.

    A file's name may hold bytes that are no UTF-8, which Python keeps as lone surrogates. They are written as
    backslash escapes, which JSON and quoted YAML read back.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def make_folder(path: str | Path) -> Path:
    """Create the folder `path` with its parents and check that a file can be written there. Raises ResourceError."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / _temporary_name("probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        what = f"cannot be used as a folder: {os_reason(error)}"
        raise ResourceError(path, what, "choose a writable folder") from error
    return path


def read_regular(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of an ordinary file. Raises OSError for any other, such as a pipe, and beyond `limit` bytes.

    Neither a pipe without a writer nor an endless device can make it wait or fill the memory.
    """
    check_regular(path)
    with open_without_waiting(path) as file:
        status = os.fstat(file.fileno())
        # `read` makes room for all that it is asked for. A log of the kernel has no end, and read gives None.
        data = (file.read(min(limit, status.st_size) + 1) if stat.S_ISREG(status.st_mode) else b"") or b""
        if status.st_size < len(data) <= limit:
            # The size of a file in /proc is 0, and a file may grow.
            data += file.read(limit + 1 - len(data)) or b""
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit // 2**20} MiB", str(path))
    return data


def open_without_waiting(path: str | Path) -> IO[bytes]:
    """Open a file to read; reading it ends where it would have to wait, as in a pipe or in a log of the kernel."""
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")


def check_regular(path: str | Path) -> None:
    """Raise OSError if `path` is not an ordinary file: missing, a folder, a pipe or a device."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))


def read_json(path: str | Path, limit: int = MAX_BYTES) -> Any:
    """Return what a JSON file holds. Raises OSError as `read_regular`, ValueError in one short line for other content.

    NaN and infinity, which Python writes and JSON does not know, are read.
    """
    return parse_json(read_regular(path, limit))


def parse_json(text: str | bytes) -> Any:
    """Return what JSON text holds. Raises ValueError in one short line, also for bytes that are not UTF-8."""
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        # The error's own text holds all the bytes.
        raise ValueError(f"not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Create a folder for the block as `make_folder` does; if the block fails, remove it again if it is new and empty.

    The parents that were created go with it.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield make_folder(path)
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _temporary_name(name: str) -> str:
    """Return a hidden name, unique among threads, that ends in host and process; long names are cut to stay legal."""
    return f".{name[:32]}.tmp-{secrets.token_hex(4)}-{_host()}-{os.getpid()}"


def _host() -> str:
    """Return the name of this machine, in characters and of a length that fit into a file name."""
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:32]


def sweep_temporaries(folder: str | Path) -> list[Path]:
    """Remove left-over temporary files from `folder`, and return them.

    Left over are files of ended processes of this machine, and those of other machines that are older than a day.
    """
    swept = []
    for path in Path(folder).glob(".*.tmp-*"):
        found = re.search(r"\.tmp-[0-9a-f]+-(?:(.+)-)?([0-9]{1,18})$", path.name)
        if not found:
            continue
        host, pid = found[1], int(found[2])
        # Another process may have swept it by now.
        with suppress(FileNotFoundError):
            if host == _host():
                is_left_over = not process_is_alive(pid)
            else:
                is_left_over = time.time() - path.lstat().st_mtime > _MAX_WRITE_SECONDS
            if is_left_over:
                path.unlink()
                swept.append(path)
    return swept


def process_is_alive(pid: int) -> bool:
    """Return whether a process with that id runs on this machine."""
    if sys.platform == "win32":
        # On Windows os.kill(pid, 0) would end the process. The 0: child processes do not inherit the handle.
        handle = ctypes.windll.kernel32.OpenProcess(_PROCESS_QUERY_LIMITED_INFORMATION, 0, pid)
        return bool(handle and ctypes.windll.kernel32.CloseHandle(handle))
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        # No process has a number beyond the operating system's.
        return False
    except OSError:
        return True
    return True


def process_activity(pid: int) -> tuple[str, int] | None:
    """Return a process's state as Linux names it ("T" if a signal has stopped it) and its CPU time in clock ticks.

    None if there is no such process, and on other systems.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0].upper(), int(fields[11]) + int(fields[12])
