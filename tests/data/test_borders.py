"""U-Net's weight map against loops over pixels and cells, the paper's numbers, and what moves or scales it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.papers import number
from pixelwise.data.border_weights import border_weights, label_cells, separate_cells, weight_map

IGNORE = 255


def random_cells(seed: int, height: int = 20, width: int = 24, count: int = 5) -> np.ndarray:
    """Rectangles of numbers 3, 6, ...; later ones cover earlier ones."""
    rng = np.random.default_rng(seed)
    cells = np.zeros((height, width), np.int32)
    for k in range(count):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        cells[top : top + int(rng.integers(1, 6)), left : left + int(rng.integers(1, 6))] = 3 * (k + 1)
    return cells


def looped_border(cells: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Equation 2's second term, pixel by pixel, cell by cell."""
    places = {int(n): np.argwhere(cells == n).tolist() for n in np.unique(cells) if n}
    term = np.zeros(cells.shape)
    for row, column in itertools.product(*map(range, cells.shape)):
        distances = sorted(min(math.dist(place, (row, column)) for place in cell) for cell in places.values())
        if cells[row, column] == 0 and len(distances) >= 2:
            term[row, column] = w0 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return term


@settings(max_examples=15)
@given(st.integers(0, 999), st.sampled_from([(10.0, 5.0), (3.0, 0.7), (1.0, 30.0)]), st.integers(0, 6))
def test_border_weights_equal_loops(seed: int, constants: tuple[float, float], count: int) -> None:
    cells = random_cells(seed, count=count)
    np.testing.assert_allclose(
        border_weights(cells, *constants), looped_border(cells, *constants), rtol=1e-5, atol=1e-9
    )


def test_the_papers_numbers() -> None:
    w0, sigma = number("weight map", "w0, sigma")
    sums, terms = (0, 2, 5, 10, 20), number("weight map", "extra term")
    for total, term in zip(sums[1:], terms[1:], strict=True):
        cells = np.zeros((1, 60), np.int32)
        # Cells whose nearest pixels are `total` apart: each pixel between them has that sum of distances.
        cells[0, :10], cells[0, 9 + total :] = 1, 2
        between = border_weights(cells, w0, sigma)[0, 10 : 9 + total]
        assert len(between) == total - 1
        np.testing.assert_allclose(between, term, rtol=1e-6)
    assert terms[0] == w0


@given(st.integers(0, 999), st.integers(0, 3), st.booleans(), st.floats(0.5, 20))
@settings(max_examples=20)
def test_turns_mirrors_names_and_scale(seed: int, turns: int, mirror: bool, w0: float) -> None:
    cells = random_cells(seed)
    plain = border_weights(cells)
    moved = np.rot90(cells[:, ::-1] if mirror else cells, turns)
    expected = np.rot90(plain[:, ::-1] if mirror else plain, turns)
    np.testing.assert_allclose(border_weights(np.ascontiguousarray(moved)), expected, rtol=1e-6)
    renamed = np.where(cells > 0, 100 - cells, 0)
    np.testing.assert_array_equal(border_weights(renamed), plain)
    np.testing.assert_allclose(border_weights(cells, w0), plain * (w0 / 10), rtol=1e-5)
    assert (plain[cells > 0] == 0).all()
    assert (plain >= 0).all()
    assert plain.max(initial=0) <= 10


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_cells_have_no_border(count: int) -> None:
    assert not border_weights(random_cells(1, count=count)).any()


def test_cells_are_regions_of_one_class_that_hang_together_by_sides() -> None:
    mask = np.array([[1, 0, 2, 2], [0, 1, 2, 0], [255, 1, 0, 1]], np.uint8)
    cells = label_cells(mask, IGNORE)
    assert (cells == 0).tolist() == [
        [False, True, False, False],
        [True, False, False, True],
        [True, False, True, False],
    ]
    assert len(np.unique(cells)) - 1 == 4
    assert cells[0, 0] != cells[1, 1] == cells[2, 1] != cells[2, 3]
    assert cells[0, 2] == cells[0, 3] == cells[1, 2]
    assert label_cells(mask, IGNORE, background=1)[1, 0] != 0


@given(st.integers(0, 999))
def test_touching_cells_are_parted_by_a_line(seed: int) -> None:
    cells = random_cells(seed, count=9)
    parted = separate_cells(cells)
    assert (parted[parted > 0] == cells[parted > 0]).all()
    around = np.pad(cells, 1)
    height, width = cells.shape
    for row, column in itertools.product(range(height), range(width)):
        window = around[row : row + 3, column : column + 3]
        touched = cells[row, column] > 0 and window.max() > cells[row, column]
        assert parted[row, column] == (0 if touched else cells[row, column])
        if parted[row, column]:
            left = parted[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert set(left.ravel().tolist()) <= {0, int(parted[row, column])}


def test_the_whole_map_is_the_sum_of_both_terms() -> None:
    mask = np.zeros((12, 20), np.uint8)
    mask[2:8, 2:8], mask[2:8, 10:16], mask[10:] = 1, 2, IGNORE
    balance = np.array([0.5, 2, 3], np.float32)
    weights = weight_map(mask, balance, IGNORE)
    extra = looped_border(np.where(mask == IGNORE, 0, mask), 10, 5)
    for row, column in itertools.product(range(12), range(20)):
        label = mask[row, column]
        assert weights[row, column] == pytest.approx(
            0 if label == IGNORE else balance[label] + extra[row, column], rel=1e-5
        )
    assert weights[5, 8] == pytest.approx(0.5 + 10 * math.exp(-9 / 50))
