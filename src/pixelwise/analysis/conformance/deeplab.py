"""DeepLab v3 and v3+, PSPNet: parameters, multiply-adds and shapes.

The multiply-adds in the tables of v3+ count an atrous convolution on the grid that TensorFlow pads for it
(`space_to_batch`): sides rounded up to multiples of the rate. `padded_macs` counts the same way; `macs` counts the
arithmetic that is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

from torch import Tensor, nn

from ...models.deeplabv3 import DeepLabV3
from ...models.pspnet import PSPNet
from .measure import images, macs, network, network_macs, network_parameters
from .rows import Family

V3_ROWS, PLUS_ROWS, PSP_ROWS = Family("DeepLabv3"), Family("DeepLabv3+"), Family("PSPNet")
UNREPRODUCED = (
    "not reproducible: every other row of the table agrees within 0.4 %, this one is 1.3 % below its own accounting"
)


def padded_macs(name: str, size: int = 513, **options: Any) -> int:
    """Count multiply-adds with every atrous convolution on a map whose sides are multiples of its rate."""
    model = network(name, **options)
    extra = 0

    def count(layer: nn.Conv2d, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal extra
        rate = layer.dilation[0]
        height, width = output.shape[-2:]
        padded = math.ceil(height / rate) * math.ceil(width / rate) * rate**2
        extra += (padded - height * width) * layer.weight.numel()

    handles = [
        m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1
    ]
    model(images(size))
    for handle in handles:
        handle.remove()
    return macs(model, size) + extra


@cache
def billions(name: str, size: int = 513, **options: Any) -> float:
    """Return `padded_macs` in billions, the unit of the tables."""
    return padded_macs(name, size, **options) / 1e9


V3_ROWS.row("ResNet-101 (7x7 stem", "parameters")(partial(network_parameters, "deeplabv3_resnet101"))
V3_ROWS.row("ResNet-101-beta OS16", "parameters")(
    partial(network_parameters, "deeplabv3_resnet101", deep_stem=True, stride_in="last")
)


def encoder_and_logits(output_stride: int) -> list[list[int]]:
    """Return the shapes of the ASPP's output and of the logits before upsampling, for one image of 513 x 513."""
    model = network("deeplabv3_resnet101", output_stride=output_stride)
    assert isinstance(model, DeepLabV3)
    encoded = model.aspp(model.backbone(images(513))[-1])
    return [[*encoded.shape], [*model.forward_low_res(images(513)).logits.shape]]


for _stride in (16, 8):
    V3_ROWS.row(f"ResNet-101 7x7 stem OS{_stride} MG(1,2,4)", "MACs")(
        partial(network_macs, "deeplabv3_resnet101", 513, output_stride=_stride)
    )
    V3_ROWS.row(f"OS{_stride}", "encoder output")(partial(encoder_and_logits, _stride))
    V3_ROWS.row(f"MobileNetV2 OS{_stride}", "MACs")(
        partial(network_macs, "deeplabv3plus_mobilenetv2", 513, output_stride=_stride)
    )
V3_ROWS.row("MobileNetV2, image", "parameters")(partial(network_parameters, "deeplabv3plus_mobilenetv2"))
V3_ROWS.row("MobileNetV2 + ASPP", "parameters")(partial(network_parameters, "deeplabv3plus_mobilenetv2", atrous=True))


def add_cost_rows(variant: str, name: str, **options: Any) -> None:
    """Add the rows of one variant: the arithmetic that is needed, the paper's count, and the paper's printed number."""
    PLUS_ROWS.row(variant, "MACs true")(partial(network_macs, name, 513, **options))
    PLUS_ROWS.row(variant, "MACs counted")(partial(padded_macs, name, **options))
    reason = UNREPRODUCED if variant == "ResNet-101-beta OS16 +decoder" else ""
    PLUS_ROWS.row(variant, "Multiply-Adds", within=0.004, reason=reason)(partial(billions, name, **options))


for _stride in (16, 8, 32):
    for _decoder, _suffix in ((False, ""), (True, " +decoder")):
        add_cost_rows(
            f"ResNet-101-beta OS{_stride}{_suffix}", "deeplabv3plus_resnet101", output_stride=_stride, decoder=_decoder
        )
for _stride in (16, 8):
    for _decoder, _separable, _suffix in ((False, False, ""), (True, False, " +decoder"), (True, True, " +decoder SC")):
        _options = {"output_stride": _stride, "decoder": _decoder, "separable": _separable}
        add_cost_rows(f"Xception-65 OS{_stride}{_suffix}", "deeplabv3plus_xception65", **_options)
        if _stride == 16:
            PLUS_ROWS.row(f"Xception-65 OS16{_suffix}", "parameters")(
                partial(network_parameters, "deeplabv3plus_xception65", **_options)
            )
PLUS_ROWS.row("ResNet-101-beta OS16 +decoder", "parameters")(partial(network_parameters, "deeplabv3plus_resnet101"))


def table5_billions(output_stride: int, words: Sequence[str]) -> float:
    """Return the cost of a line of table 5: several sizes ("MS") are summed, their mirror images ("Flip") cost as much
    again.
    """
    options = {"output_stride": output_stride, "decoder": "Dec" in words, "separable": "SC" in words}
    scales = (0.5, 0.75, 1, 1.25, 1.5, 1.75) if "MS" in words else (1,)
    each = [billions("deeplabv3plus_xception65", int(512 * scale) + 1, **options) for scale in scales]
    return sum(each) * (2 if "Flip" in words else 1)


TABLE5 = (
    "",
    "MS",
    "MS Flip",
    "Dec",
    "Dec MS",
    "Dec MS Flip",
    *(f"Dec{ms} SC{data}" for ms in ("", " MS Flip") for data in ("", " COCO", " COCO JFT")),
)
for _stride in (16, 8):
    for _line in TABLE5:
        _variant = f"Xception-65 train/eval OS 16/{_stride} {_line}".rstrip()
        PLUS_ROWS.row(_variant, "[mIoU VOC val, Multiply-Adds", within=0.004, part=1)(
            partial(table5_billions, _stride, _line.split())
        )
for _depth in (41, 65, 71):
    PLUS_ROWS.row(f"Xception-{_depth} OS16 decoder SC", "parameters")(
        partial(network_parameters, f"deeplabv3plus_xception{_depth}")
    )
    PLUS_ROWS.row(f"Xception-{_depth} OS16 decoder SC", "MACs")(
        partial(network_macs, f"deeplabv3plus_xception{_depth}", 513)
    )


def pspnet_parameters(depth: int, num_classes: int) -> list[int]:
    """Return the parameters with and without the auxiliary head."""
    return [
        network_parameters(f"pspnet_resnet{depth}", num_classes, auxiliary=auxiliary) for auxiliary in (True, False)
    ]


def pspnet_shapes(depth: int) -> list[list[int]]:
    """Return the shapes of the backbone's last map and of the logits at full size, for one image of 473 x 473."""
    model = network(f"pspnet_resnet{depth}")
    assert isinstance(model, PSPNet)
    return [[*model.backbone(images(473))[-1].shape], [*model(images(473)).logits.shape]]


for _depth in (50, 101):
    for _classes in (21, 150, 19):
        PSP_ROWS.row(f"{_depth} {_classes} classes", "parameters")(partial(pspnet_parameters, _depth, _classes))
    PSP_ROWS.row(f"{_depth} 21 classes", "MACs")(partial(network_macs, f"pspnet_resnet{_depth}", 473, auxiliary=False))
    PSP_ROWS.row(f"{_depth}", "feature / output")(partial(pspnet_shapes, _depth))
