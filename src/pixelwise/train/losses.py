"""Losses of training.

Ignored pixels have no loss and do not count in a mean, with one exception: `bootstrapped_cross_entropy` divides by its
number of pixels, as the authors do. A batch in which all pixels are ignored has loss 0.
"""

from __future__ import annotations

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
        self, output: Output | LowResLogits, masks: Tensor, pixel_weights: Tensor | None = None, *, seed: int
    ) -> Tensor:
        """Compute the loss of one batch on all ranks, a scalar.

        output         logits at the size of the masks, or low-resolution logits (`loss.resolution: logits`)
        masks          (B, H, W) int64 class ids
        pixel_weights  (B, H, W) float32, added to the weight of each pixel, or None
        seed           of the random choices of this batch
        """
        config, ignore_id = self.config, self.ignore_id
        if config.patch_keep_prob < 1:
            generator = torch.Generator().manual_seed(seed ^ _PATCH_STREAM)
            masks = sample_patches(masks, config.patch_keep_prob, self.patch_size, generator, ignore_id=ignore_id)
        logits, labels, auxiliary = output.logits, masks, output.aux
        if isinstance(output, LowResLogits):
            labels = low_res_labels(output, masks, ignore_id)
            auxiliary = output.upsample_to((masks.shape[-2], masks.shape[-1])).aux
        loss = self._cross_entropy(logits, labels, pixel_weights)
        for aux in auxiliary:
            loss = loss + config.aux_weight * self._cross_entropy(aux, masks, pixel_weights)
        if config.lovasz:
            generator = torch.Generator().manual_seed(seed ^ _LOVASZ_STREAM)
            term = lovasz_softmax(
                logits, labels, ignore_id=ignore_id, num_pixels=config.lovasz_pixels, generator=generator
            )
            loss = loss + config.lovasz * term
        return loss

    def _cross_entropy(self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None) -> Tensor:
        ignore_id, class_weights, top_k = self.ignore_id, self.class_weights, self.config.bootstrap_top_k
        if top_k:
            return bootstrapped_cross_entropy(logits, masks, top_k, ignore_id=ignore_id, class_weights=class_weights)
        total, weight = pixel_cross_entropy(
            logits, masks, ignore_id=ignore_id, class_weights=class_weights, pixel_weights=pixel_weights
        )
        if self.config.reduction == "sum":
            # Caffe's SoftmaxWithLoss with normalize: false, as FCN trains: sum over the pixels, mean over the batch.
            return total / len(masks)
        # Ranks average their gradients. Divided by the mean weight, that average is the mean over the pixels of all
        # ranks.
        return total / mean_over_ranks(weight).clamp_min(1e-12)


def pixel_cross_entropy(
    logits: Tensor,
    masks: Tensor,
    *,
    ignore_id: int,
    class_weights: Tensor | None = None,
    pixel_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the summed softmax cross entropy and the summed weight of the pixels, two scalars.

    Their quotient is the mean loss. The caller divides after adding both over all ranks, so that an image full of
    ignored pixels does not weigh as much as the others.

    logits         (B, K, H, W) float
    masks          (B, H, W) int64
    class_weights  (K,), or None for 1 each
    pixel_weights  (B, H, W) float32, added to each pixel's class weight (second term of U-Net's equation 2), or None
    """
    valid = masks != ignore_id
    if pixel_weights is not None:
        losses = F.cross_entropy(logits.float(), masks, ignore_index=ignore_id, reduction="none")
        balance = 1 if class_weights is None else class_weights[masks.masked_fill(~valid, 0)]
        weights = (pixel_weights + balance) * valid
        return (weights * losses).sum(), weights.sum()
    loss = F.cross_entropy(logits.float(), masks, class_weights, ignore_index=ignore_id, reduction="sum")
    if class_weights is None:
        return loss, valid.sum().to(loss.dtype)
    return loss, (class_weights[masks.masked_fill(~valid, 0)] * valid).sum()


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
