"""Losses of training.

Ignored pixels have no loss and do not count in a mean, with one exception: `bootstrapped_cross_entropy` divides by its
number of pixels, as the authors do. A batch in which all pixels are ignored has loss 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LossConfig
from ..core import LowResLogits, Output
from ..nn.upsampling import low_res_labels
from .ranks import mean_over_ranks

# Offsets of the batch seed, so that patch sampling, the pixels of the Lovász term, and dropout (which uses the seed
# itself) draw independently.
_PATCH_STREAM, _LOVASZ_STREAM = 0x5EED_CE11, 0x5EED_1054


class SegmentationLoss(nn.Module):
    """The loss that a configuration asks for: cross entropy of the logits and auxiliary logits, plus a Lovász term.

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
        mean_weights: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Compute the loss of one batch, a scalar; its mean over the batches of a step is the loss of the step.

        output         logits at the size of the masks, or low-resolution logits (`loss.resolution: logits`)
        masks          (B, H, W) int64 class ids
        pixel_weights  (B, H, W) float32, added to the weight of each pixel, or None
        seed           of the random choices of this batch
        mean_weights   `mean_label_weights` of the step; None if this batch is the whole step
        """
        config, ignore_id = self.config, self.ignore_id
        if mean_weights is None:
            mean_weights = self.mean_label_weights(output, [(masks, pixel_weights)], [seed])
        labels, aux_labels = self._labels(output, masks, seed)
        logits, auxiliary = output.logits, output.aux
        if isinstance(output, LowResLogits):
            auxiliary = output.upsample_to((masks.shape[-2], masks.shape[-1])).aux
        loss = self._cross_entropy(logits, labels, pixel_weights, mean_weights[0])
        for aux in auxiliary:
            loss = loss + config.aux_weight * self._cross_entropy(aux, aux_labels, pixel_weights, mean_weights[1])
        if config.lovasz:
            generator = torch.Generator().manual_seed(seed ^ _LOVASZ_STREAM)
            term = lovasz_softmax(
                logits, labels, ignore_id=ignore_id, num_pixels=config.lovasz_pixels, generator=generator
            )
            loss = loss + config.lovasz * term
        return loss

    def mean_label_weights(
        self, output: Output | LowResLogits, batches: Sequence[tuple[Tensor, Tensor | None]], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
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
                weight = label_weight(
                    its_labels,
                    ignore_id=self.ignore_id,
                    class_weights=self.class_weights,
                    pixel_weights=pixel_weights,
                )
                term.append(weight)
        logits_weight, aux_weight = (mean_over_ranks(torch.stack(weights).mean()) for weights in sums)
        return logits_weight, aux_weight

    def _labels(self, output: Output | LowResLogits, masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return the labels of the logits and those of the auxiliary logits, with patches left out."""
        config, ignore_id = self.config, self.ignore_id
        if config.patch_keep_prob < 1:
            generator = torch.Generator().manual_seed(seed ^ _PATCH_STREAM)
            masks = sample_patches(masks, config.patch_keep_prob, self.patch_size, generator, ignore_id=ignore_id)
        return low_res_labels(output, masks, ignore_id) if isinstance(output, LowResLogits) else masks, masks

    def _cross_entropy(
        self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None, mean_weight: Tensor
    ) -> Tensor:
        ignore_id, class_weights, top_k = self.ignore_id, self.class_weights, self.config.bootstrap_top_k
        if top_k:
            return bootstrapped_cross_entropy(logits, masks, top_k, ignore_id=ignore_id, class_weights=class_weights)
        total = pixel_cross_entropy(
            logits, masks, ignore_id=ignore_id, class_weights=class_weights, pixel_weights=pixel_weights
        )
        if self.config.reduction == "sum":
            # Caffe's SoftmaxWithLoss with normalize: false, as FCN trains: sum over the pixels, mean over the batch.
            return total / len(masks)
        return total / mean_weight.clamp_min(1e-12)


def pixel_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_id: int,
    class_weights: Tensor | None = None,
    pixel_weights: Tensor | None = None,
) -> Tensor:
    """Compute the summed softmax cross entropy of the labeled pixels, a scalar; over `label_weight`, it is the mean.

    logits         (B, K, H, W) float
    masks          (B, H, W) int64
    class_weights  (K,), or None for 1 each
    pixel_weights  (B, H, W) float32, added to each pixel's class weight (second term of U-Net's equation 2), or None
    """
    if pixel_weights is None:
        return F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_id, reduction="sum")
    losses = F.cross_entropy(logits.float(), masks, ignore_index=ignore_id, reduction="none")
    return (_weight_map(masks, ignore_id, class_weights, pixel_weights) * losses).sum()


def label_weight(
    masks: Tensor, *, ignore_id: int, class_weights: Tensor | None = None, pixel_weights: Tensor | None = None
) -> Tensor:
    """Compute the summed weight of the labeled pixels, a scalar; arguments as for `pixel_cross_entropy`."""
    return _weight_map(masks, ignore_id, class_weights, pixel_weights).sum().float()


def _weight_map(masks: Tensor, ignore_id: int, class_weights: Tensor | None, pixel_weights: Tensor | None) -> Tensor:
    valid = masks != ignore_id
    if class_weights is None:
        return valid if pixel_weights is None else (pixel_weights + 1) * valid
    balance = class_weights[masks.masked_fill(~valid, 0)]
    return (balance if pixel_weights is None else pixel_weights + balance) * valid


def bootstrapped_cross_entropy(
    logits: Tensor, masks: Tensor, top_k: int, *, ignore_id: int, class_weights: Tensor | None = None
) -> Tensor:
    """Compute the mean cross entropy of the `top_k` pixels with the highest loss of each image, mean over the batch.

    Also known as online hard example mining. Ignored pixels have loss 0. Where an image has fewer than `top_k` labeled
    pixels, ignored ones fill up the rest: the divisor stays `top_k`. Source: Pohlen et al. 2017 (FRRN, https://arxiv.org/abs/1611.08323),
    section 4, and the authors' code.

    logits         (B, K, H, W) float
    masks          (B, H, W) int64
    class_weights  (K,), or None for 1 each
    """
    losses = F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_id, reduction="none").flatten(1)
    return losses.topk(min(top_k, losses.shape[1]), sorted=False).values.mean()


def lovasz_softmax(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_id: int,
    num_pixels: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Compute the Lovász-softmax loss: the Lovász extension of 1 - IoU, averaged over the classes in the batch.

    Source: Berman et al. 2018 (https://arxiv.org/abs/1705.08790), algorithm 1.

    logits      (B, K, H, W) float
    masks       (B, H, W) int64
    num_pixels  compute it over at most this many valid pixels, drawn with `generator`; 0 takes all
    Returns a scalar in 0..1; 0 if every pixel is ignored.
    """
    valid = (masks.flatten() != ignore_id).nonzero()[:, 0]
    if 0 < num_pixels < len(valid):
        valid = valid[torch.randint(len(valid), (num_pixels,), generator=generator).to(valid.device)]
    probs = logits.permute(0, 2, 3, 1).flatten(0, 2)[valid].float().softmax(1)
    labels = masks.flatten()[valid]
    losses = []
    for k in torch.unique(labels):
        foreground = (labels == k).float()
        # The error of a pixel is 1 - p for its own class, p for another.
        errors, order = (foreground - probs[:, k]).abs().sort(descending=True)
        # Algorithm 1: by how much 1 - IoU grows as each pixel, in order of its error, becomes wrong.
        sorted_foreground = foreground[order]
        intersection = sorted_foreground.sum() - sorted_foreground.cumsum(0)
        union = sorted_foreground.sum() + (1 - sorted_foreground).cumsum(0)
        jaccard = 1 - intersection / union
        gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(errors @ gradient)
    return torch.stack(losses).mean() if losses else logits.sum() * 0


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
