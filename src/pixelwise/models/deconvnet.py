"""DeconvNet: Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015.

Paper: https://arxiv.org/abs/1505.04366

Faithful: VGG16 through fc6 and fc7, mirrored: each unpooling puts its cells back where the matching pooling found them, each
deconvolution is a 3x3 of stride 1; batch normalisation and ReLU behind every layer; made for crops of 224 pixels. Crops of
instances for training in two stages: `augment.instance_crops`; proposals merged by maximum and the product with FCN-8s:
`inference.proposals`.

Deviations: a whole image is resized to `side` pixels, and its scores back, as one proposal that covers it (bilinear). `width_mult` is
ours. With a single image in training the norms behind fc6 and fc7, which see one value a channel, use their running statistics.
Convolutions start from He's weights, the authors' from VGG16. The authors estimate the norms' statistics over 500 passes behind
training; here they are the running ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits
from ..errors import ConfigError
from ..nn.channels import scale_channels
from ..nn.init import init_kaiming_normal
from ..nn.pyramid_pooling import BatchNorm2dSafe
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel

PAPER = "https://arxiv.org/abs/1505.04366"
SCORES = "VOC 2012 test 69.6"
STRIDE = 32

# Channels behind each layer of a block. Source: the authors' prototxt.
CONV = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DECONV = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64, 64))


class ConvUnit(nn.Sequential):
    """Convolution with bias, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding)
        super().__init__(conv, BatchNorm2dSafe(out_channels), nn.ReLU(inplace=True))


class DeconvUnit(nn.Sequential):
    """Transposed convolution of stride 1 with bias, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, padding=padding)
        # Source: the fillers in the authors' prototxt.
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class DeconvNet(SegmentationModel):
    """Scores at `side` x `side`, brought to the image's size.

    side  pixels of the square that every image is resized to, a multiple of 32; fc6 covers all of its last map
    """

    def __init__(
        self, num_classes: int, in_channels: int, side: int, width_mult: float, preprocessing: str | Mapping[str, Any]
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if side < STRIDE or side % STRIDE:
            raise ConfigError("side", f"got {side}, allowed are multiples of {STRIDE}", "the paper's is 224")
        self.fixed_input_size = side
        self.input_size = (side, side)
        self.logits_stride = 1
        kernel = side // STRIDE
        channels = in_channels
        self.conv = nn.ModuleList()
        for block in CONV:
            self.conv.append(_block(ConvUnit, channels, block, width_mult))
            channels = scale_channels(block[-1], width_mult)
        hidden = scale_channels(4096, width_mult)
        self.fc6 = ConvUnit(channels, hidden, kernel, 0)
        self.fc7 = ConvUnit(hidden, hidden, 1, 0)
        self.deconv_fc6 = DeconvUnit(hidden, channels, kernel, 0)
        self.deconv = nn.ModuleList()
        for block in DECONV:
            self.deconv.append(_block(DeconvUnit, channels, block, width_mult))
            channels = scale_channels(block[-1], width_mult)
        self.score = nn.Conv2d(channels, num_classes, 1)
        init_kaiming_normal(self)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """images (B, C, H, W) -> scores of a square of `side` pixels."""
        size = (images.shape[-2], images.shape[-1])
        cells = self.preprocess(images)
        if size != self.input_size:
            cells = F.interpolate(cells, size=self.input_size, mode="bilinear", align_corners=False)
        switches = []
        for block in self.conv:
            cells, places = F.max_pool2d(block(cells), 2, return_indices=True)
            switches.append(places)
        cells = self.deconv_fc6(self.fc7(self.fc6(cells)))
        for block, places in zip(self.deconv, reversed(switches), strict=True):
            cells = block(F.max_unpool2d(cells, places, (2, 2)))
        return LowResLogits(self.score(cells), Bilinear())


def _block(
    unit: type[ConvUnit] | type[DeconvUnit], in_channels: int, block: Sequence[int], width_mult: float
) -> nn.Sequential:
    channels = [in_channels, *(scale_channels(base, width_mult) for base in block)]
    return nn.Sequential(*(unit(a, b, 3, 1) for a, b in pairwise(channels)))


@MODELS.register("deconvnet", tiny={"width_mult": 1 / 32, "side": 64}, paper=PAPER, year=2015, scores=SCORES)
def deconvnet(
    num_classes: int = 21,
    in_channels: int = 3,
    *,
    side: int = 224,
    width_mult: float = 1.0,
    preprocessing: str | Mapping[str, Any] = "caffe",
) -> DeconvNet:
    """DeconvNet: VGG16 and its mirror image, unpooling by switches."""
    return DeconvNet(num_classes, in_channels, side, width_mult, preprocessing)
