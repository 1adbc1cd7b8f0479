"""Scores and thresholds of several labels per pixel against brute force."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.core import LowResLogits, Taxonomy
from pixelwise.errors import ConfigError, MaskError
from pixelwise.evaluation.multilabel_scores import MultilabelScores, decision_counts
from pixelwise.evaluation.thresholds import CANDIDATES, ThresholdCounter, best_thresholds, count_at
from pixelwise.inference.class_masks import class_probabilities, masks_upsampled
from pixelwise.inference.label_map import upsampled_blocks
from pixelwise.nn.upsampling import Bilinear

TAXONOMY = Taxonomy(("a", "b", "c", "d"), kind="multilabel")


def _masks(seed: int, size: tuple[int, int] = (7, 9)) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((4, *size)) < 0.4).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = 255
    truth[3] = 0
    prediction = rng.random((4, *size)) < 0.5
    prediction[3] = False
    return truth, prediction


@given(seed=st.integers(0, 999))
def test_dice_and_iou_against_sets_of_pixels(seed: int) -> None:
    truth, prediction = _masks(seed)
    scores = MultilabelScores.from_counts(decision_counts(truth, prediction, TAXONOMY), TAXONOMY.names)
    expected = []
    for k in range(3):
        places = [p for p in np.ndindex(7, 9) if truth[(k, *p)] != 255]
        true = {p for p in places if truth[(k, *p)] == 1}
        found = {p for p in places if prediction[(k, *p)]}
        expected.append((len(true & found) / len(true | found), 2 * len(true & found) / (len(true) + len(found))))
    np.testing.assert_allclose(np.array([(c.iou, c.dice) for c in scores.classes[:3]]), expected)
    assert scores.absent == ("d",)
    assert (scores.classes[3].iou, scores.classes[3].dice) == (None, None)
    assert (scores.mean_iou, scores.mean_dice) == pytest.approx(tuple(np.mean(expected, 0)))


def test_scores_come_back_from_json_and_refuse_impossible_counts() -> None:
    truth, prediction = _masks(5)
    counts = decision_counts(truth, prediction, TAXONOMY)
    scores = MultilabelScores.from_counts(counts, TAXONOMY.names, (0.5, 0.3, 0.25, 0.5))
    data: dict[str, Any] = json.loads(json.dumps(scores.to_dict()))
    assert MultilabelScores.from_dict(data) == scores
    for damage in ({"counts": [[1, 1, 2, 9]] * 4}, {"counts": [[1.5, 1, 1, 9]] * 4}, {"thresholds": [2, 2, 2, 2]}):
        with pytest.raises(ConfigError, match="is not a scores file"):
            MultilabelScores.from_dict({**data, **damage})
    with pytest.raises(MaskError, match="nothing to score"):
        MultilabelScores.from_counts(np.zeros((4, 4), np.int64), TAXONOMY.names)
    with pytest.raises(MaskError, match=r"truth is 4x7x9, prediction 4x7x8"):
        decision_counts(truth, prediction[:, :, 1:], TAXONOMY)


def _low_res(seed: int) -> LowResLogits:
    generator = torch.Generator().manual_seed(seed)
    return LowResLogits(3 * torch.randn(1, 4, 5, 6, generator=generator), Bilinear(align_corners=True))


@settings(max_examples=15)
@given(seed=st.integers(0, 300))
def test_thresholds_are_those_of_a_search_over_whole_masks(seed: int) -> None:
    counter = ThresholdCounter(TAXONOMY)
    images = []
    for number in range(2):
        low_res = _low_res(2 * seed + number)
        truth = _masks(2 * seed + number, (70, 33))[0]
        # Labels that resemble the probabilities, so that the best threshold moves from class to class.
        probs = low_res.upsample(low_res.logits, (70, 33)).sigmoid()[0].numpy()
        truth[:3][(truth[:3] != 255) & (probs[:3] > np.array([0.2, 0.5, 0.85])[:, None, None])] = 1
        counter.add(upsampled_blocks(low_res, (70, 33)), truth)
        images.append((low_res, truth))
    found = best_thresholds(counter.counts)
    for k in range(3):
        dice = {}
        for threshold in CANDIDATES:
            common = size = 0
            for low_res, truth in images:
                mask = masks_upsampled(low_res, (70, 33), (threshold,) * 4)[k] & (truth[k] != 255)
                common += int((mask & (truth[k] == 1)).sum())
                size += int(mask.sum()) + int((truth[k] == 1).sum())
            dice[threshold] = 2 * common / size
        assert dice[found[k]] == max(dice.values())
        nearest = min((t for t in CANDIDATES if dice[t] == max(dice.values())), key=lambda t: (abs(t - 0.5), t))
        assert found[k] == nearest
    # No image shows the last class.
    assert found[3] == 0.5
    # The counts at the thresholds are those of the masks that a prediction has.
    total = sum(decision_counts(t, masks_upsampled(low, (70, 33), found), TAXONOMY) for low, t in images)
    assert [count_at(counter.counts[k], found[k]) for k in range(4)] == [tuple(row) for row in np.array(total).tolist()]


def test_masks_are_the_probabilities_above_the_thresholds() -> None:
    low_res, size = _low_res(1), (130, 300)
    thresholds = (0.1, 0.5, 0.7, 0.95)
    probs = low_res.upsample(low_res.logits.double(), size).sigmoid()[0].numpy()
    masks = masks_upsampled(low_res, size, thresholds)
    limits = np.array(thresholds)[:, None, None]
    clear = np.abs(probs - limits) > 1e-5
    np.testing.assert_array_equal(masks[clear], (probs > limits)[clear])
    np.testing.assert_allclose(class_probabilities(low_res, size), probs, atol=1e-5)
