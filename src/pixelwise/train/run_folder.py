"""A run's folder: who may write in it, and its files.

config.yaml        the resolved configuration
environment.json   versions and hardware
metrics.csv        one line per logged step and per validation
checkpoints/last   the newest weights to predict with, and state.safetensors to go on from
checkpoints/best   the weights with the best validation mean IoU
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, ResourceError
from ..files import make_folder, process_is_alive, sweep_temporaries, write_text
from ..weights.checkpoint import finish_save, is_checkpoint

COLUMNS = ("step", "split", "lr", "loss", "miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "seconds")


class RunFolder:
    """Paths and files of one run; only rank 0 writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last"
        self.best = self.path / "checkpoints" / "best"
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.lock = self.path / "run.lock"
        self._log_failed = False

    @contextmanager
    def opened(self, resume: bool) -> Iterator[None]:
        """Create the folders, keep a second run out while the block lasts, clear away what a killed run left.

        The lock of a process that is gone is taken over. Raises InputError when another process holds the folder, or when a
        run is there already and `resume` is not asked for; ResourceError without rights. A run that ended before it had
        saved anything holds nothing that could be lost.
        """
        _refuse_if_held(self.lock)
        if self.config.exists() and not resume and (is_checkpoint(self.last) or is_checkpoint(self.best)):
            raise InputError(self.path, "holds a run already", "go on with --resume, or choose another --out")
        make_folder(self.path)
        self._take_lock()
        try:
            for folder in (self.path, self.last, self.best):
                make_folder(folder)
                sweep_temporaries(folder)
            for folder in (self.last, self.best):
                finish_save(folder)
            yield
        finally:
            self.lock.unlink(missing_ok=True)

    def _take_lock(self) -> None:
        mine = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        _refuse_if_held(self.lock)
        self.lock.unlink(missing_ok=True)
        try:
            handle = os.open(self.lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            raise InputError(self.path, "was taken by another run this moment", "choose another --out") from None
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise ResourceError(self.lock, what, "free space, or choose a writable folder") from error
        with open(handle, "w", encoding="utf-8") as file:
            file.write(mine)

    def truncate_metrics(self, step: int) -> None:
        """Drop what metrics.csv says of steps beyond `step`, which a resumed run writes again, and lines cut by a kill."""
        if self.metrics.exists():
            rows = _whole_rows(self.metrics.read_bytes())
            kept = [row for row in rows if int(row["step"]) <= step]
            write_text(self.metrics, _csv([COLUMNS, *(_cells(row) for row in kept)]))

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.csv; the header comes with the first. A disk that refuses is warned of once."""
        rows = [_cells(row)] if self.metrics.exists() else [COLUMNS, _cells(row)]
        try:
            with open(self.metrics, "a", encoding="utf-8", newline="") as file:
                file.write(_csv(rows))
        except OSError as error:
            if not self._log_failed:
                print(
                    f"warning: {self.metrics} cannot be written: {error.strerror or error}; training goes on",
                    file=sys.stderr,
                )
            self._log_failed = True

    def write_environment(self, **more: Any) -> None:
        """environment.json: what the numbers of this run were computed with."""
        write_text(self.path / "environment.json", json.dumps({**environment(), **more}, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions and hardware, without names of people or machines."""
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


def _whole_rows(content: bytes) -> list[dict[str, str]]:
    """The lines that have their end and every column; a kill may have cut the last one."""
    text = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text)))
    return [row for row in rows if set(row) == set(COLUMNS) and None not in row.values() and row["step"].isdecimal()]


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    unknown = set(row) - set(COLUMNS)
    assert not unknown, f"columns {unknown} are not in metrics.csv"
    values = (row.get(column, "") for column in COLUMNS)
    return tuple(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)


def _refuse_if_held(lock: Path) -> None:
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        pid, elsewhere = int(holder["pid"]), holder["host"] != socket.gethostname()
    except (OSError, ValueError, KeyError, TypeError):
        return
    if elsewhere or (pid != os.getpid() and process_is_alive(pid)):
        what = f"is held by process {pid} on {holder['host']}"
        raise InputError(lock.parent, what, f"wait for it, choose another --out, or delete {lock.name} if it is gone")
