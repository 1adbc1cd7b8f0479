"""torchvision's segmentation networks under their own state names, so that its COCO/VOC weights load and give the same
labels.

FCN and DeepLab v3 on a dilated ResNet or MobileNetV3, and LR-ASPP, a light head on MobileNetV3. They carry the papers'
names but differ from the papers; compare with `models/fcn.py` and `models/deeplabv3.py`.

Paper: https://arxiv.org/abs/1706.05587 (DeepLab v3), https://arxiv.org/abs/1411.4038 (FCN),
https://arxiv.org/abs/1905.02244 (LR-ASPP)

Faithful: to torchvision 0.28 (`models/segmentation`), name for name: output stride 8 (MobileNetV3: 16), the heads, the
auxiliary head on the third stage (MobileNetV3: the first layer of stride 8).

Deviations: of torchvision from the papers: the FCN has two layers on a dilated ResNet and no skips; the first unit of
each dilated stage keeps the rate of the stage before (ResNet); no multi-grid; one more 3x3 convolution after the ASPP,
with dropout 0.5; corners are not aligned. Ours from torchvision: `width_mult`; with a single image in training, batch
normalization after the image pooling uses its running statistics; the auxiliary head is not computed in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import Backbone, create_backbone
from ..backbones.mobilenetv3 import MobileNetV3
from ..core import LowResLogits
from ..nn.blocks import ConvNormAct
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import ImagePooling
from ..nn.upsampling import Bilinear
from . import MODELS
from .base import SegmentationModel


class FCNHead(nn.Sequential):
    """3x3 to a quarter of the channels, batch normalization, ReLU, dropout, scores."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        hidden = in_channels // 4
        super().__init__(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.1),
            nn.Conv2d(hidden, num_classes, 1),
        )


class TorchvisionASPP(nn.Module):
    """DeepLab v3's ASPP under torchvision's names: the image pooling is the last of `convs`."""

    # At every output stride. Source: torchvision, `deeplabv3.py`.
    ATROUS_RATES = (12, 24, 36)

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        atrous = [ConvNormAct(in_channels, hidden, dilation=rate) for rate in self.ATROUS_RATES]
        self.convs = nn.ModuleList([ConvNormAct(in_channels, hidden, 1), *atrous, ImagePooling(in_channels, hidden)])
        self.project = nn.Sequential(*ConvNormAct(len(self.convs) * hidden, hidden, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, hidden, h, w)."""
        projected: Tensor = self.project(torch.cat([conv(x) for conv in self.convs], 1))
        return projected


class DeepLabHead(nn.Sequential):
    """ASPP, 3x3, batch normalization, ReLU, scores."""

    def __init__(self, in_channels: int, num_classes: int, hidden: int) -> None:
        conv = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        norm, relu = nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)
        super().__init__(TorchvisionASPP(in_channels, hidden), conv, norm, relu, nn.Conv2d(hidden, num_classes, 1))


class TorchvisionNet(SegmentationModel):
    """A backbone, `classifier` on its last map and, in training, `aux_classifier` on a middle one.

    Subclasses set all three.
    """

    import_format = "torchvision"
    backbone_names = ("backbone",)
    backbone: nn.Module
    classifier: nn.Sequential
    aux_classifier: FCNHead | None

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the middle map, which the auxiliary head reads, and the last map: layer3 and layer4 of a ResNet."""
        *_, layer3, layer4 = self.backbone(x)
        return layer3, layer4

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at the output stride; in training also the auxiliary ones."""
        middle, last = self.features(self.preprocess(images))
        aux = (self.aux_classifier(middle),) if self.training and self.aux_classifier is not None else ()
        return LowResLogits(self.classifier(last), Bilinear(), aux)

    def score_layers(self) -> list[nn.Module]:
        """Return the last layer of each head."""
        heads = [self.classifier] if self.aux_classifier is None else [self.classifier, self.aux_classifier]
        return [head[-1] for head in heads]


class TorchvisionFCN(TorchvisionNet):
    """A dilated ResNet and two layers; logits at stride 8."""

    logits_stride = 8

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        depth: int,
        auxiliary: bool = True,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        backbone = dilated_resnet(depth, in_channels, width_mult)
        self.backbone = backbone
        # 1024 and 2048 channels.
        *_, layer3_channels, layer4_channels = backbone.channels
        self.classifier = FCNHead(layer4_channels, num_classes)
        self.aux_classifier = FCNHead(layer3_channels, num_classes) if auxiliary else None


class TorchvisionDeepLabV3(TorchvisionNet):
    """A dilated ResNet and ASPP; logits at stride 8."""

    logits_stride = 8

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        depth: int,
        auxiliary: bool = True,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        backbone = dilated_resnet(depth, in_channels, width_mult)
        self.backbone = backbone
        *_, layer3_channels, layer4_channels = backbone.channels
        self.classifier = DeepLabHead(layer4_channels, num_classes, scale_channels(256, width_mult))
        self.aux_classifier = FCNHead(layer3_channels, num_classes) if auxiliary else None


def dilated_resnet(depth: int, in_channels: int, width_mult: float) -> Backbone:
    """Return a ResNet at output stride 8 whose first unit of a dilated stage keeps the rate of the stage before."""
    return create_backbone(
        f"resnet{depth}", in_channels=in_channels, output_stride=8, dilate_first=False, width_mult=width_mult
    )


# The layer with 40 channels at stride 8 that the auxiliary head and LR-ASPP read. Source: torchvision, `deeplabv3.py`.
MOBILENET_MIDDLE = 4


def dilated_mobilenet(in_channels: int, width_mult: float) -> tuple[nn.Sequential, int, int]:
    """Return MobileNetV3-Large at output stride 16, with the channels of its middle and its last map.

    Only the chain of layers is kept, as in torchvision.
    """
    backbone = create_backbone(
        "mobilenetv3_large", in_channels=in_channels, output_stride=16, dilate_first=True, width_mult=width_mult
    )
    assert isinstance(backbone, MobileNetV3)
    # Layers 4 to 6 have stride 8 and the same channels; the backbone describes the last of them.
    return backbone.features, backbone.channels[2], backbone.channels[-1]


def mobilenet_features(chain: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the middle map at stride 8, and the last one at stride 16."""
    middle = chain[: MOBILENET_MIDDLE + 1](x)
    return middle, chain[MOBILENET_MIDDLE + 1 :](middle)


class TorchvisionDeepLabV3MobileNet(TorchvisionNet):
    """MobileNetV3-Large and ASPP; logits at stride 16."""

    logits_stride = 16
    backbone: nn.Sequential

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        auxiliary: bool = True,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone, middle_channels, last_channels = dilated_mobilenet(in_channels, width_mult)
        self.classifier = DeepLabHead(last_channels, num_classes, scale_channels(256, width_mult))
        self.aux_classifier = FCNHead(middle_channels, num_classes) if auxiliary else None

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map of 40 channels at stride 8, which the auxiliary head reads, and the last map."""
        return mobilenet_features(self.backbone, x)


class LRASPPHead(nn.Module):
    """LR-ASPP: the last map gated by its own average and upsampled, scored, added to the scores of the finer map."""

    def __init__(self, middle_channels: int, channels: int, *, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.cbr = ConvNormAct(channels, hidden, 1)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(middle_channels, num_classes, 1)
        self.high_classifier = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, middle: Tensor, last: Tensor) -> Tensor:
        """Compute scores (B, K, H, W) of a middle map (B, middle_channels, H, W) and the last (B, channels, h, w)."""
        gated = self.cbr(last) * self.scale(last)
        gated = F.interpolate(gated, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        scores: Tensor = self.low_classifier(middle) + self.high_classifier(gated)
        return scores


class TorchvisionLRASPP(SegmentationModel):
    """MobileNetV3-Large at output stride 16 and LR-ASPP; logits at stride 8, the stride of the finer map."""

    import_format = "torchvision"
    backbone_names = ("backbone",)
    logits_stride = 8
    score_layer_names = ("classifier.low_classifier", "classifier.high_classifier")

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        hidden: int = 128,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone, middle_channels, last_channels = dilated_mobilenet(in_channels, width_mult)
        self.classifier = LRASPPHead(middle_channels, last_channels, num_classes=num_classes, hidden=hidden)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at stride 8."""
        middle, last = mobilenet_features(self.backbone, self.preprocess(images))
        return LowResLogits(self.classifier(middle, last), Bilinear())


# Scores on COCO val2017 with VOC's classes, by torchvision's metadata.
for _depth, _fcn_score, _deeplab_score in ((50, 60.5, 66.4), (101, 63.7, 67.4)):
    MODELS.register(
        f"torchvision_fcn_resnet{_depth}",
        summary=f"torchvision's fcn_resnet{_depth}: a dilated ResNet and two layers, no skips.",
        tiny={"width_mult": 1 / 8},
        paper="https://arxiv.org/abs/1411.4038",
        year=2015,
        scores=f"COCO val, VOC's classes {_fcn_score}",
    )(partial(TorchvisionFCN, depth=_depth))
    MODELS.register(
        f"torchvision_deeplabv3_resnet{_depth}",
        summary=f"torchvision's deeplabv3_resnet{_depth}: rates 12, 24, 36 and one more 3x3.",
        tiny={"width_mult": 1 / 8},
        paper="https://arxiv.org/abs/1706.05587",
        year=2017,
        scores=f"COCO val, VOC's classes {_deeplab_score}",
    )(partial(TorchvisionDeepLabV3, depth=_depth))
MODELS.register(
    "torchvision_deeplabv3_mobilenet_v3_large",
    summary="torchvision's deeplabv3_mobilenet_v3_large: rates 12, 24, 36 and one more 3x3.",
    tiny={"width_mult": 1 / 8},
    paper="https://arxiv.org/abs/1706.05587",
    year=2017,
    scores="COCO val, VOC's classes 60.3",
)(TorchvisionDeepLabV3MobileNet)
MODELS.register(
    "torchvision_lraspp_mobilenet_v3_large",
    summary="torchvision's lraspp_mobilenet_v3_large: a light head on MobileNetV3.",
    tiny={"width_mult": 1 / 8, "hidden": 16},
    paper="https://arxiv.org/abs/1905.02244",
    year=2019,
    scores="COCO val, VOC's classes 57.9",
)(TorchvisionLRASPP)
