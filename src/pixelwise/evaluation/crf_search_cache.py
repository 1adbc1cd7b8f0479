"""A file with the counts of a CRF search, from which a stopped search resumes."""

from __future__ import annotations

import base64
import binascii
import json
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ResourceError, os_reason
from ..files import parse_json, read_regular

Matrices = NDArray[np.int64]


class SearchCache:
    """Confusion matrices by a key that identifies everything they depend on, each written at once as a line of JSON.

    path  the file; None stores nothing. It may hold counts of other searches, whose keys differ
    Raises ResourceError for a file that cannot be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._packed: dict[str, str] = {}
        try:
            lines = read_regular(path).splitlines() if path is not None and path.exists() else []
        except OSError as error:
            raise ResourceError(path, f"cannot be read: {os_reason(error)}", "remove it") from error
        for line in lines:
            try:
                self._packed |= parse_json(line)
            except (ValueError, TypeError):  # cut off when the search was stopped
                continue

    @property
    def is_empty(self) -> bool:
        """True unless an earlier search left counts."""
        return not self._packed

    def find(self, key: str, shape: tuple[int, ...]) -> Matrices | None:
        """Return the counts of an earlier search; None if there are none of that key and shape."""
        try:
            counts = np.frombuffer(zlib.decompress(base64.b64decode(self._packed[key])), np.int64)
            return counts.reshape(shape)
        except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
            return None

    def add(self, key: str, matrices: Matrices) -> None:
        """Append counts to the file. Raises ResourceError if that fails."""
        if self.path is None:
            return
        packed = base64.b64encode(zlib.compress(matrices.astype(np.int64).tobytes())).decode()
        try:
            with open(self.path, "ab") as file:
                # The line break first: the line before may have been cut off.
                file.write(f"\n{json.dumps({key: packed})}".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            what = f"cannot be written: {os_reason(error)}"
            raise ResourceError(self.path, what, "free space and run the command again") from error

    def discard(self) -> None:
        """Remove the file of a finished search. Raises ResourceError if that fails."""
        if self.path is None:
            return
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError(self.path, f"cannot be removed: {os_reason(error)}", "remove it") from error
