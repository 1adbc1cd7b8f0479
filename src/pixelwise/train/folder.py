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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import make_folder, sweep_temporaries, write_text

COLUMNS = ("step", "split", "lr", "loss", "miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "seconds")


class RunFolder:
    """Paths and files of one run; only rank 0 writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last"
        self.best = self.path / "checkpoints" / "best"
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"

    def prepare(self, resume: bool) -> None:
        """Create the folders, prove that they can be written, sweep what a killed run left.

        Raises InputError when a run is there already and `resume` is not asked for, EnvironmentFault without rights.
        """
        if self.config.exists() and not resume:
            raise InputError(self.path, "holds a run already", "go on with --resume, or choose another --out")
        for folder in (self.path, self.last, self.best):
            make_folder(folder)
            sweep_temporaries(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second run out while the block lasts; the lock of a process that is gone is taken over.

        Raises InputError naming the process that holds the folder.
        """
        lock = self.path / "run.lock"
        mine = {"pid": os.getpid(), "host": socket.gethostname()}
        _refuse_if_held(lock, mine["host"])
        write_text(lock, json.dumps(mine))
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def forget_after(self, step: int) -> None:
        """Drop lines of metrics.csv beyond `step`: a resumed run writes them again."""
        if self.metrics.exists():
            rows = list(csv.DictReader(io.StringIO(self.metrics.read_text(encoding="utf-8"))))
            kept = [row for row in rows if row["step"].isdigit() and int(row["step"]) <= step]
            write_text(self.metrics, ",".join(COLUMNS) + "\n" + "".join(_line(row) for row in kept))

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.csv; the header comes with the first."""
        header = "" if self.metrics.exists() else ",".join(COLUMNS) + "\n"
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(header + _line(row))

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


def _line(row: Mapping[str, Any]) -> str:
    unknown = set(row) - set(COLUMNS)
    assert not unknown, f"columns {unknown} are not in metrics.csv"
    return ",".join(_cell(row.get(column, "")) for column in COLUMNS) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _refuse_if_held(lock: Path, host: str) -> None:
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
        pid, elsewhere = int(holder["pid"]), holder["host"] != host
    except (OSError, ValueError, KeyError, TypeError):
        return
    if elsewhere or (pid != os.getpid() and _alive(pid)):
        what = f"is held by process {pid} on {holder['host']}"
        raise InputError(lock.parent, what, f"wait for it, choose another --out, or delete {lock.name} if it is gone")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
