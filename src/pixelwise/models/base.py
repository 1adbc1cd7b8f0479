"""The interface of every network: images of any size in, logits of that size out, pixel normalization inside.

Training, profiling, explanation and weight import ask a network for nothing that is not declared on
`SegmentationModel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ..core import LowResLogits, Output
from ..errors import ConfigError
from ..nn.geometry import ReceptiveField
from ..nn.preprocessing import Preprocess
from . import MODELS


class SegmentationModel(nn.Module, ABC):
    """Base class of all networks. A subclass implements `forward_low_res`, which reads like the figure of its paper.

    The base class normalizes pixels (`preprocess`) and upsamples to the image size (`forward`).

    num_classes  K
    in_channels  C of the images
    spec         name and options that the network was built with, set by `ModelSpec.build`

    Every network defines:

    logits_stride      image pixels per low-resolution logit, along each axis; 1 for logits at full size and for
                       networks that resize every image to one square

    It may declare, each with a default; for sizes and tiles:

    fixed_input_size   side in pixels of the square that every image is resized to; None for networks of any size
    context_px         pixels beyond each border of its output that the network needs to see (valid convolutions,
                       U-Net's 92); 0 for padded networks
    tile_step          pixels between two positions at which a network with context computes the same function

    for training:

    stream_names       names of the submodules that are whole networks, each for a part of the channels; a checkpoint of
                       one such network starts all of them
    second_head_option  name of the option that holds the number of classes of a second head, "" for one head
    num_heads          label maps that the network predicts; `forward` returns the first
    score_layer_names  names of the submodules that turn features into class scores
    backbone_names     names of the submodules that a pretrained classifier fills; empty for networks without one

    and for import:

    import_format      published files that `pixelwise import` can load into the network: "caffe" for the networks of
                       the FCN authors, "torchvision" for its segmentation networks, "backbone" for an image classifier
                       in the submodule `backbone`, "" for none
    """

    spec: ModelSpec
    logits_stride: int
    fixed_input_size: int | None = None
    context_px: int = 0
    tile_step: int = 1
    stream_names: tuple[str, ...] = ()
    num_heads: int = 1
    second_head_option: str = ""
    score_layer_names: tuple[str, ...] = ("score",)
    backbone_names: tuple[str, ...] = ()
    import_format: Literal["", "caffe", "torchvision", "backbone"] = ""

    def __init__(self, num_classes: int, in_channels: int, preprocessing: str | Mapping[str, Any]) -> None:
        super().__init__()
        if num_classes < 1 or in_channels < 1:
            what = f"expected num_classes and in_channels >= 1, got {num_classes} and {in_channels}"
            raise ConfigError("model", what, "give 1 or more of each")
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.preprocess = Preprocess(preprocessing, in_channels)

    # What every network defines

    @abstractmethod
    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute the logits before the last upsampling; images (B, C, H, W), uint8 or float 0..255, RGB."""

    def forward(self, images: Tensor) -> Output:
        """Compute logits (B, K, H, W) at the size of the images (B, C, H, W), uint8 or float 0..255, RGB."""
        return self.forward_low_res(images).upsample_to((images.shape[-2], images.shape[-1]))

    def for_inference(self) -> SegmentationModel:
        """Return a network with the same weights that computes the logits faster in eval mode; by default itself."""
        return self

    # Several label maps: overridden by networks with two heads

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Number of classes of each head."""
        return (self.num_classes,)

    def forward_low_res_all(self, images: Tensor) -> tuple[LowResLogits, ...]:
        """Compute the low-resolution logits of all heads."""
        return (self.forward_low_res(images),)

    def with_second_head(self) -> SegmentationModel:
        """Return a copy that shares the weights, whose `forward` returns the second label map."""
        raise ConfigError(
            "model", f"{self.spec.name} has one head", "choose a network with two, see `pixelwise models`"
        )

    # Sizes and tiles: overridden by networks of valid convolutions (U-Net)

    def forward_with_context(self, images: Tensor) -> LowResLogits:
        """Compute the logits of images that include `context_px` more pixels on each side.

        images (B, C, H + 2 * context_px, W + 2 * context_px) -> logits that upsample to (B, K, H, W). Networks with
        `context_px` 0 need no surroundings.
        """
        return self.forward_low_res(images)

    def input_size(self, size: int) -> int:
        """Return the input size, context included, that gives logits for at least `size` pixels along one axis."""
        return size + 2 * self.context_px

    def resize_to_input(self, x: Tensor) -> Tensor:
        """Resize (B, C, H, W) bilinearly to the square of `fixed_input_size`, if the network has one."""
        if self.fixed_input_size is None or x.shape[-2:] == (self.fixed_input_size, self.fixed_input_size):
            return x
        size = (self.fixed_input_size, self.fixed_input_size)
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    # Training

    def score_layers(self) -> list[nn.Module]:
        """Return the layers that turn features into class scores; with `train_only: score_layers` only these learn."""
        return [self.get_submodule(name) for name in self.score_layer_names]

    def head_modules(self) -> list[nn.Module]:
        """Return the layers that learn `optimizer.head_lr_factor` times as fast: the score layers by default.

        The papers' factor of ten is for layers whose gradients start small; the other layers after the backbone learn
        at the plain rate.
        """
        return self.score_layers()

    def backbones(self) -> list[nn.Module]:
        """Return the parts that a pretrained classifier fills, trained with `optimizer.backbone_lr_factor`."""
        return [self.get_submodule(name) for name in self.backbone_names]

    # Import and drawing

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Return the receptive field of named feature maps if the network is a chain of layers, else an empty dict."""
        return {}

    def caffe_names(self) -> dict[str, str]:
        """Return layer name in the published .caffemodel -> submodule here, empty for networks without such a file."""
        return {}

    def contributions(self, images: Tensor) -> dict[str, Tensor]:
        """Return the part of each feature map in the logits, name -> (B, K, H, W), coarsest first.

        Only networks whose logits are a sum over several maps (FCN's skips) implement it; others return an empty dict.
        """
        return {}


@dataclass(frozen=True)
class ModelSpec:
    """Name and options that rebuild a network, as a checkpoint stores them."""

    name: str
    num_classes: int = 21
    in_channels: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> SegmentationModel:
        """Build the network with fresh weights and record this spec on it. Raises UnknownNameError or ConfigError."""
        model = MODELS.create(self.name, num_classes=self.num_classes, in_channels=self.in_channels, **self.options)
        model.spec = self
        return model
