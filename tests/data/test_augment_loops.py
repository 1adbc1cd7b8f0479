"""The compiled loops of the augmentation, against NumPy and plain loops; the pixels are the same, to the last one."""

from __future__ import annotations

import math

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pixelwise.config import AugmentConfig
from pixelwise.data.augment_loops import change_hues, paste, sample_labels
from pixelwise.data.mask_loops import ids_in
from pixelwise.data.transforms import Augment

IGNORE = {np.uint8: 255, np.uint16: 65535}


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 3), st.booleans())
def test_labels_are_those_of_the_pixel_that_a_center_lies_in(
    seed: int, dtype: type[np.uint8 | np.uint16], planes: int, is_bent: bool
) -> None:
    """Nearest-exact, as the loop of its definition: float64, rounded down; also exactly on the edges of pixels."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 12, 2))
    size = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    mask = rng.integers(0, IGNORE[dtype], (*[planes] * bool(planes), height, width)).astype(dtype)
    # Quarters put centers on the edges between pixels, and on those of the mask.
    matrix = np.round(np.column_stack([rng.normal(0, 1.5, (2, 2)), rng.uniform(-4, 12, 2)]) * 4) / 4
    moves = np.round(rng.normal(0, 2, (2, *size)) * 4) / 4 if is_bent else None
    sampled = sample_labels(mask, matrix, size, ignore_id=IGNORE[dtype], displacement=moves)
    assert sampled.dtype == dtype
    for row in range(size[0]):
        for column in range(size[1]):
            right, down = (0, 0) if moves is None else moves[:, row, column]
            x, y = matrix @ [column + 0.5 + right, row + 0.5 + down, 1.0]
            there = 0 <= math.floor(y) < height and 0 <= math.floor(x) < width
            expected = mask[..., math.floor(y), math.floor(x)] if there else IGNORE[dtype]
            np.testing.assert_array_equal(sampled[..., row, column], expected)


def test_a_mask_that_is_far_away_is_ignored() -> None:
    """Positions beyond the range of the numbers that index pixels."""
    for shift in (-1e30, -3e9, 3e9, 1e30):
        matrix = np.array([[1.0, 0.0, shift], [0.0, 1.0, 0.0]])
        assert (sample_labels(np.zeros((4, 4), np.uint8), matrix, (3, 5), ignore_id=255) == 255).all()


@given(st.integers(0, 999), st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(1, 5), st.integers(0, 2))
def test_pasting_is_a_choice_by_class(seed: int, dtype: type[np.generic], channels: int, margin: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 9, 2))

    def pair() -> tuple[NDArray[np.generic], NDArray[np.uint16]]:
        image = rng.integers(0, 255, (height + 2 * margin, width + 2 * margin, channels)).astype(dtype)
        return image, rng.integers(0, 400, (height, width)).astype(np.uint16)

    target, source, is_pasted = pair(), pair(), rng.random(65536) < 0.5
    before = [array.copy() for array in (*target, *source)]
    image, mask = paste(target, source, is_pasted)
    chosen = np.isin(source[1], np.flatnonzero(is_pasted))
    np.testing.assert_array_equal(mask, np.where(chosen, source[1], target[1]))
    np.testing.assert_array_equal(image, np.where(np.pad(chosen, margin)[..., None], source[0], target[0]))
    assert image.dtype == np.dtype(dtype)
    assert mask.dtype == np.uint16
    # They may lie in the cache.
    for array, copied in zip((*target, *source), before, strict=True):
        np.testing.assert_array_equal(array, copied)


def test_hue_and_saturation_are_looked_up_and_the_value_stays() -> None:
    rng = np.random.default_rng(0)
    hsv = rng.integers(0, 180, (7, 9, 3)).astype(np.uint8)
    hues, saturations = (rng.integers(0, 180, 256).astype(np.uint8) for _ in range(2))
    expected = np.stack([hues[hsv[..., 0]], saturations[hsv[..., 1]], hsv[..., 2]], 2)
    change_hues(hsv, hues, saturations)
    np.testing.assert_array_equal(hsv, expected)


def test_the_jitter_shifts_hues_as_opencv_measures_them() -> None:
    """Of all draws, hues differ from the image's by one number of steps of two degrees each, up to the largest."""
    hsv = np.stack([np.arange(180), np.full(180, 200), np.full(180, 220)], 1).astype(np.uint8)[None]
    image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    augment = Augment(AugmentConfig(crop=[0, 0], scale=[1.0, 1.0], flip=0.0, hue=40.0), 255)
    shifts = set()
    for seed in range(60):
        changed = augment(image, np.zeros(image.shape[:2], np.uint8), np.random.default_rng(seed))[0]
        found = np.asarray(cv2.cvtColor(changed, cv2.COLOR_RGB2HSV), np.int64)
        moved = (found[..., 0] - cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0] + 90) % 180 - 90
        assert np.ptp(moved) <= 2, "but for the rounding of 8-bit colors"
        shifts.add(int(np.median(moved)))
    assert -20 <= min(shifts) < -14
    assert 14 < max(shifts) <= 20


@given(st.integers(0, 99), st.sampled_from([np.uint8, np.uint16]))
def test_ids_of_a_mask_are_numpys(seed: int, dtype: type[np.uint8 | np.uint16]) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 3, 4, 200, IGNORE[dtype]], rng.integers(0, 12, 2)).astype(dtype)
    assert ids_in(mask, IGNORE[dtype]).tolist() == sorted({*np.unique(mask).tolist()} - {IGNORE[dtype]})
