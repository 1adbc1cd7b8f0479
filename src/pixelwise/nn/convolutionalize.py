"""Convolutionalization: turn a classifier's fully connected layers into convolutions for images of any size.

A fully connected layer on a (C, h, w) map is a convolution with an h x w kernel: VGG16's fc6 becomes a 7x7 convolution
on the 512 channels of pool5, fc7 and fc8 become 1x1. At the classifier's own input size (224) the map of logits is 1x1
and equal to the classifier's logits; a larger image gives one vector of logits per window, as if the classifier slid
over the image (the "sliding form" of a layer).

Source: FCN (https://arxiv.org/abs/1411.4038), section 3.1 and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError


class Convolutionalized(nn.Module):
    """A classifier as convolutions, for images of any size. It shares the weights of the original classifier."""

    def __init__(self, body: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (B, num_classes, h, w) of normalized images (B, C, H, W)."""
        logits: Tensor = self.head(self.body(images))
        return logits


def convolutionalize(body: nn.Sequential, head: nn.Sequential, image_shape: tuple[int, int, int]) -> Convolutionalized:
    """Return the classifier `head(body(images))` in sliding form.

    body         layers from the image to the last feature map
    head         poolings, flatten, linear layers, activations and dropout, from the last feature map to the logits
    image_shape  (channels, height, width) of the images that the classifier was made for
    Raises ConfigError for a head layer without a sliding form.
    """
    with torch.no_grad():
        # Run the body on shapes alone to find the size of its last map. Two images: batch normalization in training
        # mode refuses a single value per channel.
        state = (*body.named_parameters(), *body.named_buffers())
        weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in state}
        images = torch.empty(2, *image_shape, device="meta")
        _, channels, height, width = torch.func.functional_call(body, weights, (images,)).shape
    shape = (channels, height, width)
    layers: list[nn.Module] = []
    for layer in head:
        new, shape = _convert(layer, shape)
        layers += new
    return Convolutionalized(body, nn.Sequential(*layers))


def _convert(layer: nn.Module, shape: tuple[int, int, int]) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """Return a head layer in sliding form, and its output's (channels, height, width) for a map of `shape`."""
    channels, height, width = shape
    what = f"{type(layer).__name__} has no sliding form"
    if isinstance(layer, nn.Dropout | nn.ReLU | nn.Identity):
        return [layer], shape
    if isinstance(layer, nn.Flatten):
        return [], shape
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        target = _pair(layer.output_size)
        if target == (height, width):
            return [], shape
        if target == (1, 1):
            return [nn.AvgPool2d((height, width), stride=1)], (channels, 1, 1)
        what = f"adaptive pooling from {height}x{width} to {target[0]}x{target[1]} has no sliding form"
    if isinstance(layer, nn.Linear):
        if layer.in_features == channels * height * width:
            return [conv_of_linear(layer, (height, width))], (layer.out_features, 1, 1)
        what = f"a linear layer of {layer.in_features} inputs does not fit a map of {channels}x{height}x{width}"
    raise ConfigError("convolutionalize", what, "give the input size that the classifier was made for")


def conv_of_linear(linear: nn.Linear, kernel: tuple[int, int]) -> nn.Conv2d:
    """Return a fully connected layer on a (C, h, w) map as a convolution with kernel (h, w) and the same weights."""
    in_channels = linear.in_features // (kernel[0] * kernel[1])
    conv = nn.Conv2d(in_channels, linear.out_features, kernel, bias=False, device="meta")
    conv.weight = nn.Parameter(linear.weight.detach().view(linear.out_features, -1, *kernel))
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach())
    return conv


def _pair(size: int | Sequence[int | None] | None) -> tuple[int | None, int | None]:
    return (size[0], size[1]) if isinstance(size, Sequence) else (size, size)
