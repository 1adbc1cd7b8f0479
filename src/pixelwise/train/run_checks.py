"""What a run warns of while it trains: a network that predicts one class alone, a loss that does not fall."""

from __future__ import annotations

import torch

from ..core import Batch, Output
from ..errors import shown
from ..evaluation.multilabel_scores import MultilabelScores, SetScores
from .loss_trend import LossTrend, tenths
from .module import TrainingModule

# Tenths of fewer steps are noise.
_MIN_STEPS = 10
# Of the loss at equal probabilities: a loss that starts below it has been learned before, and need not fall.
_LOW_START = 0.5


def one_class_warning(scores: SetScores, split: str, step: int) -> str:
    """Return a warning if one class alone is predicted on a split whose masks hold several; empty otherwise.

    Where a pixel may have several labels, nothing is said: a class that is never predicted is among the scores.
    """
    if isinstance(scores, MultilabelScores):
        return ""
    predicted = [row.name for row in scores.classes if row.predicted]
    if len(predicted) != 1 or sum(row.truth > 0 for row in scores.classes) < 2:
        return ""
    return (
        f"after step {step}, the network predicts {shown(predicted[0])} for every pixel of split {split}; if its score "
        "does not rise soon, try --loss.dice 1, --loss.class_weights log, or a lower --optimizer.lr"
    )


def loss_warning(trend: LossTrend, module: TrainingModule, batch: Batch) -> str:
    """Return a warning after half of the steps if the loss has not fallen; empty otherwise, and after other steps.

    The mean over the late tenth is compared with the mean over the early one. Nothing is said of tenths of fewer than
    10 steps, and of a loss that was low from the start: below half of the loss of equal probabilities, which is
    computed on `batch`. All ranks must call it.
    """
    config = module.config
    early, late = tenths(config)
    if len(early) < _MIN_STEPS or module.step != late[-1]:
        return ""
    if (trend.early_count, trend.late_count) != (len(early), len(late)):
        # `train.steps` was changed when the run was resumed.
        return ""
    first, last = trend.early_sum / trend.early_count, trend.late_sum / trend.late_count
    if last < first:
        return ""
    size = len(batch.masks), sum(module.model.head_classes), *batch.masks.shape[-2:]
    with torch.no_grad():
        logits = torch.zeros(size, device=batch.masks.device)
        equal = float(module.loss(Output(logits), batch.masks, batch.pixel_weights, seed=0))
    if first < _LOW_START * equal:
        return ""
    steps = f"{first:.4g} in steps {early[0]} to {early[-1]}, {last:.4g} in steps {late[0]} to {late[-1]}"
    lr = config.optimizer.lr
    return (
        f"the training loss has not fallen: {steps} (equal probabilities: {equal:.4g}); "
        f"try another --optimizer.lr, such as {lr / 10:.3g} or {lr * 10:.3g}, or the one that --lr-range suggests"
    )
