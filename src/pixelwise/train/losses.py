"""The loss of a training step, from the losses of pixels (`pixel_losses.py`) and of regions (`region_losses.py`).

Ignored pixels have no loss and do not count in a mean, with one exception: `bootstrapped_cross_entropy` divides by its
number of pixels, as the authors do, and `ohem_cross_entropy` by its `min_kept` at least. A batch in which all pixels
are ignored has loss 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import LossConfig
from ..core import LowResLogits, Output
from ..nn.upsampling import low_res_labels
from .pixel_losses import (
    bootstrapped_cross_entropy,
    focal_loss,
    label_weight,
    ohem_cross_entropy,
    pixel_cross_entropy,
)
from .ranks import mean_over_ranks
from .region_losses import lovasz_softmax, soft_dice

# Offsets of the batch seed, so that patch sampling, the pixels of the Lovász term, and dropout (which uses the seed
# itself) draw independently.
_PATCH_STREAM, LOVASZ_STREAM = 0x5EED_CE11, 0x5EED_1054


class SegmentationLoss(nn.Module):
    """The loss that a configuration asks for: a loss of the pixels, by name, plus terms of the regions.

    Auxiliary logits have the same loss as the logits, times `aux_weight`.

    config         options of section `loss`
    ignore_id      id of the ignored pixels
    class_weights  (K,) float32, or None for equal weights
    patch_size     side in pixels of the blocks that `patch_keep_prob` drops: the stride of the network's logits
    """

    class_weights: Tensor | None

    def __init__(
        self, config: LossConfig, ignore_id: int, *, class_weights: Tensor | None = None, patch_size: int = 1
    ) -> None:
        super().__init__()
        self.config = config
        self.ignore_id = ignore_id
        self.patch_size = patch_size
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(
        self,
        output: Output | LowResLogits,
        masks: Tensor,
        pixel_weights: Tensor | None = None,
        *,
        seed: int,
        mean_weights: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Compute the loss of one batch, a scalar; its mean over the batches of a step is the loss of the step.

        output         logits at the size of the masks, or low-resolution logits (`loss.resolution: logits`)
        masks          (B, H, W) class ids, uint8 or int64
        pixel_weights  (B, H, W) float32, added to the weight of each pixel, or None
        seed           of the random choices of this batch
        mean_weights   `mean_label_weights` of the step; None if this batch is the whole step
        """
        if mean_weights is None:
            mean_weights = self.mean_label_weights(output, [(masks, pixel_weights)], [seed])
        labels, aux_labels = self._labels(output, masks, seed)
        logits, auxiliary = output.logits, output.aux
        if isinstance(output, LowResLogits):
            auxiliary = output.upsample_to((masks.shape[-2], masks.shape[-1])).aux
        loss = self._loss_of(logits, labels, pixel_weights, mean_weights[0], seed=seed)
        for aux in auxiliary:
            term = self._loss_of(aux, aux_labels, pixel_weights, mean_weights[1], seed=seed)
            loss = loss + self.config.aux_weight * term
        return loss

    def mean_label_weights(
        self, output: Output | LowResLogits, batches: Sequence[tuple[Tensor, Tensor | None]], seeds: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Compute the summed weight of the labeled pixels of a batch, for the logits and for the auxiliary logits.

        It is a mean over all batches and ranks of a step. Their gradients are averaged: with each batch's summed loss
        divided by this mean, the average is that of one large batch, and an image full of ignored pixels does not weigh
        as much as the others.

        output   of one batch, for the places of its logits; the batches are of one size with `loss.resolution: logits`
        batches  masks and pixel weights of each batch of this rank
        seeds    of the random choices of each batch
        """
        sums: tuple[list[Tensor], list[Tensor]] = [], []
        for (masks, pixel_weights), seed in zip(batches, seeds, strict=True):
            labels, aux_labels = self._labels(output, masks, seed)
            for term, its_labels in zip(sums, (labels, aux_labels), strict=True):
                term.append(self._label_weight(its_labels, pixel_weights))
        logits_weight, aux_weight = (mean_over_ranks(torch.stack(weights).mean()) for weights in sums)
        return logits_weight, aux_weight

    def _label_weight(self, labels: Tensor, pixel_weights: Tensor | None) -> Tensor:
        """Compute the summed weight of the labeled pixels, a scalar."""
        return label_weight(
            labels, ignore_id=self.ignore_id, class_weights=self.class_weights, pixel_weights=pixel_weights
        )

    def _labels(self, output: Output | LowResLogits, masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return the labels, int64, of the logits and those of the auxiliary logits, with patches left out.

        Without auxiliary logits, the second are the first.
        """
        config, ignore_id = self.config, self.ignore_id
        if config.patch_keep_prob < 1:
            generator = torch.Generator().manual_seed(seed ^ _PATCH_STREAM)
            masks = sample_patches(masks, config.patch_keep_prob, self.patch_size, generator, ignore_id=ignore_id)
        # The largest masks stay bytes where labels at the size of the logits are all that is used.
        labels = (low_res_labels(output, masks, ignore_id) if isinstance(output, LowResLogits) else masks).long()
        return labels, masks.long() if output.aux else labels

    def _loss_of(
        self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None, mean_weight: Tensor, *, seed: int
    ) -> Tensor:
        """Compute the loss of the logits, or of one of the auxiliary logits."""
        config, ignore_id = self.config, self.ignore_id
        terms = [] if config.name == "none" else [self._pixel_term(logits, masks, pixel_weights, mean_weight)]
        if config.dice:
            terms.append(config.dice * soft_dice(logits, masks, ignore_id=ignore_id))
        if config.lovasz:
            generator = torch.Generator().manual_seed(seed ^ LOVASZ_STREAM)
            term = lovasz_softmax(
                logits, masks, ignore_id=ignore_id, num_pixels=config.lovasz_pixels, generator=generator
            )
            terms.append(config.lovasz * term)
        return torch.stack(terms).sum()

    def _pixel_term(self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None, mean_weight: Tensor) -> Tensor:
        """Compute the loss that `loss.name` names; its mean over batches and ranks is that of the step."""
        config = self.config
        options: dict[str, Any] = {"ignore_id": self.ignore_id, "class_weights": self.class_weights}
        # The hard pixels of an image are known after its forward pass alone: means over images.
        if config.name == "bootstrapped":
            return bootstrapped_cross_entropy(logits, masks, config.bootstrap_top_k, **options)
        if config.name == "ohem":
            return ohem_cross_entropy(
                logits,
                masks,
                threshold=config.ohem_threshold,
                min_kept=config.ohem_min_kept,
                reduction=config.reduction,
                **options,
            )
        options["pixel_weights"] = pixel_weights
        if config.name == "focal":
            total = focal_loss(logits, masks, config.focal_gamma, **options)
        else:
            total = pixel_cross_entropy(logits, masks, **options)
        if config.reduction == "sum":
            # Caffe's SoftmaxWithLoss with normalize: false, as FCN trains: sum over the pixels, mean over the batch.
            return total / len(masks)
        return total / mean_weight.clamp_min(1e-12)


def sample_patches(
    masks: Tensor, keep_prob: float, patch_size: int, generator: torch.Generator, *, ignore_id: int
) -> Tensor:
    """Return masks (B, H, W) with each block of patch_size x patch_size pixels ignored with probability 1 - keep_prob.

    FCN's patchwise training as loss sampling: a block stands for one position of the final layer and stays in the loss
    with probability `keep_prob`. Blocks start at pixel 0, so their centers lie beside the positions of FCN's map (by 3
    pixels on VGG16). Where the last upsampling is learned, a block is one pixel. Source: Long et al. 2015 (FCN,
    https://arxiv.org/abs/1411.4038), section 3.4.
    """
    batch, height, width = masks.shape
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    keep = torch.rand(batch, rows, columns, generator=generator) < keep_prob
    kept_pixels = keep.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)[:, :height, :width]
    return masks.masked_fill(~kept_pixels.to(masks.device), ignore_id)


def class_weights_from_counts(counts: Tensor, scheme: str) -> Tensor:
    """Compute class weights (K,) float32 from the pixel counts (K,) of the training masks.

    "log"      1 / log(1.1 + share), the form of ENet (https://arxiv.org/abs/1606.02147, section 5.2) with 1.1 in place
               of its 1.02, which bounds the ratio of two weights by about 8
    "inverse"  median share / share, where the median of an even number of classes is the mean of the middle two; a
               class without pixels weighs 1. Eigen and Fergus 2015 (https://arxiv.org/abs/1411.4734) call it median
               frequency balancing, but divide the pixels of a class by those of the images that show it; the shares
               here are of all pixels
    """
    shares = counts.double() / counts.sum().clamp_min(1)
    if scheme == "log":
        return (1 / torch.log(1.1 + shares)).float()
    present = shares > 0
    median = shares.where(present, torch.nan).nanquantile(0.5)
    return torch.where(present, median / shares, 1.0).float()
