"""Scores against the paper's golden case, against counts in plain loops, and against the invariants of all scores."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.core import Taxonomy
from pixelwise.errors import ConfigError, MaskError
from pixelwise.evaluation.boundary_iou import boundary_counts, boundary_distance
from pixelwise.evaluation.metrics import Scores, confusion_matrix

IGNORE = 255
FOUR = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")


def names(num_classes: int) -> list[str]:
    return [f"class {k}" for k in range(num_classes)]


def classes(num_classes: int) -> Taxonomy:
    return Taxonomy(tuple(names(num_classes)))


def scores(matrix: list[list[int]]) -> Scores:
    return Scores.from_matrix(np.array(matrix, np.int64), names(len(matrix)))


def count_in_loops(truth: NDArray[Any], prediction: NDArray[Any], num_classes: int, ignore_id: int) -> list[list[int]]:
    matrix = [[0] * num_classes for _ in range(num_classes)]
    for row_of_truth, row_of_prediction in zip(truth.tolist(), prediction.tolist(), strict=True):
        for true, predicted in zip(row_of_truth, row_of_prediction, strict=True):
            if true != ignore_id:
                matrix[true][predicted] += 1
    return matrix


def means_in_fractions(matrix: list[list[int]]) -> dict[str, Fraction]:
    """The four metrics and Dice from the paper's formulas, in exact fractions, class by class."""
    k_all = range(len(matrix))
    true = [sum(matrix[i]) for i in k_all]
    predicted = [sum(matrix[j][i] for j in k_all) for i in k_all]
    total = sum(true)
    accuracies: list[Fraction] = []
    ious: list[Fraction] = []
    dices: list[Fraction] = []
    weighted = Fraction(0)
    for i in k_all:
        union = true[i] + predicted[i] - matrix[i][i]
        if true[i]:
            accuracies.append(Fraction(matrix[i][i], true[i]))
        if union:
            ious.append(Fraction(matrix[i][i], union))
            dices.append(Fraction(2 * matrix[i][i], true[i] + predicted[i]))
            weighted += true[i] * ious[-1]
    return {
        "pixel_accuracy": Fraction(sum(matrix[i][i] for i in k_all), total),
        "mean_accuracy": sum(accuracies, Fraction()) / len(accuracies),
        "mean_iou": sum(ious, Fraction()) / len(ious),
        "frequency_weighted_iou": weighted / total,
        "mean_dice": sum(dices, Fraction()) / len(dices),
    }


Masks = tuple[NDArray[Any], NDArray[Any], Taxonomy]


@st.composite
def mask_pairs(draw: st.DrawFn, sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 300)) -> Masks:
    """(truth, prediction, taxonomy); some classes may be missing, some pixels ignored; bytes or wider integers."""
    num_classes = draw(st.sampled_from(sizes))
    taxonomy = classes(num_classes)
    assert taxonomy.ignore_id == (255 if num_classes <= 255 else 65535)
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shown = draw(st.integers(1, num_classes))
    truth = rng.integers(0, shown, (height, width))
    truth[rng.random((height, width)) < draw(st.sampled_from([0, 0.2, 0.7]))] = taxonomy.ignore_id
    prediction = rng.integers(0, num_classes, (height, width))
    if draw(st.booleans()):
        return truth.astype(taxonomy.dtype), prediction.astype(taxonomy.dtype), taxonomy
    return truth, prediction, taxonomy


def test_golden_case_of_the_paper() -> None:
    # Four numbers computed by hand from the paper's formulas.
    golden = scores([[50, 3, 2], [4, 30, 1], [1, 0, 9]])
    assert [round(getattr(golden, name), 7) for name in FOUR] == [0.89, 0.8887446, 0.7717049, 0.8038799]
    assert golden.mean_dice == pytest.approx((100 / 110 + 60 / 68 + 18 / 22) / 3, abs=1e-12)
    assert golden.foreground_dice is None
    counts = np.array([[50, 3, 2], [4, 30, 1], [1, 0, 9]])
    named = Scores.from_matrix(counts, ("Background", "a", "b"))
    assert named.foreground_dice == pytest.approx((60 / 68 + 18 / 22) / 2, abs=1e-12)
    assert golden.classes[0].precision == 50 / 55
    assert golden.classes[1].accuracy == 30 / 35
    assert golden.summary() == "pixel accuracy 89.0%, mean accuracy 88.9%, mean IoU 77.2%, frequency weighted IoU 80.4%"
    assert golden.warnings == ()


@settings(max_examples=150, deadline=None)
@given(mask_pairs())
def test_equals_counting_in_loops(pair: Masks) -> None:
    truth, prediction, taxonomy = pair
    matrix = confusion_matrix(truth, prediction, taxonomy)
    expected = count_in_loops(truth, prediction, taxonomy.num_classes, taxonomy.ignore_id)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == expected
    if matrix.any():
        means = Scores.from_matrix(matrix, taxonomy.names).means()
        for name, value in means_in_fractions(expected).items():
            assert means[name] == pytest.approx(float(value), abs=1e-12), name


def test_more_pixels_than_one_chunk() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (1100, 1000)).astype(np.uint8)
    prediction = rng.integers(0, 3, (1100, 1000)).astype(np.uint8)
    for dtype in (np.uint8, np.int64):
        matrix = confusion_matrix(truth.astype(dtype), prediction.astype(dtype), classes(3))
        assert matrix.tolist() == [[int(((truth == i) & (prediction == j)).sum()) for j in range(3)] for i in range(3)]


# What is in truth and prediction -> expected (mean IoU, mean accuracy, absent classes).
RULES = {
    "absent in both: left out and listed": (
        [[3, 1, 0], [0, 4, 0], [0, 0, 0]],
        (3 / 4 + 4 / 5) / 2,
        (3 / 4 + 1) / 2,
        ("class 2",),
    ),
    "only in truth: counts 0": ([[3, 0], [2, 0]], (3 / 5 + 0) / 2, (1 + 0) / 2, ()),
    "only in prediction: IoU 0 counts, accuracy left out": ([[3, 2], [0, 0]], (3 / 5 + 0) / 2, 3 / 5, ()),
    "one class": ([[7]], 1.0, 1.0, ()),
}


@pytest.mark.parametrize("case", RULES)
def test_rules_for_missing_classes(case: str) -> None:
    matrix, mean_iou, mean_accuracy, absent = RULES[case]
    result = scores(matrix)
    assert (result.mean_iou, result.mean_accuracy, result.absent) == (mean_iou, mean_accuracy, absent)


def test_undefined_numbers_are_none() -> None:
    only_truth, only_predicted, absent = scores([[0, 5, 0], [0, 0, 0], [0, 0, 0]]).classes
    assert (only_truth.iou, only_truth.dice, only_truth.accuracy, only_truth.precision) == (0, 0, 0, None)
    assert (only_predicted.iou, only_predicted.dice, only_predicted.accuracy, only_predicted.precision) == (
        0,
        0,
        None,
        0,
    )
    assert (absent.iou, absent.dice, absent.accuracy, absent.precision, absent.boundary_iou) == (None,) * 5


def test_ignored_image_changes_nothing_and_an_empty_set_is_refused() -> None:
    ignored = np.full((4, 5), IGNORE, np.uint8)
    matrix = confusion_matrix(ignored, np.zeros((4, 5), np.uint8), classes(3))
    assert not matrix.any()
    with pytest.raises(MaskError, match="nothing to score: every pixel is ignored or the split is empty"):
        Scores.from_matrix(matrix, names(3))


def test_batches_order_and_ranks_do_not_matter() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 5, (19, 6, 7)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    prediction = rng.integers(0, 5, truth.shape).astype(np.uint8)
    whole = confusion_matrix(truth, prediction, classes(5))
    for batch in range(1, 18):
        order = rng.permutation(19)
        parts = [order[start : start + batch] for start in range(0, 19, batch)]
        counts = [confusion_matrix(truth[part], prediction[part], classes(5)) for part in parts]
        for num_ranks in (1, 2, 3):
            of_ranks = [np.sum([whole * 0, *counts[rank::num_ranks]], axis=0) for rank in range(num_ranks)]
            total = np.sum(of_ranks, axis=0)
            assert total.tolist() == whole.tolist()
            assert Scores.from_matrix(total, names(5)) == Scores.from_matrix(whole, names(5))


def test_large_counts_are_exact() -> None:
    # One pixel among 2^40 would be lost in float32, and 2^31 overflows int32.
    result = scores([[2**40, 1], [0, 2**33]])
    assert result.num_pixels == 2**40 + 2**33 + 1
    assert result.classes[1].iou == 2**33 / (2**33 + 1) < 1
    assert Scores.from_dict(result.to_dict()) == result


@settings(max_examples=60, deadline=None)
@given(mask_pairs(), st.randoms(use_true_random=False))
def test_permuted_flipped_and_doubled_sets(pair: Masks, random: Random) -> None:
    truth, prediction, taxonomy = pair
    matrix = confusion_matrix(truth, prediction, taxonomy)
    if not matrix.any():
        return
    plain = Scores.from_matrix(matrix, taxonomy.names)
    assert (confusion_matrix(truth[:, ::-1], prediction[:, ::-1], taxonomy) == matrix).all()
    assert Scores.from_matrix(matrix * 2, taxonomy.names).means() == plain.means()
    ignore_id = taxonomy.ignore_id
    order = list(range(taxonomy.num_classes))
    random.shuffle(order)
    table = np.array(order)
    moved_truth = np.where(truth == ignore_id, ignore_id, table[np.where(truth == ignore_id, 0, truth)])
    moved = Scores.from_matrix(confusion_matrix(moved_truth, table[prediction], taxonomy), taxonomy.names)
    assert moved.means() == plain.means()
    for k, new in enumerate(order):
        assert moved.classes[new].iou == plain.classes[k].iou


def test_perfect_all_wrong_and_constant() -> None:
    truth = np.repeat(np.arange(4), [40, 30, 20, 10]).reshape(10, 10)
    perfect = Scores.from_matrix(confusion_matrix(truth, truth, classes(4)), names(4))
    assert set(perfect.means().values()) == {1.0}
    wrong = Scores.from_matrix(confusion_matrix(truth, (truth + 1) % 4, classes(4)), names(4))
    assert set(wrong.means().values()) == {0.0}
    constant = Scores.from_matrix(confusion_matrix(truth, np.zeros_like(truth), classes(4)), names(4))
    # The constant class has IoU 0.4 and accuracy 1, the others 0.
    assert [getattr(constant, name) for name in FOUR] == pytest.approx([0.4, 0.25, 0.1, 0.16], abs=1e-12)


def test_implausible_scores_are_reported() -> None:
    assert "every pixel is predicted as class 0" in scores([[40, 0], [60, 0]]).warnings[0]
    assert "only one class" in scores([[40, 0], [0, 0]]).warnings[0]
    assert scores([[40, 0, 0], [0, 9, 0], [2, 0, 0]]).warnings == ("never predicted, though in the truth: class 2",)
    assert scores([[40, 0, 5], [0, 9, 0], [0, 0, 0]]).warnings == (
        "predicted, though not in the truth (IoU 0): class 2",
    )
    hidden = scores([[99990, 5, 0], [5, 1, 0], [5, 0, 1]]).warnings
    assert len(hidden) == 1
    assert hidden[0].startswith("pixel accuracy is 100.0% but mean IoU")
    assert "predictions are not the truth" in scores([[4, 0], [0, 4]]).warnings[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_unknown_ids_are_refused_by_name_and_count(dtype: type) -> None:
    truth: NDArray[Any] = np.zeros((3, 4), dtype)
    prediction: NDArray[Any] = np.zeros((3, 4), dtype)
    prediction[0, :2], prediction[2, 3] = 3, 9
    with pytest.raises(
        MaskError, match=r"street\.png: expected ids 0\.\.2 in the prediction, got 3 \(2 px\), 9 \(1 px\); fix: "
    ):
        confusion_matrix(truth, prediction, classes(3), source="street.png")
    truth[1] = 7
    with pytest.raises(MaskError, match=r"expected ids 0\.\.2 or the ignore id in the truth, got 7 \(4 px\)"):
        confusion_matrix(truth, np.zeros_like(truth), classes(3))


def test_a_prediction_may_not_abstain() -> None:
    truth = np.full((2, 2), IGNORE, np.uint8)
    with pytest.raises(MaskError, match=r"in the prediction, got 255 \(4 px\)"):
        confusion_matrix(truth, truth, classes(3))


def test_negative_ids_other_shapes_and_floats_are_refused() -> None:
    zeros = np.zeros((2, 3), np.int64)
    with pytest.raises(MaskError, match=r"in the prediction, got -1 \(6 px\)"):
        confusion_matrix(zeros, zeros - 1, classes(2))
    with pytest.raises(MaskError, match=r"a: truth is 2x3, prediction 3x2 \(height x width\)"):
        confusion_matrix(zeros, zeros.T, classes(2), source="a")
    with pytest.raises(MaskError, match="expected integer class ids in prediction, got float64"):
        confusion_matrix(zeros, zeros + 0.5, classes(2))


@pytest.mark.parametrize("matrix", [np.ones((2, 3), int), np.ones((2, 2)), np.array([[1, -1], [0, 1]])])
def test_other_than_a_confusion_matrix_is_refused(matrix: NDArray[Any]) -> None:
    with pytest.raises(ConfigError, match="confusion matrix: expected 2x2 counts, got"):
        Scores.from_matrix(matrix, names(2))


def test_dictionary_round_trip_and_its_errors() -> None:
    boundary = np.array([[3, 4], [0, 2], [0, 0]])
    result = Scores.from_matrix(
        np.array([[5, 1, 0], [2, 3, 0], [0, 0, 0]]), ["<road>", "car", "sky"], boundary=boundary
    )
    data = result.to_dict()
    assert data["absent"] == ["sky"]
    assert data["mean_boundary_iou"] == (3 / 4 + 0) / 2
    assert data["classes"][2]["iou"] is None
    assert Scores.from_dict(data) == result
    halves = [[5.5, 1, 0], [2, 3, 0], [0, 0, 0]]
    for damage in (
        {"classes": [1]},
        {"confusion_matrix": "x"},
        {"confusion_matrix": [[1, 2], [3]]},
        {"confusion_matrix": halves},
        {"boundary_counts": [[0.5, 1], [0, 2], [0, 0]]},
    ):
        with pytest.raises(ConfigError, match=r"a\.json: is not a scores file"):
            Scores.from_dict({**data, **damage}, "a.json")
    for counts in ([[5, 4], [0, 2], [0, 0]], [[-1, 4], [0, 2], [0, 0]], [[3, 4]]):
        with pytest.raises(ConfigError, match="boundary counts: expected 3x2 counts, the first at most the second"):
            Scores.from_dict({**data, "boundary_counts": counts})


# --- boundary IoU


def region_in_loops(ids: NDArray[Any], scored: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """A pixel is near an outline if the square around it leaves the image or holds a scored pixel of another class."""
    height, width = ids.shape
    region = np.zeros(ids.shape, bool)
    for y in range(height):
        for x in range(width):
            for v in range(y - distance, y + distance + 1):
                for u in range(x - distance, x + distance + 1):
                    outside = not (0 <= v < height and 0 <= u < width)
                    if outside or (scored[v, u] and ids[v, u] != ids[y, x]):
                        region[y, x] = scored[y, x]
    return region


@settings(max_examples=60, deadline=None)
@given(mask_pairs((1, 2, 3, 4)), st.sampled_from([0.02, 0.2, 0.4]), st.integers(1, 3), st.sampled_from([0, 0.6, 0.95]))
def test_boundary_counts_equal_loops(pair: Masks, ratio: float, block: int, ignored: float) -> None:
    truth, prediction = (np.repeat(np.repeat(part, block, 0), block, 1) for part in pair[:2])
    taxonomy = pair[2]
    # Where most pixels are ignored, classes meet across them.
    truth[np.random.default_rng(truth.size).random(truth.shape) < ignored] = taxonomy.ignore_id
    scored = truth != taxonomy.ignore_id
    distance = max(1, round(ratio * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2)))
    near_truth, near_prediction = (region_in_loops(ids, scored, distance) for ids in (truth, prediction))
    expected = []
    for k in range(taxonomy.num_classes):
        true, predicted = near_truth & (truth == k), near_prediction & (prediction == k)
        expected.append([int((true & predicted).sum()), int((true | predicted).sum())])
    assert boundary_counts(truth, prediction, taxonomy, ratio=ratio).tolist() == expected


def test_boundary_of_each_class_equals_repeated_erosion() -> None:
    """The paper's own recipe, class by class: pad by one, erode d times by 3x3, take what was lost."""
    rng = np.random.default_rng(3)
    truth, prediction = np.kron(rng.integers(0, 5, (2, 6, 8)), np.ones((10, 10), int)).astype(np.uint8)
    distance = boundary_distance(truth.shape)
    assert distance == 2

    def region(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
        return np.asarray(mask & (eroded[1:-1, 1:-1] == 0))

    expected = []
    for k in range(5):
        true, predicted = region(truth == k), region(prediction == k)
        expected.append([int((true & predicted).sum()), int((true | predicted).sum())])
    assert boundary_counts(truth, prediction, classes(5)).tolist() == expected


def test_boundary_distance_is_two_percent_of_the_diagonal() -> None:
    assert [boundary_distance(size) for size in ((360, 480), (1024, 2048), (4, 4))] == [12, 46, 1]


def test_perfect_prediction_has_perfect_boundaries_beside_ignored_pixels() -> None:
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 10:50], truth[5:35, 28:32] = 1, IGNORE
    prediction = np.where(truth == IGNORE, 1, truth).astype(np.uint8)
    both, either = boundary_counts(truth, prediction, classes(2)).T
    assert (both == either).all()
    assert both.all()
