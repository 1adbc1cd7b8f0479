"""FRRN: Pohlen et al., "Full-Resolution Residual Networks for Semantic Segmentation in Street Scenes", CVPR 2017.

Two streams run side by side: a residual stream that never leaves full resolution and carries the borders, and a pooling
stream that is downsampled and upsampled like an encoder-decoder and recognizes objects. Every unit reads both and adds
its result back to both.

Paper: https://arxiv.org/abs/1611.08323

Faithful: networks A and B (table 1). As in the paper, y is the pooling stream, z the residual stream of 32 channels; RU
is a residual unit, FRRU a full-resolution residual unit, which reads z through max pooling and adds to it a 1x1
convolution of its result, upsampled by repetition. Between stages y is upsampled as by the authors' Theano, where
position i lies on pixel 2 i: [0, 1, 2] becomes [0, 0.5, 1, 1.5, 2, 2]. Norms have lasagne's eps, 1e-4. The bootstrapped
loss is `loss.name: bootstrapped`. `subsample` downsamples the images (A 4, B 2 on Cityscapes, section 5) and upsamples
the logits, so that training and scoring happen at one size.

Deviations: sizes that are not a multiple of 16 (A) or 32 (B) are padded by repeating the border at the bottom and
right, and the logits cropped. Images are subsampled by averaging. `base_channels` and `residual_channels` scale the
network. Pixels are normalized (the authors scale them to 0..1). Initial weights are He's normal ones (theirs: uniform).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.blocks import ConvNormAct
from ..nn.init import init_kaiming_normal
from ..nn.upsampling import AlignedBilinear, BilinearByFactor
from . import MODELS
from .base import SegmentationModel

# Stages of FRRUs: (stride of the pooling stream, channels / base channels, number of units).
# Source: table 1; the authors' code.
Stage = tuple[int, int, int]
DOWN_A: tuple[Stage, ...] = ((2, 2, 3), (4, 4, 4), (8, 8, 2), (16, 8, 2))
UP_A: tuple[Stage, ...] = ((8, 4, 2), (4, 4, 2), (2, 2, 2))
DOWN_B = (*DOWN_A, (32, 8, 2))
UP_B = ((16, 4, 2), *UP_A)


class RU(nn.Module):
    """Residual unit: x plus two 3x3 convolutions of x, no ReLU after the sum. Source: figure 2.

    The shortcut is a 1x1 convolution without norm where the channels change.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        same = in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, channels, H, W)."""
        summed: Tensor = self.shortcut(x) + self.norm2(self.conv2(self.conv1(x)))
        return summed


class FRRU(nn.Module):
    """Full-resolution residual unit: computes y from y and the pooled z, adds y, upsampled, to z.

    Source: figures 2 and 3.
    """

    def __init__(self, in_channels: int, channels: int, *, residual_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvNormAct(in_channels + residual_channels, channels)
        self.conv2 = ConvNormAct(channels, channels)
        self.to_residual = nn.Conv2d(channels, residual_channels, 1)

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Update y (B, in_channels, H / stride, W / stride) and z (B, residual_channels, H, W); return both."""
        y = self.conv2(self.conv1(torch.cat([y, F.max_pool2d(z, self.stride)], 1)))
        return y, z + F.interpolate(self.to_residual(y), scale_factor=self.stride, mode="nearest")


class FRRN(SegmentationModel):
    """Table 1 from top to bottom; logits at the size of the images divided by `subsample`.

    down, up           stages of FRRUs, before and after the coarsest
    base_channels      channels of conv1 and of the first and last RUs
    residual_channels  channels of the residual stream
    subsample          factor by which images are downsampled first
    """

    def __init__(
        self,
        num_classes: int = 19,
        in_channels: int = 3,
        *,
        down: Sequence[Stage],
        up: Sequence[Stage],
        base_channels: int = 48,
        residual_channels: int = 32,
        subsample: int = 1,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if subsample < 1:
            raise ConfigError("subsample", f"must be >= 1, got {subsample}", "1 keeps the size of the images")
        self.subsample = subsample
        self.logits_stride = subsample
        self.coarsest_stride = down[-1][0]
        # Table 1 from the top: 5x5 to 48 channels at full size, then three RUs of 48.
        self.conv1 = ConvNormAct(in_channels, base_channels, 5)
        self.first_units = nn.Sequential(*(RU(base_channels, base_channels) for _ in range(3)))
        # The 1x1 that starts the residual stream.
        self.split = nn.Sequential(
            nn.Conv2d(base_channels, residual_channels, 1, bias=False), nn.BatchNorm2d(residual_channels)
        )
        # A: 3 FRRUs of 96 at stride 2, 4 of 192 at 4, 2 of 384 at 8, 2 of 384 at 16; up again 2 of 192 at 8, 2 of 192
        # at 4, 2 of 96 at 2.
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = base_channels
        for stages, path in ((down, self.down), (up, self.up)):
            for stride, multiple, num_units in stages:
                units = nn.ModuleList()
                for _ in range(num_units):
                    out_channels = multiple * base_channels
                    units.append(FRRU(channels, out_channels, residual_channels=residual_channels, stride=stride))
                    channels = out_channels
                path.append(units)
        # Both streams, concatenated at full size: 96 + 32 channels to 48, in three RUs.
        self.last_units = nn.Sequential(
            RU(channels + residual_channels, base_channels),
            RU(base_channels, base_channels),
            RU(base_channels, base_channels),
        )
        self.score = nn.Conv2d(base_channels, num_classes, 1)
        init_kaiming_normal(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = 1e-4

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits (B, K, H / subsample, W / subsample), rounded up, of images (B, C, H, W)."""
        height, width = images.shape[-2:]
        multiple = self.subsample * self.coarsest_stride
        x = self.preprocess(images)
        if height % multiple or width % multiple:
            x = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        x = F.avg_pool2d(x, self.subsample)
        y = self.first_units(self.conv1(x))
        z = self.split(y)
        # y is pooled before every stage on the way down, upsampled before every stage on the way up; z keeps its size.
        for stage in self.down:
            y = F.max_pool2d(y, 2)
            for unit in stage.children():
                y, z = unit(y, z)
        for stage in self.up:
            y = upsample_by_two(y)
            for unit in stage.children():
                y, z = unit(y, z)
        # From stride 2 to full size, where the streams are joined.
        logits = self.score(self.last_units(torch.cat([upsample_by_two(y), z], 1)))
        # Rounded up without negative numbers, whose quotients ONNX rounds to the other side.
        rows, columns = ((side + self.subsample - 1) // self.subsample for side in (height, width))
        return LowResLogits(logits[..., :rows, :columns], BilinearByFactor(self.subsample))


def upsample_by_two(y: Tensor) -> Tensor:
    """Upsample (B, C, h, w) bilinearly to (B, C, 2 h, 2 w), position i on pixel 2 i, the last row and column repeated.

    Source: Theano's `bilinear_upsampling` with an even ratio, which the authors call.
    """
    height, width = y.shape[-2:]
    return AlignedBilinear(2)(F.pad(y, (0, 1, 0, 1), mode="replicate"), (2 * height, 2 * width))


for _letter, _down, _up, _scores in (("A", DOWN_A, UP_A, ""), ("B", DOWN_B, UP_B, "Cityscapes test 71.8")):
    MODELS.register(
        f"frrn_{_letter.lower()}",
        summary=f"FRRN {_letter}: a full-size residual stream beside a pooling stream of stride {_down[-1][0]}.",
        tiny={"base_channels": 4, "residual_channels": 4},
        paper="https://arxiv.org/abs/1611.08323",
        year=2017,
        scores=_scores,
    )(partial(FRRN, down=_down, up=_up))
