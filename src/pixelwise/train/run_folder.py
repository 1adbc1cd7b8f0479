"""The folder of a run: its lock and its files.

config.yaml        the resolved configuration
recipe.yaml        of a recipe that was chosen for the data: what was chosen, with reasons
held_out.json      names of the images that were held out for validation, if the dataset has no split for it
environment.json   versions and hardware; number of images that could not be read; `notes`: warnings, an early stop
metrics.csv        one line per logged step and per validation, see `COLUMNS`
checkpoints/last   the newest weights to predict with, and state.safetensors to resume from
checkpoints/best   the weights with the best validation mean IoU
run.lock           locked by the process that trains; run.holder.json names it, and its time is the last sign of life

`finish_run` adds, after the last step:

scores.json        scores of the best checkpoint on the validation split
samples/           labeled images of the validation split
report.html        the page that shows all of it
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..data.held_out import HELD_OUT_FILE, HeldOut
from ..errors import InputError, ResourceError, cut, os_reason, printable
from ..files import (
    check_regular,
    make_folder,
    new_folder,
    read_json,
    read_regular,
    sweep_temporaries,
    write_bytes,
    write_text,
)
from ..weights.checkpoint import finish_save, is_checkpoint

_SCORES = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "mean_dice", "foreground_dice")
COLUMNS = ("step", "split", "lr", "loss", *_SCORES, "seconds")
"""Columns of metrics.csv. A training line has `lr`, the learning rate of the optimizer's first parameter group, and the
loss of the step; a validation line has the scores (0..1) and the duration of the validation in seconds. Foreground are
the classes that are no background, where one is."""

_SECONDS_BETWEEN_SIGNS = 20
SECONDS_UNTIL_DEAD = 600
"""A process on another host that has shown no sign of life for so long has ended, and its run is taken over."""
_LOCK = "run.lock"
_HOLDER = "run.holder.json"
_ENVIRONMENT = "environment.json"


class RunFolder:
    """Paths and files of one run; only rank 0 writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last"
        self.best = self.path / "checkpoints" / "best"
        self.config = self.path / "config.yaml"
        self.recipe = self.path / "recipe.yaml"
        self.held_out = self.path / HELD_OUT_FILE
        self.metrics = self.path / "metrics.csv"
        self._log_failed = False

    def check_target(self, *, resume: bool, data: str | Path | None = None) -> None:
        """Raise InputError if a run must not be written into the folder.

        The folder may be missing, empty, a run with `resume`, or a run that saved no checkpoint. Neither may it lie in
        the folder `data` of the dataset nor `data` in it.
        """
        if data is not None:
            out, inside = (Path(os.path.realpath(folder)) for folder in (self.path, data))
            if out.is_relative_to(inside) or inside.is_relative_to(out):
                what = f"a run and its data ({data}) cannot lie in one another"
                raise InputError(self.path, what, "choose another --out")
        if self._is_empty():
            return
        if not self._has_checkpoint() and not any((self.path / name).exists() for name in (_LOCK, _HOLDER)):
            what = "is not empty and not a run" + (", so there is nothing to resume" if resume else "")
            raise InputError(self.path, what, "choose another --out")
        # A run that is held, or was killed, is left to the lock.
        if not resume and not (self.path / _HOLDER).exists():
            self._check_no_checkpoint()

    def _check_no_checkpoint(self) -> None:
        if self._has_checkpoint():
            raise InputError(self.path, "contains a run already", "go on with --resume, or choose another --out")

    @contextmanager
    def opened(self, resume: bool, *, data: str | Path | None = None) -> Iterator[None]:
        """Create the folders, lock them against a second run inside the block, and clean up after a killed run.

        If the block fails before a step was logged or saved, a new folder is removed again.
        Raises InputError if another process trains in the folder, and for the folders that `check_target` refuses;
        ResourceError without write permission.
        """
        self.check_target(resume=resume, data=data)
        is_new = self._is_empty()
        with new_folder(self.path), self._locked(is_new=is_new):
            # Again, since another process may have trained there until now.
            if not resume:
                self._check_no_checkpoint()
            for folder in (self.path, self.last, self.best):
                make_folder(folder)
                sweep_temporaries(folder)
            for folder in (self.last, self.best):
                finish_save(folder)
            yield

    @contextmanager
    def _locked(self, *, is_new: bool) -> Iterator[None]:
        """Hold the lock of the folder. The operating system releases it when the process ends, even by SIGKILL."""
        lock, note = FileLock(self.path / _LOCK), self.path / _HOLDER
        try:
            if os.path.exists(lock.lock_file):
                check_regular(lock.lock_file)
            lock.acquire(blocking=False)
        except Timeout:
            raise InputError(
                self.path, f"is held by {_holder(note)[0]}", "wait for it, or choose another --out"
            ) from None
        except OSError as error:
            what = f"cannot be locked: {os_reason(error)}"
            raise ResourceError(self.path, what, "free space, or choose a writable folder") from error
        try:
            holder, host = _holder(note)
            if host not in (None, socket.gethostname()):
                # Some network file systems do not carry locks from host to host, so a note from another host stands for
                # one, as long as its process shows that it is alive. Both times are those of the file system.
                os.utime(lock.lock_file)
                silent = os.stat(lock.lock_file).st_mtime - os.stat(note).st_mtime
                if silent < SECONDS_UNTIL_DEAD:
                    minutes = SECONDS_UNTIL_DEAD // 60
                    what = f"is held by {holder}, which was alive {max(silent, 0):.0f} seconds ago"
                    fix = f"wait for it, choose another --out, or delete {note.name} if that process has ended"
                    raise InputError(
                        self.path, what, f"{fix} (it counts as ended {minutes} minutes after its last sign)"
                    )
                what = (
                    f"was held by {holder}, which has shown no sign of life for {silent / 60:.0f} minutes: taken over"
                )
                print(printable(f"warning: {self.path} {what}"), file=sys.stderr)
            ended = threading.Event()
            heartbeat = threading.Thread(target=_touch_until, args=(ended, note), daemon=True)
            try:
                write_text(note, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
                heartbeat.start()
                yield
            except BaseException:
                if is_new and not self._has_checkpoint() and not self.metrics.exists():
                    self._remove_start()
                raise
            finally:
                ended.set()
                if heartbeat.is_alive():
                    heartbeat.join()
                note.unlink(missing_ok=True)
        finally:
            lock.release()

    def _is_empty(self) -> bool:
        """Return whether the folder is missing or empty. Raises ResourceError for a file, or without permission."""
        try:
            return not self.path.exists() or not any(self.path.iterdir())
        except OSError as error:
            what = f"cannot be used as a folder: {os_reason(error)}"
            raise ResourceError(self.path, what, "choose a writable folder") from error

    def _has_checkpoint(self) -> bool:
        return is_checkpoint(self.last) or is_checkpoint(self.best)

    def _remove_start(self) -> None:
        """Remove what a run writes before its first step, and nothing else."""
        for path in (self.config, self.recipe, self.held_out, self.path / _ENVIRONMENT, self.path / _LOCK):
            # Windows removes no file that is locked.
            with suppress(OSError):
                path.unlink()
        for folder in (self.last, self.best, self.last.parent):
            with suppress(OSError):
                folder.rmdir()

    def check_save(self, num_bytes: int) -> None:
        """Raise ResourceError if a save of that size could not be written, before a step is made for it.

        A file is written, synced and replaced, as a save does it. A file system that tells no size is trusted.
        """
        probe = self.last.parent / ".probe"
        try:
            for _ in range(2):
                write_bytes(probe, b"a save is possible")
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        usage = shutil.disk_usage(self.last)
        if usage.total and usage.free < num_bytes:
            free, needed = (f"{number / 2**20:,.0f} MiB" for number in (usage.free, num_bytes))
            what = f"the disk has {free} free, but a save needs {needed}"
            raise ResourceError(self.path, what, "free space, or choose another --out")

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines of metrics.csv after `step`, which a resumed run writes again, and lines cut by a kill."""
        if not self.metrics.exists():
            return
        try:
            content = read_regular(self.metrics)
        except OSError as error:
            raise InputError(self.metrics, f"cannot be read: {os_reason(error)}", "restore or remove it") from None
        # A kill may have cut the last line, or left zeros after it.
        text = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
        try:
            rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text)))
        except csv.Error as error:
            raise InputError(self.metrics, f"is not CSV: {cut(error)}", "restore or remove it") from None
        # A run of an earlier version has fewer columns.
        known = [r for r in rows if "step" in r and set(r) <= set(COLUMNS) and None not in r.values()]
        intact = [r for r in known if r["step"].isdecimal()]
        kept = [_csv_row(row) for row in intact if int(row["step"]) <= step]
        write_text(self.metrics, _csv_text([COLUMNS, *kept]))

    def read_held_out(self) -> HeldOut | None:
        """Return what the run holds out; None if it has not written it. Raises InputError for a damaged file."""
        return HeldOut.read(self.held_out) if self.held_out.is_file() else None

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.csv, and the header before the first. Warn once if the file cannot be written."""
        rows = [_csv_row(row)] if self.metrics.exists() else [COLUMNS, _csv_row(row)]
        try:
            with open(self.metrics, "a", encoding="utf-8", newline="") as file:
                file.write(_csv_text(rows))
        except OSError as error:
            if not self._log_failed:
                what = f"{self.metrics} cannot be written: {os_reason(error)}"
                print(printable(f"warning: {what}; training goes on"), file=sys.stderr)
            self._log_failed = True

    def write_environment(self, **more: Any) -> None:
        """Write environment.json: versions and hardware that the numbers of this run were computed with, and `more`."""
        write_text(self.path / _ENVIRONMENT, json.dumps({**environment(), **more}, indent=2) + "\n")


def _touch_until(ended: threading.Event, note: Path) -> None:
    """Renew the time of the note, which shows other hosts that this process is alive."""
    while not ended.wait(_SECONDS_BETWEEN_SIGNS):
        # A network file system may be away for a while; training is not stopped by it.
        with suppress(OSError):
            os.utime(note)


def _holder(note: Path) -> tuple[str, str | None]:
    """Return "process P on H" and H from the note beside a lock; "another process" and None if there is no note."""
    try:
        holder = read_json(note, limit=2**16)
        return f"process {holder['pid']} on {holder['host']}", str(holder["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process", None


def _csv_text(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _csv_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = set(row) - set(COLUMNS)
    assert not unknown, f"columns {unknown} are not in metrics.csv"
    values = (row.get(column, "") for column in COLUMNS)
    return tuple(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)


def environment() -> dict[str, Any]:
    """Return versions and hardware, without names of people or machines."""
    import cv2
    import lightning
    import numpy as np
    import torch

    from .. import __version__

    return {
        "pixelwise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "system": platform.system(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
