"""Training of a network with two label maps: the losses of both heads, added with weight 1.

The logits of both heads are side by side, and the masks hold both label maps in one number (`data/second_labels.py`).
Source: Long et al. 2015, section 5 (SIFT Flow); the authors' net has two losses of weight 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Config
from ..core import LowResLogits, Output
from ..data.dataset import Split
from ..data.second_labels import PairSplit, check_second_labels, split_pair
from ..errors import ConfigError
from ..models import MODELS
from ..models.base import SegmentationModel
from .losses import SegmentationLoss
from .multilabel_losses import MultilabelLoss


def second_head_options(name: str, split: Split | None) -> dict[str, Any]:
    """Return the option of a network with two heads that says how many classes the second has; empty for one head.

    Raises ConfigError for data with one label map, MaskError or DatasetError for masks of the second that are missing
    or cannot be used.
    """
    option = MODELS[name].product.second_head_option
    if not option:
        return {}
    if split is None or split.second is None:
        fix = "declare `second: {folder: ..., classes: [...]}` in classes.yaml, or choose a network with one head"
        raise ConfigError("--model.name", f"{name} has 2 heads; the data have one label map", fix)
    check_second_labels(split)
    return {option: split.second.taxonomy.num_classes}


def split_to_draw(config: Config, split: Split) -> Split:
    """Return the split that a training draws from: of both label maps for a network with two heads.

    Raises ConfigError for settings of one label map.
    """
    name = config.model.name
    if not MODELS[name].product.second_head_option:
        return split
    is_set = {"loss.border_weight": config.loss.border_weight, "augment.instance_crops": config.augment.instance_crops}
    for setting, value in is_set.items():
        if value not in (0, "none"):
            raise ConfigError(f"--{setting}", f"is for one label map; {name} has 2 heads", "leave it out")
    return PairSplit(split)


def training_loss(
    model: SegmentationModel, config: Config, ignore_id: int, class_weights: Tensor | None, *, multilabel: bool = False
) -> SegmentationLoss | TwoHeadLoss:
    """Return the loss of a network; class weights are those of the first label map."""
    kind = MultilabelLoss if multilabel else SegmentationLoss
    make = partial(kind, config.loss, patch_size=model.logits_stride)
    first = make(ignore_id, class_weights=class_weights)
    # Of at most 255 classes, as `with_second_labels` checks.
    return first if model.num_heads == 1 else TwoHeadLoss(first, make(255), model.num_classes)


def forward_both(model: SegmentationModel, config: Config) -> Callable[[Tensor], Output | LowResLogits]:
    """Return the function from images to the logits of both heads, (B, K + G, ...), that a training step calls."""

    def low_res(images: Tensor) -> LowResLogits:
        first, *others = model.forward_low_res_all(images)
        return LowResLogits(torch.cat([first.logits, *(head.logits for head in others)], 1), first.upsample)

    def full_size(images: Tensor) -> Output:
        return low_res(images).upsample_to((images.shape[-2], images.shape[-1]))

    return low_res if config.loss.resolution == "logits" else full_size


class TwoHeadLoss(nn.Module):
    """The sum of the losses of two heads; called as `SegmentationLoss` is, with the logits and masks of both.

    first, second  the loss of each head
    num_first      number of classes of the first
    """

    def __init__(self, first: SegmentationLoss, second: SegmentationLoss, num_first: int) -> None:
        super().__init__()
        self.first, self.second, self.num_first = first, second, num_first

    def _outputs(self, output: Output | LowResLogits) -> tuple[Output | LowResLogits, Output | LowResLogits]:
        k = self.num_first
        return output._replace(logits=output.logits[:, :k]), output._replace(logits=output.logits[:, k:])

    def forward(
        self,
        output: Output | LowResLogits,
        masks: Tensor,
        pixel_weights: Tensor | None = None,
        *,
        seed: int,
        mean_weights: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Compute the loss of one batch; masks (B, H, W) of both label maps."""
        weights = self.mean_label_weights(output, [(masks, None)], [seed]) if mean_weights is None else mean_weights
        pairs = zip((self.first, self.second), self._outputs(output), split_pair(masks), strict=True)
        terms = [
            loss(one, labels, seed=seed, mean_weights=(weights[2 * k], weights[2 * k + 1]))
            for k, (loss, one, labels) in enumerate(pairs)
        ]
        return torch.stack(terms).sum()

    def mean_label_weights(
        self, output: Output | LowResLogits, batches: Sequence[tuple[Tensor, Tensor | None]], seeds: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Compute `SegmentationLoss.mean_label_weights` of both heads, one after the other."""
        labels = zip(*(split_pair(masks) for masks, _ in batches), strict=True)
        found: list[Tensor] = []
        for loss, one, masks in zip((self.first, self.second), self._outputs(output), labels, strict=True):
            found += loss.mean_label_weights(one, [(mask, None) for mask in masks], seeds)
        return tuple(found)
