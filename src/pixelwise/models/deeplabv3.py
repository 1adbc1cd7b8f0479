"""DeepLab v3: Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation",
2017.

A ResNet with atrous convolutions in place of its last strides, followed by ASPP: 1x1, three atrous 3x3 and an average
over the whole image, concatenated. The cascaded variant repeats the last ResNet stage three times with growing rates
instead.

Paper: https://arxiv.org/abs/1706.05587

Faithful: ResNet at output stride 16 or 8 (option `output_stride`, the same weights), multi-grid (1, 2, 4) in the last
stage, ASPP with rates 6, 12, 18, doubled at output stride 8, and image pooling (figure 5); or the cascade of blocks 5
to 7, copies of block 4, with multi-grid (1, 2, 1) (figure 3). Logits are upsampled bilinearly with aligned corners;
labels are never downsampled.

Deviations: batch normalization averages over ten steps (torch's momentum of 0.1), the authors' over thousands. The
ResNet has torchvision's 7x7 stem and strides in the 3x3 (`deep_stem` and `stride_in` give the authors' networks). With
a single image in training, batch normalization after the image pooling uses its running statistics. `width_mult` is
ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..backbones import Backbone, backbone_at_stride, create_backbone
from ..backbones.resnet import StrideLocation
from ..core import LowResLogits
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import ASPP
from ..nn.upsampling import Bilinear
from ..registry import NO_OPTIONS
from . import MODELS
from .base import SegmentationModel

PAPER = "https://arxiv.org/abs/1706.05587"
TINY_LITE = {"width_mult": 0.1, "depth_mult": 0.4}
"""Options of EfficientNet-Lite for tests."""


def atrous_rates_at(output_stride: int) -> tuple[int, ...]:
    """Return the rates of the ASPP: 6, 12, 18 at output stride 16, doubled at 8, halved at 32 (section 3.3).

    In image pixels the branches see the same at every output stride.
    """
    return tuple(rate * 16 // output_stride for rate in (6, 12, 18))


class DeepLabV3(SegmentationModel):
    """Backbone and ASPP (figure 5); logits at the output stride, the stride of the backbone's last map."""

    import_format = "backbone"
    backbone_names = ("backbone",)

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        backbone: Backbone,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone = backbone
        self.logits_stride = backbone.strides[-1]
        # 2048 channels of block 4 to 256 per branch; five branches, concatenated and projected to 256.
        hidden = scale_channels(256, width_mult)
        self.aspp = ASPP(backbone.channels[-1], hidden, atrous_rates_at(self.logits_stride))
        self.score = nn.Conv2d(hidden, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at the output stride; 33 x 33 for the authors' crops of 513 at stride 16."""
        x = self.backbone(self.preprocess(images))[-1]
        return LowResLogits(self.score(self.aspp(x)), Bilinear(align_corners=True))


def deeplabv3_resnet(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    depth: int,
    output_stride: int = 16,
    multi_grid: Sequence[int] = (1, 2, 4),
    stride_in: StrideLocation = "3x3",
    deep_stem: bool = False,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "torchvision",
) -> DeepLabV3:
    """Build the paper's network, on a ResNet with multi-grid."""
    backbone = create_backbone(
        f"resnet{depth}",
        in_channels=in_channels,
        output_stride=output_stride,
        multi_grid=multi_grid,
        stride_in=stride_in,
        deep_stem=deep_stem,
        width_mult=width_mult,
    )
    return DeepLabV3(num_classes, in_channels, backbone=backbone, width_mult=width_mult, preprocessing=preprocessing)


@MODELS.register(
    "deeplabv3",
    summary="DeepLab v3 on any backbone: ASPP with image pooling.",
    tiny={"backbone_options": TINY_LITE, "width_mult": 1 / 32},
    paper=PAPER,
    year=2017,
)
def deeplabv3(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    backbone: str = "efficientnet_lite0",
    backbone_options: Mapping[str, Any] = NO_OPTIONS,
    output_stride: int = 16,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "efficientnet_lite",
) -> DeepLabV3:
    """Build ASPP on a backbone of any name; `width_mult` scales the ASPP alone."""
    net = backbone_at_stride(backbone, output_stride, in_channels=in_channels, **backbone_options)
    return DeepLabV3(num_classes, in_channels, backbone=net, width_mult=width_mult, preprocessing=preprocessing)


class DeepLabV3Cascade(SegmentationModel):
    """ResNet with blocks 5 to 7, three copies of block 4 with growing rates (figure 3); logits at `output_stride`."""

    import_format = "backbone"
    backbone_names = ("backbone",)

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        depth: int,
        output_stride: int = 16,
        multi_grid: Sequence[int] = (1, 2, 1),
        stride_in: StrideLocation = "3x3",
        deep_stem: bool = False,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.logits_stride = output_stride
        self.backbone = create_backbone(
            f"resnet{depth}",
            in_channels=in_channels,
            output_stride=output_stride,
            multi_grid=multi_grid,
            stride_in=stride_in,
            deep_stem=deep_stem,
            # Blocks 5, 6 and 7; at output stride 16 their base rates are 4, 8 and 16.
            cascade=3,
            width_mult=width_mult,
        )
        self.score = nn.Conv2d(self.backbone.channels[-1], num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at the output stride from the last block of the cascade."""
        block7 = self.backbone(self.preprocess(images))[-1]
        return LowResLogits(self.score(block7), Bilinear(align_corners=True))


register = partial(MODELS.register, tiny={"width_mult": 1 / 32}, paper=PAPER, year=2017)
# The paper measures ASPP and multi-grid on ResNet-101 alone.
for _depth, _aspp_scores, _cascade_scores in (
    (50, "", ""),
    (101, "VOC 2012 val 77.21, test 85.7 (tables 5 and 7)", "VOC 2012 val 76.66 (table 3)"),
):
    register(
        f"deeplabv3_resnet{_depth}",
        summary=f"DeepLab v3 on ResNet-{_depth}: ASPP with image pooling.",
        scores=_aspp_scores,
    )(partial(deeplabv3_resnet, depth=_depth))
    register(
        f"deeplabv3_cascade_resnet{_depth}",
        summary=f"DeepLab v3 on ResNet-{_depth}: blocks 5 to 7 in cascade.",
        scores=_cascade_scores,
    )(partial(DeepLabV3Cascade, depth=_depth))
