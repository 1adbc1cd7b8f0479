"""What training minimises. One rule for all: ignored pixels count nowhere, and a batch without others costs exactly 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_cross_entropy(
    logits: Tensor, masks: Tensor, ignore_id: int, class_weights: Tensor | None = None, extra: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Summed softmax cross entropy and what to divide it by for a mean.

    logits (B, K, H, W) float; masks (B, H, W) int64; class_weights (K,) or None.
    extra (B, H, W) float, or None: added to the weight of each pixel, which is that of its class, or 1 (U-Net's equation 2).
    Returns the sum and the number (with weights: the summed weight) of the pixels that count, both scalars. The caller
    divides after adding both over all ranks, so that one image full of ignored pixels cannot weigh like the others.
    """
    counted = masks != ignore_id
    if extra is not None:
        losses = F.cross_entropy(logits.float(), masks, ignore_index=ignore_id, reduction="none")
        weights = (extra + (1 if class_weights is None else class_weights[masks.masked_fill(~counted, 0)])) * counted
        return (weights * losses).sum(), weights.sum()
    loss = F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_id, reduction="sum")
    if class_weights is None:
        return loss, counted.sum().to(loss.dtype)
    weights = class_weights[masks.masked_fill(~counted, 0)] * counted
    return loss, weights.sum()


def bootstrapped_cross_entropy(
    logits: Tensor, masks: Tensor, ignore_id: int, num_pixels: int, class_weights: Tensor | None = None
) -> Tensor:
    """Bootstrapped cross entropy: the mean over the `num_pixels` pixels of highest loss of each image, mean over the batch.

    logits (B, K, H, W) float; masks (B, H, W) int64; class_weights (K,) or None -> scalar. Ignored pixels have loss 0: where
    fewer others are left they are taken too, and count in the divisor. Source: FRRN, section 4; the authors' code.
    """
    losses = F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_id, reduction="none").flatten(1)
    return losses.topk(min(num_pixels, losses.shape[1]), sorted=False).values.mean()


def lovasz_softmax(
    logits: Tensor, masks: Tensor, ignore_id: int, num_pixels: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """The Lovász extension of the Jaccard loss, averaged over the classes that the batch shows.

    logits (B, K, H, W) float; masks (B, H, W) int64 -> scalar in 0..1; 0 where every pixel is ignored.
    Where more than `num_pixels` pixels count, it is taken over so many of them, drawn with `generator`; 0 takes all.
    Source: Berman et al. 2018, https://arxiv.org/abs/1705.08790, algorithm 1.
    """
    counted = (masks.flatten() != ignore_id).nonzero()[:, 0]
    if 0 < num_pixels < len(counted):
        counted = counted[torch.randint(len(counted), (num_pixels,), generator=generator).to(counted.device)]
    probs = logits.permute(0, 2, 3, 1).flatten(0, 2)[counted].float().softmax(1)
    truth = masks.flatten()[counted]
    losses = []
    for k in torch.unique(truth):
        inside = (truth == k).float()
        errors, order = (inside - probs[:, k]).abs().sort(descending=True)
        losses.append(errors @ _jaccard_steps(inside[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def _jaccard_steps(inside: Tensor) -> Tensor:
    """How much the Jaccard loss grows as one more pixel, in order of error, is wrong. inside (N,) of 0 and 1."""
    total = inside.sum()
    intersection = total - inside.cumsum(0)
    union = total + (1 - inside).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def sample_patches(masks: Tensor, ignore_id: int, probability: float, cell: int, generator: torch.Generator) -> Tensor:
    """FCN's patchwise training as loss sampling: each cell x cell block of pixels stays with the given probability.

    masks (B, H, W) int64 -> a copy in which the dropped blocks hold `ignore_id`.
    Source: FCN (CVPR 2015), section 3.4: the final layer's cells are kept with probability p.
    """
    batch, height, width = masks.shape
    rows, columns = -(-height // cell), -(-width // cell)
    keep = torch.rand(batch, rows, columns, generator=generator) < probability
    blocks = keep.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width]
    return masks.masked_fill(~blocks.to(masks.device), ignore_id)


def class_weights_from_counts(counts: Tensor, scheme: str) -> Tensor:
    """PublishedWeights (K,) from pixel counts (K,) of the training masks.

    `log`: 1 / log(1.1 + share), ENet's form (https://arxiv.org/abs/1606.02147, section 5.2, with 1.1 for 1.02, which
    bounds the ratio of two classes by about 8). `inverse`: median share / share; a class without pixels weighs 1.
    """
    shares = counts.double() / counts.sum().clamp_min(1)
    if scheme == "log":
        return (1 / torch.log(1.1 + shares)).float()
    present = shares > 0
    return torch.where(present, shares[present].median() / shares.clamp_min(1e-12), 1.0).float()
