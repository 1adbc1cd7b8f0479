"""PSPNet: Zhao, Shi, Qi, Wang and Jia, "Pyramid Scene Parsing Network", CVPR 2017.

A dilated ResNet followed by pyramid pooling: averages over the whole image and over 2x2, 3x3 and 6x6 regions are
upsampled and concatenated with the feature map, so that every pixel knows the scene it is in.

Paper: https://arxiv.org/abs/1612.01105

Faithful: dilated ResNet with a stem of three 3x3 convolutions, output stride 8; pyramid of 1, 2, 3 and 6 bins, each
reduced to a quarter of the channels (figure 3); 3x3 and 1x1 head; auxiliary scores from the fourth stage
(`loss.aux_weight` 0.4); bilinear upsampling with aligned corners. With 8 n + 1 pixels per side the corners of the image
lie on positions of the map.

Deviations: the stride of a stage is in its first 3x3 (`stride_in="3x3"`), as in the authors' PSPNet-101 for VOC and in
their PyTorch port; their Caffe PSPNet-50 for ADE20K has it in the first 1x1 (`stride_in="1x1"`). Images of any size are
labeled whole; the authors slide windows of 473 (or 713) pixels. Batch normalization averages over ten steps (torch's
momentum of 0.1). With a single image in training, batch normalization of the 1-bin level, which sees one value per
channel, uses its running statistics. `width_mult` is ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from ..backbones import Backbone, backbone_at_stride, create_backbone
from ..core import LowResLogits
from ..nn.blocks import ConvNormAct
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import PyramidPooling
from ..nn.upsampling import Bilinear
from ..registry import NO_OPTIONS
from . import MODELS
from .base import SegmentationModel
from .deeplabv3 import TINY_LITE

PAPER = "https://arxiv.org/abs/1612.01105"


def head(in_channels: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return 3x3 convolution, dropout and scores."""
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            conv=ConvNormAct(in_channels, hidden),
            dropout=nn.Dropout(dropout),
            score=nn.Conv2d(hidden, num_classes, 1),
        )
    )


class PSPNet(SegmentationModel):
    """Backbone, pyramid pooling, head (figure 3); logits at the stride of the backbone's last map, 8 in the paper.

    bins       regions per side in each level of the pyramid
    auxiliary  whether to build a second head on the last map but one, computed in training only (section 4)
    """

    import_format = "backbone"
    backbone_names = ("backbone",)

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        backbone: Backbone,
        bins: Sequence[int],
        dropout: float,
        auxiliary: bool,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone = backbone
        self.logits_stride = backbone.strides[-1]
        # conv4_x with 1024 channels and conv5_x with 2048, both at stride 8 by dilation 2 and 4.
        *_, stage4_channels, stage5_channels = self.backbone.channels
        # 2048 channels and four levels of 512, concatenated: 4096 to the head.
        self.pyramid = PyramidPooling(stage5_channels, bins)
        self.head = head(self.pyramid.out_channels, scale_channels(512, width_mult), num_classes, dropout)
        self.aux_head = (
            head(stage4_channels, scale_channels(256, width_mult), num_classes, dropout) if auxiliary else None
        )
        self.score_layer_names = ("head.score", "aux_head.score") if auxiliary else ("head.score",)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at the output stride (60 x 60 at 8 for crops of 473); in training also the auxiliary ones."""
        *_, stage4, stage5 = self.backbone(self.preprocess(images))
        logits = self.head(self.pyramid(stage5))
        # Deep supervision: the head on conv4 only helps training (section 4, figure 4).
        aux = (self.aux_head(stage4),) if self.training and self.aux_head is not None else ()
        return LowResLogits(logits, Bilinear(align_corners=True), aux)

    def head_modules(self) -> list[nn.Module]:
        """Return pyramid and heads: the authors give all layers after the backbone ten times the learning rate."""
        return [self.pyramid, self.head] if self.aux_head is None else [self.pyramid, self.head, self.aux_head]


def pspnet_resnet(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    depth: int,
    stride_in: Literal["3x3", "1x1"] = "3x3",
    bins: Sequence[int] = (1, 2, 3, 6),
    dropout: float = 0.1,
    auxiliary: bool = True,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "torchvision",
) -> PSPNet:
    """Build the paper's network, on a ResNet at output stride 8.

    stride_in  the convolution of conv3_1 that has the stride: "3x3" or "1x1"
    """
    backbone = create_backbone(
        f"resnet{depth}",
        in_channels=in_channels,
        output_stride=8,
        stride_in=stride_in,
        deep_stem=True,
        width_mult=width_mult,
    )
    return PSPNet(
        num_classes,
        in_channels,
        backbone=backbone,
        bins=bins,
        dropout=dropout,
        auxiliary=auxiliary,
        width_mult=width_mult,
        preprocessing=preprocessing,
    )


@MODELS.register(
    "pspnet",
    summary="PSPNet on any backbone: pyramid pooling over its last map.",
    tiny={"backbone_options": TINY_LITE, "width_mult": 1 / 16},
    paper=PAPER,
    year=2017,
)
def pspnet(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    backbone: str = "efficientnet_lite0",
    backbone_options: Mapping[str, Any] = NO_OPTIONS,
    output_stride: int = 8,
    bins: Sequence[int] = (1, 2, 3, 6),
    dropout: float = 0.1,
    auxiliary: bool = True,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "efficientnet_lite",
) -> PSPNet:
    """Build pyramid pooling on a backbone of any name; `width_mult` scales the heads alone."""
    net = backbone_at_stride(backbone, output_stride, in_channels=in_channels, **backbone_options)
    return PSPNet(
        num_classes,
        in_channels,
        backbone=net,
        bins=bins,
        dropout=dropout,
        auxiliary=auxiliary,
        width_mult=width_mult,
        preprocessing=preprocessing,
    )


for _depth, _scores in ((50, "ADE20K val 41.68 (table 1)"), (101, "VOC 2012 test 85.4 with COCO")):
    MODELS.register(
        f"pspnet_resnet{_depth}",
        summary=f"PSPNet on ResNet-{_depth}: pyramid pooling over a map of stride 8.",
        tiny={"width_mult": 1 / 16},
        paper=PAPER,
        year=2017,
        scores=_scores,
    )(partial(pspnet_resnet, depth=_depth))
