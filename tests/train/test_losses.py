"""Losses against loops over pixels, hand sums, and the definition of the Lovász extension."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pixelwise.config import LossConfig
from pixelwise.core import LowResLogits, Output
from pixelwise.data.border_weights import weight_map
from pixelwise.nn.upsampling import Bilinear
from pixelwise.train.losses import SegmentationLoss, class_weights_from_counts, sample_patches
from pixelwise.train.pixel_losses import (
    bootstrapped_cross_entropy,
    focal_loss,
    label_weight,
    ohem_cross_entropy,
    pixel_cross_entropy,
)
from pixelwise.train.region_losses import lovasz_softmax, soft_dice

IGNORE = 255


def random_batch(
    seed: int, classes: int = 4, ignored: float = 0.3, size: tuple[int, int] = (5, 6)
) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *size, generator=rng) * 3
    masks = torch.randint(0, classes, (2, *size), generator=rng)
    masks[torch.rand(2, *size, generator=rng) < ignored] = IGNORE
    return logits, masks


def looped_cross_entropy(logits: Tensor, masks: Tensor, weights: list[float]) -> tuple[float, float]:
    """Sum over the pixels that count, and of their weights, in plain float64."""
    total = weight = 0.0
    for b, row, column in itertools.product(*map(range, masks.shape)):
        k = int(masks[b, row, column])
        if k == IGNORE:
            continue
        scores = [float(s) for s in logits[b, :, row, column].double()]
        total += weights[k] * (math.log(sum(math.exp(s) for s in scores)) - scores[k])
        weight += weights[k]
    return total, weight


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.0]])
def test_cross_entropy_equals_loops(weights: list[float] | None) -> None:
    logits, masks = random_batch(1)
    given_weights = None if weights is None else torch.tensor(weights)
    total = pixel_cross_entropy(logits, masks, ignore_id=IGNORE, class_weights=given_weights)
    weight = label_weight(masks, ignore_id=IGNORE, class_weights=given_weights)
    expected = looped_cross_entropy(logits, masks, weights or [1.0] * 4)
    assert (float(total), float(weight)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_pixels", [1, 7, 30, 100])
def test_the_hardest_pixels_by_loops(num_pixels: int) -> None:
    """Each image by itself; ignored pixels are taken, at no loss, where the others do not suffice."""
    logits, masks = random_batch(3)
    means = []
    for b in range(2):
        losses = [
            looped_cross_entropy(
                logits[b : b + 1, :, i : i + 1, j : j + 1], masks[b : b + 1, i : i + 1, j : j + 1], [1.0] * 4
            )[0]
            for i in range(5)
            for j in range(6)
        ]
        hardest = sorted(losses, reverse=True)[:num_pixels]
        means.append(sum(hardest) / len(hardest))
    assert float(bootstrapped_cross_entropy(logits, masks, num_pixels, ignore_id=IGNORE)) == pytest.approx(
        sum(means) / 2, rel=1e-5
    )


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.0]])
def test_pixel_weights_add_to_the_class_weights(weights: list[float] | None) -> None:
    logits, masks = random_batch(3)
    extra = torch.rand(masks.shape, generator=torch.Generator().manual_seed(4)) * 10
    class_weights = None if weights is None else torch.tensor(weights)
    total = pixel_cross_entropy(logits, masks, ignore_id=IGNORE, class_weights=class_weights, pixel_weights=extra)
    weight = label_weight(masks, ignore_id=IGNORE, class_weights=class_weights, pixel_weights=extra)
    loss = by_hand = 0.0
    for b, row, column in itertools.product(*map(range, masks.shape)):
        one, w = looped_cross_entropy(
            logits[b : b + 1, :, row : row + 1, column : column + 1],
            masks[b : b + 1, row : row + 1, column : column + 1],
            [1.0] * 4,
        )
        if w:
            w = (weights or [1.0] * 4)[int(masks[b, row, column])] + float(extra[b, row, column])
        loss, by_hand = loss + w * one, by_hand + w
    assert (float(total), float(weight)) == pytest.approx((loss, by_hand), rel=1e-5)
    nothing = torch.zeros_like(extra)
    torch.testing.assert_close(
        pixel_cross_entropy(logits, masks, ignore_id=IGNORE, pixel_weights=nothing),
        pixel_cross_entropy(logits, masks, ignore_id=IGNORE),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_of_ignored_pixels_costs_nothing(weighted: bool) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = torch.full((2, 4, 4), IGNORE)
    class_weights = torch.ones(3) if weighted else None
    total = pixel_cross_entropy(logits, masks, ignore_id=IGNORE, class_weights=class_weights)
    weight = label_weight(masks, ignore_id=IGNORE, class_weights=class_weights)
    loss = total / weight.clamp_min(1e-12) + lovasz_softmax(logits, masks, ignore_id=IGNORE)
    loss = loss + soft_dice(logits, masks, ignore_id=IGNORE) + focal_loss(logits, masks, 2.0, ignore_id=IGNORE)
    loss = loss + ohem_cross_entropy(logits, masks, threshold=0.7, min_kept=3, ignore_id=IGNORE)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_reductions_by_loops(reduction: Literal["sum", "mean"]) -> None:
    """`sum` is Caffe's: over the pixels, divided by the number of images."""
    class_weights = [1.0, 2.0, 0.5, 1.0]
    loss = SegmentationLoss(
        LossConfig(reduction=reduction, aux_weight=0.4), IGNORE, class_weights=torch.tensor(class_weights)
    )
    (logits, masks), (aux, _) = random_batch(3), random_batch(4)
    means = []
    for scores in (logits, aux):
        total, weight = looped_cross_entropy(scores, masks, class_weights)
        means.append(total / (len(masks) if reduction == "sum" else weight))
    assert float(loss(Output(logits, (aux,)), masks, seed=0)) == pytest.approx(means[0] + 0.4 * means[1], rel=1e-5)


def test_the_loss_adds_border_weights_to_class_weights() -> None:
    """U-Net's equation 2: the mean of the pixels' losses, weighted by the whole weight map."""
    masks = torch.zeros(2, 32, 48, dtype=torch.int64)
    masks[0, 4:20, 4:12], masks[0, 4:20, 15:30], masks[1, 3:9, 3:9], masks[:, -2:] = 1, 1, 2, IGNORE
    balance = np.array([0.5, 1, 2], np.float32)
    maps, alone = (
        np.stack([weight_map(mask, row, ignore_id=IGNORE, w0=7, sigma=2) for mask in masks.numpy()])
        for row in (balance, np.zeros(3, np.float32))
    )
    logits = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    loss = SegmentationLoss(LossConfig(), IGNORE, class_weights=torch.from_numpy(balance))
    losses = torch.nn.functional.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none").numpy()
    found = float(loss(Output(logits), masks, torch.from_numpy(alone), seed=0))
    assert found == pytest.approx(float((maps * losses).sum() / maps.sum()), rel=1e-5)
    assert maps[0, 10, 13] == pytest.approx(0.5 + 7 * math.exp(-16 / 8))


def test_ignored_pixels_change_nothing() -> None:
    logits, masks = random_batch(2)
    other = logits.clone()
    other[(masks == IGNORE)[:, None].expand_as(logits)] = 1e4
    assert torch.equal(
        pixel_cross_entropy(logits, masks, ignore_id=IGNORE), pixel_cross_entropy(other, masks, ignore_id=IGNORE)
    )
    for region_loss in (lovasz_softmax, soft_dice):
        assert torch.equal(region_loss(logits, masks, ignore_id=IGNORE), region_loss(other, masks, ignore_id=IGNORE))


def jaccard_loss(truth: set[int], wrong: set[int]) -> float:
    """1 - IoU of a class whose pixels are `truth` when the pixels `wrong` are labeled wrongly."""
    predicted = truth ^ wrong
    return 1 - len(truth & predicted) / len(truth | predicted) if truth | predicted else 0.0


def lovasz_by_definition(errors: list[float], truth: set[int]) -> float:
    """Sum of each error times what its pixel adds to the set function, largest errors first."""
    total = 0.0
    taken: set[int] = set()
    for pixel in sorted(range(len(errors)), key=lambda i: -errors[i]):
        before = jaccard_loss(truth, taken)
        taken.add(pixel)
        total += errors[pixel] * (jaccard_loss(truth, taken) - before)
    return total


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_lovasz_equals_its_definition(seed: int, classes: int) -> None:
    logits, masks = random_batch(seed, classes, size=(2, 3))
    probs = torch.softmax(logits.double(), 1).permute(0, 2, 3, 1).reshape(-1, classes)
    counted = [i for i, k in enumerate(masks.flatten().tolist()) if k != IGNORE]
    present = sorted({int(masks.flatten()[i]) for i in counted})
    values = []
    for k in present:
        truth = {n for n, i in enumerate(counted) if int(masks.flatten()[i]) == k}
        errors = [abs((n in truth) - float(probs[i, k])) for n, i in enumerate(counted)]
        values.append(lovasz_by_definition(errors, truth))
    expected = sum(values) / len(values) if values else 0.0
    assert float(lovasz_softmax(logits, masks, ignore_id=IGNORE)) == pytest.approx(expected, abs=1e-5)


def test_lovasz_of_hard_predictions_is_one_minus_the_mean_iou() -> None:
    truth = torch.tensor([[[0, 0, 0, 1], [1, 1, 2, 2]]])
    labels = torch.tensor([[[0, 0, 1, 1], [1, 2, 2, 2]]])
    logits = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float() * 200
    # IoU: 2/3, 2/4, 2/3.
    assert float(lovasz_softmax(logits, truth, ignore_id=IGNORE)) == pytest.approx(
        1 - (2 / 3 + 1 / 2 + 2 / 3) / 3, abs=1e-6
    )


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 33), st.floats(0.05, 0.95), st.integers(0, 99))
def test_kept_patches_are_whole_and_others_ignored(
    height: int, width: int, patch: int, probability: float, seed: int
) -> None:
    masks = torch.arange(2 * height * width).reshape(2, height, width) % 200
    kept = sample_patches(masks, probability, patch, torch.Generator().manual_seed(seed), ignore_id=IGNORE)
    for b in range(2):
        for top, left in itertools.product(range(0, height, patch), range(0, width, patch)):
            block = (b, slice(top, top + patch), slice(left, left + patch))
            whole, dropped = torch.equal(kept[block], masks[block]), bool((kept[block] == IGNORE).all())
            assert whole != dropped
    again = sample_patches(masks, probability, patch, torch.Generator().manual_seed(seed), ignore_id=IGNORE)
    assert torch.equal(kept, again)


def test_share_of_kept_patches() -> None:
    masks = torch.zeros(4, 640, 640, dtype=torch.int64)
    kept = sample_patches(masks, 0.25, 8, torch.Generator().manual_seed(0), ignore_id=IGNORE)
    # 25,600 patches: three standard deviations are 0.8 %.
    assert float((kept == 0).double().mean()) == pytest.approx(0.25, abs=0.009)


def test_class_weights_by_hand() -> None:
    counts = torch.tensor([700, 200, 100, 0])
    expected = [1 / math.log(1.1 + share) for share in (0.7, 0.2, 0.1, 0.0)]
    assert class_weights_from_counts(counts, "log").tolist() == pytest.approx(expected)
    # The median of 0.7, 0.2, 0.1 is 0.2; a class without pixels weighs 1.
    assert class_weights_from_counts(counts, "inverse").tolist() == pytest.approx([2 / 7, 1, 2, 1])
    # The median of an even number is the mean of the middle two: 250.
    even = class_weights_from_counts(torch.tensor([300, 100, 400, 200]), "inverse")
    assert even.tolist() == pytest.approx([250 / 300, 2.5, 0.625, 1.25])
    assert class_weights_from_counts(torch.tensor([0, 10, 0, 30]), "inverse").tolist() == pytest.approx(
        [1, 2, 1, 2 / 3]
    )
    assert class_weights_from_counts(torch.zeros(3), "inverse").tolist() == [1, 1, 1]
    assert np.isfinite(class_weights_from_counts(torch.zeros(3), "log").numpy()).all()


def test_lovasz_over_drawn_pixels_is_lovasz_of_those_pixels() -> None:
    logits, masks = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    masks[0, :4] = 255
    counted = (masks.flatten() != 255).nonzero()[:, 0]
    drawn = counted[torch.randint(len(counted), (20,), generator=torch.Generator().manual_seed(5))]
    rows, truth = logits.permute(0, 2, 3, 1).reshape(-1, 3)[drawn], masks.flatten()[drawn]
    alone = lovasz_softmax(rows.T[None, :, None], truth[None, None], ignore_id=255)
    some = lovasz_softmax(logits, masks, ignore_id=255, num_pixels=20, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(some, alone)
    assert not torch.equal(
        some, lovasz_softmax(logits, masks, ignore_id=255, num_pixels=20, generator=torch.Generator().manual_seed(6))
    )
    torch.testing.assert_close(
        lovasz_softmax(logits, masks, ignore_id=255, num_pixels=1000), lovasz_softmax(logits, masks, ignore_id=255)
    )


def probabilities(logits: Tensor) -> NDArray[np.float64]:
    """The softmax (B, H, W, K) in float64."""
    scores = np.moveaxis(logits.double().numpy(), 1, -1)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return found


def own_probabilities(logits: Tensor, masks: Tensor) -> list[NDArray[np.float64]]:
    """The probabilities of the right class of the labeled pixels of each image."""
    pairs = zip(probabilities(logits), masks.numpy(), strict=True)
    return [p[mask != IGNORE][np.arange((mask != IGNORE).sum()), mask[mask != IGNORE]] for p, mask in pairs]


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_by_its_equation(gamma: float) -> None:
    logits, masks = random_batch(5)
    weights = np.array([0.5, 2.0, 0.0, 1.0])
    own = np.concatenate(own_probabilities(logits, masks))
    alpha = weights[masks.numpy()[masks.numpy() != IGNORE]]
    expected = -(alpha * (1 - own) ** gamma * np.log(own)).sum()
    given_weights = torch.from_numpy(weights).float()
    found = focal_loss(logits, masks, gamma, ignore_id=IGNORE, class_weights=given_weights)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # One pixel of probability 0.9 counts 0.01 of its cross entropy with gamma 2.
    pixel = torch.tensor([0.9, 0.1]).log()[None, :, None, None]
    one = focal_loss(pixel, torch.zeros(1, 1, 1, dtype=torch.int64), 2.0, ignore_id=IGNORE)
    assert float(one) == pytest.approx(0.01 * -math.log(0.9), rel=1e-5)


def test_focal_loss_of_gamma_0_is_the_cross_entropy() -> None:
    logits, masks = random_batch(6)
    extra = torch.rand(masks.shape, generator=torch.Generator().manual_seed(4))
    options: dict[str, Any] = {"ignore_id": IGNORE, "class_weights": torch.tensor([0.5, 2.0, 0.0, 1.0])}
    for pixel_weights in (None, extra):
        torch.testing.assert_close(
            focal_loss(logits, masks, 0.0, pixel_weights=pixel_weights, **options),
            pixel_cross_entropy(logits, masks, pixel_weights=pixel_weights, **options),
        )


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 1), (0.2, 1), (0.2, 8), (0.7, 1000), (0.01, 0)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ohem_by_sorting(threshold: float, min_kept: int, reduction: str) -> None:
    """Per image: all pixels below the threshold, or the hardest if there are too few of them."""
    logits, masks = random_batch(7)
    expected = 0.0
    at_least = min_kept or 2  # a 16th of 30 pixels
    for own in own_probabilities(logits, masks):
        kept = np.sort(own)[: max(int((own < threshold).sum()), at_least)]
        expected += -np.log(kept).sum() / (max(len(kept), min(at_least, 30)) if reduction == "mean" else 1) / 2
    found = ohem_cross_entropy(
        logits, masks, threshold=threshold, min_kept=min_kept, ignore_id=IGNORE, reduction=reduction
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_ohem_with_class_weights_by_hand() -> None:
    """Probabilities 0.2, 0.6, 0.9 and 0.5 of the right class; the weights change no choice."""
    first = torch.tensor([[0.2, 0.6, 0.1, 0.5]])
    logits = torch.stack([first, 1 - first])[None].log()
    masks = torch.tensor([[[0, 0, 1, IGNORE]]])
    options: dict[str, Any] = {"ignore_id": IGNORE, "class_weights": torch.tensor([3.0, 10.0])}
    both = -3 * (math.log(0.2) + math.log(0.6)) / 2
    found = ohem_cross_entropy(logits, masks, threshold=0.7, min_kept=1, **options)
    assert float(found) == pytest.approx(both, rel=1e-5)
    hardest = ohem_cross_entropy(logits, masks, threshold=0.1, min_kept=1, **options)
    assert float(hardest) == pytest.approx(-3 * math.log(0.2), rel=1e-5)
    # Without a threshold, the pixels are those of the bootstrapped loss.
    torch.testing.assert_close(
        ohem_cross_entropy(logits, masks, threshold=1e-9, min_kept=4, ignore_id=IGNORE),
        bootstrapped_cross_entropy(logits, masks, 4, ignore_id=IGNORE),
    )


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_dice_equals_its_definition(seed: int, classes: int) -> None:
    logits, masks = random_batch(seed, classes, size=(2, 3))
    valid = masks.numpy() != IGNORE
    probs, labels = probabilities(logits)[valid], masks.numpy()[valid]
    values = []
    for k in np.unique(labels):
        g = (labels == k).astype(np.float64)
        values.append(1 - 2 * (probs[:, k] * g).sum() / ((probs[:, k] ** 2).sum() + (g**2).sum()))
    expected = float(np.mean(values)) if values else 0.0
    assert float(soft_dice(logits, masks, ignore_id=IGNORE)) == pytest.approx(expected, abs=1e-5)


def test_dice_of_hard_predictions_is_one_minus_the_mean_dice() -> None:
    truth = torch.tensor([[[0, 0, 0, 1], [1, 1, IGNORE, 2]]])
    labels = torch.tensor([[[0, 0, 1, 1], [1, 2, 2, 2]]])
    logits = torch.nn.functional.one_hot(labels, 4).permute(0, 3, 1, 2).float() * 200
    # Dice: 4/5, 4/6, 2/3; class 3 occurs nowhere.
    assert float(soft_dice(logits, truth, ignore_id=IGNORE)) == pytest.approx(1 - (4 / 5 + 4 / 6 + 2 / 3) / 3)


ALL_LOSSES: list[dict[str, Any]] = [
    {},
    {"name": "focal", "focal_gamma": 0.5},
    {"name": "focal", "focal_gamma": 2.0},
    {"name": "ohem"},
    {"name": "bootstrapped", "bootstrap_top_k": 5},
    {"name": "none", "dice": 1.0},
    {"name": "none", "lovasz": 1.0},
    {"name": "focal", "dice": 0.5, "lovasz": 0.5},
]


@pytest.mark.parametrize("config", ALL_LOSSES, ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0, 3e4])
def test_gradients_are_finite_at_the_limits(config: dict[str, Any], scale: float) -> None:
    """Logits in bfloat16, whose probabilities are 0 and 1 with large scales, right and wrong ones, or all equal."""
    logits, masks = random_batch(8)
    right = torch.nn.functional.one_hot(masks.where(masks != IGNORE, 0), 4).permute(0, 3, 1, 2).float() * 2 - 1
    right[1] *= -1
    for scores in (logits, right):
        given_logits = (scores * scale).bfloat16().requires_grad_()
        loss = SegmentationLoss(LossConfig(**config), IGNORE)(Output(given_logits), masks, seed=0)
        loss.backward()
        assert given_logits.grad is not None
        assert bool(loss.isfinite())
        assert bool(given_logits.grad.isfinite().all())
        assert not bool(given_logits.grad[(masks == IGNORE)[:, None].expand_as(given_logits)].any())


@pytest.mark.parametrize("config", ALL_LOSSES, ids=str)
def test_a_perfect_prediction_costs_nothing_and_auxiliary_logits_cost_their_weight(config: dict[str, Any]) -> None:
    logits, masks = random_batch(9)
    loss = SegmentationLoss(LossConfig(**config, aux_weight=0.3), IGNORE)
    right = torch.nn.functional.one_hot(masks.where(masks != IGNORE, 0), 4).permute(0, 3, 1, 2).float() * 100
    assert float(loss(Output(right), masks, seed=0)) == pytest.approx(0, abs=1e-6)
    alone = float(loss(Output(logits), masks, seed=0))
    assert alone > 0.05
    assert float(loss(Output(logits, (logits, right)), masks, seed=0)) == pytest.approx(1.3 * alone, rel=1e-5)


@pytest.mark.parametrize("config", ALL_LOSSES, ids=str)
def test_masks_of_bytes_cost_the_same(config: dict[str, Any]) -> None:
    """The loader makes bytes; torch would take them for a choice of rows where they are an index."""
    logits, masks = random_batch(11)
    weights = torch.linspace(0.5, 2, logits.shape[1])
    loss = SegmentationLoss(LossConfig(**config, patch_keep_prob=0.8), IGNORE, class_weights=weights, patch_size=2)
    low_res = LowResLogits(logits[..., ::2, ::2], Bilinear(), (logits[..., 1::2, 1::2],))
    for output in (Output(logits), Output(logits, (-logits,)), low_res, low_res._replace(aux=())):
        assert torch.equal(loss(output, masks.byte(), seed=3), loss(output, masks.long(), seed=3))


def test_terms_of_regions_are_added_with_their_weights() -> None:
    logits, masks = random_batch(10)
    parts = [LossConfig(name="none", dice=1.0), LossConfig(name="none", lovasz=1.0), LossConfig(name="ohem")]
    dice, lovasz, ohem = (float(SegmentationLoss(part, IGNORE)(Output(logits), masks, seed=0)) for part in parts)
    both = SegmentationLoss(LossConfig(name="ohem", dice=0.25, lovasz=2.0), IGNORE)
    found = float(both(Output(logits), masks, seed=0))
    assert found == pytest.approx(ohem + 0.25 * dice + 2 * lovasz, rel=1e-5)
