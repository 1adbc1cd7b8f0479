"""PSPNet: Zhao, Shi, Qi, Wang and Jia, "Pyramid Scene Parsing Network", CVPR 2017.

Paper: https://arxiv.org/abs/1612.01105

Faithful: dilated ResNet with a stem of three 3x3 convolutions, output stride 8; pyramid of 1, 2, 3 and 6 bins, each reduced to a
quarter of the channels; 3x3 and 1x1 head; auxiliary scores from the fourth stage (`loss.aux_weight` 0.4); bilinear with aligned
corners. Images of 8 n + 1 pixels a side have their corners on cells.

Deviations: any size is taken whole, by aligned interpolation between whatever cells there are; the authors slide windows of 473 (or
713) pixels. Norms average over ten steps (torch's momentum of 0.1). With a single image in training the norm behind the 1-bin
level uses its running statistics (there is one value a channel). `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..backbones import create_backbone
from ..core import LowResLogits
from ..nn.blocks import ConvNormAct
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import PyramidPooling
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1612.01105"
SCORES = "VOC 2012 test 85.4 (ResNet-101, COCO), ADE20K val 41.68 (ResNet-50)"
UPSAMPLE = Bilinear(align_corners=True)


class PSPNet(SegmentationModel):
    """ResNet at output stride 8, pyramid pooling, scores at stride 8."""

    import_format = "backbone"

    def __init__(
        self,
        depth: int,
        num_classes: int,
        in_channels: int,
        bins: Sequence[int],
        dropout: float,
        auxiliary: bool,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.logits_stride = 8
        self.backbone = create_backbone(
            f"resnet{depth}", in_channels=in_channels, output_stride=8, deep_stem=True, width_mult=width_mult
        )
        *_, stage4, stage5 = self.backbone.channels
        self.pyramid = PyramidPooling(stage5, bins)
        self.head = _head(self.pyramid.out_channels, scale_channels(512, width_mult), num_classes, dropout)
        self.aux_head = _head(stage4, scale_channels(256, width_mult), num_classes, dropout) if auxiliary else None

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at stride 8; in training the auxiliary ones too."""
        *_, stage4, stage5 = self.backbone(self.preprocess(images))
        scores = self.head(self.pyramid(stage5))
        if self.aux_head is None or not self.training:
            return LowResLogits(scores, UPSAMPLE)
        return LowResLogits(scores, UPSAMPLE, aux=(self.aux_head(stage4),))

    def classifier_modules(self) -> list[nn.Module]:
        """The layers that turn features into class scores."""
        return [head[-1] for head in (self.head, self.aux_head) if head is not None]

    def new_modules(self) -> list[nn.Module]:
        """What is new beside the backbone: the authors give it ten times the learning rate."""
        return [self.pyramid, *(head for head in (self.head, self.aux_head) if head is not None)]


def _head(in_channels: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(in_channels, hidden), nn.Dropout(dropout), nn.Conv2d(hidden, num_classes, 1))


def _register(depth: int) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        bins: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        auxiliary: bool = True,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> PSPNet:
        return PSPNet(depth, num_classes, in_channels, bins, dropout, auxiliary, width_mult, preprocessing)

    build.__doc__ = f"PSPNet on ResNet-{depth}: pyramid pooling over a map of stride 8."
    MODELS.register(f"pspnet_resnet{depth}", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2017, scores=SCORES)(build)


for _depth in (50, 101):
    _register(_depth)
