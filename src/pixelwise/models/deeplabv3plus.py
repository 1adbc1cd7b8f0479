"""DeepLab v3+: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV
2018.

DeepLab v3 as the encoder, plus a small decoder: the encoder's output is upsampled by four, concatenated with a
low-level map of stride 4 reduced to 48 channels, and refined by two 3x3 convolutions. On Xception all 3x3 are depthwise
separable.

Paper: https://arxiv.org/abs/1802.02611

Faithful: figure 2, tables 1 and 2: 48 low-level channels, two 3x3 of 256, logits upsampled by four. ResNets have the
authors' stem of three 3x3 and the stride in the last unit of a stage; the decoder reads what unit 2 of block 1 adds,
before its ReLU. Of Xception it reads the second separable convolution of the strided unit; ASPP and decoder are
separable there (`separable`). `decoder=False` is the encoder alone, as in the ablations. MobileNetV2 has neither atrous
branches nor a decoder, as released. At other widths (`width_mult` 0.5) it is the released network too: channels are
rounded to whole numbers, not to multiples of 8, and the head keeps 256 channels (`head_width_mult`).

Deviations: batch normalization averages over ten steps (torch's momentum of 0.1), the authors' over thousands. With a
single image in training, batch normalization after the image pooling uses its running statistics. MobileNetV2's norms
have the eps of torchvision's weights, 1e-5; the authors' have 1e-3 (`norm_eps`). The authors never decay the weights of
depthwise convolutions (`optimizer.decay_depthwise: false`). With `decoder`, MobileNetV2 gives the output of the last
block of stride 4; the authors' code reads the depthwise convolution inside the block. `head_width_mult`, and
`width_mult` except on MobileNetV2, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone, backbone_at_stride, create_backbone
from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.blocks import ConvNormAct
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import ASPP
from ..nn.separable_conv import separable_conv_relu
from ..nn.upsampling import Bilinear
from ..registry import NO_OPTIONS
from . import MODELS
from .base import SegmentationModel
from .deeplabv3 import TINY_LITE, atrous_rates_at

PAPER = "https://arxiv.org/abs/1802.02611"


class Decoder(nn.Module):
    """Encoder output and reduced low-level map, concatenated, then two 3x3. Source: section 3.1, tables 1 and 2."""

    def __init__(
        self, in_channels: int, low_level_channels: int, *, reduced_channels: int = 48, separable: bool = False
    ) -> None:
        super().__init__()
        conv3x3 = separable_conv_relu if separable else ConvNormAct
        self.reduce = ConvNormAct(low_level_channels, reduced_channels, 1)
        self.refine = nn.Sequential(
            conv3x3(in_channels + reduced_channels, in_channels), conv3x3(in_channels, in_channels)
        )

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) and (B, low_level_channels, H, W) -> (B, in_channels, H, W)."""
        x = F.interpolate(x, size=low_level.shape[-2:], mode="bilinear", align_corners=True)
        x = self.refine(torch.cat([x, self.reduce(low_level)], 1))
        return x


class DeepLabV3Plus(SegmentationModel):
    """Backbone and ASPP, the encoder of figure 2, then the decoder; logits at stride 4.

    Without a decoder, the logits are at the output stride.

    backbone      network with a map of stride 4, the low-level features, and the last map at the output stride
    atrous_rates  rates of the ASPP's 3x3 branches, may be empty
    decoder       False for the encoder alone
    separable     depthwise separable 3x3 in ASPP and decoder
    width_mult    factor on the channels of ASPP and decoder
    """

    import_format = "backbone"
    backbone_names = ("backbone",)

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        backbone: Backbone,
        atrous_rates: Sequence[int],
        decoder: bool,
        separable: bool,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone = backbone
        hidden = scale_channels(256, width_mult)
        self.aspp = ASPP(backbone.channels[-1], hidden, atrous_rates, separable=separable)
        # Conv2 of the ResNet, 256 channels (table 2), or the entry flow of Xception.
        self.low_level_index = backbone.strides.index(4) if 4 in backbone.strides else -1
        self.decoder: Decoder | None = None
        if decoder:
            if self.low_level_index < 0:
                what = f"the decoder reads a map of stride 4, the backbone has strides {backbone.strides}"
                raise ConfigError("backbone", what, "set decoder false, or take another backbone")
            low_level_channels = backbone.channels[self.low_level_index]
            # The best of table 1. The 256 channels of Conv2 could outweigh the encoder's features (section 3.1).
            reduced_channels = scale_channels(48, width_mult)
            self.decoder = Decoder(hidden, low_level_channels, reduced_channels=reduced_channels, separable=separable)
        self.logits_stride = 4 if decoder else backbone.strides[-1]
        self.score = nn.Conv2d(hidden, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at stride 4, 129 x 129 for crops of 513; without a decoder at the output stride."""
        features = self.backbone(self.preprocess(images))
        x = self.aspp(features[-1])
        if self.decoder is not None:
            x = self.decoder(x, features[self.low_level_index])
        return LowResLogits(self.score(x), Bilinear(align_corners=True))


def deeplabv3plus_resnet(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    depth: int,
    output_stride: int = 16,
    multi_grid: Sequence[int] = (1, 2, 4),
    decoder: bool = True,
    separable: bool = False,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "torchvision",
) -> DeepLabV3Plus:
    """Build DeepLab v3+ on a ResNet with the authors' stem and strides ("ResNet-101-beta" in their code)."""
    backbone = create_backbone(
        f"resnet{depth}",
        in_channels=in_channels,
        output_stride=output_stride,
        deep_stem=True,
        stride_in="last",
        multi_grid=multi_grid,
        width_mult=width_mult,
    )
    return DeepLabV3Plus(
        num_classes,
        in_channels,
        backbone=backbone,
        atrous_rates=atrous_rates_at(output_stride),
        decoder=decoder,
        separable=separable,
        width_mult=width_mult,
        preprocessing=preprocessing,
    )


def deeplabv3plus_xception(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    depth: int,
    output_stride: int = 16,
    decoder: bool = True,
    separable: bool = True,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "tensorflow",
) -> DeepLabV3Plus:
    """Build DeepLab v3+ on the aligned Xception of figure 4."""
    backbone = create_backbone(
        f"xception{depth}", in_channels=in_channels, output_stride=output_stride, width_mult=width_mult
    )
    return DeepLabV3Plus(
        num_classes,
        in_channels,
        backbone=backbone,
        atrous_rates=atrous_rates_at(output_stride),
        decoder=decoder,
        separable=separable,
        width_mult=width_mult,
        preprocessing=preprocessing,
    )


@MODELS.register(
    "deeplabv3plus_mobilenetv2",
    summary="DeepLab v3+ on MobileNetV2 as released: image pooling and a 1x1 on 320 channels, no decoder.",
    tiny={"width_mult": 0.1, "head_width_mult": 0.1},
    paper=PAPER,
    year=2018,
    scores="VOC 2012 val 75.32, test 80.25 (the authors' model list)",
)
def deeplabv3plus_mobilenetv2(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    output_stride: int = 16,
    atrous: bool = False,
    decoder: bool = False,
    width_mult: float = 1.0,
    head_width_mult: float = 1.0,
    norm_eps: float = 1e-5,
    preprocessing: str | Mapping[str, Any] = "tensorflow",
) -> DeepLabV3Plus:
    """Build the network of the released code on MobileNetV2; `atrous` adds the 3x3 branches of the ASPP.

    width_mult       the authors' depth multiplier, which scales the backbone alone
    head_width_mult  factor on the channels of the head
    norm_eps         eps of the backbone's norms: 1e-5 for torchvision's weights, 1e-3 for the authors'
    """
    # last_conv=False leaves out the 1x1 to 1280 channels. Multipliers other than 1 do not round to multiples of 8 in
    # the authors' code: 24 * 0.5 is 12, not 16. Its norms have slim's default eps of 1e-3 in the backbone and 1e-5 in
    # the head.
    backbone = create_backbone(
        "mobilenetv2",
        in_channels=in_channels,
        output_stride=output_stride,
        width_mult=width_mult,
        last_conv=False,
        divisor=8 if width_mult == 1 else 1,
        norm_eps=norm_eps,
    )
    return DeepLabV3Plus(
        num_classes,
        in_channels,
        backbone=backbone,
        atrous_rates=atrous_rates_at(output_stride) if atrous else (),
        decoder=decoder,
        separable=False,
        width_mult=head_width_mult,
        preprocessing=preprocessing,
    )


@MODELS.register(
    "deeplabv3plus",
    summary="DeepLab v3+ on any backbone with a map of stride 4: ASPP, then the decoder.",
    tiny={"backbone_options": TINY_LITE, "width_mult": 1 / 32},
    paper=PAPER,
    year=2018,
)
def deeplabv3plus(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    backbone: str = "efficientnet_lite0",
    backbone_options: Mapping[str, Any] = NO_OPTIONS,
    output_stride: int = 16,
    decoder: bool = True,
    separable: bool = True,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "efficientnet_lite",
) -> DeepLabV3Plus:
    """Build ASPP and decoder on a backbone of any name; `width_mult` scales ASPP and decoder alone."""
    net = backbone_at_stride(backbone, output_stride, in_channels=in_channels, **backbone_options)
    return DeepLabV3Plus(
        num_classes,
        in_channels,
        backbone=net,
        atrous_rates=atrous_rates_at(output_stride),
        decoder=decoder,
        separable=separable,
        width_mult=width_mult,
        preprocessing=preprocessing,
    )


for _depth, _scores in ((50, ""), (101, "VOC 2012 val 78.85 (table 3)")):
    MODELS.register(
        f"deeplabv3plus_resnet{_depth}",
        summary=f"DeepLab v3+ on ResNet-{_depth}: ASPP, then a decoder with a map of stride 4.",
        tiny={"width_mult": 1 / 32},
        paper=PAPER,
        year=2018,
        scores=_scores,
    )(partial(deeplabv3plus_resnet, depth=_depth))
for _depth, _scores in ((41, ""), (65, "VOC 2012 val 79.79, test 87.8 (table 5)"), (71, "Cityscapes test 82.1")):
    MODELS.register(
        f"deeplabv3plus_xception{_depth}",
        summary=f"DeepLab v3+ on aligned Xception-{_depth}: separable ASPP and decoder.",
        tiny={"width_mult": 1 / 32},
        paper=PAPER,
        year=2018,
        scores=_scores,
    )(partial(deeplabv3plus_xception, depth=_depth))
