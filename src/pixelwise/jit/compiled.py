"""Compile the loops.

Compiled code is kept beside the source (or in the user's cache folder) and found again by later processes, so that the
seconds of compiling are paid once per machine. numba's own parallel loops are not used: their thread pool dies in
forked processes and under calls from two threads. The loops release the interpreter's lock instead, and plain threads
(`jit/threads.py`) run them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])

# numba's cache checks only the file of a loop for changes. The code also depends on the instructions in simd.py and on
# the options below, so their hash is part of the names of cached loops.
_VERSION = hashlib.sha256(Path(__file__).with_name("simd.py").read_bytes() + Path(__file__).read_bytes()).hexdigest()[
    :8
]


def compiled(function: Loop) -> Loop:
    """Compile a function at its first call, cached on disk; it runs without the interpreter's lock.

    Floating point stays strict: nothing is reordered or fused, so that the same numbers come out on every machine,
    unless a function asks for a fused multiply-add itself.
    """
    function.__qualname__ += f"_{_VERSION}"
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(Loop, numba.njit(cache=True, **options)(function))
    except RuntimeError:
        # Neither the package's folder nor the user's cache folder can be written: compile in each process anew.
        _print_no_cache()
        return cast(Loop, numba.njit(**options)(function))


@cache
def _print_no_cache() -> None:
    """Say once why the first image takes a minute."""
    line = "warning: compiled loops (CRF, depthwise convolutions, masks) cannot be kept: no cache folder can be written"
    print(f"{line}: each process compiles them again; set NUMBA_CACHE_DIR to a folder", file=sys.stderr)
