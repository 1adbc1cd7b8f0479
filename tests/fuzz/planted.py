"""Cases with a fault of each sort, and right ones, to prove that the harness tells them apart."""

from __future__ import annotations

import os
import time
from pathlib import Path
from random import Random

from fuzz.harness import MIB, Attempt, Make
from pixelwise.errors import InputError


def _raise(error: BaseException) -> None:
    raise error


def _attempt(rng: Random, folder: Path, kind: str) -> Attempt:
    (folder / "input").write_bytes(b"x")
    attempts = {
        "right": Attempt(lambda: 7, lambda result: _check(result == 7)),
        "refused": Attempt(lambda: _raise(InputError("x", "is wrong", "write y"))),
        "other error": Attempt(lambda: _raise(KeyError("x"))),
        "no fix": Attempt(lambda: _raise(InputError("x", "is wrong", ""))),
        "long error": Attempt(lambda: _raise(InputError("x", "is wrong " * 100, "write y"))),
        "wrong result": Attempt(lambda: 8, lambda result: _check(result == 7)),
        "refused a good input": Attempt(lambda: _raise(InputError("x", "is wrong", "write y")), is_good=True),
        "changed input": Attempt(lambda: (folder / "input").write_bytes(b"y")),
        "left a file": Attempt(lambda: (folder / ".x.tmp-1").write_bytes(b"y")),
        "memory": Attempt(lambda: len(bytes(64 * MIB)), mib=16),
        "exit": Attempt(lambda: os._exit(9)),
        "hang": Attempt(lambda: time.sleep(600)),
    }
    return attempts[kind]


def _check(ok: bool) -> None:
    assert ok


def _maker(kind: str) -> Make:
    return lambda rng, folder: _attempt(rng, folder, kind)


NAMES = (
    "right",
    "refused",
    "other error",
    "no fix",
    "long error",
    "wrong result",
    "refused a good input",
    "changed input",
    "left a file",
    "memory",
    "exit",
    "hang",
)
KINDS: dict[str, Make] = {name: _maker(name) for name in NAMES}
