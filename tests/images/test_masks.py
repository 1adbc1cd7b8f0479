"""Masks: the file's numbers are read and written exactly, whatever the format; colors become classes or are refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from helpers.bad_inputs import encoded, make_bad_images, packed_rows, photo, png
from pixelwise.core import Taxonomy
from pixelwise.data import MaskEncoding
from pixelwise.errors import ImageError, InputError, MaskError, ResourceError
from pixelwise.images import encode_mask, read_mask, write_mask

# papers.md, "VOC palette", as the devkit prints it.
VOC_COLORS = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
    (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128),
    (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip


def _saved(tmp_path: Path, data: bytes, name: str = "x.png") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("color", [0, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_ids_of_every_depth_are_exact(tmp_path: Path, bits: int, color: int) -> None:
    """Written bit by bit; readers stretch gray ids of 2 bits to 0, 85, 170, 255 and palette ids to luminances."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
    palette = np.random.default_rng(1).integers(0, 256, 3 * 2**bits).astype(np.uint8).tobytes() if color == 3 else b""
    mask = read_mask(_saved(tmp_path, png(7, 5, bits, color, packed_rows(values, bits), palette=palette)))
    assert mask.dtype == np.uint8
    assert mask.flags.writeable
    np.testing.assert_array_equal(mask, values)


def test_16_bit_ids_are_exact(tmp_path: Path) -> None:
    """258 must not become 255 (ignore), nor 1 become 0."""
    values = np.array([[0, 1, 2, 255], [256, 258, 40000, 65535]])
    mask = read_mask(_saved(tmp_path, png(4, 2, 16, 0, packed_rows(values, 16))))
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, values)


def _tiff(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """A gray TIFF byte by byte, one strip, little endian."""
    strip = b"".join(packed_rows(values[k : k + 1], bits)[1:] for k in range(len(values)))
    if bits == 16:
        strip = values.astype("<u2").tobytes()
    height, width = values.shape
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 122,
        277: 1,
        278: height,
        279: len(strip),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return head.ljust(122, b"\0") + strip


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_ids_are_exact_also_with_white_as_zero(tmp_path: Path, bits: int, photometric: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
    np.testing.assert_array_equal(read_mask(_saved(tmp_path, _tiff(values, bits, photometric), "x.tif")), values)


def test_16_bit_tiff_ids_are_exact(tmp_path: Path) -> None:
    values = np.array([[0, 258, 65535]])
    np.testing.assert_array_equal(read_mask(_saved(tmp_path, _tiff(values, 16, 1), "x.tif")), values)


def test_32_bit_labels_that_fit_are_read(tmp_path: Path) -> None:
    values = np.array([[0, 70, 65535]], np.int32)
    np.testing.assert_array_equal(read_mask(_saved(tmp_path, encoded(values, "TIFF"), "x.tif")), values)
    with pytest.raises(
        MaskError, match=r"x\.tif: expected labels of 0 to 65535, got -1 to 65536; fix: number the classes"
    ):
        read_mask(_saved(tmp_path, encoded(np.array([[-1, 65536]], np.int32), "TIFF"), "x.tif"))


@pytest.mark.parametrize(("mode", "color"), [("LA", 4), ("RGBA", 6)])
def test_alpha_of_a_mask_is_dropped(tmp_path: Path, mode: str, color: int) -> None:
    pixel = bytes([7, 100]) if color == 4 else bytes([7, 8, 9, 0])
    mask = read_mask(_saved(tmp_path, png(1, 1, 8, color, b"\0" + pixel)))
    assert mask.tolist() == ([[7]] if color == 4 else [[[7, 8, 9]]])


def test_bmp_and_lossless_webp(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(read_mask(_saved(tmp_path, encoded(values, "BMP"), "x.bmp")), values)
    colors = np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_mask(_saved(tmp_path, encoded(colors, "WEBP", lossless=True), "x.webp")), colors)


def test_exif_turns_a_mask_like_its_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert read_mask(_saved(tmp_path, encoded(values, "PNG", exif=exif))).tolist() == [[3, 0], [4, 1], [5, 2]]


def _jpeg_in_tiff() -> bytes:
    return encoded(photo()[:16, :16], "TIFF", compression="jpeg")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (
            "m.jpg",
            encoded(photo()[..., 0], "JPEG"),
            "is a lossy JPEG, which does not keep the labels exactly; fix:",
        ),
        ("m.webp", encoded(photo(), "WEBP"), "is a lossy WEBP"),
        ("m.tif", _jpeg_in_tiff(), "is a lossy TIFF"),
        (
            "f.tif",
            encoded(np.zeros((2, 2), np.float32), "TIFF"),
            "has pixels of mode F, which cannot hold labels; fix: save labels",
        ),
        (
            "d.png",
            png(1, 1, 16, 2, b"\0" + bytes(6)),
            "has 16-bit colors or alpha; fix: save color masks with 8 bits",
        ),
        (
            "a.png",
            png(1, 1, 16, 4, b"\0" + bytes(4)),
            "has 16-bit colors or alpha; fix: save color masks with 8 bits",
        ),
    ],
)
def test_files_that_hold_no_labels_are_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(MaskError) as caught:
        read_mask(_saved(tmp_path, data, name))
    assert str(caught.value).startswith(f"{tmp_path / name}: {words}")


def test_damaged_masks_are_refused_like_images(tmp_path: Path) -> None:
    for name in make_bad_images(tmp_path):
        if name not in ("wide.tif", "nan.tif", "int32.tif"):
            with pytest.raises(ImageError):
                read_mask(tmp_path / name)


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LABELS = arrays(np.uint8, SIZES) | arrays(np.uint16, SIZES)


@settings(max_examples=60, deadline=None)
@given(values=LABELS)
def test_written_masks_come_back(tmp_path_factory: pytest.TempPathFactory, values: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "m.png"
    path.write_bytes(encode_mask(values))
    np.testing.assert_array_equal(read_mask(path), values)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), values)


def test_written_masks_wear_the_voc_palette(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[*range(21), 255]], np.uint8))
    shown = np.asarray(Image.open(tmp_path / "m.png").convert("RGB"))
    assert [tuple(color) for color in shown[0].tolist()] == [*VOC_COLORS, (224, 224, 192)]


def test_a_palette_of_ones_own_comes_first(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", np.array([[0, 1, 2]], np.uint8), palette=np.array([[1, 2, 3], [4, 5, 6]]))
    bgr = np.asarray(cv2.imread(str(tmp_path / "m.png")))
    assert bgr[0, :, ::-1].tolist() == [[1, 2, 3], [4, 5, 6], [0, 128, 0]]


def test_write_mask_refuses(tmp_path: Path) -> None:
    labels = np.zeros((2, 2), np.uint8)
    with pytest.raises(InputError, match=r"m\.jpg: masks cannot be written as \.jpg; fix: name it \.png"):
        write_mask(tmp_path / "m.jpg", labels)
    with pytest.raises(InputError, match=r"expected a mask \(H, W\) uint8 or uint16, got \(2, 2\) int64"):
        write_mask(tmp_path / "m.png", labels.astype(np.int64))
    with pytest.raises(ResourceError, match="cannot be written"):
        write_mask(tmp_path / "no" / "m.png", labels)
    assert list(tmp_path.iterdir()) == []


TWO = Taxonomy(names=("sky", "road"), colors=((0, 0, 255), (128, 64, 128)))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_colors_become_classes(data: st.DataObject) -> None:
    """Against a loop over pixels and a dictionary."""
    triple = st.tuples(*[st.integers(0, 255)] * 3)
    palette = data.draw(st.lists(triple, min_size=2, max_size=12, unique=True))
    num_ignored = data.draw(st.integers(0, len(palette) - 1))
    colors, ignored = palette[num_ignored:], palette[:num_ignored]
    taxonomy = Taxonomy(names=tuple(f"c{k}" for k in range(len(colors))), colors=tuple(colors))
    picks = data.draw(arrays(np.int64, (3, 4), elements=st.integers(0, len(palette) - 1)))
    raw = np.array(palette, np.uint8)[picks]
    ids = MaskEncoding(by_color=True, ignored=tuple(ignored)).encode(raw, taxonomy, "m.png")
    wanted = {**{color: k for k, color in enumerate(colors)}, **dict.fromkeys(ignored, 255)}
    assert ids.dtype == np.uint8
    assert ids.tolist() == [[wanted[tuple(pixel)] for pixel in row] for row in raw.tolist()]


def test_an_unknown_color_is_named_with_count_and_place() -> None:
    raw = np.full((30, 40, 3), (0, 0, 255), np.uint8)
    raw[1, 2:4] = (9, 8, 7)
    raw[2, 0] = (0, 0, 254)
    with pytest.raises(MaskError) as caught:
        MaskEncoding(by_color=True).encode(raw, TWO, "m.png")
    assert str(caught.value) == (
        "m.png: unknown color [9, 8, 7] (2 px) and 1 more, first at row 1, column 2; "
        "expected the colors of the 2 classes; "
        "fix: add the color to a class, or to `ignore_colors`, in classes.yaml"
    )


@pytest.mark.parametrize("color", [(0, 0, 0), (1, 0, 0), (255, 255, 255)])
def test_unknown_colors_below_between_and_above_the_known(color: tuple[int, int, int]) -> None:
    with pytest.raises(MaskError, match=r"\(6 px\), first at row 0, column 0"):
        MaskEncoding(by_color=True).encode(np.full((2, 3, 3), color, np.uint8), TWO, "m.png")


def test_the_message_names_smoothing_of_a_color_mask() -> None:
    with pytest.raises(MaskError, match="without antialiasing and never save it as JPEG"):
        MaskEncoding(by_color=True).encode(photo(), TWO, "m.png")


def test_gray_saved_as_rgb_is_read_by_value_and_colors_are_refused() -> None:
    gray = np.array([[0, 1], [255, 0]], np.uint8)
    np.testing.assert_array_equal(MaskEncoding().encode(np.repeat(gray[..., None], 3, axis=2), TWO, "m.png"), gray)
    with pytest.raises(
        MaskError, match=r"m\.png: expected class numbers, got a color image; fix: write `masks: color`"
    ):
        MaskEncoding().encode(photo(), TWO, "m.png")


def test_numbers_where_colors_were_expected() -> None:
    black_and_white = Taxonomy(names=("no", "yes"), colors=((0, 0, 0), (255, 255, 255)))
    assert MaskEncoding(by_color=True).encode(np.array([[0, 255]], np.uint8), black_and_white, "m.png").tolist() == [
        [0, 1]
    ]
    with pytest.raises(MaskError, match=r"m\.png: expected colors, got 16-bit numbers; fix: remove `masks: color`"):
        MaskEncoding(by_color=True).encode(np.array([[0, 255]], np.uint16), black_and_white, "m.png")


def test_palette_mask_of_another_program(tmp_path: Path) -> None:
    """A VOC-like file: indices 0, 15 and border 255, written by Pillow with its own palette order."""
    image = Image.fromarray(np.array([[0, 15, 255]], np.uint8))
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    assert read_mask(_saved(tmp_path, buffer.getvalue())).tolist() == [[0, 15, 255]]
