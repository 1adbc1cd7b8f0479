"""DeepLab v1: Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep Convolutional Nets and
Fully Connected CRFs", ICLR 2015.

Paper: https://arxiv.org/abs/1412.7062

Faithful: VGG16 at output stride 8, conv5 at rate 2; fc6 as a kernel with holes whose size and rate set the field of view (table
2): 7x7 at rate 4, 4x4 at rate 4 (or 8), LargeFOV's 3x3 at rate 12 with 1024 filters; poolings over 3x3, so that cells lie on
pixels 0, 8, 16, ...; behind pool5 LargeFOV averages over 3x3 (pool5a). MSc: the image and pool1 to pool4 reach the classifier by
a 3x3 and a 1x1 of 128 filters each (section 4.3). Images are padded with their mean colour to 8 n + 1 pixels a side, the authors'
321 and 513. The loss at the cells, against every eighth label, is `loss.resolution: logits`; the CRF behind it is no part of the network.

Deviations: without a published net the backbone starts from He's weights. 7x7 and 4x4 have the 3x3 poolings that the authors' later
files brought in (their first ones pool 2x2, each padded by a pixel). MSc reads every eighth pixel of the image, as in the
authors' training; `fine` reads all of them in evaluation, as their test file. `width_mult` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import create_backbone
from ..backbones.classifier import ClassifierBackbone
from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.geometry import ReceptiveField, layers_of, receptive_field
from ..nn.init import init_kaiming_normal, normal_conv
from ..nn.upsampling import AlignedBilinear, Identity, pad_to_stride
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1412.7062"
SCORES = "VOC 2012 test 71.6 (MSc-LargeFOV, CRF); table 1"
STRIDE = 8
# Strides of the direct paths' 3x3, which bring the image and pool1 to pool4 to stride 8. Source: DeepLab-MSc's train.prototxt.
DIRECT_STRIDES = (8, 4, 2, 1, 1)


@dataclass(frozen=True)
class View:
    """Field of view of fc6: kernel, rate, filters of fc6 and fc7, and whether pool5a stands before it. Source: paper table 2."""

    kernel: int
    rate: int
    hidden: int
    averaged: bool = False


LARGE_FOV = View(3, 12, 1024, averaged=True)


def fully_connected(in_channels: int, view: View, dropout: float, width_mult: float) -> nn.Sequential:
    """fc6 with holes and fc7, (B, in_channels, h, w) -> (B, view.hidden * width, h, w). Raises ConfigError for the rate."""
    reach = (view.kernel - 1) * view.rate
    if view.rate < 1 or reach % 2:
        raise ConfigError(
            "rate", f"got {view.rate} for {view.kernel}x{view.kernel}", "even kernels take even rates of 2 and more"
        )
    hidden = scale_channels(view.hidden, width_mult)
    fc = nn.Sequential(
        nn.Conv2d(in_channels, hidden, view.kernel, padding=reach // 2, dilation=view.rate),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(hidden, hidden, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )
    init_kaiming_normal(fc)
    return fc


class MultiScaleBranch(nn.Module):
    """MSc: from a fine map past the backbone to the classifier, at stride 8 or (`fine`) at the map's own."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        # Source: the fillers in DeepLab-MSc's train.prototxt.
        self.near = normal_conv(in_channels, out_channels, 3, std=0.001, stride=stride, padding=1)
        self.mix = normal_conv(out_channels, out_channels, 1, std=0.001)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, fine: bool = False) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w), or one cell in `stride`."""
        cells = F.conv2d(x, self.near.weight, self.near.bias, 1, 1) if fine else self.near(x)
        mixed: Tensor = self.dropout(F.relu(self.mix(self.dropout(F.relu(cells)))))
        return mixed


class DeepLabV1(SegmentationModel):
    """VGG16 at stride 8, fc6 with holes, fc7, scores; with `direct_channels` above 0 the direct paths of MSc beside them."""

    import_format = "backbone"

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        view: View,
        direct_channels: int,
        fine: bool,
        dropout: float,
        width_mult: float,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        backbone = create_backbone(
            "vgg16", in_channels=in_channels, output_stride=STRIDE, pool_kernel=3, width_mult=width_mult
        )
        assert isinstance(backbone, ClassifierBackbone)
        self.backbone = backbone
        self.fine = fine
        self.logits_stride = STRIDE
        self.average = nn.AvgPool2d(3, 1, 1) if view.averaged else nn.Identity()
        self.fc = fully_connected(backbone.channels[-1], view, dropout, width_mult)
        direct = scale_channels(direct_channels, width_mult) if direct_channels else 0
        sources = zip((in_channels, *backbone.channels), DIRECT_STRIDES, strict=False) if direct else ()
        self.direct = nn.ModuleList(MultiScaleBranch(channels, direct, stride, dropout) for channels, stride in sources)
        self.score = normal_conv(
            scale_channels(view.hidden, width_mult) + len(self.direct) * direct, num_classes, 1, std=0.01
        )

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at stride 8."""
        size = (images.shape[-2], images.shape[-1])
        x = pad_to_stride(self.preprocess(images), STRIDE)
        *early, last = self.backbone(x)
        cells = self.fc(self.average(last))
        if self.direct and self.fine and not self.training:
            return LowResLogits(self._fine(cells, [x, *early], size), Identity())
        beside = [path(early_map) for path, early_map in zip(self.direct, (x, *early), strict=False)]
        return LowResLogits(self.score(torch.cat([cells, *beside], 1)), AlignedBilinear(STRIDE))

    def _fine(self, cells: Tensor, early: list[Tensor], size: tuple[int, int]) -> Tensor:
        """The classifier in parts, each at its map's own stride, brought to full size and summed."""
        maps = [cells, *(path(early_map, fine=True) for path, early_map in zip(self.direct, early, strict=True))]
        strides = [STRIDE, *(STRIDE // stride for stride in DIRECT_STRIDES)]
        weights = torch.split(self.score.weight, [part.shape[1] for part in maps], 1)
        parts = [
            AlignedBilinear(stride)(F.conv2d(part, weight), size)
            for part, weight, stride in zip(maps, weights, strides, strict=True)
        ]
        assert self.score.bias is not None
        return torch.stack(parts).sum(0) + self.score.bias[:, None, None]

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Of the map behind fc6 and fc7."""
        return {"fc7": receptive_field(layers_of([*self.backbone.modules_to(), self.average, self.fc]))}

    def classifier_modules(self) -> list[nn.Module]:
        """What is new: the authors give the classifier ten times the learning rate, and of MSc they train these alone."""
        return [self.score, *self.direct]


def _register(name: str, summary: str, view: View) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        rate: int = view.rate,
        dropout: float = 0.5,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> DeepLabV1:
        own = View(view.kernel, rate, view.hidden, view.averaged)
        return DeepLabV1(num_classes, in_channels, own, 0, False, dropout, width_mult, preprocessing)

    build.__doc__ = summary
    MODELS.register(name, tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015, scores=SCORES)(build)


_register(
    "deeplabv1_largefov_vgg16",
    "DeepLab v1 LargeFOV: VGG16 at stride 8, fc6 of 3x3 at rate 12, 1024 filters.",
    LARGE_FOV,
)
_register("deeplabv1_vgg16_7x7", "DeepLab v1 7x7: VGG16 at stride 8, its own fc6 at rate 4.", View(7, 4, 4096))
_register("deeplabv1_vgg16_4x4", "DeepLab v1: VGG16 at stride 8, fc6 of 4x4 at rate 4, or `rate` 8.", View(4, 4, 4096))


@MODELS.register("deeplabv1_msc_largefov_vgg16", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2015, scores=SCORES)
def deeplabv1_msc_largefov_vgg16(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    rate: int = 12,
    fine: bool = False,
    dropout: float = 0.5,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> DeepLabV1:
    """DeepLab v1 MSc-LargeFOV: the image and pool1 to pool4 reach the classifier too."""
    view = View(3, rate, 1024, averaged=True)
    return DeepLabV1(num_classes, in_channels, view, 128, fine, dropout, width_mult, preprocessing)
