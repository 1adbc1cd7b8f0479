"""The permutohedral lattice against the original's recorded numbers and a lattice in a dictionary."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.crf_scene import RECORDED_SIZE as SIZE
from helpers.crf_scene import Array
from helpers.papers import number
from pixelwise.crf import blur, position_features
from pixelwise.crf.lattice import Lattice
from pixelwise.errors import ConfigError


def test_the_filter_of_ones_is_the_originals() -> None:
    features = position_features(SIZE, 2)
    ones = Lattice([features]).filter(np.ones((1, 48)))[0].reshape(SIZE)
    corner, inner, edge, total = number("permutohedral filter", "K1 of ones")
    assert [ones[0, 0], ones[2, 3], ones[3, 0]] == pytest.approx([corner, inner, edge], abs=1e-6)
    assert float(ones.sum()) == pytest.approx(total, abs=1e-3)


def test_the_filter_of_an_impulse_is_the_originals() -> None:
    impulse = np.zeros((1, *SIZE))
    impulse[0, 2, 3] = 1
    answer = Lattice([position_features(SIZE, 2)]).filter(impulse.reshape(1, -1))[0].reshape(SIZE)
    found = [answer[2, 3], answer[2, 4], answer[3, 3], answer[3, 4], answer.sum()]
    assert found == pytest.approx(number("permutohedral filter", "impulse at"), abs=3e-6)


def lattice_in_a_dictionary(features: Array, values: Array, reverse: bool) -> Array:
    """Filter values (N,) as Adams et al. do, in float64, with a dictionary of tuples."""
    d = features.shape[1]
    basis = np.zeros((d + 1, d))  # the elevation, column by column
    for i in range(d):
        basis[: i + 1, i], basis[i + 1, i] = 1, -(i + 1)
        basis[:, i] *= np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2))
    around: list[list[tuple[tuple[int, ...], float]]] = []
    for point in features.astype(np.float64) @ basis.T:
        corner = (d + 1) * np.round(point / (d + 1))
        order = np.argsort(-(point - corner), kind="stable")
        rank = np.empty(d + 1, int)
        rank[order] = np.arange(d + 1)
        rank += int(corner.sum()) // (d + 1)
        corner += (d + 1) * ((rank < 0).astype(int) - (rank > d))
        rank %= d + 1
        rest = (point - corner)[np.argsort(rank)] / (d + 1)
        # with the coordinates in falling order, the r-th weight is a difference of neighbors, the first takes what is
        # left
        weights = [1 - rest[0] + rest[d], *(rest[d - r] - rest[d - r + 1] for r in range(1, d + 1))]
        keys = (
            tuple(int(c) + r - (d + 1) * (k > d - r) for c, k in zip(corner, rank, strict=True)) for r in range(d + 1)
        )
        around.append(list(zip(keys, weights, strict=True)))
    points: dict[tuple[int, ...], float] = defaultdict(float)
    for value, vertices in zip(values, around, strict=True):
        for key, weight in vertices:
            points[key] += weight * value
    for j in reversed(range(d + 1)) if reverse else range(d + 1):
        step = np.array([-1 if i != j else d for i in range(d + 1)])
        neighbors = {key: (tuple(np.add(key, step)), tuple(np.subtract(key, step))) for key in points}
        points = {key: points[key] + (points.get(a, 0.0) + points.get(b, 0.0)) / 2 for key, (a, b) in neighbors.items()}
    filtered = np.array([sum(weight * points[key] for key, weight in vertices) for vertices in around])
    return np.asarray(filtered / (1 + 2.0**-d))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("d", "spread"), [(1, 3.0), (2, 3.0), (3, 1.0), (5, 0.7), (7, 0.4), (6, 3e4)])
def test_the_lattice_is_the_one_of_the_paper(d: int, spread: float, reverse: bool) -> None:
    # The widest case does not fit 64 bits: its vertices are named by random strides.
    rng = np.random.default_rng(d)
    features = (rng.normal(size=(60, d)) * spread).astype(np.float32)
    values = rng.normal(size=(2, 60))
    expected = [lattice_in_a_dictionary(features, row, reverse) for row in values]
    np.testing.assert_allclose(Lattice([features]).filter(values, reverse=reverse), expected, atol=1e-5 + 1e-6 * spread)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("nearest", [4096, 0], ids=["window", "lines"])
@pytest.mark.parametrize(("size", "theta"), [((40, 31), 1.0), ((9, 120), 0.8), ((300, 1), 2.0)])
def test_points_in_rows_are_blurred_as_any(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], theta: float, nearest: int, reverse: bool
) -> None:
    monkeypatch.setattr(blur, "MAX_WINDOW_OFFSET", nearest)
    features = position_features(size, theta)
    values = np.random.default_rng(1).normal(size=(1, len(features)))
    lattice = Lattice([features])
    assert isinstance(lattice.kernels[0].blur, blur.WindowBlur if nearest else blur.LineBlur)
    expected = lattice_in_a_dictionary(features, values[0], reverse)
    # single precision places points a hundred standard deviations away to 1e-5 of one
    np.testing.assert_allclose(lattice.filter(values, reverse=reverse)[0], expected, atol=1e-4)


@given(st.integers(0, 9999), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_the_filter_is_linear_and_reverse_is_its_transpose(seed: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(80, d)) * rng.uniform(0.1, 4)
    a, b = rng.normal(size=(2, 80))
    lattice = Lattice([features])
    both, one, other = (lattice.filter(values[None])[0] for values in (2 * a - b, a, b))
    np.testing.assert_allclose(both, 2 * one - other, atol=2e-4)
    back = lattice.filter(b[None], reverse=True)[0]
    assert float(one @ b) == pytest.approx(float(a @ back), abs=2e-3)


def test_tables_of_unequal_length_are_named() -> None:
    with pytest.raises(ConfigError, match=r"got \[3, 4\]"):
        Lattice([np.ones((3, 1)), np.ones((4, 1))])
