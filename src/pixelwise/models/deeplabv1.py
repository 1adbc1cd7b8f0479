"""DeepLab v1: Chen, Papandreou, Kokkinos, Murphy and Yuille, "Semantic Image Segmentation with Deep Convolutional Nets
and Fully Connected CRFs", ICLR 2015.

VGG16 turned into a dense labeler: its last two poolings lose their stride and the convolutions after them get holes
instead (atrous convolution), so that logits lie at every eighth pixel with no weight changed. A fully connected CRF
then sharpens the borders.

Paper: https://arxiv.org/abs/1412.7062

Faithful: VGG16 at output stride 8, conv5 at atrous rate 2; fc6 as an atrous convolution whose kernel and rate set the
field of view (table 2): 7x7 at rate 4, 4x4 at rate 4 (or 8), LargeFOV's 3x3 at rate 12 with 1024 filters; 3x3 poolings,
so that map positions lie on pixels 0, 8, 16, ...; LargeFOV averages pool5 over 3x3 (pool5a). MSc: the image and pool1
to pool4 reach the classifier through a 3x3 and a 1x1 of 128 filters each (section 4.3). Images are padded with their
mean color to 8 n + 1 pixels per side, the authors' 321 and 513. The loss against every eighth label is
`loss.resolution: logits`; the CRF is `--crf deeplabv1`, not part of the network.

Deviations: without published weights the backbone starts from He's initialization. 7x7 and 4x4 have the 3x3 poolings of
the authors' later files (their first ones pool 2x2, each padded by a pixel). MSc reads every eighth pixel of the image,
as in the authors' training; `dense_eval` reads all pixels in evaluation, as in their test file. `width_mult` is ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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
from . import MODELS
from .base import SegmentationModel

STRIDE = 8


@dataclass(frozen=True)
class FieldOfView:
    """A row of table 2 without its atrous rate: kernel of fc6, filters of fc6 and fc7, pool5a before them or not.

    Source: paper table 2.
    """

    kernel: int
    channels: int
    pool5a: bool = False


LARGE_FOV = FieldOfView(kernel=3, channels=1024, pool5a=True)


def vgg16_stride8(in_channels: int, width_mult: float) -> ClassifierBackbone:
    """Return VGG16 with pool4 and pool5 at stride 1 and conv5 at rate 2: pool1 to pool5 at strides 2, 4, 8, 8, 8."""
    backbone = create_backbone(
        "vgg16", in_channels=in_channels, output_stride=STRIDE, pool_kernel=3, width_mult=width_mult
    )
    assert isinstance(backbone, ClassifierBackbone)
    return backbone


def fully_connected(
    in_channels: int, fov: FieldOfView, *, dilation: int, dropout: float, width_mult: float
) -> OrderedDict[str, nn.Module]:
    """Return fc6 and fc7 as convolutions that keep the size, under the names of the authors' prototxt.

    Raises ConfigError for a dilation that would shift the map.
    """
    extent = (fov.kernel - 1) * dilation
    if dilation < 1 or extent % 2:
        what = f"must be >= 1, and even for an even kernel; got {dilation} for {fov.kernel}x{fov.kernel}"
        raise ConfigError("dilation", what, "the paper has 4 and 8 for 4x4, 4 for 7x7, 12 for 3x3")
    channels = scale_channels(fov.channels, width_mult)
    layers = OrderedDict[str, nn.Module](
        fc6=nn.Conv2d(in_channels, channels, fov.kernel, padding=extent // 2, dilation=dilation),
        relu6=nn.ReLU(inplace=True),
        drop6=nn.Dropout(dropout),
        fc7=nn.Conv2d(channels, channels, 1),
        relu7=nn.ReLU(inplace=True),
        drop7=nn.Dropout(dropout),
    )
    for layer in layers.values():
        init_kaiming_normal(layer)
    return layers


class DeepLabV1(SegmentationModel):
    """VGG16 at stride 8, atrous fc6, fc7, scores.

    fov       kernel and filters of fc6, a row of table 2
    dilation  atrous rate of fc6
    """

    import_format = "backbone"
    backbone_names = ("backbone",)
    logits_stride = STRIDE

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        fov: FieldOfView,
        dilation: int = 12,
        dropout: float = 0.5,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.backbone = vgg16_stride8(in_channels, width_mult)
        self.pool5a = nn.AvgPool2d(3, 1, 1) if fov.pool5a else nn.Identity()
        pool5_channels = self.backbone.channels[-1]
        self.fc = nn.Sequential(
            fully_connected(pool5_channels, fov, dilation=dilation, dropout=dropout, width_mult=width_mult)
        )
        self.score = normal_conv(scale_channels(fov.channels, width_mult), num_classes, 1, std=0.01)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at every eighth pixel of images (B, C, H, W); 41 x 41 for the authors' crops of 321."""
        pool5 = self.backbone(pad_to_stride(self.preprocess(images), STRIDE))[-1]
        fc7 = self.fc(self.pool5a(pool5))
        return LowResLogits(self.score(fc7), AlignedBilinear(STRIDE))

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Return the receptive field of fc7."""
        return {"fc7": receptive_field(layers_of([*self.backbone.modules_to(), self.pool5a, self.fc]))}


class MultiScaleBranch(nn.Module):
    """MSc: a finer map reduced to 128 channels by a 3x3 and a 1x1 convolution; the stride brings it to stride 8."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        # Source: the fillers in DeepLab-MSc's train.prototxt.
        self.conv3x3 = normal_conv(in_channels, out_channels, 3, std=0.001, stride=stride, padding=1)
        self.conv1x1 = normal_conv(out_channels, out_channels, 1, std=0.001)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, out_channels, about h / stride, about w / stride)."""
        x = self.dropout(F.relu(self.conv3x3(x)))
        x = self.dropout(F.relu(self.conv1x1(x)))
        return x

    def forward_dense(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) -> (B, out_channels, h, w): the same convolutions at stride 1."""
        x = self.dropout(F.relu(F.conv2d(x, self.conv3x3.weight, self.conv3x3.bias, padding=1)))
        x = self.dropout(F.relu(self.conv1x1(x)))
        return x


class DeepLabV1MSc(SegmentationModel):
    """MSc-LargeFOV: fc7 concatenated with branches from the image and pool1 to pool4, then scores (section 4.3).

    dilation    atrous rate of fc6
    dense_eval  in evaluation the branches read every pixel, not every eighth; logits are then at full size
    """

    import_format = "backbone"
    backbone_names = ("backbone",)
    logits_stride = STRIDE
    # The authors train the new layers alone, at ten times the learning rate.
    score_layer_names = ("score", "branches")
    # Strides of the branches on the image, pool1, ..., pool4. Source: DeepLab-MSc's train.prototxt.
    BRANCH_STRIDES = (8, 4, 2, 1, 1)

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        dilation: int = 12,
        dense_eval: bool = False,
        dropout: float = 0.5,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.dense_eval = dense_eval
        self.backbone = vgg16_stride8(in_channels, width_mult)
        *pool_channels, pool5_channels = self.backbone.channels
        self.pool5a = nn.AvgPool2d(3, 1, 1)
        self.fc = nn.Sequential(
            fully_connected(pool5_channels, LARGE_FOV, dilation=dilation, dropout=dropout, width_mult=width_mult)
        )
        branch_channels = scale_channels(128, width_mult)
        self.branches = nn.ModuleList(
            MultiScaleBranch(channels, branch_channels, stride=stride, dropout=dropout)
            for channels, stride in zip((in_channels, *pool_channels), self.BRANCH_STRIDES, strict=True)
        )
        concatenated = scale_channels(LARGE_FOV.channels, width_mult) + len(self.branches) * branch_channels
        self.score = normal_conv(concatenated, num_classes, 1, std=0.01)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at every eighth pixel of images (B, C, H, W), or with `dense_eval` at every pixel."""
        x = pad_to_stride(self.preprocess(images), STRIDE)
        # pool1 to pool4 at strides 2, 4, 8, 8; pool5 at 8.
        *pools, pool5 = self.backbone(x)
        fc7 = self.fc(self.pool5a(pool5))
        if self.dense_eval and not self.training:
            return self.dense_logits(fc7, [x, *pools], (images.shape[-2], images.shape[-1]))
        branches = [branch(fine) for branch, fine in zip(self.branches, (x, *pools), strict=True)]
        return LowResLogits(self.score(torch.cat([fc7, *branches], 1)), AlignedBilinear(STRIDE))

    def dense_logits(self, fc7: Tensor, fine: list[Tensor], size: tuple[int, int]) -> LowResLogits:
        """Score fc7 and each branch at the stride of its own map, upsample to `size` and sum.

        A 1x1 convolution of a concatenation is the sum of 1x1 convolutions of its parts, so the same weights serve.
        """
        parts = [fc7]
        for branch, x in zip(self.branches, fine, strict=True):
            assert isinstance(branch, MultiScaleBranch)
            parts.append(branch.forward_dense(x))
        strides = [STRIDE, *(STRIDE // stride for stride in self.BRANCH_STRIDES)]
        weights = torch.split(self.score.weight, [part.shape[1] for part in parts], 1)
        scores = [
            AlignedBilinear(stride)(F.conv2d(part, weight), size)
            for part, weight, stride in zip(parts, weights, strides, strict=True)
        ]
        assert self.score.bias is not None
        return LowResLogits(torch.stack(scores).sum(0) + self.score.bias[:, None, None], Identity())

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Return the receptive field of fc7."""
        return {"fc7": receptive_field(layers_of([*self.backbone.modules_to(), self.pool5a, self.fc]))}


register = partial(MODELS.register, tiny={"width_mult": 1 / 16}, paper="https://arxiv.org/abs/1412.7062", year=2015)
register(
    "deeplabv1_largefov_vgg16",
    summary="DeepLab v1 LargeFOV: VGG16 at stride 8, fc6 of 3x3 at rate 12, 1024 filters.",
    scores="VOC 2012 val 62.25, test 70.3 with CRF (table 1)",
)(partial(DeepLabV1, fov=LARGE_FOV))
register(
    "deeplabv1_vgg16_7x7",
    summary="DeepLab v1 7x7: VGG16 at stride 8, its own fc6 at rate 4.",
    scores="VOC 2012 val 64.38, test 70.3 with CRF (table 1)",
    defaults={"dilation": 4},
)(partial(DeepLabV1, fov=FieldOfView(kernel=7, channels=4096)))
register(
    "deeplabv1_vgg16_4x4",
    summary="DeepLab v1: VGG16 at stride 8, fc6 of 4x4 at rate 4, or `dilation` 8.",
    scores="VOC 2012 val 59.80, test 66.4 with CRF (table 1)",
    defaults={"dilation": 4},
)(partial(DeepLabV1, fov=FieldOfView(kernel=4, channels=4096)))
register(
    "deeplabv1_msc_largefov_vgg16",
    summary="DeepLab v1 MSc-LargeFOV: the image and pool1 to pool4 reach the classifier too.",
    scores="VOC 2012 val 64.21, test 71.6 with CRF (table 1)",
)(DeepLabV1MSc)
