"""The trimap curve, against loops over all pairs of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.core import Taxonomy
from pixelwise.evaluation.metrics import Scores, confusion_matrix
from pixelwise.evaluation.trimap import WIDTHS, trimap_counts, trimap_curve

TAXONOMY = Taxonomy(("a", "b", "c"))


def patches(rng: np.random.Generator, size: tuple[int, int], values: list[int]) -> NDArray[np.uint8]:
    coarse = rng.choice(values, (size[0] // 4 + 1, size[1] // 4 + 1))
    return coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]].astype(np.uint8)


def distance_by_loop(truth: NDArray[Any]) -> NDArray[np.int64]:
    """Chebyshev distance of each pixel to the nearest pixel of another label; 10**6 without one."""
    rows, columns = np.indices(truth.shape)
    result = np.full(truth.shape, 10**6)
    for y, x in np.ndindex(truth.shape):
        other = truth != truth[y, x]
        if other.any():
            result[y, x] = np.maximum(abs(rows - y), abs(columns - x))[other].min()
    return result


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 20), width=st.integers(1, 26))
def test_bands_are_those_of_the_definition(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    truth = patches(rng, (height, width), [0, 0, 1, 2, 255])
    prediction = patches(rng, (height, width), [0, 1, 2])
    distance = distance_by_loop(truth)
    curve = trimap_curve(trimap_counts(truth, prediction, TAXONOMY))
    assert [point.width for point in curve] == list(WIDTHS)
    for point in curve:
        inside = (distance <= point.width) & (truth != 255)
        assert point.num_pixels == inside.sum()
        if inside.any():
            matrix = confusion_matrix(truth[inside], prediction[inside], TAXONOMY)
            assert point.mean_iou == pytest.approx(Scores.from_matrix(matrix, TAXONOMY.names).mean_iou, abs=1e-12)
        else:
            assert point.mean_iou is None


def test_counts_of_images_are_added() -> None:
    rng = np.random.default_rng(0)
    pairs = [(patches(rng, (20, 30), [0, 1, 255]), patches(rng, (20, 30), [0, 1, 2])) for _ in range(2)]
    curve = trimap_curve(sum((trimap_counts(t, p, TAXONOMY) for t, p in pairs), np.zeros((6, 3, 3), np.int64)))
    inside = [(distance_by_loop(t) <= 4) & (t != 255) for t, _ in pairs]
    matrix = sum(
        (confusion_matrix(t[i], p[i], TAXONOMY) for (t, p), i in zip(pairs, inside, strict=True)),
        np.zeros((3, 3), np.int64),
    )
    assert curve[2].mean_iou == pytest.approx(Scores.from_matrix(matrix, TAXONOMY.names).mean_iou)


def test_a_shifted_outline_is_wrong_near_the_boundary_alone() -> None:
    truth, prediction = np.zeros((100, 100), np.uint8), np.zeros((100, 100), np.uint8)
    truth[:, 50:] = prediction[:, 51:] = 1
    ious = [point.mean_iou for point in trimap_curve(trimap_counts(truth, prediction, TAXONOMY))]
    # One of two columns is wrong in the narrowest band: class 0 has IoU 1/2, class 1 none.
    assert ious[0] == pytest.approx(0.25)
    assert ious == sorted(ious, key=lambda iou: iou or 0)
    assert ious[-1] == pytest.approx((32 / 33 + 31 / 32) / 2)


def test_one_label_has_no_boundary_and_many_classes_fit() -> None:
    flat = trimap_curve(trimap_counts(np.ones((9, 9), np.uint8), np.zeros((9, 9), np.uint8), TAXONOMY))
    assert {(point.num_pixels, point.mean_iou) for point in flat} == {(0, None)}
    many = Taxonomy(tuple(f"c{k}" for k in range(300)))
    truth = np.full((4, 6), 299, many.dtype)
    truth[:, 3:] = 298
    assert trimap_curve(trimap_counts(truth, truth, many))[0].mean_iou == 1.0
