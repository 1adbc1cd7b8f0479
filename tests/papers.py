"""The papers' numbers of `papers_checks.json`, looked up by what they are of, and torchvision's state dicts by name."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _entries() -> list[dict[str, Any]]:
    return json.loads((Path(__file__).parent / "papers_checks.json").read_text())


def number(variant: str, quantity: str, size: str = "") -> Any:
    """The one value of this variant, or of the only one that begins so, whose quantity and input begin with these words."""
    exact = [entry for entry in _entries() if entry["variant"] == variant]
    named = exact or [entry for entry in _entries() if entry["variant"].startswith(variant)]
    found = [entry["value"] for entry in named if entry["quantity"].startswith(quantity) and entry["input"].startswith(size)]
    assert len(found) == 1, f"{variant}, {quantity}, {size}: {len(found)} entries"
    return found[0]


@cache
def torchvision_state(network: str) -> dict[str, list[int]]:
    """Names and shapes of the tensors in torchvision's state dict of that network."""
    path = Path(__file__).parent / "data" / "torchvision_keys.json.gz"
    state: dict[str, list[int]] = json.loads(gzip.decompress(path.read_bytes()))[network]
    return state
