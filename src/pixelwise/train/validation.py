"""Validation during training: the same images, sizes and rules as `pixelwise evaluate`, distributed over the ranks."""

from __future__ import annotations

import numpy as np
import torch

from ..data.dataset import Split
from ..evaluation.metrics import Scores, confusion_matrix
from ..inference.label_map import label_map
from ..models.base import SegmentationModel


@torch.inference_mode()
def validate(
    model: SegmentationModel, split: Split, device: torch.device, *, rank: int = 0, world_size: int = 1
) -> Scores:
    """Score a model on a whole split at native resolution; each image is scored by exactly one rank.

    It runs in float32, whatever the precision of the training, so the scores are those of `pixelwise evaluate`.
    """
    was_training = model.training
    model.eval()
    taxonomy = split.taxonomy
    total = np.zeros((taxonomy.num_classes, taxonomy.num_classes), np.int64)
    for index in range(rank, len(split), world_size):
        sample = split[index]
        assert sample.mask is not None, "splits without masks are refused before training"
        prediction = label_map(model, sample.image, device)
        total += confusion_matrix(sample.mask, prediction, taxonomy)
    model.train(was_training)
    if world_size > 1:
        matrix = torch.from_numpy(total).to(device)
        torch.distributed.all_reduce(matrix)
        total = matrix.cpu().numpy()
    return Scores.from_matrix(total, taxonomy.names)
