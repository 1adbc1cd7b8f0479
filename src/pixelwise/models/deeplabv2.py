"""DeepLab v2: Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep
Convolutional Nets, Atrous Convolution, and Fully Connected CRFs", PAMI 2018.

DeepLab v1 with atrous spatial pyramid pooling (ASPP): parallel atrous convolutions with several rates read the same
feature map, each gives class scores, and the scores are summed. On ResNet-101 the network also labels the image at
three sizes and keeps the maximum.

Paper: https://arxiv.org/abs/1606.00915

Faithful: on VGG16 four branches fc6-fc7-fc8 of 1024 filters read pool5, at rates 2, 4, 8, 12 (ASPP-S) or 6, 12, 18, 24
(ASPP-L); LargeFOV is v1's network. On ResNet-101, with strides in the first 1x1 and output stride 8, four 3x3
convolutions with biases lead from the last map to the classes. Multi-scale: the same network labels the image at 1,
0.75 and 0.5 of its size and keeps the maximum of the score maps at each position; training adds a loss on each of the
three to the loss on the maximum (`loss.aux_weight` 1). Images are padded with their mean color to 32 n + 1 pixels per
side (8 n + 1 for one scale), the authors' 321 and 513, so that the positions of all scales coincide.

Deviations: without published weights the backbone starts from He's initialization. Batch normalization learns unless
`train.freeze_norm: all` keeps its statistics; scale and shift still learn, the published runs freeze them too. The
losses of the smaller scales are taken at the image size, not at their own. `scales` also exists on VGG16, which the
paper measures at one; `width_mult` is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import create_backbone
from ..backbones.classifier import ClassifierBackbone
from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.geometry import ReceptiveField, layers_of, receptive_field
from ..nn.init import normal_conv
from ..nn.upsampling import AlignedBilinear, pad_to_stride
from . import MODELS
from .base import SegmentationModel
from .deeplabv1 import LARGE_FOV, STRIDE, fully_connected, vgg16_stride8

Head = Literal["aspp_s", "aspp_l", "largefov"]
# Atrous rates of the branches. Source: paper section 4.1.2, figure 7.
ATROUS_RATES: dict[Head, tuple[int, ...]] = {"aspp_s": (2, 4, 8, 12), "aspp_l": (6, 12, 18, 24), "largefov": (12,)}


class SummedASPP(nn.Module):
    """v2's atrous spatial pyramid pooling: one branch per rate that ends in class scores, summed.

    Source: figures 4 and 7.
    """

    def __init__(self, branches: Mapping[int, nn.Module], pool5a: nn.Module | None = None) -> None:
        super().__init__()
        self.atrous_rates = tuple(branches)
        self.pool5a = pool5a or nn.Identity()
        self.branches = nn.ModuleList(branches.values())

    def forward(self, x: Tensor) -> Tensor:
        """Compute the summed scores (B, K, h, w) of a feature map (B, C, h, w)."""
        x = self.pool5a(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class DeepLabV2(SegmentationModel):
    """A backbone at stride 8 and a summed ASPP, over one or several sizes of the image.

    Subclasses set `backbone` and `aspp`.

    scales  sizes of the image; 1 first, then fractions with denominators up to 8, such as 0.75

    Raises ConfigError for other scales.
    """

    import_format = "backbone"
    backbone_names = ("backbone",)
    logits_stride = STRIDE
    backbone: ClassifierBackbone
    aspp: SummedASPP

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        *,
        scales: Sequence[float],
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.scales = tuple(Fraction(scale).limit_denominator(8) for scale in scales)
        exact = all(s > 0 and math.isclose(s, scale) for s, scale in zip(self.scales, scales, strict=True))
        if not self.scales or self.scales[0] != 1 or not exact:
            what = f"expected 1 first, then positive fractions with denominators up to 8, got {tuple(scales)}"
            raise ConfigError("scales", what, "the paper has 1, 0.75, 0.5")
        # Sides of n + 1 pixels, n a multiple of this, give whole positions at every scale: 32 for 1, 0.75, 0.5.
        self.pad_multiple = STRIDE * math.lcm(*(scale.denominator for scale in self.scales))

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at every eighth pixel, the maximum over the scales; in training also those of each scale."""
        x = pad_to_stride(self.preprocess(images), self.pad_multiple)
        logits = [self.aspp(self.backbone(resize_aligned(x, scale))[-1]) for scale in self.scales]
        if len(logits) == 1:
            return LowResLogits(logits[0], AlignedBilinear(STRIDE))
        # Sides of 321, 241 and 161 pixels give maps of 41, 31 and 21, all upsampled to 41.
        size = logits[0].shape[-2:]
        logits[1:] = [F.interpolate(small, size=size, mode="bilinear", align_corners=True) for small in logits[1:]]
        aux = tuple(logits) if self.training else ()
        return LowResLogits(torch.stack(logits).amax(0), AlignedBilinear(STRIDE), aux)

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Return the receptive field of each branch's scores, at scale 1."""
        path = [*self.backbone.modules_to(), self.aspp.pool5a]
        branches = zip(self.aspp.atrous_rates, self.aspp.branches, strict=True)
        return {f"rate {rate}": receptive_field(layers_of([*path, branch])) for rate, branch in branches}


def resize_aligned(x: Tensor, scale: Fraction) -> Tensor:
    """Resize (B, C, n + 1, m + 1) bilinearly to (B, C, scale * n + 1, scale * m + 1).

    Corners stay in place, so that the pixels of all scales coincide.
    """
    if scale == 1:
        return x
    size = [(side - 1) * scale.numerator // scale.denominator + 1 for side in x.shape[-2:]]
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class DeepLabV2VGG16(DeepLabV2):
    """VGG16 at stride 8; each branch is an atrous 3x3 fc6, fc7 and fc8 (figure 7)."""

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        head: Head = "aspp_l",
        scales: Sequence[float] = (1.0,),
        dropout: float = 0.5,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, scales=scales, preprocessing=preprocessing)
        self.backbone = vgg16_stride8(in_channels, width_mult)
        pool5_channels, fc7_channels = self.backbone.channels[-1], scale_channels(LARGE_FOV.channels, width_mult)
        branches = {}
        for rate in ATROUS_RATES[head]:
            layers = fully_connected(pool5_channels, LARGE_FOV, dilation=rate, dropout=dropout, width_mult=width_mult)
            layers["fc8"] = normal_conv(fc7_channels, num_classes, 1, std=0.01)
            branches[rate] = nn.Sequential(layers)
        # Only LargeFOV keeps v1's average pooling.
        self.aspp = SummedASPP(branches, nn.AvgPool2d(3, 1, 1) if head == "largefov" else None)
        # The authors give fc8 ten times the learning rate.
        self.score_layer_names = tuple(f"aspp.branches.{i}.fc8" for i in range(len(branches)))


class DeepLabV2ResNet101(DeepLabV2):
    """ResNet-101 at stride 8; each branch is one atrous 3x3 convolution from its last map to the classes."""

    score_layer_names = ("aspp.branches",)

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        head: Head = "aspp_l",
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, scales=scales, preprocessing=preprocessing)
        backbone = create_backbone(
            "resnet101", in_channels=in_channels, output_stride=STRIDE, stride_in="1x1", width_mult=width_mult
        )
        assert isinstance(backbone, ClassifierBackbone)
        self.backbone = backbone
        channels = backbone.channels[-1]
        self.aspp = SummedASPP(
            {r: normal_conv(channels, num_classes, 3, std=0.01, padding=r, dilation=r) for r in ATROUS_RATES[head]}
        )


MODELS.register(
    "deeplabv2_vgg16",
    summary="DeepLab v2 on VGG16: branches of fc6, fc7, fc8 at four rates (`head` aspp_l or aspp_s), or largefov.",
    tiny={"width_mult": 1 / 16},
    paper="https://arxiv.org/abs/1606.00915",
    year=2016,
    scores="VOC 2012 val 68.96, 71.57 with CRF (ASPP-L, table 3)",
)(DeepLabV2VGG16)
MODELS.register(
    "deeplabv2_resnet101",
    summary="DeepLab v2 on ResNet-101: four 3x3 at rates 6 to 24 summed, the maximum over three sizes of the image.",
    tiny={"width_mult": 1 / 32},
    paper="https://arxiv.org/abs/1606.00915",
    year=2016,
    scores="VOC 2012 val 76.35, test 79.7 with CRF (table 4)",
)(DeepLabV2ResNet101)
