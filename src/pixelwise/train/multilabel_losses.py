"""Losses where a pixel may have several labels: one binary decision per pixel and class.

Logits are (B, K, H, W) float before the sigmoid, masks (B, K, H, W) uint8: 1, 0, or the ignore id. Ignored decisions
have no loss. The losses of pixels are means over all decisions, those of regions means over the classes that occur in
the batch. A batch in which all is ignored has loss 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config
from ..core import LowResLogits, Output, Taxonomy
from ..errors import ConfigError
from ..nn.upsampling import low_res_labels
from .losses import LOVASZ_STREAM, SegmentationLoss
from .region_losses import lovasz_gradient


class MultilabelLoss(SegmentationLoss):
    """The loss that a configuration asks for, with a sigmoid per class in place of the softmax.

    `cross_entropy` is the binary one, `focal` the binary focal loss, `dice` the soft Dice of each class, `lovasz` the
    Lovász hinge. `class_weights` weigh the decisions of each class.
    """

    def _labels(self, output: Output | LowResLogits, masks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        return low_res_labels(output, masks, self.ignore_id) if isinstance(output, LowResLogits) else masks, masks

    def _label_weight(self, labels: Tensor, pixel_weights: Tensor | None) -> Tensor:
        return _weights(labels, self.ignore_id, self.class_weights).sum()

    def _loss_of(
        self, logits: Tensor, masks: Tensor, pixel_weights: Tensor | None, mean_weight: Tensor, *, seed: int
    ) -> Tensor:
        config, ignore_id = self.config, self.ignore_id
        terms = []
        if config.name != "none":
            gamma = config.focal_gamma if config.name == "focal" else 0.0
            total = binary_focal_loss(logits, masks, gamma, ignore_id=ignore_id, class_weights=self.class_weights)
            is_sum = config.reduction == "sum"
            terms.append(total / len(masks) if is_sum else total / mean_weight.clamp_min(1e-12))
        if config.dice:
            terms.append(config.dice * sigmoid_dice(logits, masks, ignore_id=ignore_id))
        if config.lovasz:
            generator = torch.Generator().manual_seed(seed ^ LOVASZ_STREAM)
            term = lovasz_hinge(
                logits, masks, ignore_id=ignore_id, num_pixels=config.lovasz_pixels, generator=generator
            )
            terms.append(config.lovasz * term)
        return torch.stack(terms).sum()


def _weights(masks: Tensor, ignore_id: int, class_weights: Tensor | None) -> Tensor:
    valid = (masks != ignore_id).float()
    return valid if class_weights is None else valid * class_weights[:, None, None]


def binary_focal_loss(
    logits: Tensor, masks: Tensor, gamma: float, *, ignore_id: int, class_weights: Tensor | None = None
) -> Tensor:
    """Compute the summed loss of all decisions, a scalar: binary cross entropy times (1 - p) ** gamma.

    p is the probability of the decision that is right; with gamma 0 it is the binary cross entropy. Source: Lin et al.
    2017 (https://arxiv.org/abs/1708.02002), equation 4, for binary decisions as in the paper.

    logits         (B, K, H, W) float
    masks          (B, K, H, W) uint8
    class_weights  (K,), or None for 1 each
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), (masks == 1).float(), reduction="none")
    if gamma:
        # As in `focal_loss`: 1 - p without rounding, and no infinite gradient at 0.
        losses = (-torch.expm1(-losses)).clamp_min(1e-12) ** gamma * losses
    return (_weights(masks, ignore_id, class_weights) * losses).sum()


def sigmoid_dice(logits: Tensor, masks: Tensor, *, ignore_id: int) -> Tensor:
    """Compute the soft Dice loss: 1 - 2 sum(p g) / (sum(p^2) + sum(g^2)) of each class that the batch holds, averaged.

    The sums run over all images of the batch, as in `soft_dice`. Source: Milletari et al. 2016 (V-Net,
    https://arxiv.org/abs/1606.04797), section 3: two classes, which is one binary decision.

    logits  (B, K, H, W) float
    masks   (B, K, H, W) uint8
    Returns a scalar in 0..1; 0 if no class occurs.
    """
    valid = masks != ignore_id
    probs = logits.float().sigmoid() * valid
    truth = (masks == 1).float()
    over = (0, 2, 3)
    sizes = truth.sum(over)
    dice = 2 * (probs * truth).sum(over) / (probs.square().sum(over) + sizes).clamp_min(1e-12)
    present = sizes > 0
    return (1 - dice[present]).mean() if bool(present.any()) else logits.sum() * 0


def lovasz_hinge(
    logits: Tensor, masks: Tensor, *, ignore_id: int, num_pixels: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Compute the Lovász hinge of each class that the batch holds, averaged: a convex surrogate of 1 - IoU.

    The hinge loss of a pixel is 1 - logit for a label and 1 + logit for none; it is at least 1 - IoU of the sign of the
    logits, and 0 if all of them are right by 1 or more. Source: Yu and Blaschko 2015, "Learning submodular losses with
    the Lovász hinge"; Berman et al. 2018 (https://arxiv.org/abs/1705.08790), section 2.2.

    logits      (B, K, H, W) float
    masks       (B, K, H, W) uint8
    num_pixels  compute it over at most this many valid pixels per class, drawn with `generator`; 0 takes all
    """
    losses = []
    for k in range(logits.shape[1]):
        labels = masks[:, k].flatten()
        valid = (labels != ignore_id).nonzero()[:, 0]
        if 0 < num_pixels < len(valid):
            valid = valid[torch.randint(len(valid), (num_pixels,), generator=generator).to(valid.device)]
        foreground = labels[valid].float()
        if not bool(foreground.any()):
            continue
        errors, order = (1 - logits[:, k].flatten()[valid].float() * (2 * foreground - 1)).sort(descending=True)
        losses.append(F.relu(errors) @ lovasz_gradient(foreground[order]))
    return torch.stack(losses).mean() if losses else logits.sum() * 0


def check_multilabel(config: Config, taxonomy: Taxonomy) -> None:
    """Raise ConfigError for a setting that means nothing where a pixel may have several labels."""
    if not taxonomy.multilabel:
        return
    loss, augment = config.loss, config.augment
    excluded = {
        "loss.name": (loss.name in ("ohem", "bootstrapped"), loss.name, "cross_entropy, focal or none"),
        "loss.class_weights": (loss.class_weights in ("log", "inverse"), loss.class_weights, "none, or a list"),
        "loss.border_weight": (loss.border_weight > 0, loss.border_weight, "0"),
        "loss.patch_keep_prob": (loss.patch_keep_prob < 1, loss.patch_keep_prob, "1"),
        "augment.classmix_prob": (augment.classmix_prob > 0, augment.classmix_prob, "0"),
        "augment.instance_crops": (augment.instance_crops != "none", augment.instance_crops, "none"),
    }
    for name, (is_set, value, expected) in excluded.items():
        if is_set:
            what = f"expected {expected}, got {value}: the classes have `kind: multilabel`"
            fix = "leave it out; --loss.dice 1 counts small classes as much as large ones"
            raise ConfigError(f"--{name}", what, fix)
