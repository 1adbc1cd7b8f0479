"""The compiled loops of the pass over a dataset, against OpenCV and NumPy."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pixelwise.data.mask_loops import checksum, count_values, outline_lengths, parts_of
from pixelwise.data.mask_shapes import mask_shapes


def _masks() -> list[NDArray[np.uint8]]:
    """Small masks of noise, of blobs, and of lines of one pixel, of every size from one pixel on."""
    rng = np.random.default_rng(0)
    masks = []
    for number in range(300):
        height, width = rng.integers(1, 40, 2)
        mask = rng.integers(0, rng.integers(2, 6), (height, width)).astype(np.uint8)
        if number % 3 == 1:
            mask = mask[: height // 4 + 1, : width // 4 + 1].repeat(4, 0).repeat(4, 1)[:height, :width]
        elif number % 3 == 2:
            mask[:] = 0
            cv2.polylines(mask, [rng.integers(0, 40, (6, 2))], isClosed=True, color=3)
        masks.append(mask)
    return masks


def test_shapes_are_those_that_opencv_finds_class_by_class() -> None:
    for mask in _masks():
        values, areas, presence = parts_of(mask, 6, block=16)
        outlines = outline_lengths(mask, 6)
        for value in range(6):
            is_value = (mask == value).astype(np.uint8)
            stats = cv2.connectedComponentsWithStats(is_value, connectivity=8)[2]
            assert sorted(areas[values == value]) == sorted(stats[1:, cv2.CC_STAT_AREA])
            contours, _ = cv2.findContours(is_value, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            assert outlines[value] == pytest.approx(sum(cv2.arcLength(c, closed=True) for c in contours), rel=1e-5)
            for (row, column), is_present in np.ndenumerate(presence[value]):
                block = is_value[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                assert is_present == block.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_values_are_counted(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    for size in (*range(1, 40), 1000):
        values = rng.integers(0, 256, size).astype(dtype).repeat(rng.integers(1, 20, size))[None]
        counts = count_values(values)
        expected = np.unique(values, return_counts=True)
        assert np.flatnonzero(counts).tolist() == expected[0].tolist()
        assert counts[counts > 0].tolist() == expected[1].tolist()


def test_16_bit_ids_and_several_labels_per_pixel_have_the_shapes_of_each_class() -> None:
    mask = np.zeros((40, 50), np.uint16)
    mask[3:10, 4:20], mask[20:30, 20:40] = 700, 65535
    shapes = mask_shapes(mask, 65535)
    assert {k: shape.parts for k, shape in shapes.classes.items()} == {0: (40 * 50 - 7 * 16 - 200,), 700: (7 * 16,)}
    planes = np.stack([mask == 700, mask >= 700]).astype(np.uint8)
    planes[:, 39] = 255
    shapes = mask_shapes(planes, 255)
    assert {k: shape.parts for k, shape in shapes.classes.items()} == {0: (7 * 16,), 1: (7 * 16, 200)}
    assert shapes.ignored == (50 / 2000, 0)


def test_a_checksum_depends_on_every_byte_its_place_and_the_shape() -> None:
    image = np.random.default_rng(2).integers(0, 256, (7, 11, 3)).astype(np.uint8)
    assert checksum(image) == checksum(image.copy())
    sums = {checksum(image), checksum(image.reshape(11, 7, 3))}
    for k in range(image.size):
        changed = image.copy()
        changed.flat[k] ^= 1
        sums.add(checksum(changed))
        moved = image.copy()
        moved.flat[k], moved.flat[k - 1] = moved.flat[k - 1], moved.flat[k]
        if not np.array_equal(moved, image):
            sums.add(checksum(moved))
    equal = sum(image.flat[k] == image.flat[k - 1] for k in range(image.size))
    assert len(sums) == 2 + 2 * image.size - equal
