"""A command on a pseudo-terminal, where progress bars and colors are drawn."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping, Sequence


def run_on_terminal(words: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Return the exit code of a program and all that it wrote."""
    master, slave = pty.openpty()
    process = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    text = b""
    try:
        while piece := os.read(master, 65536):
            text += piece
    except OSError:
        # Linux ends the reading of a closed terminal with an error.
        pass
    code = process.wait()
    os.close(master)
    return code, text
