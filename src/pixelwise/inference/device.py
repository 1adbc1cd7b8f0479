"""Find the device to compute on, by name."""

from __future__ import annotations

import re

import torch

from ..errors import InputError, ResourceError, shown


def find_device(name: str, option: str = "--device") -> torch.device:
    """Return the device of a name: auto (a GPU if there is one), cpu, cuda or cuda:N.

    option  the option that an error message asks to change
    Raises InputError for an unknown name, ResourceError for a device that this machine does not have.
    """
    available = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if name == "auto":
        name = "cuda" if len(available) > 1 else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        what = f"unknown device {shown(name)}; available devices: {', '.join(available)}"
        raise InputError("device", what, "choose auto, cpu, cuda or cuda:0")
    if name not in available and not (name == "cuda" and len(available) > 1):
        what = f"{shown(name)} is not available; available devices: {', '.join(available)}"
        raise ResourceError("device", what, f"use {option} auto")
    return torch.device(name)
