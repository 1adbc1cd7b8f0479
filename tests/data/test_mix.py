"""ClassMix: every pixel comes whole from one of the two images, and whole classes are pasted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixelwise.data.mix import paste_classes


def pair(seed: int, level: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 1, 2, 3, 255], (6, 7)).astype(np.uint8)
    # A pixel's first value tells the image, the second its class.
    return np.stack([np.full((6, 7), level), mask, mask], -1).astype(np.uint8), mask


@given(st.integers(0, 999), st.integers(0, 999))
def test_each_pixel_is_one_of_the_two_and_classes_are_pasted_whole(seed: int, draw: int) -> None:
    under, over = pair(seed, 1), pair(seed + 1, 2)
    image, mask = paste_classes(under, over, 255, np.random.default_rng(draw))
    pasted = set()
    for row in range(6):
        for column in range(7):
            source = under if image[row, column, 0] == 1 else over
            assert (image[row, column] == source[0][row, column]).all()
            assert mask[row, column] == source[1][row, column]
            if source is over:
                pasted.add(int(mask[row, column]))
    present = set(np.unique(over[1])) - {255}
    assert len(pasted) == max(len(present) // 2, 1)
    assert 255 not in pasted
    for number in pasted:
        assert (image[over[1] == number, 0] == 2).all()


def test_an_image_without_classes_covers_nothing() -> None:
    under, over = pair(0, 1), pair(1, 2)
    over[1][:] = 255
    image, mask = paste_classes(under, over, 255, np.random.default_rng(0))
    assert (image == under[0]).all()
    assert (mask == under[1]).all()


@given(st.integers(0, 999), st.integers(1, 3))
def test_the_context_around_a_crop_is_that_of_the_target(seed: int, margin: int) -> None:
    target, source = pair(seed, 1), pair(seed + 1, 2)
    wide = [
        (np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=level), mask)
        for (image, mask), level in ((target, 11), (source, 22))
    ]
    image, mask = paste_classes(wide[0], wide[1], 255, np.random.default_rng(seed))
    inner_image, inner_mask = paste_classes(target, source, 255, np.random.default_rng(seed))
    assert np.array_equal(mask, inner_mask)
    assert np.array_equal(image[margin:-margin, margin:-margin], inner_image)
    image[margin:-margin, margin:-margin] = 11
    assert (image == 11).all()


def test_masks_of_two_bytes_stay_so() -> None:
    wide = [(image, mask.astype(np.uint16)) for image, mask in (pair(0, 1), pair(1, 2))]
    image, mask = paste_classes(wide[0], wide[1], 255, np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert mask.dtype == np.uint16
