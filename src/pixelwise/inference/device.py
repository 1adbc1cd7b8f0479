"""Where a network computes: a device by name, proved to be there."""

from __future__ import annotations

import re

import torch

from ..errors import InputError, ResourceError


def find_device(name: str, option: str = "--device") -> torch.device:
    """auto (a GPU where there is one), cpu, cuda or cuda:N; `option` is what a message tells to change.

    Raises InputError for another word, ResourceError listing the devices for one that is not there.
    """
    there = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if name == "auto":
        name = "cuda" if len(there) > 1 else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise InputError(f"device {name}", "is not known", "choose auto, cpu, cuda or cuda:0")
    if name not in there and not (name == "cuda" and len(there) > 1):
        raise ResourceError(f"device {name}", f"is not there; devices: {', '.join(there)}", f"use {option} auto")
    return torch.device(name)
