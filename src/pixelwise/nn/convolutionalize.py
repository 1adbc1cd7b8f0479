"""A classifier read as a convolution: its fully connected layers become kernels that slide over any image.

Source: FCN (https://arxiv.org/abs/1411.4038) section 3.1 and figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError


class Classifier(Protocol):
    """What can be convolutionalised: a chain up to the last map, and a chain from there to the logits."""

    def modules_to(self, index: int = -1) -> list[nn.Module]:
        """The chain from the image to map `index`."""
        ...

    def head(self) -> nn.Sequential | None:
        """Poolings, flatten, activations, dropout and linear layers; None where the classifier was left out."""
        ...


class Convolutionalized(nn.Module):
    """Images of any size -> a map of class logits (B, num_classes, h, w); 1x1 at the classifier's own input size.

    It shares its numbers with the classifier it was made from.
    """

    def __init__(self, body: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) float -> logits (B, num_classes, h, w)."""
        logits: Tensor = self.head(self.body(images))
        return logits


def convolutionalize(classifier: Classifier, input_size: int, in_channels: int = 3) -> Convolutionalized:
    """The same function as `classifier` on images of `input_size` pixels a side, and a map of it on larger ones.

    Raises ConfigError for a classifier without a head, and for head layers that are no function of one window.
    """
    head = classifier.head()
    if head is None:
        raise ConfigError(
            "convolutionalize", "the backbone was built without a classifier", "create it with num_classes=1000"
        )
    body = nn.Sequential(*classifier.modules_to())
    return Convolutionalized(body, convolutionalize_head(head, _map_shape(body, input_size, in_channels)))


def convolutionalize_head(head: nn.Sequential, map_shape: tuple[int, int, int]) -> nn.Sequential:
    """The head as convolutions and fixed poolings, for a last map of (channels, height, width) at the net's own input size."""
    shape = map_shape
    layers: list[nn.Module] = []
    for layer in head:
        new, shape = _convert(layer, shape)
        layers += new
    return nn.Sequential(*layers)


def _convert(layer: nn.Module, shape: tuple[int, int, int]) -> tuple[list[nn.Module], tuple[int, int, int]]:
    """One head layer and the (channels, height, width) it sees -> its sliding form, and what that leaves for the next."""
    channels, height, width = shape
    if isinstance(layer, nn.Flatten):
        return [], shape
    if isinstance(layer, nn.Linear):
        if layer.in_features != channels * height * width:
            raise _no_form(f"a linear layer of {layer.in_features} numbers on a map of {channels}x{height}x{width}")
        return [conv_of_linear(layer, (height, width))], (layer.out_features, 1, 1)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        target = _pair(layer.output_size)
        if target == (height, width):
            return [], shape
        if target == (1, 1):
            return [nn.AvgPool2d((height, width), stride=1)], (channels, 1, 1)
        raise _no_form(f"adaptive pooling from {height}x{width} to {target[0]}x{target[1]}")
    if isinstance(layer, nn.Dropout | nn.ReLU | nn.Identity):
        return [layer], shape
    raise _no_form(type(layer).__name__)


def _no_form(layer: str) -> ConfigError:
    return ConfigError(
        "convolutionalize", f"{layer} has no sliding form", "give the input size that the classifier was made for"
    )


def conv_of_linear(linear: nn.Linear, kernel: tuple[int, int]) -> nn.Conv2d:
    """A fully connected layer on a (C, h, w) map as a convolution with kernel (h, w): a reshape, the numbers are shared."""
    conv = nn.Conv2d(
        linear.in_features // (kernel[0] * kernel[1]), linear.out_features, kernel, bias=False, device="meta"
    )
    conv.weight = nn.Parameter(linear.weight.detach().view(linear.out_features, -1, *kernel))
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach())
    return conv


def _map_shape(body: nn.Module, input_size: int, in_channels: int) -> tuple[int, int, int]:
    """(channels, height, width) of the last map; nothing is computed, the body runs on shapes."""
    with torch.no_grad():
        weights = {
            name: torch.empty_like(t, device="meta") for name, t in (*body.named_parameters(), *body.named_buffers())
        }
        # Two images, since batch normalisation in training refuses a single cell.
        images = torch.empty(2, in_channels, input_size, input_size, device="meta")
        shape = torch.func.functional_call(body, weights, (images,)).shape
    return int(shape[1]), int(shape[2]), int(shape[3])


def _pair(size: int | Sequence[int | None] | None) -> tuple[int | None, int | None]:
    return (size[0], size[1]) if isinstance(size, Sequence) else (size, size)
