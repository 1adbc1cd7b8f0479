"""Images of any channels, bits and range: the numbers that other programs wrote, or one line with the fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pixelwise.errors import ConfigError, ImageError, InputError
from pixelwise.images import RGB, ImagePart, PixelFormat, read_image, read_pixels

FIVE = tuple("abcde")
TWELVE_BITS = PixelFormat((ImagePart(FIVE, 12),))


def numbers(bits: int, *shape: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint16)


LAYOUTS: dict[str, dict[str, Any]] = {
    "pixel by pixel": {"photometric": "minisblack", "planarconfig": "contig"},
    "plane by plane": {"photometric": "minisblack", "planarconfig": "separate"},
    "big-endian": {"photometric": "minisblack", "planarconfig": "contig", "byteorder": ">"},
    "RGB and more": {"photometric": "rgb", "planarconfig": "contig", "extrasamples": [0, 0]},
    "LZW": {"photometric": "minisblack", "planarconfig": "contig", "compression": "lzw", "predictor": True},
    "deflated tiles": {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib", "tile": (16, 16)},
    "BigTIFF": {"photometric": "minisblack", "planarconfig": "contig", "bigtiff": True},
    "one page per channel": {"photometric": "minisblack"},
    "as tifffile writes arrays": {},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiff_of_five_channels_is_read_exactly_or_refused_when_cut(tmp_path: Path, layout: str) -> None:
    image = numbers(12, 20, 30, 5)
    is_planar = layout in ("plane by plane", "one page per channel")
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.moveaxis(image, 2, 0) if is_planar else image, **LAYOUTS[layout])
    read = read_pixels(path, TWELVE_BITS)
    assert read.dtype == np.uint16
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, image)
    whole = path.read_bytes()
    for length in (len(whole) // 2, 3 * len(whole) // 4, 100):
        path.write_bytes(whole[:length])
        try:
            cut = read_pixels(path, TWELVE_BITS)
        except ImageError:
            continue
        # What follows the pixels may be missing.
        np.testing.assert_array_equal(cut, image)


@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (8, 4), (16, 1), (16, 3), (16, 4)])
def test_png_of_other_programs_keeps_its_numbers(tmp_path: Path, bits: int, channels: int) -> None:
    image: NDArray[Any] = numbers(bits, 9, 14, channels).astype(np.uint8 if bits == 8 else np.uint16)
    path = tmp_path / "x.png"
    # OpenCV writes blue first, and a second program, Pillow, has written the gray ones.
    cv2.imwrite(str(path), image[..., [2, 1, 0, 3][:channels]] if channels > 1 else image)
    read = read_pixels(path, PixelFormat((ImagePart(FIVE[:channels], bits),)))
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float16", "float32", "float64", ">u2", ">f4"])
@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_arrays_of_any_type_with_a_range_become_float32(tmp_path: Path, dtype: str, first: bool) -> None:
    image = (numbers(8, 9, 14, 5) // 2).astype(dtype)
    np.save(tmp_path / "x.npy", np.moveaxis(image, 2, 0) if first else image)
    read = read_pixels(tmp_path / "x.npy", PixelFormat((ImagePart(FIVE, 0, (0.0, 200.0)),)))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, image.astype(np.float32))


def test_float_tiff_of_one_channel_keeps_its_range(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(-40, 60, (9, 14)).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", image)
    read = read_pixels(tmp_path / "x.tif", PixelFormat((ImagePart(("celsius",), 0, (-50.0, 70.0)),)))
    np.testing.assert_array_equal(read[..., 0], image)


WRONG = [
    (numbers(13, 9, 14, 5), "x.npy", r"expected 12 bits in a, b, c, d, .*, 0 to 4095, got 2 to 8\d\d\d"),
    (numbers(12, 9, 14, 4), "x.npy", r"expected 5 channels \(a, b, c, d, e\), got 4"),
    (numbers(8, 9, 14, 5).astype(np.uint8), "x.npy", "expected 12 bits per channel, got 8"),
    (numbers(12, 9, 14, 5).astype(np.float32), "x.npy", "expected integers of 12 bits, got float32"),
    (-numbers(3, 9, 14, 5).astype(np.int16), "x.npy", "expected 12 bits in a, .*, 0 to 4095, got -7 to 0"),
    (numbers(8, 9, 14, 3).astype(np.uint8), "x.png", r"expected 5 channels .*, got 3"),
]


@pytest.mark.parametrize(("image", "name", "expected"), WRONG, ids=[row[2][:32] for row in WRONG])
def test_other_numbers_than_declared_are_refused(tmp_path: Path, image: NDArray[Any], name: str, expected: str) -> None:
    path = tmp_path / name
    np.save(path, image) if name == "x.npy" else Image.fromarray(image).save(path)
    with pytest.raises(ImageError, match=rf"{name}: {expected}"):
        read_pixels(path, TWELVE_BITS)


@pytest.mark.parametrize(
    ("value", "expected"), [(np.nan, "1 numbers that are NaN"), (3.5, "0 to 1 in t, got 0 to 3.5")]
)
def test_numbers_beyond_the_range_are_refused(tmp_path: Path, value: float, expected: str) -> None:
    image = np.zeros((4, 5), np.float32)
    image[1, 2] = value
    np.save(tmp_path / "x.npy", image)
    with pytest.raises(ImageError, match=expected):
        read_pixels(tmp_path / "x.npy", PixelFormat((ImagePart(("t",), 0, (0.0, 1.0)),)))


COLOR_DEPTH = PixelFormat((ImagePart(), ImagePart(("depth",), 16, folder="depth"), ImagePart(("nir",), suffix="_nir")))


def test_parts_in_a_folder_and_beside_the_image_are_joined(tmp_path: Path) -> None:
    color, depth = numbers(8, 9, 14, 3).astype(np.uint8), numbers(16, 9, 14)
    for folder in ("images/train", "depth/train"):
        (tmp_path / folder).mkdir(parents=True)
    path = tmp_path / "images" / "train" / "a.png"
    Image.fromarray(color).save(path)
    Image.fromarray(depth).save(tmp_path / "depth" / "train" / "a.tif")
    with pytest.raises(ImageError, match=r"a\.png: has no file with nir: expected a_nir\.png, .tif or .npy beside it"):
        read_pixels(path, COLOR_DEPTH)
    np.save(path.with_name("a_nir.npy"), color[..., 0])
    read = read_pixels(path, COLOR_DEPTH)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, np.dstack([color, depth, color[..., 0]]))
    np.testing.assert_array_equal(COLOR_DEPTH.to_rgb(read), color)
    np.save(path.with_name("a_nir.npy"), color[:5, :, 0])
    with pytest.raises(ImageError, match=r"a_nir\.npy: expected 9x14, the size of .*a\.png, got 5x14"):
        read_pixels(path, COLOR_DEPTH)


def test_ordinary_images_are_read_as_ever(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "1"):
        Image.fromarray(numbers(8, 9, 14, 3).astype(np.uint8)).convert(mode).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_pixels(tmp_path / "x.png", RGB), read_image(tmp_path / "x.png"))


def test_figures_show_three_channels_with_their_limits_as_black_and_white() -> None:
    pixels = PixelFormat((ImagePart(("nir", "red", "green"), 12), ImagePart(("t",), 0, (-10.0, 10.0), suffix="_t")))
    image = np.array([[[0, 4095, 2048, 0], [4095, 0, 0, 10]]], np.float32)
    assert pixels.to_rgb(image).tolist() == [[[0, 255, 128], [255, 0, 0]]]
    shown = PixelFormat(pixels.parts, ("t",))
    assert shown.to_rgb(image).tolist() == [[[128] * 3, [255] * 3]]
    with pytest.raises(InputError, match="none of the channels nir, red, green, t is said to be one"):
        pixels.check_crf()


DECLARED = [
    ({"channels": ["a", "b"]}, PixelFormat((ImagePart(("a", "b"), 8),))),
    ({"channels": ["a"], "bits": 10, "show": ["a"]}, PixelFormat((ImagePart(("a",), 10),), ("a",))),
    ({"channels": ["a"], "range": [-1, 2.5]}, PixelFormat((ImagePart(("a",), 0, (-1.0, 2.5)),))),
    (COLOR_DEPTH.to_dict(), COLOR_DEPTH),
]


@pytest.mark.parametrize(("data", "expected"), DECLARED)
def test_a_declaration_is_read_and_written(data: dict[str, Any], expected: PixelFormat) -> None:
    assert PixelFormat.from_dict(data) == expected
    assert PixelFormat.from_dict(expected.to_dict()) == expected


BAD = [
    ({"channels": []}, "names of 1 to 512 channels"),
    ({"channels": "rgb"}, "names of 1 to 512 channels"),
    ({"channels": ["a", "a"]}, "repeated channel: a"),
    ({"channels": ["a"], "bits": 17}, "bits of 1 to 16, got 17"),
    ({"channels": ["a"], "bits": True}, "bits of 1 to 16, got True"),
    ({"channels": ["a"], "bits": 8, "range": [0, 1]}, "has bits and a range"),
    ({"channels": ["a"], "range": [1, 1]}, r"expected range: \[lowest, highest\]"),
    ({"channels": ["a"], "range": [0, float("nan")]}, r"expected range: \[lowest, highest\]"),
    ({"channels": ["a"], "depth": 8}, "expected channels, bits, range, folder, suffix"),
    ({"channels": ["a"], "show": ["b"]}, "expected one or three of a, got b"),
    ({"parts": [{"channels": ["a"]}, {"channels": ["b"]}]}, "every part but the first needs"),
    ({"parts": [{"channels": ["a"]}, {"channels": ["b"], "folder": "../x"}]}, "name of a folder"),
    ({"parts": [{"channels": ["a"]}], "bits": 8}, "expected parts or channels"),
    (["red"], "expected channels"),
]


@pytest.mark.parametrize(("data", "expected"), BAD, ids=[row[1][:30] for row in BAD])
def test_a_wrong_declaration_is_one_line(data: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        PixelFormat.from_dict(data, "classes.yaml")
    assert caught.value.subject == "classes.yaml"
    assert caught.value.fix


def test_damaged_files_end_in_an_image_or_in_one_line(tmp_path: Path) -> None:
    image, rng = numbers(12, 20, 30, 5), np.random.default_rng()
    seed = int(rng.integers(2**31))
    rng = np.random.default_rng(seed)
    whole: list[tuple[str, bytes]] = []
    for layout in ("plane by plane", "LZW", "deflated tiles", "one page per channel"):
        is_planar = layout in ("plane by plane", "one page per channel")
        tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(image, 2, 0) if is_planar else image, **LAYOUTS[layout])
        whole.append(("x.tif", (tmp_path / "x.tif").read_bytes()))
    np.save(tmp_path / "x.npy", image)
    whole.append(("x.npy", (tmp_path / "x.npy").read_bytes()))
    for number in range(250):
        name, data = whole[number % len(whole)]
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 600), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        (tmp_path / name).write_bytes(damaged[: rng.integers(len(data))] if number % 5 == 0 else damaged)
        try:
            read = read_pixels(tmp_path / name, TWELVE_BITS)
        except ImageError:
            continue
        assert read.shape[2] == 5, f"seed {seed}"
        assert read.max() < 4096, f"seed {seed}"
