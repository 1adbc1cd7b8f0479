"""The measures that all families share: networks without numbers, counted on the `meta` device."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones import Backbone, create_backbone
from ...backbones.classifier import ClassifierBackbone
from ...models import create_model
from ...models.base import SegmentationModel
from ..mult_adds import multiply_adds, num_parameters


def network(name: str, num_classes: int = 21, in_channels: int | None = None, **options: Any) -> SegmentationModel:
    """A model of the papers' size, in eval mode on the meta device."""
    with torch.device("meta"):
        return create_model(name, num_classes, in_channels, **options).eval()


def backbone(name: str, in_channels: int = 3, **options: Any) -> Backbone:
    """A backbone of the papers' size, in eval mode on the meta device."""
    with torch.device("meta"):
        return create_backbone(name, in_channels=in_channels, **options).eval()


def classifier(name: str, num_classes: int = 0, **options: Any) -> ClassifierBackbone:
    """A backbone that was an image classifier, with its head where num_classes is not 0."""
    built = backbone(name, num_classes=num_classes, **options)
    assert isinstance(built, ClassifierBackbone), f"{name} has no classifier"
    return built


def classifier_macs(name: str, size: int, num_classes: int = 1000) -> int:
    """Multiply-adds from one square image to the logits of the classes."""
    net = classifier(name, num_classes)
    return multiply_adds(lambda: net.classify(images(size)))


@cache
def images(height: int, width: int | None = None, in_channels: int = 3) -> Tensor:
    """One image (1, C, H, W) float without numbers."""
    return torch.empty(1, in_channels, height, width or height, device="meta")


def parameters(module: nn.Module) -> int:
    """Learnable numbers."""
    return num_parameters(module)


def macs(model: SegmentationModel | Backbone, height: int, width: int | None = None, in_channels: int = 3) -> int:
    """Multiply-adds of a call with one image of that size."""
    return multiply_adds(lambda: model(images(height, width, in_channels)))


def logit_shape(model: SegmentationModel, size: int) -> list[int]:
    """Shape of the logits for one square image."""
    return [*model(images(size, in_channels=model.in_channels)).logits.shape]


def score_shape(model: SegmentationModel, size: int) -> list[int]:
    """Shape of the scores before the last upsampling, for one square image."""
    return [*model.forward_low_res(images(size, in_channels=model.in_channels)).logits.shape]
