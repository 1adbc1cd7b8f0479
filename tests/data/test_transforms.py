"""Augmentation: image and mask move alike, ids stay ids, all randomness comes from the given generator."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.augmentation import CODES, IGNORE, STILL, bilinear, blocks, inside, rng
from pixelwise.config import AugmentConfig
from pixelwise.data.transforms import BORDER_COLOR, Augment, warp


@st.composite
def settings_and_sizes(draw: Any) -> tuple[AugmentConfig, int, int]:
    low = draw(st.floats(0.4, 1.6))
    config = AugmentConfig(
        crop=draw(st.one_of(st.just([0, 0]), st.tuples(st.integers(1, 90), st.integers(1, 90)).map(list))),
        scale=[low, draw(st.floats(low, 2.0))],
        aspect=draw(st.floats(1, 1.5)),
        rotate=draw(st.sampled_from([0.0, 10.0, 180.0])),
        flip=draw(st.sampled_from([0.0, 0.5, 1.0])),
        class_balanced_prob=draw(st.sampled_from([0.0, 1.0])),
    )
    return config, draw(st.integers(8, 100)), draw(st.integers(8, 100))


@settings(max_examples=40)
@given(settings_and_sizes(), st.integers(0, 1000))
def test_image_and_mask_move_alike(drawn: tuple[AugmentConfig, int, int], seed: int) -> None:
    config, height, width = drawn
    mask = blocks(seed, height, width)
    image, moved = Augment(config, IGNORE)(CODES[mask], mask, rng(seed))
    assert image.shape[:2] == moved.shape == ((height, width) if config.crop == [0, 0] else tuple(config.crop))
    assert image.dtype == moved.dtype == np.uint8
    # Only next to another id, or to the border, may the image show a mixture.
    for k in range(4):
        assert (np.abs(image[inside(moved == k)].astype(int) - CODES[k]) <= 1).all()
    assert (image[inside(moved == IGNORE)] == BORDER_COLOR).all()


@given(settings_and_sizes(), st.integers(0, 1000))
def test_ids_come_from_the_mask(drawn: tuple[AugmentConfig, int, int], seed: int) -> None:
    config, height, width = drawn
    mask = rng(seed).choice(np.array([1, 4, 9, 300], np.uint16), (height, width))
    image = np.zeros((height, width, 3), np.uint8)
    moved = Augment(config, 65535)(image, mask, rng(seed))[1]
    assert moved.dtype == np.uint16
    assert set(np.unique(moved)) <= {*np.unique(mask).tolist(), 65535}


@given(settings_and_sizes(), st.integers(0, 99))
def test_all_chance_comes_from_the_generator(drawn: tuple[AugmentConfig, int, int], seed: int) -> None:
    config = replace(drawn[0], brightness=0.4, contrast=0.4, saturation=0.4, hue=20.0, gamma=0.4)
    mask = blocks(seed, *drawn[1:])
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    one = Augment(config, IGNORE)(CODES[mask], mask, rng(seed))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    assert python_state == random.getstate()
    np.random.seed(1)
    other = Augment(config, IGNORE)(CODES[mask], mask, rng(seed))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])


@given(st.integers(1, 80), st.integers(1, 80), st.sampled_from([1, 3]), st.integers(0, 99))
def test_settings_that_change_nothing_return_the_image(height: int, width: int, channels: int, seed: int) -> None:
    image = rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    mask = rng(seed).integers(0, 5, (height, width), np.uint8)
    for crop in ([0, 0], [height, width]):
        same = Augment(replace(STILL, crop=crop), IGNORE)(image, mask, rng(seed))
        assert np.array_equal(same[0], image)
        assert np.array_equal(same[1], mask)


def test_a_mirror_is_numpys() -> None:
    image = rng().integers(0, 256, (31, 44, 3), np.uint8)
    mask = rng().integers(0, 5, (31, 44), np.uint8)
    flipped = Augment(replace(STILL, flip=1.0), IGNORE)(image, mask, rng())
    assert np.array_equal(flipped[0], image[:, ::-1])
    assert np.array_equal(flipped[1], mask[:, ::-1])


@pytest.mark.parametrize(("turns", "size"), [(1, (44, 31)), (2, (31, 44)), (3, (44, 31))])
def test_quarter_turns_are_numpys(turns: int, size: tuple[int, int]) -> None:
    image = rng().integers(0, 256, (31, 44, 3), np.uint8)
    mask = rng().integers(0, 5, (31, 44), np.uint8)
    angle = turns * np.pi / 2
    # A pixel of the turned image lies in the source where the turn back puts it; y points down.
    linear = np.round([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse_matrix = np.column_stack([linear, np.array([22, 15.5]) - linear @ (np.array(size[::-1]) / 2)])
    turned = warp(image, mask, inverse_matrix, size, ignore_id=IGNORE)
    assert np.array_equal(turned[1], np.rot90(mask, turns))
    assert np.array_equal(turned[0], np.rot90(image, turns))


@settings(max_examples=30)
@given(st.integers(0, 500))
def test_masks_are_sampled_at_pixel_centers(seed: int) -> None:
    """Nearest-exact in plain loops, for any affine map; the image is compared with bilinear mixing by hand."""
    chance = rng(seed)
    height, width, size = int(chance.integers(1, 20)), int(chance.integers(1, 20)), (7, 9)
    mask = chance.integers(0, 200, (height, width), np.uint8)
    inverse_matrix = np.column_stack([chance.normal(0, 1, (2, 2)), chance.uniform(-3, 15, 2)])
    image = np.repeat(mask[..., None], 3, 2)
    warped, moved = warp(image, mask, inverse_matrix, size, ignore_id=IGNORE)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = inverse_matrix @ [column + 0.5, row + 0.5, 1.0]
            inside = 0 <= x < width and 0 <= y < height
            assert moved[row, column] == (mask[int(y), int(x)] if inside else IGNORE)
            assert np.abs(warped[row, column] - bilinear(image, x - 0.5, y - 0.5)).max() < 255 * 3 / 32


def test_a_small_image_in_a_large_crop_has_a_border() -> None:
    image, mask = np.full((4, 6, 3), 9, np.uint8), np.full((4, 6), 2, np.uint8)
    padded, moved = Augment(replace(STILL, crop=[10, 12]), IGNORE)(image, mask, rng())
    assert (moved == 2).sum() == 24
    assert (moved[3:7, 3:9] == 2).all()
    assert (padded[moved == IGNORE] == BORDER_COLOR).all()
    assert (padded[moved == 2] == 9).all()


def test_crops_reach_every_place_and_stay_inside() -> None:
    mask = np.arange(12 * 15, dtype=np.uint8).reshape(12, 15)
    image = np.repeat(mask[..., None], 3, 2)
    seen = set()
    for seed in range(2500):
        moved = Augment(replace(STILL, crop=[6, 5]), IGNORE)(image, mask, rng(seed))[1]
        assert (moved != IGNORE).all()
        seen |= set(moved.ravel().tolist())
    assert seen == set(range(180))


def test_rare_crops_show_the_rare_class() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[80:84, 10:14] = 3
    image = CODES[mask]
    shown = dict.fromkeys((0.0, 1.0), 0)
    for rare in shown:
        augment = Augment(replace(STILL, crop=[24, 24], class_balanced_prob=rare), IGNORE)
        shown[rare] = sum((augment(image, mask, rng(seed))[1] == 3).any() for seed in range(60))
    # Half of the draws choose the class of 16 pixels; elsewise a crop meets it in about one case of eight.
    assert shown[1.0] >= 20
    assert shown[0.0] <= 15


def test_rare_copes_with_a_mask_of_ignored_pixels() -> None:
    mask = np.full((20, 20), IGNORE, np.uint8)
    moved = Augment(replace(STILL, crop=[8, 8], class_balanced_prob=1.0), IGNORE)(
        np.zeros((20, 20, 3), np.uint8), mask, rng()
    )[1]
    assert (moved == IGNORE).all()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "gamma"])
def test_color_jitter_changes_pixels_and_no_label(name: str) -> None:
    mask = blocks(0, 40, 40)
    strength: dict[str, Any] = {name: 30.0 if name == "hue" else 0.5}
    config = replace(STILL, **strength)
    image, moved = Augment(config, IGNORE)(CODES[mask], mask, rng(3))
    assert np.array_equal(moved, mask)
    assert not np.array_equal(image, CODES[mask])
    # One color stays one color, but for the last bits of OpenCV's conversion.
    assert all(np.ptp(image[mask == k], axis=0).max() <= 2 for k in range(4))
