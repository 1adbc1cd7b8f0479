"""Intervals by group: against a bootstrap that draws images one by one, and against sets drawn from a known source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.evaluation.bootstrap import MIN_GROUPS, Spread, measure_spread


def random_counts(rng: np.random.Generator, num_images: int, num_classes: int = 4) -> NDArray[np.int64]:
    """Intersection and union per image and class; all but the first class are absent from a third of the images."""
    union = rng.integers(1, 500, (num_images, num_classes))
    union[:, 1:] *= rng.random((num_images, num_classes - 1)) > 1 / 3
    return np.stack([(union * rng.random(union.shape)).astype(np.int64), union], 2)


def iou_by_loop(images: list[list[list[int]]]) -> float:
    """Mean IoU over the set, in integers and loops."""
    ious = []
    for k in range(len(images[0])):
        intersection, union = sum(image[k][0] for image in images), sum(image[k][1] for image in images)
        if union:
            ious.append(intersection / union)
    return math.fsum(ious) / len(ious)


def test_the_interval_is_that_of_drawing_groups_one_by_one() -> None:
    rng = np.random.default_rng(5)
    names = [f"g{k}" for k in rng.integers(0, 7, 40)]
    counts = random_counts(rng, 40)
    spread = measure_spread(counts, names, "rule", samples=4000)
    assert spread is not None
    groups = sorted(set(names))
    members = {name: [image.tolist() for image, n in zip(counts, names, strict=True) if n == name] for name in groups}
    assert [(row.name, row.num_images) for row in spread.groups] == [(name, len(m)) for name, m in members.items()]
    for row, images in zip(spread.groups, members.values(), strict=True):
        assert row.mean_iou == pytest.approx(iou_by_loop(images))
        assert row.mean_image_iou == pytest.approx(sum(iou_by_loop([image]) for image in images) / len(images))
    own = np.random.default_rng(99)
    of_set: list[float] = []
    of_images: list[float] = []
    for _ in range(4000):
        drawn = [image for k in own.integers(0, len(groups), len(groups)) for image in members[groups[k]]]
        of_set.append(iou_by_loop(drawn))
        of_images.append(math.fsum(iou_by_loop([image]) for image in drawn) / len(drawn))
    for found, by_hand in zip(spread.intervals, (of_set, of_images), strict=True):
        # Both are estimates from 4000 samples: a twentieth of the width apart at most.
        low, high = np.percentile(np.array(by_hand), (2.5, 97.5))
        assert found == pytest.approx((low, high), abs=(high - low) / 20)


def test_the_interval_is_the_same_each_time() -> None:
    counts = random_counts(np.random.default_rng(1), 30)
    names = [f"g{k % 6}" for k in range(30)]
    first = measure_spread(counts, names, "rule")
    assert first is not None
    assert first.mean_iou is not None
    assert first == measure_spread(counts, names, "rule")
    # A group is a set of images: neither their order nor the group's name changes the scores of the groups.
    order = np.random.default_rng(2).permutation(30)
    shuffled = measure_spread(counts[order], [names[k] for k in order], "rule")
    assert shuffled is not None
    assert shuffled.mean_iou == pytest.approx(first.mean_iou, abs=1e-12)


def test_copies_of_an_image_narrow_the_interval_by_image_but_not_by_group() -> None:
    counts = random_counts(np.random.default_rng(3), 8)
    copies = counts.repeat(20, 0)
    names = [f"scene{k}" for k in range(8) for _ in range(20)]

    def widths(spread: Spread | None) -> list[float]:
        assert spread is not None
        return [high - low for low, high in filter(None, spread.intervals)]

    by_group, of_originals = widths(measure_spread(copies, names, "")), widths(measure_spread(counts, None, ""))
    assert by_group == pytest.approx(of_originals, rel=1e-9)
    assert max(widths(measure_spread(copies, None, ""))) < min(by_group) / 2


def test_few_groups_have_scores_and_no_interval() -> None:
    counts = random_counts(np.random.default_rng(4), 20)
    two = measure_spread(counts, ["Seq05VD"] * 15 + ["0001TP"] * 5, "the part of the name", trained=["0001TP", "x"])
    assert two is not None
    assert two.intervals == (None, None)
    assert [(row.name, row.num_images) for row in two.groups] == [("0001TP", 5), ("Seq05VD", 15)]
    assert two.lines() == [
        "2 groups: a group is the part of the name",
        "not unseen, as images of them lie in split train: 0001TP",
        "an interval by group of 2 groups would be unreliable; the scores of each:",
    ]
    one = measure_spread(counts, ["0016E5"] * 20, "the part of the name")
    assert one is not None
    assert one.lines()[1] == "all images are of one group (0016E5): nothing is known about other groups"
    enough = measure_spread(counts, [f"g{k % MIN_GROUPS}" for k in range(20)], "a drive")
    assert enough is not None
    assert None not in enough.intervals
    assert "percentile bootstrap of 5 groups" in enough.lines()[1]


def test_without_groups_the_interval_is_by_image_and_says_so() -> None:
    spread = measure_spread(random_counts(np.random.default_rng(6), 20), None, "no groups show in their names")
    assert spread is not None
    assert spread.groups == ()
    assert spread.unit == "image"
    (line,) = spread.lines()
    assert line.startswith("95 % intervals by image (20 images, no groups show in their names)")
    assert line.endswith("too narrow if scenes repeat")
    few = measure_spread(random_counts(np.random.default_rng(6), 4), None, "")
    assert few is not None
    assert few.lines() == []


def test_images_that_are_all_void_do_not_count() -> None:
    counts = random_counts(np.random.default_rng(7), 12)
    counts[::3] = 0
    names = [f"g{k}" for k in range(12)]
    spread = measure_spread(counts, names, "")
    kept = [k for k in range(12) if k % 3]
    assert spread == measure_spread(counts[kept], [names[k] for k in kept], "")
    assert measure_spread(np.zeros((3, 2, 2), np.int64), None, "") is None


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**16), num_groups=st.integers(5, 9), num_images=st.integers(9, 30))
def test_equal_images_have_an_interval_without_width(seed: int, num_groups: int, num_images: int) -> None:
    rng = np.random.default_rng(seed)
    counts = random_counts(rng, 1)
    counts[0, 0] = 3, 7
    names = [f"g{k % num_groups}" for k in range(num_images)]
    spread = measure_spread(counts.repeat(num_images, 0), names, "", samples=50)
    assert spread is not None
    score = iou_by_loop([counts[0].tolist()])
    for interval in spread.intervals:
        assert interval == pytest.approx((score, score), abs=1e-12)


def test_json_reads_back() -> None:
    for groups in (None, [f"g{k % 6}" for k in range(12)], ["a", "b"] * 6):
        spread = measure_spread(random_counts(np.random.default_rng(8), 12), groups, "rule", trained=["a"])
        assert spread is not None
        assert Spread.from_dict(spread.to_dict()) == spread


def coverage(rng: np.random.Generator, *, by_group: bool, repeats: int = 300) -> float:
    """How often the 95 % interval of 12 groups of 10 images holds the score of very many groups."""

    def draw(num_groups: int) -> NDArray[Any]:
        # An IoU of its own per group and class, and a little noise per image.
        level = rng.normal(0.6, 0.1, (num_groups, 1, 3)) + rng.normal(0, 0.02, (num_groups, 10, 3))
        union = rng.integers(400, 600, level.shape)
        return np.stack([np.clip(level, 0, 1) * union, union], 3).astype(np.int64).reshape(-1, 3, 2)

    truth = measure_spread(draw(20_000), ["all"] * 200_000, "")
    assert truth is not None
    expected, hits = truth.groups[0].mean_iou, 0
    names = [f"g{k // 10}" for k in range(120)]
    for _ in range(repeats):
        spread = measure_spread(draw(12), names if by_group else None, "", samples=400)
        assert spread is not None
        assert spread.mean_iou is not None
        hits += spread.mean_iou[0] <= expected <= spread.mean_iou[1]
    return hits / repeats


@pytest.mark.slow
def test_the_interval_by_group_holds_the_truth_as_often_as_it_says() -> None:
    """Percentile intervals of twelve groups are a little short of 95 %; intervals by image are far from it."""
    assert 0.87 <= coverage(np.random.default_rng(10), by_group=True) <= 0.97
    assert coverage(np.random.default_rng(11), by_group=False) < 0.6
