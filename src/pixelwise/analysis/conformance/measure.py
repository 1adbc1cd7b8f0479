"""Measurements that the systems share, on full-size networks on the `meta` device, without weights in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ...backbones import Backbone, create_backbone
from ...backbones.classifier import ClassifierBackbone
from ...models import create_model
from ...models.base import SegmentationModel
from ..mult_adds import multiply_adds, num_parameters, on_meta


def network(name: str, num_classes: int = 21, in_channels: int | None = None, **options: Any) -> SegmentationModel:
    """Build a model of the paper's size, in eval mode on the meta device."""
    with on_meta():
        return create_model(name, num_classes, in_channels, **options).eval()


def network_parameters(name: str, num_classes: int = 21, **options: Any) -> int:
    """Count the learnable numbers of a model of the paper's size."""
    return num_parameters(network(name, num_classes, **options))


def network_macs(name: str, height: int, width: int | None = None, *, num_classes: int = 21, **options: Any) -> int:
    """Count the multiply-adds of a model of the paper's size for one image, square by default."""
    return macs(network(name, num_classes, **options), height, width)


def backbone(name: str, in_channels: int = 3, **options: Any) -> Backbone:
    """Build a backbone of the paper's size, in eval mode on the meta device."""
    with on_meta():
        return create_backbone(name, in_channels=in_channels, **options).eval()


def classifier(name: str, num_classes: int = 0, **options: Any) -> ClassifierBackbone:
    """Build the backbone of an image classifier; `num_classes` > 0 adds its classification head."""
    built = backbone(name, num_classes=num_classes, **options)
    assert isinstance(built, ClassifierBackbone), f"{name} has no classification head"
    return built


def classifier_macs(name: str, size: int, num_classes: int = 1000) -> int:
    """Count the multiply-adds from one square image to the class logits."""
    net = classifier(name, num_classes)
    return multiply_adds(lambda: net.classify(images(size)))


@cache
def images(height: int, width: int | None = None, in_channels: int = 3) -> Tensor:
    """Return one float image (1, C, H, W) on the meta device, square by default."""
    return torch.empty(1, in_channels, height, width or height, device="meta")


def macs(model: SegmentationModel | Backbone, height: int, width: int | None = None, in_channels: int = 3) -> int:
    """Count the multiply-adds of one forward pass with one image, square by default."""
    return multiply_adds(lambda: model(images(height, width, in_channels)))


def logit_shape(model: SegmentationModel, size: int) -> list[int]:
    """Return the shape of the logits for one square image."""
    return [*model(images(size, in_channels=model.in_channels)).logits.shape]


def low_res_shape(model: SegmentationModel, size: int) -> list[int]:
    """Return the shape of the logits before the last upsampling, for one square image."""
    return [*model.forward_low_res(images(size, in_channels=model.in_channels)).logits.shape]
