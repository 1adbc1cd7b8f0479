"""Losses of whole regions, between 0 and 1: soft Dice and the Lovász extension of 1 - IoU.

They are means over the classes of a batch, not over pixels: a small class counts as much as a large one. Ignored pixels
are left out. A batch in which all pixels are ignored has loss 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
        losses.append(errors @ lovasz_gradient(foreground[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def lovasz_gradient(sorted_foreground: Tensor) -> Tensor:
    """Return by how much 1 - IoU grows as each pixel becomes wrong (N,), in the descending order of the errors.

    Source: Berman et al. 2018 (https://arxiv.org/abs/1705.08790), algorithm 1.

    sorted_foreground  (N,) float, 1 for pixels of the class and 0 for others, at least one of the class
    """
    intersection = sorted_foreground.sum() - sorted_foreground.cumsum(0)
    union = sorted_foreground.sum() + (1 - sorted_foreground).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def soft_dice(logits: Tensor, masks: Tensor, *, ignore_id: int) -> Tensor:
    """Compute the soft Dice loss: 1 - Dice, averaged over the classes in the batch.

    The Dice of a class is 2 sum(p g) / (sum(p^2) + sum(g^2)), with p its probability and g 1 where it is the label, 0
    elsewhere. The sums run over all labeled pixels of the batch, not of each image: a class that an image lacks has
    no Dice of its own there. Source: Milletari et al. 2016 (V-Net, https://arxiv.org/abs/1606.04797), section 3, for
    two classes; with the squares of its denominator, which other authors leave out.

    logits  (B, K, H, W) float
    masks   (B, H, W) int64
    Returns a scalar in 0..1; 0 if every pixel is ignored.
    """
    valid = (masks != ignore_id).flatten()
    probs = logits.transpose(0, 1).flatten(1)[:, valid].float().softmax(0)
    labels = masks.flatten()[valid]
    losses = []
    for k in torch.unique(labels):
        own = labels == k
        losses.append(1 - 2 * probs[k][own].sum() / (probs[k].square().sum() + own.sum()))
    return torch.stack(losses).mean() if losses else logits.sum() * 0
