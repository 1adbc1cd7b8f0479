"""DeepLab v1: parameters, multiply-adds and shapes."""

from __future__ import annotations

from functools import partial
from typing import Any

from .measure import macs, network, parameters, score_shape
from .rows import Family

V1_ROWS = Family("DeepLabv1")


def _parameters(name: str, options: dict[str, Any]) -> int:
    return parameters(network(name, **options))


def _macs(name: str, options: dict[str, Any], size: int) -> int:
    return macs(network(name, **options), size)


def _scores(name: str, options: dict[str, Any], size: int) -> list[int]:
    return score_shape(network(name, **options), size)


for _name, _variant in (
    ("deeplabv1_largefov_vgg16", "LargeFOV 3x3 r12 1024"),
    ("deeplabv1_vgg16_7x7", "7x7 r4 4096"),
    ("deeplabv1_vgg16_4x4", "4x4 4096"),
    ("deeplabv1_msc_largefov_vgg16", "MSc-LargeFOV"),
):
    V1_ROWS.add(partial(_parameters, _name, {}), _variant, "parameters")
for _size in (321, 513):
    V1_ROWS.add(partial(_macs, "deeplabv1_largefov_vgg16", {}, _size), "LargeFOV", "MACs", f"3x{_size}")
    V1_ROWS.add(partial(_scores, "deeplabv1_largefov_vgg16", {}, _size), "LargeFOV", "logit shape", f"1x3x{_size}")
