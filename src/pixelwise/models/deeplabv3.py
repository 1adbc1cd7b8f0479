"""DeepLab v3: Chen, Papandreou, Schroff and Adam, "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017.

Paper: https://arxiv.org/abs/1706.05587

Faithful: ResNet at output stride 16 or 8 (option `output_stride`, the same weights), multi-grid (1, 2, 4) in the last block, atrous
spatial pyramid with rates 6, 12, 18, doubled at output stride 8, with image pooling; or the cascade of blocks 5 to 7, copies of
the fourth, with multi-grid (1, 2, 1). Scores are brought to full size bilinearly with aligned corners; labels are never shrunk.

Deviations: norms average over ten steps (torch's momentum of 0.1), the authors' over thousands. The ResNet has torchvision's
7x7 stem and strides in the 3x3 (`deep_stem` and `stride_in` give the authors' nets); with a single image in training the norm
behind the image pooling uses its running statistics. `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..backbones import create_backbone
from ..backbones.resnet import StrideLocation
from ..core import LowResLogits
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import ASPP
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1706.05587"
SCORES = "VOC 2012 val 77.21, test 85.7 (ResNet-101, pyramid); tables 1 to 12"
# Of output stride 16. Source: paper section 3.3.
RATES = (6, 12, 18)


def rates_at(output_stride: int) -> tuple[int, ...]:
    """The pyramid's rates see the same pixels at every output stride: doubled at 8, halved at 32."""
    return tuple(rate * 16 // output_stride for rate in RATES)


class DeepLabV3(SegmentationModel):
    """ResNet with rates for strides, then a pyramid or a cascade; scores at `output_stride`."""

    import_format = "backbone"

    def __init__(
        self,
        depth: int,
        num_classes: int,
        in_channels: int,
        cascade: bool,
        output_stride: int,
        multi_grid: Sequence[int],
        stride_in: StrideLocation,
        deep_stem: bool,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
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
            cascade=3 if cascade else 0,
            width_mult=width_mult,
        )
        channels = self.backbone.channels[-1]
        hidden = scale_channels(256, width_mult)
        self.context = None if cascade else ASPP(channels, hidden, rates_at(output_stride))
        self.score = nn.Conv2d(channels if cascade else hidden, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at the output stride."""
        cells = self.backbone(self.preprocess(images))[-1]
        if self.context is not None:
            cells = self.context(cells)
        return LowResLogits(self.score(cells), Bilinear(align_corners=True))


def _register(depth: int, name: str, cascade: bool, grid: tuple[int, ...], summary: str) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        output_stride: int = 16,
        multi_grid: Sequence[int] = grid,
        stride_in: StrideLocation = "3x3",
        deep_stem: bool = False,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> DeepLabV3:
        return DeepLabV3(
            depth,
            num_classes,
            in_channels,
            cascade,
            output_stride,
            multi_grid,
            stride_in,
            deep_stem,
            width_mult,
            preprocessing,
        )

    build.__doc__ = summary
    MODELS.register(name, tiny={"width_mult": 1 / 32}, paper=PAPER, year=2017, scores=SCORES)(build)


for _depth in (50, 101):
    _register(
        _depth,
        f"deeplabv3_resnet{_depth}",
        False,
        (1, 2, 4),
        f"DeepLab v3 on ResNet-{_depth}: pyramid with image pooling.",
    )
    _register(
        _depth,
        f"deeplabv3_cascade_resnet{_depth}",
        True,
        (1, 2, 1),
        f"DeepLab v3 on ResNet-{_depth}: blocks 5 to 7 in cascade.",
    )
