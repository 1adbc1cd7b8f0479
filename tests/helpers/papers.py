"""The papers' numbers, looked up by what they are of, and torchvision's state dicts by name."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from pixelwise.analysis.conformance.published import find


def number(variant: str, quantity: str, size: str = "") -> Any:
    """The one value of this variant, or of the only one that begins so, whose quantity and input begin so."""
    return find(variant, quantity, size).value


@cache
def torchvision_state(network: str) -> dict[str, list[int]]:
    """Names and shapes of the tensors in torchvision's state dict of that network."""
    path = Path(__file__).parents[1] / "samples" / "torchvision_keys.json.gz"
    state: dict[str, list[int]] = json.loads(gzip.decompress(path.read_bytes()))[network]
    return state
