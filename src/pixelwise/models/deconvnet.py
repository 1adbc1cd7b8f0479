"""DeconvNet: Noh, Hong and Han, "Learning Deconvolution Network for Semantic Segmentation", ICCV 2015.

VGG16 with its fully connected layers, followed by its mirror image. Each max pooling records where it found its maxima;
the mirrored unpooling puts the values back at these positions, and deconvolutions (transposed convolutions of stride 1)
fill in the shape.

Paper: https://arxiv.org/abs/1505.04366

Faithful: figure 2 and the authors' prototxt: VGG16 through fc6 and fc7, mirrored; 3x3 deconvolutions; batch
normalization and ReLU after every layer except the scores; images of 224 pixels. Crops of objects for training in two
stages are `augment.instance_crops`; the maximum over proposals and the product with FCN-8s are in
`inference/proposals.py`.

Deviations: a whole image is resized to `input_size` pixels, and its logits back, as one proposal that covers it
(bilinear). With a single image in training, batch normalization after fc6 and fc7, which sees one value per channel,
uses its running statistics. Convolutions start from He's initialization, the authors' from VGG16. The authors estimate
the statistics of batch normalization over 500 passes after training; here they are the running ones. `width_mult` is
ours.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from . import MODELS
from .base import SegmentationModel

# Five poolings between the image and fc6.
STRIDE = 32


class ConvBNReLU(nn.Sequential):
    """Convolution with bias, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding)
        super().__init__(conv, BatchNorm2dSafe(out_channels), nn.ReLU(inplace=True))


class DeconvBNReLU(nn.Sequential):
    """Transposed convolution of stride 1 with bias, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: int) -> None:
        conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, padding=padding)
        # Source: the fillers in the authors' prototxt.
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def block(layer: type[ConvBNReLU] | type[DeconvBNReLU], *channels: int) -> nn.Sequential:
    """Return a chain of 3x3 layers that keep the size.

    channels  channels of the input, then after each layer
    """
    return nn.Sequential(*(layer(a, b, 3, 1) for a, b in pairwise(channels)))


class DeconvNet(SegmentationModel):
    """Logits at `input_size` x `input_size`, resized to the image.

    input_size  side in pixels of the square that every image is resized to, a multiple of 32; fc6 covers all of the
                last map
    """

    logits_stride = 1

    def __init__(
        self,
        num_classes: int = 21,
        in_channels: int = 3,
        *,
        input_size: int = 224,
        width_mult: float = 1.0,
        preprocessing: str | Mapping[str, Any] = "caffe",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        if input_size < STRIDE or input_size % STRIDE:
            raise ConfigError("input_size", f"must be a multiple of {STRIDE}, got {input_size}", "the paper has 224")
        self.fixed_input_size = input_size
        c64, c128, c256, c512, c4096 = (scale_channels(channels, width_mult) for channels in (64, 128, 256, 512, 4096))
        # Sizes for an image of 224 pixels.
        self.conv1 = block(ConvBNReLU, in_channels, c64, c64)  # 224
        self.conv2 = block(ConvBNReLU, c64, c128, c128)  # pooled to 112
        self.conv3 = block(ConvBNReLU, c128, c256, c256, c256)  # 56
        self.conv4 = block(ConvBNReLU, c256, c512, c512, c512)  # 28
        self.conv5 = block(ConvBNReLU, c512, c512, c512, c512)  # 14
        kernel = input_size // STRIDE
        self.fc6 = ConvBNReLU(c512, c4096, kernel, 0)  # pooled to 7 -> 1
        self.fc7 = ConvBNReLU(c4096, c4096, 1, 0)  # 1
        self.deconv_fc6 = DeconvBNReLU(c4096, c512, kernel, 0)  # 1 -> 7
        self.deconv5 = block(DeconvBNReLU, c512, c512, c512, c512)  # unpooled to 14
        self.deconv4 = block(DeconvBNReLU, c512, c512, c512, c256)  # 28
        self.deconv3 = block(DeconvBNReLU, c256, c256, c256, c128)  # 56
        self.deconv2 = block(DeconvBNReLU, c128, c128, c64)  # 112
        self.deconv1 = block(DeconvBNReLU, c64, c64, c64)  # 224
        self.score = nn.Conv2d(c64, num_classes, 1)
        init_kaiming_normal(self)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits (B, K, input_size, input_size) of images (B, C, H, W), as figure 2 from left to right."""
        x = self.resize_to_input(self.preprocess(images))
        # Switches are the positions of the maxima; each pooling's are used by the unpooling at its mirror position.
        x, switches1 = F.max_pool2d(self.conv1(x), 2, return_indices=True)
        x, switches2 = F.max_pool2d(self.conv2(x), 2, return_indices=True)
        x, switches3 = F.max_pool2d(self.conv3(x), 2, return_indices=True)
        x, switches4 = F.max_pool2d(self.conv4(x), 2, return_indices=True)
        x, switches5 = F.max_pool2d(self.conv5(x), 2, return_indices=True)
        x = self.deconv_fc6(self.fc7(self.fc6(x)))
        x = self.deconv5(F.max_unpool2d(x, switches5, [2, 2]))
        x = self.deconv4(F.max_unpool2d(x, switches4, [2, 2]))
        x = self.deconv3(F.max_unpool2d(x, switches3, [2, 2]))
        x = self.deconv2(F.max_unpool2d(x, switches2, [2, 2]))
        x = self.deconv1(F.max_unpool2d(x, switches1, [2, 2]))
        return LowResLogits(self.score(x), Bilinear())


MODELS.register(
    "deconvnet",
    summary="DeconvNet: VGG16 and its mirror image, unpooling by switches.",
    tiny={"width_mult": 1 / 32, "input_size": 64},
    paper="https://arxiv.org/abs/1505.04366",
    year=2015,
    scores="VOC 2012 test 69.6",
)(DeconvNet)
