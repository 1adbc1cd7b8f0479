"""DeepLab v3+: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018.

Paper: https://arxiv.org/abs/1802.02611

Faithful: the encoder is DeepLab v3's; the decoder reduces the map of stride 4 to 48 channels, concatenates the encoder's output,
mixes them in two 3x3 of 256 and enlarges the scores by a factor of four. ResNets have the authors' stem of three 3x3 and the
stride in the last unit of a stage, so that the decoder taps what unit 2 of block 1 adds, before its ReLU; Xceptions are tapped
behind the second separable convolution of the strided unit; pyramid and decoder are separable on Xception (`separable`).
`decoder=False` is the encoder alone, as in the ablations. On MobileNetV2 there are no atrous branches and no decoder, as released.

Deviations: norms average over ten steps (torch's momentum of 0.1), the authors' over thousands. With a single image in
training the norm behind the image pooling uses its running statistics. `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import create_backbone
from ..core import LowResLogits
from ..nn.blocks import ConvNormAct
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import ASPP
from ..nn.separable_conv import separable_conv_relu
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel
from .deeplabv3 import rates_at

PAPER = "https://arxiv.org/abs/1802.02611"
SCORES = "VOC 2012 test 87.8 (Xception-65); tables 1 to 7"
ALIGNED = Bilinear(align_corners=True)


class Decoder(nn.Module):
    """The encoder's map at stride 4, beside a reduced fine map, mixed twice. Source: paper section 3.1, tables 1 and 2."""

    def __init__(self, encoded: int, fine: int, reduced: int, separable: bool) -> None:
        super().__init__()
        mix = separable_conv_relu if separable else ConvNormAct
        self.reduce = ConvNormAct(fine, reduced, 1)
        self.mix = nn.Sequential(mix(encoded + reduced, encoded), mix(encoded, encoded))

    def forward(self, encoded: Tensor, fine: Tensor) -> Tensor:
        """(B, encoded, h, w) and (B, fine, H, W) -> (B, encoded, H, W)."""
        enlarged = F.interpolate(encoded, size=fine.shape[-2:], mode="bilinear", align_corners=True)
        mixed: Tensor = self.mix(torch.cat([enlarged, self.reduce(fine)], 1))
        return mixed


class DeepLabV3Plus(SegmentationModel):
    """Backbone, pyramid, decoder over the map of stride 4; scores at stride 4 (at `output_stride` without a decoder)."""

    import_format = "backbone"

    def __init__(
        self,
        backbone: str,
        backbone_options: Mapping[str, Any],
        num_classes: int,
        in_channels: int,
        output_stride: int,
        atrous: bool,
        decoder: bool,
        separable: bool,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone = create_backbone(
            backbone, in_channels=in_channels, output_stride=output_stride, **backbone_options
        )
        hidden = scale_channels(256, width_mult)
        rates: Sequence[int] = rates_at(output_stride) if atrous else ()
        self.context = ASPP(self.backbone.channels[-1], hidden, rates, separable=separable)
        self.fine = self.backbone.strides.index(4)
        fine = self.backbone.channels[self.fine]
        self.decoder = Decoder(hidden, fine, scale_channels(48, width_mult), separable) if decoder else None
        self.logits_stride = 4 if decoder else output_stride
        self.score = nn.Conv2d(hidden, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at stride 4; without a decoder at `output_stride`."""
        maps = self.backbone(self.preprocess(images))
        cells = self.context(maps[-1])
        if self.decoder is not None:
            cells = self.decoder(cells, maps[self.fine])
        return LowResLogits(self.score(cells), ALIGNED)


def _register_resnet(depth: int) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        output_stride: int = 16,
        multi_grid: Sequence[int] = (1, 2, 4),
        decoder: bool = True,
        separable: bool = False,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> DeepLabV3Plus:
        options = {"deep_stem": True, "stride_in": "last", "multi_grid": multi_grid, "width_mult": width_mult}
        return DeepLabV3Plus(
            f"resnet{depth}",
            options,
            num_classes,
            in_channels,
            output_stride,
            True,
            decoder,
            separable,
            width_mult,
            preprocessing,
        )

    build.__doc__ = f"DeepLab v3+ on ResNet-{depth}: pyramid, then a decoder with a map of stride 4."
    MODELS.register(f"deeplabv3plus_resnet{depth}", tiny={"width_mult": 1 / 32}, paper=PAPER, year=2018, scores=SCORES)(
        build
    )


def _register_xception(depth: int) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        output_stride: int = 16,
        decoder: bool = True,
        separable: bool = True,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "tensorflow",
    ) -> DeepLabV3Plus:
        name, options = f"xception{depth}", {"width_mult": width_mult}
        return DeepLabV3Plus(
            name, options, num_classes, in_channels, output_stride, True, decoder, separable, width_mult, preprocessing
        )

    build.__doc__ = f"DeepLab v3+ on aligned Xception-{depth}: separable pyramid and decoder."
    MODELS.register(
        f"deeplabv3plus_xception{depth}", tiny={"width_mult": 1 / 32}, paper=PAPER, year=2018, scores=SCORES
    )(build)


@MODELS.register(
    "deeplabv3plus_mobilenetv2",
    tiny={"width_mult": 0.1},
    paper=PAPER,
    year=2018,
    scores="VOC 2012 test 80.25 (MobileNetV2; the authors' model list)",
)
def deeplabv3plus_mobilenetv2(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    output_stride: int = 16,
    atrous: bool = False,
    decoder: bool = False,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "tensorflow",
) -> DeepLabV3Plus:
    """DeepLab v3+ code's small net: MobileNetV2 to 320 channels, image pooling and 1x1, as released."""
    options = {"width_mult": width_mult, "last_conv": False}
    return DeepLabV3Plus(
        "mobilenetv2",
        options,
        num_classes,
        in_channels,
        output_stride,
        atrous,
        decoder,
        False,
        width_mult,
        preprocessing,
    )


for _depth in (50, 101):
    _register_resnet(_depth)
for _depth in (41, 65, 71):
    _register_xception(_depth)
