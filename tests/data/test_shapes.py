"""Regions as run lengths and polygons: what pycocotools, Pillow and Label Studio's bit stream make of them."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from pycocotools import mask as reference

from pixelwise.data.shapes.fill import Region, check_points, fill_coco, fill_labelme
from pixelwise.data.shapes.outlines import outlines, single_ring
from pixelwise.data.shapes.run_lengths import (
    check_size,
    decode_coco,
    decode_cvat,
    decode_label_studio,
    encode_coco,
    encode_cvat,
    encode_label_studio,
    encode_submission,
)
from pixelwise.errors import MaskError

# pycocotools 2.0.11 calls NumPy 2 as NumPy 1 was called.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# Noise has every hole, single pixel and diagonal; blocks of it have longer edges.
_NOISE = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.booleans(), fill=st.nothing())
REGIONS = st.one_of(_NOISE, st.builds(lambda m, k: np.kron(m, np.ones((k, k), bool)), _NOISE, st.integers(2, 5)))


def _placed(region: Region, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, bool)
    height, width = region.pixels.shape
    mask[region.top : region.top + height, region.left : region.left + width] = region.pixels
    return mask


@given(REGIONS)
def test_coco_run_lengths_are_those_of_pycocotools(region: np.ndarray) -> None:
    encoded = encode_coco(region)
    theirs = reference.encode(np.asfortranarray(region.astype(np.uint8)))
    assert (encoded["size"], encoded["counts"]) == (theirs["size"], theirs["counts"].decode())
    # Runs of no pixels change nothing.
    runs = [number for run in _runs(region.T.ravel()) for number in (len(run), 0, 0)]
    for counts in (encoded["counts"], runs):
        decoded, size = decode_coco({"size": encoded["size"], "counts": counts}, "a")
        assert size == region.shape
        np.testing.assert_array_equal(_placed(decoded, size), region)


def _runs(flat: np.ndarray) -> list[list[bool]]:
    """The runs of a flat array, by a loop; the first counts False."""
    runs: list[list[bool]] = [[]]
    for value in flat.tolist():
        if value != (len(runs) % 2 == 0):
            runs.append([])
        runs[-1].append(value)
    return runs


@given(REGIONS)
def test_cvat_and_submission_run_lengths_are_those_of_a_loop(region: np.ndarray) -> None:
    assert encode_cvat(region) == ", ".join(str(len(run)) for run in _runs(region.ravel()))
    np.testing.assert_array_equal(decode_cvat(encode_cvat(region), region.shape[0], region.shape[1], "a"), region)
    flat = np.zeros(region.size, bool)
    numbers = list(map(int, encode_submission(region).split()))
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    np.testing.assert_array_equal(flat.reshape(region.shape[::-1]).T, region)


def _decode_brush(data: list[int]) -> np.ndarray:
    """Label Studio's stream, read bit by bit as rle-pack's `decode` does (github.com/thi-ng/umbrella)."""
    bits = iter("".join(f"{byte:08b}" for byte in data))

    def read(size: int) -> int:
        return int("".join(next(bits) for _ in range(size)), 2)

    num, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < num:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        out += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    return np.array(out)


@given(REGIONS)
@settings(max_examples=40)
def test_brushes_are_what_rle_pack_reads(region: np.ndarray) -> None:
    brush = encode_label_studio(region)
    np.testing.assert_array_equal(_decode_brush(brush), np.repeat(region.ravel() * 255, 4))
    np.testing.assert_array_equal(decode_label_studio(brush, region.shape[0], region.shape[1], "a"), region)


def test_a_brush_of_long_runs_and_of_single_values() -> None:
    region = np.zeros((300, 400), bool)
    region[100:] = True
    np.testing.assert_array_equal(decode_label_studio(encode_label_studio(region), 300, 400, "a"), region)
    # One pixel, RGBA: four values that are no run, with the usual sizes 3, 4, 8, 16.
    bits = f"{4:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + "0" + "00" + f"{3:03b}" + f"{9:08b}{9:08b}{9:08b}{255:08b}"
    data = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    assert decode_label_studio(list(data), 1, 1, "a").all()


@given(REGIONS)
def test_outlines_fill_to_the_same_region(region: np.ndarray) -> None:
    """By pycocotools with seams to the holes, by our own filling, and by the parity of exteriors and holes."""
    parts = outlines(region)
    count, _ = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    assert len(parts) == count - 1
    size = region.shape[0], region.shape[1]
    by_reference, by_ours, by_parity = (np.zeros(size, int) for _ in range(3))
    for part in parts:
        ring = single_ring(part)
        by_reference += reference.decode(reference.frPyObjects([np.ravel(ring).astype(float).tolist()], *region.shape))[
            ..., 0
        ]
        by_ours += _placed(fill_coco(np.array(ring, float), size, "a"), size)
        for simple in (part.exterior, *part.holes):
            # No corner is passed twice, and neighbors differ in one coordinate: valid polygons.
            assert len(set(simple)) == len(simple)
            assert all(
                (x0 == x1) != (y0 == y1) for (x0, y0), (x1, y1) in zip(simple, [*simple[1:], simple[0]], strict=True)
            )
            by_parity += _inside(simple, size) * (1 if simple is part.exterior else -1)
    for filled in (by_reference, by_ours, by_parity):
        np.testing.assert_array_equal(filled, region)


def _inside(ring: list[tuple[int, int]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose center lies inside, by the vertical edges to the left of each."""
    inside = np.zeros(size, int)
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if x0 == x1:
            inside[min(y0, y1) : max(y0, y1), x0:] ^= 1
    return inside


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.lists(st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)), min_size=3, max_size=12),
    st.sampled_from([1, 2, 4, 1000]),
)
def test_polygons_fill_as_pycocotools_fills_them(
    size: tuple[int, int], corners: list[tuple[float, float]], grid: int
) -> None:
    points = np.rint(np.array(corners) * size[::-1] * grid) / grid
    theirs = reference.decode(reference.frPyObjects([points.ravel().tolist()], *size))[..., 0] > 0
    np.testing.assert_array_equal(_placed(fill_coco(points, size, "a"), size), theirs)


@pytest.mark.parametrize("kind", ["polygon", "rectangle", "circle", "linestrip", "point"])
@given(
    points=st.lists(st.tuples(st.floats(-20, 150), st.floats(-20, 110)), min_size=3, max_size=7),
    grid=st.sampled_from([1, 2, 1000]),
)
@settings(max_examples=60)
def test_shapes_of_labelme_fill_as_its_shape_to_mask(kind: str, points: list[tuple[float, float]], grid: int) -> None:
    """`labelme.utils.shape_to_mask` of version 6.3.1, for these types, drawn on the whole image."""
    size = 90, 130
    points = [(round(x * grid) / grid, round(y * grid) / grid) for x, y in points]
    points = points[: {"rectangle": 2, "circle": 2, "point": 1}.get(kind)]
    mask = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(mask)
    (cx, cy), (px, py) = points[0], points[-1]
    if kind == "polygon":
        draw.polygon(points, outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle(((min(cx, px), min(cy, py)), (max(cx, px), max(cy, py))), outline=1, fill=1)
    elif kind == "linestrip":
        draw.line(points, fill=1, width=10)
    else:
        d = math.sqrt((cx - px) ** 2 + (cy - py) ** 2) if kind == "circle" else 5
        draw.ellipse(((cx - d, cy - d), (cx + d, cy + d)), outline=1, fill=1)
    filled = _placed(fill_labelme(kind, np.array(points), size, "a"), size)
    np.testing.assert_array_equal(filled, np.array(mask) > 0)


@pytest.mark.parametrize(
    "rle",
    [
        None, [], {"counts": [4]}, {"size": [2, 2]}, {"size": "2", "counts": [4]}, {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": [5]}, {"size": [2, 2], "counts": [3]}, {"size": [2, 2], "counts": [10**30]},
        {"size": [2, 2], "counts": [-1, 5]}, {"size": [2, 2], "counts": [1.0, 3.0]}, {"size": [2, 2], "counts": ["4"]},
        {"size": [2, 2], "counts": [[4]]}, {"size": [2, 2], "counts": [[4], 1]}, {"size": [2**40, 2], "counts": [4]},
        {"size": [0, 2], "counts": []}, {"size": [2.0, 2], "counts": [4]}, {"size": [True, 4], "counts": [4]},
        {"size": [2, 2], "counts": "o" * 5000}, {"size": [2, 2], "counts": "é"}, {"size": [2, 2], "counts": "T"},
        {"size": [2, 2], "counts": float("nan")}, {"size": [20000, 20000], "counts": [4]},
    ],
)  # fmt: skip
def test_hostile_run_lengths_are_refused(rle: Any) -> None:
    with pytest.raises(MaskError, match=r"^here: .{9,300}; fix: "):
        decode_coco(rle, "here")


@pytest.mark.parametrize("text", ["", "4", "1, 2", "-1, 5", "1e9", "9" * 6000, "4, 0, 0, 1", "²"])
def test_hostile_cvat_text_is_refused(text: str) -> None:
    with pytest.raises(MaskError, match=r"^here: "):
        decode_cvat(text, 2, 3, "here")


@pytest.mark.parametrize("brush", [None, "abc", [], [256], [-1], [1.5], [0] * 7, [255] * 40, [[1]]])
def test_hostile_brushes_are_refused(brush: Any) -> None:
    with pytest.raises(MaskError, match=r"^here: "):
        decode_label_studio(brush, 2, 3, "here")


@pytest.mark.parametrize(
    "points",
    [
        None, [], [[0, 0], [1, 1]], [[0, 0], [1, 1], [2]], [[0, 0], [1, 1], ["2", 3]],
        [[0, 0], [1, 1], [float("nan"), 3]],
        [[0, 0], [1, 1], [1e300, 3]], [[0, 0], [1, 1], [10**400, 3]], [[0, 0, 0]] * 3, {"x": 1},
    ],
)  # fmt: skip
def test_hostile_points_are_refused(points: Any) -> None:
    with pytest.raises(MaskError, match=r"^here: "):
        check_points(points, (5, 5), "here")


def test_an_endless_outline_is_refused() -> None:
    zigzag = np.array([[0.0, 0.0], [9000.0, 9000.0]] * 2000)
    with pytest.raises(MaskError, match="has an outline of"):
        fill_coco(zigzag, (9000, 9000), "here")


def test_a_size_that_is_no_integer_is_refused() -> None:
    assert check_size(3, 4, "here") == (3, 4)
    with pytest.raises(MaskError, match="expected height and width as positive integers"):
        check_size(None, 4, "here")
