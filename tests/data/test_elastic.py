"""Elastic deformation against loops: the cubic between grid points, the sampling, and what stays where it is."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.augmentation import CODES, IGNORE, STILL, bilinear, blocks, inside, rng
from helpers.papers import number
from pixelwise.data.elastic import GRID, cubic_weights, draw_displacement, interpolate_grid
from pixelwise.data.transforms import BORDER_COLOR, Augment, warp


def keys(t: float) -> float:
    """Keys 1981, equation 15, written as the cubic of the distance."""
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def looped(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sixteen neighbors of each pixel, those beyond the grid replaced by the nearest of it."""
    out = np.zeros((len(grid), *size))
    steps = [
        (points - 1) / (pixels - 1) if pixels > 1 else 0.0 for points, pixels in zip(grid.shape[1:], size, strict=True)
    ]
    first = [0.0 if pixels > 1 else (points - 1) / 2 for points, pixels in zip(grid.shape[1:], size, strict=True)]
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = first[0] + row * steps[0], first[1] + column * steps[1]
            for i in range(floor(y) - 1, floor(y) + 3):
                for j in range(floor(x) - 1, floor(x) + 3):
                    point = grid[:, min(max(i, 0), grid.shape[1] - 1), min(max(j, 0), grid.shape[2] - 1)]
                    out[:, row, column] += keys(y - i) * keys(x - j) * point
    return out


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(1, 14), st.integers(1, 14), st.integers(2, 4))
def test_between_grid_points_lies_the_cubic(seed: int, height: int, width: int, points: int) -> None:
    grid = rng(seed).normal(0, 10, (2, points, 3))
    np.testing.assert_allclose(interpolate_grid(grid, (height, width)), looped(grid, (height, width)), atol=1e-9)


def test_the_grid_is_the_papers() -> None:
    words, deviation, way = number("elastic", "grid, sigma px")
    assert (words, way) == (f"{GRID}x{GRID}", "bicubic")
    drawn = np.stack([draw_displacement((5, 9), deviation, rng(seed)) for seed in range(4000)])
    corners = drawn[:, :, [0, 0, 4, 4, 2], [0, 8, 0, 8, 4]]
    # 40,000 numbers: the deviation's own deviation is 0.35 %.
    assert corners.std() == pytest.approx(deviation, rel=0.015)
    assert abs(corners.mean()) < 0.2
    # Two axes and five points move independently.
    assert np.abs(np.corrcoef(corners.reshape(len(corners), -1).T) - np.eye(10)).max() < 0.08


def test_weights_of_a_pixel_sum_to_one_and_points_keep_theirs() -> None:
    for pixels in (1, 2, 3, 5, 100):
        np.testing.assert_allclose(cubic_weights(3, pixels).sum(1), 1)
    np.testing.assert_allclose(cubic_weights(3, 5)[[0, 2, 4]], np.eye(3), atol=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 999))
def test_bent_images_equal_loops(seed: int) -> None:
    chance = rng(seed)
    height, width, size = int(chance.integers(2, 18)), int(chance.integers(2, 18)), (7, 9)
    mask = chance.integers(0, 200, (height, width), np.uint8)
    inverse_matrix = np.column_stack([chance.normal(0, 1, (2, 2)), chance.uniform(-3, 15, 2)])
    image, moved = np.repeat(mask[..., None], 3, 2), chance.normal(0, 3, (2, *size))
    bent, labels = warp(image, mask, inverse_matrix, size, ignore_id=IGNORE, displacement=moved)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = inverse_matrix @ [column + 0.5 + moved[0, row, column], row + 0.5 + moved[1, row, column], 1.0]
            within = 0 <= x < width and 0 <= y < height
            assert labels[row, column] == (mask[int(y), int(x)] if within else IGNORE)
            assert np.abs(bent[row, column] - bilinear(image, x - 0.5, y - 0.5)).max() < 255 * 3 / 32


def test_bent_by_nothing_is_the_image() -> None:
    mask = blocks(0, 30, 41)
    still = np.column_stack([np.eye(2), [0, 0]])
    image, labels = warp(CODES[mask], mask, still, (30, 41), ignore_id=IGNORE, displacement=np.zeros((2, 30, 41)))
    assert np.array_equal(image, CODES[mask])
    assert np.array_equal(labels, mask)


@settings(max_examples=20)
@given(st.integers(0, 999), st.sampled_from([2.0, 10.0]))
def test_image_and_mask_bend_alike(seed: int, deviation: float) -> None:
    mask = blocks(seed, 90, 110, cell=20)
    image, labels = Augment(replace(STILL, elastic=deviation), IGNORE)(CODES[mask], mask, rng(seed))
    assert not np.array_equal(labels, mask)
    for k in range(4):
        assert (np.abs(image[inside(labels == k)].astype(int) - CODES[k]) <= 1).all()
    assert (image[inside(labels == IGNORE)] == BORDER_COLOR).all()
    again = Augment(replace(STILL, elastic=deviation), IGNORE)(CODES[mask], mask, rng(seed))
    assert np.array_equal(again[0], image)


@pytest.mark.parametrize("crop", [[0, 0], [20, 30], [60, 90]])
def test_crops_with_context_bring_their_true_surroundings(crop: list[int]) -> None:
    """Beyond the image it is mirrored; the mask has the size of the crop alone, and is ignored beyond the image."""
    pixels, mask = rng(1).integers(0, 256, (40, 50, 3), np.uint8), blocks(1, 40, 50)
    center = None if crop == [0, 0] else (21.0, 17.0)
    image, labels = Augment(replace(STILL, crop=crop, context_px=8), IGNORE)(pixels, mask, rng(), center)
    height, width = crop if center else (40, 50)
    top, left = (17 - height // 2, 21 - width // 2) if center else (0, 0)
    reflected = np.pad(pixels, ((39, 39), (49, 49), (0, 0)), mode="reflect")
    around = np.pad(mask, ((39, 39), (49, 49)), constant_values=IGNORE)
    rows, columns = slice(39 + top - 8, 39 + top + height + 8), slice(49 + left - 8, 49 + left + width + 8)
    assert np.array_equal(image, reflected[rows, columns])
    assert np.array_equal(labels, around[rows, columns][8:-8, 8:-8])
