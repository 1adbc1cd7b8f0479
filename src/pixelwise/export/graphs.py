"""The modules that are traced: from images to scores, logits or labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core import Upsample
from ..inference.class_masks import threshold_logits
from ..inference.segmenter import Segmenter
from ..models.base import SegmentationModel

SIZE = (97, 131)
"""Height and width of the image that the graph is traced with. They are odd, so that every rounding of sizes occurs."""


class Scores(nn.Module):
    """Low-resolution logits (B, K, h, w) float32; pixelwise upsamples them outside of the graph, which is faster."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Compute the scores of images (B, C, H, W)."""
        return self.model.forward_low_res(images).logits


class Logits(Scores):
    """Logits (B, K, H, W) float32 at the size of the image."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of images (B, C, H, W)."""
        logits: Tensor = self.model(images).logits
        return logits


class Labels(Scores):
    """Class ids (B, H, W) uint8, or int32 for more than 255 classes."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute the class ids of images (B, C, H, W)."""
        logits: Tensor = self.model(images).logits
        return logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 255 else torch.int32)


class Masks(Scores):
    """Masks (B, K, H, W) uint8 of several labels per pixel: 1 above the threshold of the class."""

    limits: Tensor

    def __init__(self, model: SegmentationModel, thresholds: Sequence[float]) -> None:
        super().__init__(model)
        self.register_buffer("limits", threshold_logits(thresholds)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Compute the masks of images (B, C, H, W)."""
        logits: Tensor = self.model(images).logits
        return (logits > self.limits).to(torch.uint8)


def make_graph(segmenter: Segmenter, output: str) -> nn.Module:
    """Return the module that computes `output` (scores, logits or labels) of a segmenter's network."""
    model = segmenter.model.eval()
    if output == "scores":
        return Scores(model)
    if output == "logits":
        return Logits(model)
    return Masks(model, segmenter.thresholds) if segmenter.taxonomy.multilabel else Labels(model)


def find_upsample(model: SegmentationModel) -> Upsample:
    """Return the upsampling that follows the scores of a network; it does not depend on the image."""
    with torch.inference_mode():
        return model.forward_low_res(torch.zeros(1, model.in_channels, *SIZE)).upsample
