"""The numbers to be met: `published.json`, each with its source. Nothing in it was computed with this project's code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One number.

    variant   which network or part
    quantity  what of it
    input     the size that it is for, (C)xHxW, or "-"
    value     number, list, mapping or sentence
    source    "paper", "reference-code" (the authors', or the named engine's) or "computed" (by an independent count)
    note      what else is known
    """

    system: str
    variant: str
    quantity: str
    input: str
    value: Any
    source: str
    note: str

    @property
    def is_of_a_network(self) -> bool:
        """Whether a network can be measured for it; the others are scores, timings, settings of training, and filters."""
        if "Multiply-Adds" in self.quantity:
            return True
        return self.system not in _NOT_NETWORKS and not _NOT_STRUCTURE.search(self.quantity)


_NOT_NETWORKS = ("DenseCRF", "metrics", "VOC palette")
_NOT_STRUCTURE = re.compile(
    r"mIoU|IoU|mean IU|\bIOU\b|pixel acc|top-1|APr|forward ms|warping"
    r"|\blr\b|momentum|w0|sigma|K pixels|optimiser|\(513-1\)\*s|\^0\.9|std sqrt|alpha, beta"
)


@cache
def entries() -> tuple[Entry, ...]:
    """All numbers, in the order of the file."""
    rows = json.loads((files(__package__) / "published.json").read_text(encoding="utf-8"))
    return tuple(Entry(**{"note": "", **row}) for row in rows)


def find(variant: str, quantity: str, size: str = "", system: str = "") -> Entry:
    """The one entry of this variant, or of the only one that begins so, whose quantity and input begin with these words.

    Raises LookupError when there is none, or more than one.
    """
    of_system = [entry for entry in entries() if system in ("", entry.system)]
    named = [e for e in of_system if e.variant == variant] or [e for e in of_system if e.variant.startswith(variant)]
    found = [entry for entry in named if entry.quantity.startswith(quantity) and entry.input.startswith(size)]
    if len(found) != 1:
        raise LookupError(f"{variant}, {quantity}, {size}: {len(found)} entries")
    return found[0]
