"""What a CRF search has counted, in a file: a search that was stopped, whatever stopped it, goes on where it was."""

from __future__ import annotations

import base64
import binascii
import json
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ResourceError

Matrices = NDArray[np.int64]


class Tally:
    """Counts by a key that tells all that they depend on, a line of JSON each, on disk as soon as they are made.

    path  the file; None keeps nothing. Counts of other searches may stand in it too: their keys are others
    Raises ResourceError where the file cannot be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._packed = {} if path is None else _read(path)

    @property
    def is_empty(self) -> bool:
        """True where no earlier search left counts."""
        return not self._packed

    def find(self, key: str, shape: tuple[int, ...]) -> Matrices | None:
        """What an earlier search counted under that key; None where there is nothing, or nothing of that shape."""
        try:
            counts = np.frombuffer(zlib.decompress(base64.b64decode(self._packed[key])), np.int64)
            return counts.reshape(shape)
        except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
            return None

    def add(self, key: str, matrices: Matrices) -> None:
        """Write counts to the file; raises ResourceError where that fails."""
        if self.path is None:
            return
        packed = base64.b64encode(zlib.compress(matrices.astype(np.int64).tobytes())).decode()
        try:
            with open(self.path, "ab") as file:
                # The line break first: the line before may have been cut.
                file.write(f"\n{json.dumps({key: packed})}".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                self.path, f"cannot be written: {error.strerror or error}", "free space, then go on"
            ) from error

    def discard(self) -> None:
        """Remove the file of a search that is done."""
        if self.path is not None:
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise ResourceError(self.path, f"cannot be removed: {error.strerror or error}", "remove it") from error


def _read(path: Path) -> dict[str, str]:
    """Keys and packed counts of all lines that are whole."""
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise ResourceError(path, f"cannot be read: {error.strerror or error}", "remove it") from error
    packed: dict[str, str] = {}
    for line in lines:
        try:
            packed |= json.loads(line)
        except (ValueError, TypeError):  # cut by what stopped the search
            continue
    return packed
