"""A compact network for street scenes, built from parts of ResNet, FCN and DeepLab; the model that ships.

A backbone to stride 16, an atrous spatial pyramid without image pooling, and a decoder that returns to finer strides
over skip connections. It is small enough to run on a CPU.

Paper: none of its own. Atrous spatial pyramid: Chen et al. 2017, DeepLab v2/v3 (https://arxiv.org/abs/1706.05587).
Skips from fine maps: Long et al. 2015, FCN (https://arxiv.org/abs/1411.4038), in the form of DeepLab v3+
(https://arxiv.org/abs/1802.02611): reduced by 1x1, concatenated.

Deviations: from DeepLab v3, no image pooling, so that a label depends on a bounded window and labels of tiles equal
those of the image; this holds for every backbone without global pooling (squeeze and excitation is one). From v3+,
several skips (strides 8, 4, 2): poles and signs are a few pixels wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import backbone_at_stride
from ..core import LowResLogits, Upsample
from ..errors import ConfigError
from ..nn.blocks import ConvNormAct
from ..nn.separable_conv import separable_conv_relu
from ..nn.upsampling import AlignedBilinear, Bilinear, pad_to_stride
from ..registry import NO_OPTIONS
from . import MODELS
from .base import SegmentationModel


class Compact(SegmentationModel):
    """Any backbone, ASPP without image pooling, decoder over finer skips; logits at the stride of the last skip.

    backbone          name of a registered backbone
    backbone_options  its options, such as {width_mult: 0.5}
    output_stride     stride of the map that the pyramid reads
    atrous_rates      rates of the pyramid's 3x3 branches
    aspp_channels     channels of each branch; None for half of the backbone's last map
    decoder_channels  channels at each finer stride, coarse to fine: (80, 48, 16) from stride 16 are strides 8, 4 and 2.
                      Half as many come from the backbone's map of that stride
    separable         depthwise separable 3x3 in the atrous branches ("pyramid"), and also in the decoder ("all")
    align_corners     pad images to sides of output_stride * n + 1, so that position i of every map lies on pixel
                      i * stride. Otherwise positions are read as centers of stride x stride pixels, while those of a
                      padded convolution lie on the first of them
    dropout           probability with which a channel of the pyramid's map is dropped in training
    Raises ConfigError for a backbone without a map at one of the strides.
    """

    backbone_names = ("backbone",)
    import_format = "backbone"

    def __init__(
        self,
        num_classes: int = 11,
        in_channels: int = 3,
        *,
        backbone: str = "compact",
        backbone_options: Mapping[str, Any] = NO_OPTIONS,
        output_stride: int = 16,
        atrous_rates: Sequence[int] = (4, 8),
        aspp_channels: int | None = None,
        decoder_channels: Sequence[int] = (80, 48, 16),
        separable: Literal["none", "pyramid", "all"] = "none",
        align_corners: bool = False,
        dropout: float = 0.1,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.output_stride, self.align_corners = output_stride, align_corners
        self.backbone = backbone_at_stride(backbone, output_stride, in_channels=in_channels, **backbone_options)
        fine_strides = [output_stride >> step for step in range(1, len(decoder_channels) + 1)]
        if not fine_strides or not set(fine_strides) <= set(self.backbone.strides):
            what = f"{backbone} has maps at strides {self.backbone.strides}, got {list(decoder_channels)}"
            raise ConfigError("decoder_channels", what, f"give one number per stride below {output_stride}, in order")
        # The last map of a stride is the deepest one.
        self.skip_indices = [max(i for i, s in enumerate(self.backbone.strides) if s == fine) for fine in fine_strides]
        self.logits_stride = fine_strides[-1]
        # ASPP: a 1x1 and atrous 3x3, concatenated, projected.
        coarse = self.backbone.channels[-1]
        hidden = coarse // 2 if aspp_channels is None else aspp_channels
        conv3x3 = ConvNormAct if separable == "none" else separable_conv_relu
        self.pyramid = nn.ModuleList([ConvNormAct(coarse, hidden, 1)])
        self.pyramid.extend(conv3x3(coarse, hidden, dilation=rate) for rate in atrous_rates)
        self.project = ConvNormAct(len(self.pyramid) * hidden, decoder_channels[0], 1)
        self.dropout = nn.Dropout2d(dropout)
        # Decoder: each step joins the backbone's map of that stride.
        self.fusions = nn.ModuleList()
        channels = decoder_channels[0]
        for index, out_channels in zip(self.skip_indices, decoder_channels, strict=True):
            skip_channels = self.backbone.channels[index]
            self.fusions.append(
                Fusion(channels, skip_channels, out_channels, separable=separable == "all", align_corners=align_corners)
            )
            channels = out_channels
        self.score = nn.Conv2d(channels, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at the stride of the finest skip of images (B, C, H, W)."""
        x = self.preprocess(images)
        features = self.backbone(pad_to_stride(x, self.output_stride) if self.align_corners else x)
        x = self.dropout(self.project(torch.cat([branch(features[-1]) for branch in self.pyramid], 1)))
        for index, fusion in zip(self.skip_indices, self.fusions, strict=True):
            x = fusion(x, features[index])
        upsample: Upsample = AlignedBilinear(self.logits_stride) if self.align_corners else Bilinear()
        return LowResLogits(self.score(x), upsample)


class Fusion(nn.Module):
    """A coarse map upsampled to the size of a finer one, concatenated with it and mixed by a 3x3 convolution.

    Both are reduced first: a 1x1 convolution and an interpolation commute, and fewer channels are cheaper to upsample.
    """

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, *, separable: bool, align_corners: bool
    ) -> None:
        super().__init__()
        conv3x3 = separable_conv_relu if separable else ConvNormAct
        self.align_corners = align_corners
        self.reduce = nn.Conv2d(in_channels, out_channels, 1)
        self.skip = ConvNormAct(skip_channels, out_channels // 2, 1)
        self.mix = conv3x3(out_channels + out_channels // 2, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Compute (B, in_channels, h, w) and (B, skip_channels, H, W) -> (B, out_channels, H, W)."""
        size = skip.shape[-2:]
        x = F.interpolate(self.reduce(x), size=size, mode="bilinear", align_corners=self.align_corners)
        x = self.mix(torch.cat([x, self.skip(skip)], 1))
        return x


MODELS.register(
    "compact",
    summary="The shipped street-scene network: residual backbone, ASPP, three skips, no global pooling.",
    tiny={
        "backbone_options": {"channels": (8, 8, 8, 8), "num_blocks": (1, 1), "dilations": (1, 2)},
        "atrous_rates": (2,),
        "decoder_channels": (8, 4, 4),
    },
    year=2026,
    scores="CamVid test 61.06 (docs/results.md)",
)(Compact)

# On 321 x 449 pixels: 2.1 G multiply-adds in the backbone, 1.0 G after it; 3.4 M parameters with 11 classes.
MODELS.register(
    "compact_efficientnet_lite0",
    summary="Compact on EfficientNet-Lite0, which installs with ImageNet weights: separable ASPP, skips to stride 4.",
    tiny={
        "backbone_options": {"width_mult": 0.1, "depth_mult": 0.4},
        "atrous_rates": (2,),
        "aspp_channels": 4,
        "decoder_channels": (8, 4),
    },
    year=2026,
    defaults={
        "backbone": "efficientnet_lite0",
        "atrous_rates": (3, 6, 12),
        "aspp_channels": 128,
        # 48 channels come from stride 8, 32 from stride 4.
        "decoder_channels": (96, 64),
        "separable": "pyramid",
        "align_corners": True,
        "preprocessing": "efficientnet_lite",
    },
)(Compact)
