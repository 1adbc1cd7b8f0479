"""FRRN: Pohlen et al., "Full-Resolution Residual Networks for Semantic Segmentation in Street Scenes", CVPR 2017.

Paper: https://arxiv.org/abs/1611.08323

Faithful: nets A and B (table 1): a residual stream of 32 channels that never leaves full size, and a pooling stream that reads it
through max pooling and answers by a 1x1 convolution, enlarged by repetition. Legend, as in the paper: y is the pooling stream's
map, z the residual stream's. The bootstrapped loss is `loss.bootstrap_top_k`. `shrink` makes the images smaller (A 4, B 2 on
Cityscapes, section 5) and the scores larger again, so that the net is trained and scored at one size.

Deviations: sides that are no multiple of 16 (A) or 32 (B) are padded by repeating the border at the bottom and right, and the
scores cropped. Images shrink by the mean of each square of pixels. `base` and `lanes` scale the net. Pixels are normalised
(the authors scale them to 0..1). Fresh weights are He's normal ones (theirs: uniform).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.blocks import ConvNormAct
from ..nn.init import init_kaiming_normal
from ..nn.upsampling import BilinearByFactor
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1611.08323"
SCORES = "Cityscapes test 71.8 (B)"

# (factor of the pooling stream, channels over the base, units) on the way down and up. Source: table 1; the authors' code.
DOWN_A = ((2, 2, 3), (4, 4, 4), (8, 8, 2), (16, 8, 2))
UP_A = ((8, 4, 2), (4, 4, 2), (2, 2, 2))
DOWN_B = (*DOWN_A, (32, 8, 2))
UP_B = ((16, 4, 2), *UP_A)


class ResidualUnit(nn.Module):
    """x plus two convolutions of it, without a ReLU behind the sum; a bare 1x1 where the channels change. Source: figure 2."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_channels, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        same = in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H, W)."""
        summed: Tensor = self.shortcut(x) + self.norm2(self.conv2(self.conv1(x)))
        return summed


class FullResolutionUnit(nn.Module):
    """Both streams in, both out: y is computed from y and the pooled z; what it adds to z is enlarged. Source: figures 2 and 3."""

    def __init__(self, in_channels: int, channels: int, lanes: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv1 = ConvNormAct(in_channels + lanes, channels)
        self.conv2 = ConvNormAct(channels, channels)
        self.to_residual = nn.Conv2d(channels, lanes, 1)

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, in_channels, H / factor, W / factor), z (B, lanes, H, W) -> the new y, the new z."""
        new_y = self.conv2(self.conv1(torch.cat([y, F.max_pool2d(z, self.factor)], 1)))
        return new_y, z + F.interpolate(self.to_residual(new_y), scale_factor=self.factor, mode="nearest")


class FRRN(SegmentationModel):
    """Scores at the size of the images, or a `shrink`-th of it."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        down: Sequence[tuple[int, int, int]],
        up: Sequence[tuple[int, int, int]],
        base: int,
        lanes: int,
        shrink: int,
        preprocessing: str | Mapping[str, Any],
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if shrink < 1:
            raise ConfigError("shrink", f"is {shrink}", "choose 1, for images as they are, or more")
        self.shrink = shrink
        self.logits_stride = shrink
        self.coarsest = down[-1][0]
        self.first = ConvNormAct(in_channels, base, 5)
        self.head = nn.Sequential(*(ResidualUnit(base, base) for _ in range(3)))
        self.split = nn.Sequential(nn.Conv2d(base, lanes, 1, bias=False), nn.BatchNorm2d(lanes))
        self.stages = nn.ModuleList()
        channels = base
        for factor, widening, num_units in (*down, *up):
            units = nn.ModuleList()
            for _ in range(num_units):
                units.append(FullResolutionUnit(channels, base * widening, lanes, factor))
                channels = base * widening
            self.stages.append(units)
        self.num_down = len(down)
        self.tail = nn.Sequential(
            ResidualUnit(channels + lanes, base), ResidualUnit(base, base), ResidualUnit(base, base)
        )
        self.score = nn.Conv2d(base, num_classes, 1)
        init_kaiming_normal(self)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores of squares of `shrink` pixels."""
        height, width = images.shape[-2:]
        x = _pad_to_multiple(self.preprocess(images), self.shrink * self.coarsest)
        x = F.avg_pool2d(x, self.shrink)
        y = self.head(self.first(x))
        z = self.split(y)
        for i, stage in enumerate(self.stages):
            y = F.max_pool2d(y, 2) if i < self.num_down else _double(y)
            for unit in stage.children():
                y, z = unit(y, z)
        scores = self.score(self.tail(torch.cat([_double(y), z], 1)))
        rows, columns = (-(-side // self.shrink) for side in (height, width))
        return LowResLogits(scores[..., :rows, :columns], BilinearByFactor(self.shrink))


def _double(y: Tensor) -> Tensor:
    return F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)


def _pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples."""
    down, right = (-x.shape[-2] % multiple, -x.shape[-1] % multiple)
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def _register(letter: str, down: Sequence[tuple[int, int, int]], up: Sequence[tuple[int, int, int]]) -> None:
    def build(
        num_classes: int = 19,
        in_channels: int = 3,
        *,
        base: int = 48,
        lanes: int = 32,
        shrink: int = 1,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> FRRN:
        return FRRN(num_classes, in_channels, down, up, base, lanes, shrink, preprocessing)

    build.__doc__ = f"FRRN {letter}: a full-size residual stream beside a pooling stream of stride {down[-1][0]}."
    MODELS.register(f"frrn_{letter.lower()}", tiny={"base": 4, "lanes": 4}, paper=PAPER, year=2017, scores=SCORES)(
        build
    )


_register("A", DOWN_A, UP_A)
_register("B", DOWN_B, UP_B)
