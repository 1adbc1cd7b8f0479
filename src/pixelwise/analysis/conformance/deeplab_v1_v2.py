"""DeepLab v1 and v2: parameters, multiply-adds and shapes."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from ...models.deeplabv2 import DeepLabV2
from .measure import low_res_shape, network, network_macs, network_parameters
from .rows import Family

V1_ROWS, V2_ROWS = Family("DeepLabv1"), Family("DeepLabv2")


def stride8_shape(name: str, size: int, **options: Any) -> list[int]:
    """Return the shape of the logits at stride 8 for one square image."""
    return low_res_shape(network(name, **options), size)


for _name, _variant in (
    ("deeplabv1_largefov_vgg16", "LargeFOV 3x3 r12 1024"),
    ("deeplabv1_vgg16_7x7", "7x7 r4 4096"),
    ("deeplabv1_vgg16_4x4", "4x4 4096"),
    ("deeplabv1_msc_largefov_vgg16", "MSc-LargeFOV"),
):
    V1_ROWS.row(_variant, "parameters")(partial(network_parameters, _name))
for _size in (321, 513):
    V1_ROWS.row("LargeFOV", "MACs", f"3x{_size}")(partial(network_macs, "deeplabv1_largefov_vgg16", _size))
    V1_ROWS.row("LargeFOV", "logit shape", f"1x3x{_size}")(partial(stride8_shape, "deeplabv1_largefov_vgg16", _size))


def atrous_rates(head: str) -> list[int]:
    """Return the dilation of the 3x3 convolutions in the ASPP on VGG16."""
    model = network("deeplabv2_vgg16", head=head)
    assert isinstance(model, DeepLabV2)
    convs = [layer for layer in model.aspp.modules() if isinstance(layer, nn.Conv2d)]
    return [conv.dilation[0] for conv in convs if conv.kernel_size[0] == 3]


for _head, _variant in (("aspp_s", "VGG16 ASPP-S"), ("aspp_l", "VGG16 ASPP-L")):
    V2_ROWS.row(_variant, "parameters")(partial(network_parameters, "deeplabv2_vgg16", head=_head))
    V2_ROWS.row(_variant, "rates")(partial(atrous_rates, _head))
V2_ROWS.row("ResNet-101 + ASPP-L", "parameters")(partial(network_parameters, "deeplabv2_resnet101"))
for _size in (321, 513):
    V2_ROWS.row("ResNet-101 ASPP-L", "MACs", f"3x{_size}")(
        partial(network_macs, "deeplabv2_resnet101", _size, scales=(1.0,))
    )
    V2_ROWS.row("ResNet-101 ASPP-L", "logit shape", f"1x3x{_size}")(
        partial(stride8_shape, "deeplabv2_resnet101", _size, scales=(1.0,))
    )
