"""DeepLab v1 and v2: parameters, multiply-adds and shapes."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ...models.deeplabv2 import DeepLabV2
from ..mult_adds import num_parameters
from .measure import low_res_shape, macs, network
from .rows import Family

V1_ROWS, V2_ROWS = Family("DeepLabv1"), Family("DeepLabv2")


def _parameters(name: str, options: dict[str, Any]) -> int:
    return num_parameters(network(name, **options))


def _macs(name: str, options: dict[str, Any], size: int) -> int:
    return macs(network(name, **options), size)


def _scores(name: str, options: dict[str, Any], size: int) -> list[int]:
    return low_res_shape(network(name, **options), size)


for _name, _variant in (
    ("deeplabv1_largefov_vgg16", "LargeFOV 3x3 r12 1024"),
    ("deeplabv1_vgg16_7x7", "7x7 r4 4096"),
    ("deeplabv1_vgg16_4x4", "4x4 4096"),
    ("deeplabv1_msc_largefov_vgg16", "MSc-LargeFOV"),
):
    V1_ROWS.row(_variant, "parameters")(partial(_parameters, _name, {}))
for _size in (321, 513):
    V1_ROWS.row("LargeFOV", "MACs", f"3x{_size}")(partial(_macs, "deeplabv1_largefov_vgg16", {}, _size))
    V1_ROWS.row("LargeFOV", "logit shape", f"1x3x{_size}")(partial(_scores, "deeplabv1_largefov_vgg16", {}, _size))


def _rates(head: str) -> list[int]:
    model = network("deeplabv2_vgg16", head=head)
    assert isinstance(model, DeepLabV2)
    return [
        layer.dilation[0]
        for layer in model.aspp.modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] == 3
    ]


for _head, _variant in (("aspp_s", "VGG16 ASPP-S"), ("aspp_l", "VGG16 ASPP-L")):
    V2_ROWS.row(_variant, "parameters")(partial(_parameters, "deeplabv2_vgg16", {"head": _head}))
    V2_ROWS.row(_variant, "rates")(partial(_rates, _head))
V2_ROWS.row("ResNet-101 + ASPP-L", "parameters")(partial(_parameters, "deeplabv2_resnet101", {}))
for _size in (321, 513):
    _one = {"scales": (1.0,)}
    V2_ROWS.row("ResNet-101 ASPP-L", "MACs", f"3x{_size}")(partial(_macs, "deeplabv2_resnet101", _one, _size))
    V2_ROWS.row("ResNet-101 ASPP-L", "logit shape", f"1x3x{_size}")(
        partial(_scores, "deeplabv2_resnet101", _one, _size)
    )
