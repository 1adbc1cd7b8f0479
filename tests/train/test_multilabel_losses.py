"""Losses of several labels per pixel against formulas in NumPy, written from the papers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.config import Config, LossConfig
from pixelwise.core import LowResLogits, Output, Taxonomy
from pixelwise.errors import ConfigError
from pixelwise.nn.upsampling import Bilinear
from pixelwise.train.multilabel_losses import (
    MultilabelLoss,
    binary_focal_loss,
    check_multilabel,
    lovasz_hinge,
    sigmoid_dice,
)

IGNORE = 255
TAXONOMY = Taxonomy(("a", "b", "c"), kind="multilabel")


def _batch(seed: int, share_ignored: float = 0.1) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (2, 3, 5, 6))
    masks = (rng.random((2, 3, 5, 6)) < 0.4).astype(np.uint8)
    masks[rng.random(masks.shape) < share_ignored] = IGNORE
    return torch.from_numpy(logits), torch.from_numpy(masks)


def _decisions(logits: Tensor, masks: Tensor, k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return logits and labels of the valid pixels of one class."""
    values, labels = logits[:, k].numpy().ravel(), masks[:, k].numpy().ravel()
    return values[labels != IGNORE], labels[labels != IGNORE].astype(float)


@given(seed=st.integers(0, 999), gamma=st.sampled_from([0.0, 0.5, 2.0]))
def test_the_focal_loss_is_a_sum_over_decisions(seed: int, gamma: float) -> None:
    logits, masks = _batch(seed)
    weights = [1.0, 3.0, 0.5]
    expected = 0.0
    for k, weight in enumerate(weights):
        for logit, label in zip(*_decisions(logits, masks, k), strict=True):
            right = 1 / (1 + math.exp(-logit if label else logit))
            expected -= weight * (1 - right) ** gamma * math.log(right)
    found = binary_focal_loss(logits, masks, gamma, ignore_id=IGNORE, class_weights=torch.tensor(weights))
    assert float(found) == pytest.approx(expected, rel=1e-4)


@given(seed=st.integers(0, 999))
def test_dice_is_v_nets_formula_per_class(seed: int) -> None:
    logits, masks = _batch(seed)
    masks[:, 2] = 0
    expected = []
    for k in range(2):
        values, labels = _decisions(logits, masks, k)
        probs = 1 / (1 + np.exp(-values))
        expected.append(1 - 2 * (probs * labels).sum() / ((probs**2).sum() + (labels**2).sum()))
    # The third class occurs nowhere.
    assert float(sigmoid_dice(logits, masks, ignore_id=IGNORE)) == pytest.approx(np.mean(expected), rel=1e-5)


def _lovasz_extension(errors: NDArray[Any], labels: NDArray[Any]) -> float:
    """Integrate the Jaccard loss of the set of pixels whose error exceeds a level, over all levels above 0.

    This is the definition of the Lovász extension as a Choquet integral, without sorting by gradients.
    """
    levels = np.unique(np.concatenate([[0.0], errors[errors > 0]]))
    total = 0.0
    for low, high in pairwise(levels):
        wrong = errors > low
        intersection = ((labels == 1) & ~wrong).sum()
        union = ((labels == 1) | wrong).sum()
        total += (high - low) * (1 - intersection / union)
    return total


@given(seed=st.integers(0, 999))
def test_the_lovasz_hinge_is_the_integral_of_the_jaccard_loss(seed: int) -> None:
    logits, masks = _batch(seed)
    expected = []
    for k in range(3):
        values, labels = _decisions(logits, masks, k)
        if labels.any():
            expected.append(_lovasz_extension(1 - values * (2 * labels - 1), labels))
    assert float(lovasz_hinge(logits, masks, ignore_id=IGNORE)) == pytest.approx(np.mean(expected), rel=1e-4)
    # A surrogate lies above what it stands for, 1 - IoU of the signs.
    losses = []
    for k in range(3):
        values, labels = _decisions(logits, masks, k)
        losses.append(1 - ((values > 0) & (labels == 1)).sum() / ((values > 0) | (labels == 1)).sum())
    assert float(lovasz_hinge(logits, masks, ignore_id=IGNORE)) >= np.mean(losses) - 1e-6


def test_confident_right_logits_cost_nothing_and_ignored_ones_have_no_gradient() -> None:
    logits, masks = _batch(1)
    right = torch.where(masks == 1, 40.0, -40.0)
    for loss in (lovasz_hinge(right, masks, ignore_id=IGNORE), sigmoid_dice(right, masks, ignore_id=IGNORE)):
        assert float(loss) == pytest.approx(0, abs=1e-6)
    logits.requires_grad = True
    config = LossConfig(dice=0.5, lovasz=0.5, lovasz_pixels=0)
    MultilabelLoss(config, IGNORE)(Output(logits), masks, seed=0).backward()
    assert logits.grad is not None
    assert not logits.grad[masks == IGNORE].any()
    assert logits.grad[masks != IGNORE].any()
    empty = torch.full_like(masks, IGNORE)
    loss = MultilabelLoss(config, IGNORE)(Output(logits), empty, seed=0)
    assert float(loss.detach()) == 0


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "none"])
def test_the_loss_of_a_step_is_the_mean_over_decisions_and_the_terms(name: str) -> None:
    logits, masks = _batch(2, 0.3)
    config = LossConfig(name=name, dice=0.7, lovasz=0.3, lovasz_pixels=0, aux_weight=0.4)  # type: ignore[arg-type]
    gamma = 2.0 if name == "focal" else 0.0

    def expected(part: Tensor) -> float:
        total = binary_focal_loss(part, masks, gamma, ignore_id=IGNORE) / (masks != IGNORE).sum()
        pixels = 0.0 if name == "none" else float(total)
        regions = 0.7 * sigmoid_dice(part, masks, ignore_id=IGNORE) + 0.3 * lovasz_hinge(part, masks, ignore_id=IGNORE)
        return pixels + float(regions)

    found = MultilabelLoss(config, IGNORE)(Output(logits, (logits / 2,)), masks, seed=0)
    assert float(found) == pytest.approx(expected(logits) + 0.4 * expected(logits / 2), rel=1e-5)


def test_two_accumulated_batches_are_one_large_batch() -> None:
    logits, masks = _batch(3, 0.5)
    masks[0] = IGNORE
    loss = MultilabelLoss(LossConfig(), IGNORE)
    whole = loss(Output(logits), masks, seed=0)
    steps = [(masks[:1], None), (masks[1:], None)]
    weights = loss.mean_label_weights(Output(logits[:1]), steps, [0, 0])
    parts = [loss(Output(logits[n : n + 1]), masks[n : n + 1], seed=0, mean_weights=weights) for n in range(2)]
    assert float(sum(parts)) / 2 == pytest.approx(float(whole), rel=1e-6)


def test_low_resolution_logits_meet_the_labels_of_their_centers() -> None:
    logits = torch.randn(1, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 3, 9, 13, dtype=torch.uint8)
    masks[0, 1, 4:] = 1
    low_res = LowResLogits(logits, Bilinear(align_corners=True))
    found = MultilabelLoss(LossConfig(resolution="logits"), IGNORE)(low_res, masks, seed=0)
    at_centers = masks[:, :, ::4, ::4]
    expected = binary_focal_loss(logits, at_centers, 0, ignore_id=IGNORE) / at_centers.numel()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"name": "ohem"}},
        {"loss": {"class_weights": "log"}},
        {"loss": {"border_weight": 10.0}},
        {"loss": {"patch_keep_prob": 0.5}},
        {"augment": {"classmix_prob": 0.5}},
        {"augment": {"instance_crops": "proposals"}},
    ],
)
def test_settings_for_one_label_per_pixel_are_refused(changes: dict[str, Any]) -> None:
    config = Config().updated(changes)
    (section, options), *_ = changes.items()
    with pytest.raises(ConfigError, match=f"--{section}.{next(iter(options))}: expected .* `kind: multilabel`"):
        check_multilabel(config, TAXONOMY)
    check_multilabel(config, Taxonomy(("a", "b")))
