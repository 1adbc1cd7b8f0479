"""The published values, read from `published.json`, each with its source. This project's code computed none of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

# Systems and quantities that no network can be measured for: scores, timings, settings of training, filters.
_NOT_NETWORKS = ("DenseCRF", "metrics", "VOC palette")
_NOT_STRUCTURE = re.compile(
    r"mIoU|IoU|mean IU|\bIOU\b|pixel acc|top-1|APr|forward ms|warping"
    r"|\blr\b|momentum|w0|sigma|K pixels|optimizer|\(513-1\)\*s|\^0\.9|std sqrt|alpha, beta"
)


@dataclass(frozen=True)
class PublishedValue:
    """One published value.

    variant   network or part
    quantity  what was counted
    input     size of the input, (C)xHxW, or "-"
    value     number, list, mapping or sentence
    source    "paper", "reference-code" (the authors', or the named engine's) or "computed" (by an independent count)
    note      remarks of the source
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
        """True where the value can be measured on a network."""
        if "Multiply-Adds" in self.quantity:
            # Table 5 of DeepLab v3+ prints them in one list with the mIoU.
            return True
        return self.system not in _NOT_NETWORKS and not _NOT_STRUCTURE.search(self.quantity)


@cache
def published_values() -> tuple[PublishedValue, ...]:
    """Return all values, in the order of the file."""
    rows = json.loads((files(__package__) / "published.json").read_text(encoding="utf-8"))
    return tuple(PublishedValue(**{"note": "", **row}) for row in rows)


def find(variant: str, quantity: str, size: str = "", system: str = "") -> PublishedValue:
    """Return the one value of `variant` whose quantity and input begin with `quantity` and `size`.

    Where no variant has exactly this name, the variants that begin with it are searched. An empty `system` means all
    systems. Raises LookupError if no value, or more than one, matches.
    """
    of_system = [value for value in published_values() if system in ("", value.system)]
    named = [v for v in of_system if v.variant == variant] or [v for v in of_system if v.variant.startswith(variant)]
    found = [value for value in named if value.quantity.startswith(quantity) and value.input.startswith(size)]
    if len(found) != 1:
        raise LookupError(f"{variant}, {quantity}, {size}: expected one published value, found {len(found)}")
    return found[0]
