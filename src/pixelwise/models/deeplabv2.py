"""DeepLab v2: Chen, Papandreou, Kokkinos, Murphy and Yuille, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
Atrous Convolution, and Fully Connected CRFs", PAMI 2018.

Paper: https://arxiv.org/abs/1606.00915

Faithful: atrous spatial pyramid pooling as a sum of score maps. On VGG16 four branches fc6-fc7-fc8 of 1024 filters read pool5, at
rates 2, 4, 8, 12 (ASPP-S) or 6, 12, 18, 24 (ASPP-L); LargeFOV is v1's net. On ResNet-101, strides in the first 1x1 and output
stride 8, four 3x3 convolutions with biases lead from the last map to the classes. Multi-scale: the same net labels the image at 1,
0.75 and 0.5 of its size, the maximum of the score maps at each cell wins; training adds a loss on each of the three to that on
their maximum (`loss.aux_weight` 1). Images are padded with their mean colour to 32 n + 1 pixels a side (8 n + 1 for one scale), the
authors' 321 and 513, so that the cells of all scales lie on each other.

Deviations: without a published net the backbone starts from He's weights. Norms learn unless `train.freeze_norm` keeps their
statistics; their scales and shifts learn all the same, where the published runs freeze those too. The losses of the smaller scales
are taken at the image's size, not at their own. `scales` is also offered on VGG16, which the paper measures at one; `width_mult` is
ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
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
from ..nn.init import normal_conv
from ..nn.upsampling import AlignedBilinear, pad_to_stride
from .base import MODELS, SegmentationModel
from .deeplabv1 import LARGE_FOV, View, fully_connected

PAPER = "https://arxiv.org/abs/1606.00915"
SCORES = "VOC 2012 test 79.7 (ResNet-101, CRF); tables 2 to 4"
STRIDE = 8
# Rates of the branches. Source: paper section 4.1.2, figure 7.
HEADS: dict[str, tuple[int, ...]] = {"aspp_s": (2, 4, 8, 12), "aspp_l": (6, 12, 18, 24), "largefov": (12,)}
# Source: paper sections 3.2 and 4.1.2.
SCALES = (1.0, 0.75, 0.5)


class Pyramid(nn.Module):
    """Branches that end in class scores, summed; `first` stands before all of them. Source: paper figures 4 and 7."""

    def __init__(self, branches: Mapping[int, nn.Module], first: nn.Module | None = None) -> None:
        super().__init__()
        self.rates = tuple(branches)
        self.first = first or nn.Identity()
        self.branches = nn.ModuleList(branches.values())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> scores (B, K, h, w)."""
        x = self.first(x)
        return torch.stack([branch(x) for branch in self.branches]).sum(0)

    def paths(self) -> Iterator[tuple[str, list[nn.Module]]]:
        """The name of each branch and its layers."""
        for rate, branch in zip(self.rates, self.branches, strict=True):
            yield f"rate {rate}", [self.first, branch]


class DeepLabV2(SegmentationModel):
    """A backbone at stride 8 and a sum of branches, over one or several sizes of the image.

    scales  the first is 1; a multiple of it by parts up to the eighth, as 0.75. Raises ConfigError for others
    """

    import_format = "backbone"

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        backbone: ClassifierBackbone,
        pyramid: Pyramid,
        scales: Sequence[float],
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.logits_stride = STRIDE
        self.backbone = backbone
        self.pyramid = pyramid
        self.scales = _fractions(scales)
        # The least step of pixels that is whole cells at every scale.
        self.step = STRIDE * math.lcm(*(scale.denominator for scale in self.scales))

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores at stride 8, the maximum over the scales; in training those of each scale too."""
        x = pad_to_stride(self.preprocess(images), self.step)
        first, *others = (self.pyramid(self.backbone(_resized(x, scale))[-1]) for scale in self.scales)
        if not others:
            return LowResLogits(first, AlignedBilinear(STRIDE))
        each = [first, *(_aligned(scores, first.shape[-2:]) for scores in others)]
        aux = tuple(each) if self.training else ()
        return LowResLogits(torch.stack(each).amax(0), AlignedBilinear(STRIDE), aux)

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Of the scores of each branch, at scale 1."""
        path = self.backbone.modules_to()
        return {name: receptive_field(layers_of([*path, *branch])) for name, branch in self.pyramid.paths()}

    def classifier_modules(self) -> list[nn.Module]:
        """What ends in class scores: the authors give these layers ten times the learning rate."""
        return [branch[-1] if isinstance(branch, nn.Sequential) else branch for branch in self.pyramid.branches]


def _fractions(scales: Sequence[float]) -> tuple[Fraction, ...]:
    parts = tuple(Fraction(scale).limit_denominator(8) for scale in scales)
    exact = all(part > 0 and math.isclose(part, scale) for part, scale in zip(parts, scales, strict=True))
    if not parts or parts[0] != 1 or not exact:
        raise ConfigError(
            "scales", f"got {tuple(scales)}", "1 first, then others by parts up to the eighth, as 0.75 or 0.5"
        )
    return parts


def _resized(x: Tensor, scale: Fraction) -> Tensor:
    """(B, C, s n + 1, s m + 1) of (B, C, n + 1, m + 1): corners stay where they are, so that pixels and cells meet."""
    if scale == 1:
        return x
    height, width = (int((side - 1) * scale) + 1 for side in x.shape[-2:])
    return _aligned(x, (height, width))


def _aligned(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)


def _rates(head: str) -> tuple[int, ...]:
    if head not in HEADS:
        raise ConfigError("head", f"got {head!r}, allowed are {', '.join(HEADS)}")
    return HEADS[head]


def _backbone(name: str, in_channels: int, **options: Any) -> ClassifierBackbone:
    backbone = create_backbone(name, in_channels=in_channels, output_stride=STRIDE, **options)
    assert isinstance(backbone, ClassifierBackbone)
    return backbone


@MODELS.register("deeplabv2_vgg16", tiny={"width_mult": 1 / 16}, paper=PAPER, year=2016, scores=SCORES)
def deeplabv2_vgg16(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    head: str = "aspp_l",
    scales: Sequence[float] = (1.0,),
    dropout: float = 0.5,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> DeepLabV2:
    """DeepLab v2 on VGG16: branches of fc6, fc7, fc8 at four rates (`head` aspp_l or aspp_s), or largefov."""
    backbone = _backbone("vgg16", in_channels, pool_kernel=3, width_mult=width_mult)
    branches = {}
    for rate in _rates(head):
        fc = fully_connected(backbone.channels[-1], View(3, rate, LARGE_FOV.hidden), dropout, width_mult)
        branches[rate] = nn.Sequential(
            fc, normal_conv(scale_channels(LARGE_FOV.hidden, width_mult), num_classes, 1, std=0.01)
        )
    # Only LargeFOV keeps v1's pool5a.
    pyramid = Pyramid(branches, nn.AvgPool2d(3, 1, 1) if head == "largefov" else None)
    return DeepLabV2(num_classes, in_channels, backbone, pyramid, scales, preprocessing)


@MODELS.register("deeplabv2_resnet101", tiny={"width_mult": 1 / 32}, paper=PAPER, year=2016, scores=SCORES)
def deeplabv2_resnet101(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    head: str = "aspp_l",
    scales: Sequence[float] = SCALES,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> DeepLabV2:
    """DeepLab v2 on ResNet-101: four 3x3 at rates 6 to 24 summed, the maximum over three sizes of the image."""
    backbone = _backbone("resnet101", in_channels, stride_in="1x1", width_mult=width_mult)
    channels = backbone.channels[-1]
    branches = {r: normal_conv(channels, num_classes, 3, std=0.01, padding=r, dilation=r) for r in _rates(head)}
    return DeepLabV2(num_classes, in_channels, backbone, Pyramid(branches), scales, preprocessing)
