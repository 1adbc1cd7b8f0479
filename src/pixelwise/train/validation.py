"""Validation during training: the same images, sizes and rules as `pixelwise evaluate`, distributed over the ranks."""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.dataset import Split
from ..errors import ImageError, InputError, MaskError, printable
from ..evaluation.metrics import Scores, confusion_matrix
from ..evaluation.multilabel_scores import SetScores
from ..evaluation.thresholds import ThresholdCounter, scores_at_best
from ..inference.label_map import label_map, low_res_logits, upsampled_blocks
from ..jit.threads import ahead
from ..models.base import SegmentationModel
from .ranks import max_over_ranks


@torch.inference_mode()
def validate(
    model: SegmentationModel,
    split: Split,
    device: torch.device,
    *,
    precision: str = "float32",
    rank: int = 0,
    world_size: int = 1,
    on_read_error: str = "stop",
) -> SetScores:
    """Score a model on a whole split at native resolution; each image is scored by exactly one rank.

    Where a pixel may have several labels, it finds the threshold of each class as well, and scores with them.

    Its scores are those of `pixelwise evaluate` in the same precision.

    precision      of the training: float32 or bfloat16
    on_read_error  "skip" leaves out images that cannot be read, with a warning; "stop" raises the first error
    Raises InputError on every rank if one has failed: a rank that stopped alone would leave the others waiting.
    """
    was_training = model.training
    model.eval()
    taxonomy = split.taxonomy
    total: NDArray[np.int64] = np.zeros((taxonomy.num_classes, taxonomy.num_classes), np.int64)
    counter = ThresholdCounter(taxonomy) if taxonomy.multilabel else None
    skipped: list[InputError] = []
    failure: InputError | None = None
    indices = range(rank, len(split), world_size)
    for index, reading in zip(indices, ahead(split.__getitem__, indices), strict=True):
        try:
            sample = reading.result()
            assert sample.mask is not None, "splits without masks are refused before training"
            source = split.items[index].image
            if counter is None:
                prediction = label_map(model, sample.image, device, precision=precision, source=source)
                total += confusion_matrix(sample.mask, prediction, taxonomy)
            else:
                low_res = low_res_logits(model, sample.image, device, precision=precision, source=source)
                counter.add(upsampled_blocks(low_res, sample.image.shape[:2]), sample.mask)
        except InputError as error:
            if on_read_error == "stop" or not isinstance(error, ImageError | MaskError):
                failure = error
                break
            skipped.append(error)
    model.train(was_training)
    if skipped:
        line = f"warning: validation skipped {len(skipped)} of {len(split)} images: {skipped[0]}"
        print(printable(line), file=sys.stderr)
    if max_over_ranks(int(failure is not None), device):
        raise failure or InputError("training", "another rank has ended", "see its error message")
    total = total if counter is None else counter.counts
    if world_size > 1:
        matrix = torch.from_numpy(total).to(device)
        torch.distributed.all_reduce(matrix)
        total = matrix.cpu().numpy()
    return Scores.from_matrix(total, taxonomy.names) if counter is None else scores_at_best(total, taxonomy.names)
