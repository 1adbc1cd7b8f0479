"""Losses that are sums over pixels: cross entropy, focal loss, and the cross entropy of the hard pixels alone.

Ignored pixels have no loss. A batch in which all pixels are ignored has loss 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def focal_loss(
    logits: Tensor,
    masks: Tensor,
    gamma: float,
    *,
    ignore_id: int,
    class_weights: Tensor | None = None,
    pixel_weights: Tensor | None = None,
) -> Tensor:
    """Compute the summed focal loss of the labeled pixels, a scalar; over `label_weight`, it is the mean.

    The cross entropy of a pixel times (1 - p) ** gamma, with p the probability of its own class, so that pixels that
    are right already count little; with gamma 0 it is `pixel_cross_entropy`. The class weights are the paper's alpha;
    its divisor, the number of anchors with an object, is the weight of the labeled pixels here. Source: Lin et al. 2017
    (https://arxiv.org/abs/1708.02002), equations 4 and 5, where gamma is 2.

    Arguments as for `pixel_cross_entropy`.
    """
    losses = F.cross_entropy(logits.float(), masks, ignore_index=ignore_id, reduction="none")
    # 1 - p without the rounding of p near 1; the power of exactly 0 would have an infinite gradient for gamma < 1.
    wrong = -torch.expm1(-losses)
    losses = wrong.clamp_min(1e-12) ** gamma * losses
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

    Ignored pixels have loss 0. Where an image has fewer than `top_k` labeled
    pixels, ignored ones fill up the rest: the divisor stays `top_k`. Source: Pohlen et al. 2017 (FRRN, https://arxiv.org/abs/1611.08323),
    section 4, and the authors' code.

    logits         (B, K, H, W) float
    masks          (B, H, W) int64
    class_weights  (K,), or None for 1 each
    """
    losses = F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_id, reduction="none").flatten(1)
    return losses.topk(min(top_k, losses.shape[1]), sorted=False).values.mean()


def ohem_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    threshold: float,
    min_kept: int,
    ignore_id: int,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Compute the cross entropy of the hard pixels of each image, mean over the batch.

    A labeled pixel is hard if the probability of its own class is below `threshold`; at least the `min_kept` pixels of
    lowest probability are. The loss of an image is the mean over its hard pixels, or over `min_kept` where it has fewer
    labeled ones; with reduction "sum" it is their sum. The pixels are chosen per image, not per batch, so that the loss
    does not depend on how images are batched. Source: online hard example mining, Shrivastava et al. 2016
    (https://arxiv.org/abs/1604.03540), in the form of the segmentation toolkits (threshold 0.7).

    logits         (B, K, H, W) float
    masks          (B, H, W) int64
    min_kept       pixels per image; 0 is a 16th of the pixels of a mask
    class_weights  (K,) factors of the losses, or None for 1 each; they do not change which pixels are hard
    """
    losses = F.cross_entropy(logits.float(), masks, ignore_index=ignore_id, reduction="none").flatten(1)
    valid = (masks != ignore_id).flatten(1)
    min_kept = min(min_kept or -(-losses.shape[1] // 16), losses.shape[1])
    # Ignored pixels come last, and are taken out again where the others do not suffice.
    hardness = losses.detach().where(valid, -1.0)
    hard = (torch.exp(-hardness) < threshold).scatter(1, hardness.topk(min_kept, sorted=False).indices, value=True)
    hard &= valid
    totals = (losses * _weight_map(masks, ignore_id, class_weights, None).flatten(1) * hard).sum(1)
    return totals.mean() if reduction == "sum" else (totals / hard.sum(1).clamp_min(min_kept)).mean()
