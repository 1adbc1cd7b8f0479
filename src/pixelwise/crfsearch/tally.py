"""What a CRF search has counted, in a file: a search that was stopped, whatever stopped it, goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..crf import Parameters
from ..errors import EnvironmentFault
from ..files import write_text

Matrices = NDArray[np.int64]


class Tally:
    """Confusion matrices of each picture under several settings, a line of JSON each, on disk as soon as they are counted.

    path   the file; None keeps nothing
    about  what was counted: the weights, the pictures. The counts of a file about something else are dropped
    Raises EnvironmentFault where the file cannot be read or written.
    """

    def __init__(self, path: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._counted: dict[str, list[Any]] = {}
        if path is not None:
            self._open(path, json.dumps({"about": dict(about or {})}))

    @property
    def is_empty(self) -> bool:
        """True where nothing has been counted yet."""
        return not self._counted

    def find(self, picture: str, settings: Sequence[Parameters]) -> Matrices | None:
        """(1 + settings, C, C) of a picture without a CRF and with each of the settings, where they were counted."""
        matrices = self._counted.get(_key(picture, settings))
        return None if matrices is None else np.array(matrices, np.int64)

    def add(self, picture: str, settings: Sequence[Parameters], matrices: Matrices) -> None:
        """Keep a picture's counts."""
        key, rows = _key(picture, settings), matrices.tolist()
        self._counted[key] = rows
        if self.path is None:
            return
        try:
            with open(self.path, "ab") as file:
                file.write(_line(key, rows).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EnvironmentFault(self.path, f"cannot be written: {error.strerror or error}", "free space, then go on") from error

    def discard(self) -> None:
        """Remove the file of a search that is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _open(self, path: Path, head: str) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        except OSError as error:
            raise EnvironmentFault(path, f"cannot be read: {error.strerror or error}", "remove the file") from error
        if lines and lines[0] == head:
            for line in lines[1:]:
                try:
                    self._counted |= json.loads(line)
                except (ValueError, TypeError):
                    break  # the line that the stop cut
        # Written anew, so that what is appended does not follow half a line.
        write_text(path, "\n".join([head, *(_line(*each).rstrip() for each in self._counted.items())]) + "\n")


def _key(picture: str, settings: Sequence[Parameters]) -> str:
    return json.dumps([picture, [astuple(parameters) for parameters in settings]])


def _line(key: str, rows: list[Any]) -> str:
    return json.dumps({key: rows}) + "\n"
