"""U-Net's weight map against loops over pixels and instances, the paper's numbers, and what moves or scales it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.papers import number
from pixelwise.data.border_weights import border_weights, label_instances, separate_instances, weight_map

IGNORE = 255


def random_instances(seed: int, height: int = 20, width: int = 24, count: int = 5) -> np.ndarray:
    """Rectangles of numbers 3, 6, ...; later ones cover earlier ones."""
    rng = np.random.default_rng(seed)
    instances = np.zeros((height, width), np.int32)
    for k in range(count):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        instances[top : top + int(rng.integers(1, 6)), left : left + int(rng.integers(1, 6))] = 3 * (k + 1)
    return instances


def looped_border(instances: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Equation 2's second term, pixel by pixel, instance by instance."""
    places = {int(n): np.argwhere(instances == n).tolist() for n in np.unique(instances) if n}
    term = np.zeros(instances.shape)
    for row, column in itertools.product(*map(range, instances.shape)):
        distances = sorted(min(math.dist(place, (row, column)) for place in instance) for instance in places.values())
        if instances[row, column] == 0 and len(distances) >= 2:
            term[row, column] = w0 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return term


@settings(max_examples=15)
@given(st.integers(0, 999), st.sampled_from([(10.0, 5.0), (3.0, 0.7), (1.0, 30.0)]), st.integers(0, 6))
def test_border_weights_equal_loops(seed: int, constants: tuple[float, float], count: int) -> None:
    instances = random_instances(seed, count=count)
    np.testing.assert_allclose(
        border_weights(instances, *constants), looped_border(instances, *constants), rtol=1e-5, atol=1e-9
    )


def test_the_papers_numbers() -> None:
    w0, sigma = number("weight map", "w0, sigma")
    sums, terms = (0, 2, 5, 10, 20), number("weight map", "extra term")
    for total, term in zip(sums[1:], terms[1:], strict=True):
        instances = np.zeros((1, 60), np.int32)
        # Instances whose nearest pixels are `total` apart: each pixel between them has that sum of distances.
        instances[0, :10], instances[0, 9 + total :] = 1, 2
        between = border_weights(instances, w0, sigma)[0, 10 : 9 + total]
        assert len(between) == total - 1
        np.testing.assert_allclose(between, term, rtol=1e-6)
    assert terms[0] == w0


@given(st.integers(0, 999), st.integers(0, 3), st.booleans(), st.floats(0.5, 20))
@settings(max_examples=20)
def test_turns_mirrors_names_and_scale(seed: int, turns: int, mirror: bool, w0: float) -> None:
    instances = random_instances(seed)
    plain = border_weights(instances)
    moved = np.rot90(instances[:, ::-1] if mirror else instances, turns)
    expected = np.rot90(plain[:, ::-1] if mirror else plain, turns)
    np.testing.assert_allclose(border_weights(np.ascontiguousarray(moved)), expected, rtol=1e-6)
    renamed = np.where(instances > 0, 100 - instances, 0)
    np.testing.assert_array_equal(border_weights(renamed), plain)
    np.testing.assert_allclose(border_weights(instances, w0), plain * (w0 / 10), rtol=1e-5)
    assert (plain[instances > 0] == 0).all()
    assert (plain >= 0).all()
    assert plain.max(initial=0) <= 10


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_instances_have_no_border(count: int) -> None:
    assert not border_weights(random_instances(1, count=count)).any()


def test_instances_are_regions_of_one_class_connected_by_sides() -> None:
    mask = np.array([[1, 0, 2, 2], [0, 1, 2, 0], [255, 1, 0, 1]], np.uint8)
    instances = label_instances(mask, IGNORE)
    assert (instances == 0).tolist() == [
        [False, True, False, False],
        [True, False, False, True],
        [True, False, True, False],
    ]
    assert len(np.unique(instances)) - 1 == 4
    assert instances[0, 0] != instances[1, 1] == instances[2, 1] != instances[2, 3]
    assert instances[0, 2] == instances[0, 3] == instances[1, 2]
    assert label_instances(mask, IGNORE, background=1)[1, 0] != 0


@given(st.integers(0, 999))
def test_touching_instances_are_parted_by_a_line(seed: int) -> None:
    instances = random_instances(seed, count=9)
    parted = separate_instances(instances)
    assert (parted[parted > 0] == instances[parted > 0]).all()
    around = np.pad(instances, 1)
    height, width = instances.shape
    for row, column in itertools.product(range(height), range(width)):
        window = around[row : row + 3, column : column + 3]
        touched = instances[row, column] > 0 and window.max() > instances[row, column]
        assert parted[row, column] == (0 if touched else instances[row, column])
        if parted[row, column]:
            left = parted[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert set(left.ravel().tolist()) <= {0, int(parted[row, column])}


def test_the_whole_map_is_the_sum_of_both_terms() -> None:
    mask = np.zeros((12, 20), np.uint8)
    mask[2:8, 2:8], mask[2:8, 10:16], mask[10:] = 1, 2, IGNORE
    balance = np.array([0.5, 2, 3], np.float32)
    weights = weight_map(mask, balance, ignore_id=IGNORE)
    extra = looped_border(np.where(mask == IGNORE, 0, mask), 10, 5)
    for row, column in itertools.product(range(12), range(20)):
        label = mask[row, column]
        assert weights[row, column] == pytest.approx(
            0 if label == IGNORE else balance[label] + extra[row, column], rel=1e-5
        )
    assert weights[5, 8] == pytest.approx(0.5 + 10 * math.exp(-9 / 50))
