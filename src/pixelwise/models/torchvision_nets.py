"""torchvision's segmentation nets under their own state names, so that its COCO/VOC weights load and label alike.

Paper: https://arxiv.org/abs/1706.05587 (DeepLab v3), https://arxiv.org/abs/1411.4038 (FCN),
https://arxiv.org/abs/1905.02244 (LR-ASPP)

Faithful: to torchvision 0.28 (`models/segmentation`), name for name: output stride 8 (MobileNetV3: 16), the heads, the auxiliary
head on the third stage (MobileNetV3: the first layer of stride 8).

Deviations: of torchvision from the papers, the FCN has two layers on a dilated ResNet and no skips; the first unit of each dilated
stage keeps the rate of the stage before (ResNet); no multi-grid; a further 3x3 convolution behind the pyramid; dropout 0.5 in it;
corners are not aligned. Ours from torchvision: `width_mult`; with a single image in training the norm behind the image pooling uses
its running statistics; the auxiliary head is not computed in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import create_backbone
from ..backbones.mobilenetv3 import MobileNetV3
from ..core import LowResLogits
from ..nn.blocks import ConvNormAct
from ..nn.channels import scale_channels
from ..nn.pyramid_pooling import ImagePooling
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel

FCN_PAPER = "https://arxiv.org/abs/1411.4038"
DEEPLAB_PAPER = "https://arxiv.org/abs/1706.05587"
LRASPP_PAPER = "https://arxiv.org/abs/1905.02244"
# At every output stride. Source: torchvision, `deeplabv3.py`.
RATES = (12, 24, 36)
# The layer of the 40 channels at stride 8 that the auxiliary head and LR-ASPP read. Source: torchvision, `deeplabv3.py`.
MOBILE_MIDDLE = 4

# COCO val2017 with VOC's classes, by torchvision's metadata.
SCORES = {
    "fcn_resnet50": 60.5,
    "fcn_resnet101": 63.7,
    "deeplabv3_resnet50": 66.4,
    "deeplabv3_resnet101": 67.4,
    "deeplabv3_mobilenet_v3_large": 60.3,
    "lraspp_mobilenet_v3_large": 57.9,
}

Preprocessing = str | Mapping[str, Any]


class FCNHead(nn.Sequential):
    """3x3 to a quarter of the channels, norm, ReLU, dropout, scores."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        inner = in_channels // 4
        conv = nn.Conv2d(in_channels, inner, 3, padding=1, bias=False)
        norm, act = nn.BatchNorm2d(inner), nn.ReLU(inplace=True)
        super().__init__(conv, norm, act, nn.Dropout(0.1), nn.Conv2d(inner, num_classes, 1))


class Pyramid(nn.Module):
    """DeepLab v3's pyramid under torchvision's names: the image pooling is the last of `convs`."""

    def __init__(self, in_channels: int, hidden: int) -> None:
        super().__init__()
        atrous = [ConvNormAct(in_channels, hidden, dilation=rate) for rate in RATES]
        self.convs = nn.ModuleList([ConvNormAct(in_channels, hidden, 1), *atrous, ImagePooling(in_channels, hidden)])
        self.project = nn.Sequential(*ConvNormAct(len(self.convs) * hidden, hidden, 1), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, hidden, h, w)."""
        projected: Tensor = self.project(torch.cat([conv(x) for conv in self.convs], 1))
        return projected


class DeepLabHead(nn.Sequential):
    """The pyramid, a 3x3, norm, ReLU, scores."""

    def __init__(self, in_channels: int, num_classes: int, hidden: int) -> None:
        conv = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        norm, act = nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)
        super().__init__(Pyramid(in_channels, hidden), conv, norm, act, nn.Conv2d(hidden, num_classes, 1))


class TorchvisionNet(SegmentationModel):
    """A backbone at output stride 8 (mobile: 16), `classifier` on its last map, `aux_classifier` in training on a middle one."""

    import_format = "torchvision"

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        backbone: str,
        head: Callable[[int], nn.Sequential],
        auxiliary: bool,
        width_mult: float,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        mobile = backbone == "mobilenetv3_large"
        self.logits_stride = stride = 16 if mobile else 8
        found = create_backbone(
            backbone, in_channels=in_channels, output_stride=stride, dilate_first=mobile, width_mult=width_mult
        )
        # torchvision keeps the chain alone of the mobile backbone.
        self.backbone = found.features if isinstance(found, MobileNetV3) else found
        # Channels of the mobile backbone at stride 8 (its third map), of ResNet's layer3 (its fourth).
        self.classifier = head(found.channels[-1])
        self.aux_classifier = FCNHead(found.channels[2 if mobile else 3], num_classes) if auxiliary else None

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at the output stride; in training with the auxiliary ones at full size."""
        middle, last = self._maps(self.preprocess(images))
        aux: tuple[Tensor, ...] = ()
        if self.training and self.aux_classifier is not None:
            aux = (self.aux_classifier(middle),)
        return LowResLogits(self.classifier(last), Bilinear(), aux)

    def _maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.backbone, nn.Sequential):
            return mobile_maps(self.backbone, images)
        maps = self.backbone(images)
        return maps[3], maps[4]

    def classifier_modules(self) -> list[nn.Module]:
        """The layers that turn features into class scores."""
        heads = [self.classifier] if self.aux_classifier is None else [self.classifier, self.aux_classifier]
        return [head[-1] for head in heads]


def mobile_maps(chain: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """The map of 40 channels at stride 8, and the last one."""
    middle = chain[: MOBILE_MIDDLE + 1](images)
    return middle, chain[MOBILE_MIDDLE + 1 :](middle)


class LiteHead(nn.Module):
    """LR-ASPP: the last map gated by its own average, enlarged; its scores and those of the finer map are summed."""

    def __init__(self, middle_channels: int, channels: int, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.cbr = ConvNormAct(channels, hidden, 1)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1, bias=False), nn.Sigmoid())
        self.low_classifier = nn.Conv2d(middle_channels, num_classes, 1)
        self.high_classifier = nn.Conv2d(hidden, num_classes, 1)

    def forward(self, middle: Tensor, last: Tensor) -> Tensor:
        """Two maps -> scores of the finer one's size."""
        gated = self.cbr(last) * self.scale(last)
        wide = F.interpolate(gated, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        scores: Tensor = self.low_classifier(middle) + self.high_classifier(wide)
        return scores


class TorchvisionLRASPP(SegmentationModel):
    """MobileNetV3 at output stride 16 and LR-ASPP: scores at 1/8, those of the finer map."""

    import_format = "torchvision"

    def __init__(
        self, num_classes: int, in_channels: int, hidden: int, width_mult: float, preprocessing: Preprocessing
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.logits_stride = 8
        found = create_backbone(
            "mobilenetv3_large", in_channels=in_channels, output_stride=16, dilate_first=True, width_mult=width_mult
        )
        assert isinstance(found, MobileNetV3)
        self.backbone = found.features
        self.classifier = LiteHead(found.channels[2], found.channels[-1], num_classes, hidden)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at 1/8."""
        scores = self.classifier(*mobile_maps(self.backbone, self.preprocess(images)))
        return LowResLogits(scores, Bilinear())

    def classifier_modules(self) -> list[nn.Module]:
        """The layers that turn features into class scores."""
        return [self.classifier.low_classifier, self.classifier.high_classifier]


def _register(name: str, paper: str, year: int, tiny: dict[str, Any], build: Callable[..., SegmentationModel]) -> None:
    scores = f"COCO val, VOC's classes {SCORES[name]}"
    MODELS.register(f"torchvision_{name}", tiny=tiny, paper=paper, year=year, scores=scores)(build)


def _register_fcn(depth: int) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        auxiliary: bool = True,
        width_mult: float = 1.0,
        preprocessing: Preprocessing = "torchvision",
    ) -> TorchvisionNet:
        def head(channels: int) -> nn.Sequential:
            return FCNHead(channels, num_classes)

        return TorchvisionNet(num_classes, in_channels, f"resnet{depth}", head, auxiliary, width_mult, preprocessing)

    build.__doc__ = f"torchvision's fcn_resnet{depth}: a dilated ResNet and two layers, no skips."
    _register(f"fcn_resnet{depth}", FCN_PAPER, 2015, {"width_mult": 1 / 8}, build)


def _register_deeplab(name: str, backbone: str) -> None:
    def build(
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        auxiliary: bool = True,
        width_mult: float = 1.0,
        preprocessing: Preprocessing = "torchvision",
    ) -> TorchvisionNet:
        def head(channels: int) -> nn.Sequential:
            return DeepLabHead(channels, num_classes, scale_channels(256, width_mult))

        return TorchvisionNet(num_classes, in_channels, backbone, head, auxiliary, width_mult, preprocessing)

    build.__doc__ = f"torchvision's deeplabv3_{name}: rates 12, 24, 36 and a further 3x3."
    _register(f"deeplabv3_{name}", DEEPLAB_PAPER, 2017, {"width_mult": 1 / 8}, build)


for _depth in (50, 101):
    _register_fcn(_depth)
    _register_deeplab(f"resnet{_depth}", f"resnet{_depth}")
_register_deeplab("mobilenet_v3_large", "mobilenetv3_large")


def lraspp_mobilenet_v3_large(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    hidden: int = 128,
    width_mult: float = 1.0,
    preprocessing: Preprocessing = "torchvision",
) -> TorchvisionLRASPP:
    """torchvision's lraspp_mobilenet_v3_large: a light head on MobileNetV3."""
    return TorchvisionLRASPP(num_classes, in_channels, hidden, width_mult, preprocessing)


_register(
    "lraspp_mobilenet_v3_large", LRASPP_PAPER, 2019, {"width_mult": 1 / 8, "hidden": 16}, lraspp_mobilenet_v3_large
)
