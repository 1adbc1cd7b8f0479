"""What a number in a file means: every tag that changes it is honored, or the file is refused in one line."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers.bad_inputs import chunk, encoded, packed_rows, photo, png
from helpers.tiff import tiff
from pixelwise.errors import ImageError, MaskError
from pixelwise.images import from_pil, read_image, read_mask


def _saved(tmp_path: Path, data: bytes, name: str = "x.tif") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def _bytes(values: Any, kind: str, big_endian: bool = False) -> bytes:
    return np.array(values).astype((">" if big_endian else "<") + kind).tobytes()


@pytest.mark.parametrize("deflate", [False, True])
def test_white_as_zero_is_inverted_in_images_and_kept_in_masks(tmp_path: Path, deflate: bool) -> None:
    deep = tiff([_bytes([0, 257 * 100, 65535], "u2")], (1, 3), {258: [16], 262: [0]}, deflate=deflate)
    path = _saved(tmp_path, deep)
    assert read_image(path)[0, :, 0].tolist() == [255, 155, 0]
    assert read_mask(path).tolist() == [[0, 25700, 65535]]
    real = tiff([_bytes([0, 0.2, 1], "f4")], (1, 3), {258: [32], 262: [0], 339: [3]}, deflate=deflate)
    assert read_image(_saved(tmp_path, real))[0, :, 0].tolist() == [255, 204, 0]
    flat = tiff([bytes([0, 100, 255])], (1, 3), {262: [0]}, deflate=deflate)
    assert read_image(_saved(tmp_path, flat))[0, :, 0].tolist() == [255, 155, 0]
    assert read_mask(_saved(tmp_path, flat)).tolist() == [[0, 100, 255]]


@pytest.mark.parametrize(("bits", "kind"), [(8, "i1"), (16, "i2"), (32, "i4")])
def test_signed_numbers(tmp_path: Path, bits: int, kind: str) -> None:
    """An image has no range for them; a mask may have them as long as none is negative."""
    path = _saved(tmp_path, tiff([_bytes([0, 1, 100], kind)], (1, 3), {258: [bits], 339: [2]}))
    assert read_mask(path).tolist() == [[0, 1, 100]]
    with pytest.raises(ImageError, match=f"has {bits}-bit integers of an unknown range; fix: save it"):
        read_image(path)
    with pytest.raises(MaskError, match="expected labels of 0 to 65535, got -1 to 1"):
        read_mask(_saved(tmp_path, tiff([_bytes([0, 1, -1], kind)], (1, 3), {258: [bits], 339: [2]})))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_color_tiff(tmp_path: Path, orientation: int) -> None:
    """The turned image is read from Pillow's decoding of the same pixels in 8 bits."""
    tags = {262: [2], 277: [3], 274: [orientation]}
    flat = tiff([photo().tobytes()], photo().shape[:2], {**tags, 258: [8] * 3})
    deep = tiff([_bytes(photo().astype(int) * 257, "u2")], photo().shape[:2], {**tags, 258: [16] * 3})
    shown = np.asarray(Image.open(io.BytesIO(flat)))
    np.testing.assert_array_equal(read_image(_saved(tmp_path, deep)), shown)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1)])
def test_turned_rows_and_columns_have_positive_strides(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    """torch takes no others, and NumPy calls an array of one row contiguous whatever its stride."""
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(np.arange(3 * size[0] * size[1], dtype=np.uint8).reshape(*size, 3), "PNG", exif=exif)
    for read in (read_image, read_mask):
        pixels = read(_saved(tmp_path, data, "x.png"))
        assert min(pixels.strides) > 0
        assert sorted(pixels.ravel().tolist()) == list(range(3 * size[0] * size[1]))


def test_planar_color_is_read(tmp_path: Path) -> None:
    planes = [photo()[..., k].tobytes() for k in range(3)]
    tags = {258: [8] * 3, 262: [2], 277: [3], 278: [photo().shape[0]], 284: [2]}
    np.testing.assert_array_equal(read_image(_saved(tmp_path, tiff(planes, photo().shape[:2], tags))), photo())


def test_16_bit_cmyk_follows_the_plain_formula(tmp_path: Path) -> None:
    inks = np.array([[10, 100, 200, 50], [0, 0, 0, 0]])
    pixels = read_image(_saved(tmp_path, tiff([_bytes(inks * 257, "u2")], (1, 2), {258: [16] * 4, 262: [5], 277: [4]})))
    assert np.abs(pixels[0] - (255 - inks[:, :3]) * (255 - inks[:, 3:]) / 255).max() <= 1


_PAIR = bytes([1, 2])
_STRIPS = [bytes([1, 2]), bytes([3, 4]), bytes([5, 6])]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(_STRIPS[:1], (3, 2), {278: [1]}), "expected 3 strips of pixels, got 1"),
        (tiff(_STRIPS, (2, 2), {278: [1]}), "expected 2 strips of pixels, got 3"),
        (tiff(_STRIPS, (3, 2), {273: [150, 0, 0]}), "leaves out 2 of its 3 strips of pixels"),
        (tiff(_STRIPS, (3, 2), {279: [2, 2, 0]}), "leaves out 1 of its 3 strips of pixels"),
        (tiff([b"".join(_STRIPS)], (3, 2), {279: [2]}), "has strips with too few bytes: number 1 has 2 of 6"),
        (
            tiff([bytes(256)], (16, 32), {273: None, 278: None, 279: None, 322: [16], 323: [16], 324: [99], 325: [9]}),
            "expected 2 tiles of pixels, got 1",
        ),
        (tiff([_PAIR], (1, 2), {262: None}), "does not say what its numbers mean: the tag PhotometricInterp"),
        (
            tiff([bytes(10)], (1, 2), {258: [8] * 5, 262: [2], 277: [5], 338: [0, 0]}),
            "has 5 samples per pixel, 2 more than its colors and not alpha",
        ),
        (
            tiff([bytes(8)], (1, 2), {258: [8] * 4, 262: [2], 277: [4], 338: [0]}),
            "has 4 samples per pixel, 1 more than its colors and not alpha",
        ),
        (
            tiff([bytes(4)], (1, 2), {258: [8] * 2, 277: [2], 338: [0]}),
            "has 2 samples per pixel, 1 more than its colors and not alpha",
        ),
        (
            tiff([bytes(4)] * 3, (1, 2), {258: [16] * 3, 262: [2], 277: [3], 278: [1], 284: [2]}),
            "stores its channels one after the other (planar) with 16 bits each",
        ),
        (tiff([b"\x12"], (1, 2), {258: [4], 284: [2]}), "stores its channels one after the other (planar) with 4 bits"),
        (
            tiff([_bytes([0.5], "f4", big_endian=True)], (1, 1), {258: [32], 339: [3], 284: [2]}, big_endian=True),
            "stores 32-bit numbers in a planar layout",
        ),
        (tiff([_PAIR], (1, 2), {266: [2], 284: [2]}), "stores 8-bit numbers in a planar layout"),
        (tiff([_PAIR], (1, 2), {262: [0], 284: [2]}), "stores 8-bit numbers in a planar layout, where the order of"),
        (
            tiff([_PAIR] * 4, (1, 2), {258: [8] * 4, 262: [2], 277: [4], 278: [1], 284: [2]}, deflate=True),
            "stores 4 samples one after the other (planar), and does not say that the last is alpha",
        ),
        (tiff([_PAIR], (1, 2), {257: [0]}), "has a size of 0x2 (height x width)"),
        (
            tiff([bytes(12)], (1, 3), {258: [32], 339: [3]}, big_endian=True, deflate=True),
            "holds compressed big-endian 32-bit numbers that are signed or float",
        ),
        (
            tiff([bytes(24)], (2, 4), {258: [8] * 3, 262: [6], 277: [3]}),
            "holds uncompressed YCbCr with subsampled colors",
        ),
        (
            tiff([_PAIR], (1, 2), {262: [3], 320: [k % 256 for k in range(768)]}),
            "has a ColorMap of 8-bit instead of 16-bit colors",
        ),
        (tiff([bytes(8)], (1, 2), {258: [8] * 4, 262: [5], 277: [4], 332: [2]}), "holds inks other than cyan, mag"),
        (
            tiff([bytes(16)], (1, 2), {258: [64], 339: [3]}),
            "is a TIFF with 1 samples per pixel of 64 bits (float), PhotometricInterpretation 1",
        ),
    ],
)
def test_tiff_that_would_be_read_wrongly_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = _saved(tmp_path, data)
    for read in (read_image, read_mask):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {words}")
        assert "; fix: export the image again" in str(caught.value)


def _run_length_bmp(code: bytes, width: int, height: int) -> bytes:
    """A BMP of 8 bits whose pixels have the given run-length code; its palette is gray."""
    palette = b"".join(bytes([k, k, k, 0]) for k in range(256))
    first = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(code), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", first + len(code), 0, 0, first) + info + palette + code


def test_run_length_bmp_that_leaves_out_pixels_is_refused(tmp_path: Path) -> None:
    """Whole: a run of 3, and 3 single values, from the lowest row up. Others jump, end a row early, or end early."""
    whole = _saved(tmp_path, _run_length_bmp(b"\x03\x07\0\0\0\x03\x01\x02\x03\0\0\0\0\x01", 3, 2), "x.bmp")
    assert read_mask(whole).tolist() == [[1, 2, 3], [7, 7, 7]]
    for code in (
        b"\x03\x07\0\x02\0\x01\0\x01",
        b"\x02\x07\0\0\x03\x09\0\x01",
        b"\x03\x07\0\x01",
        b"\x03\x07\0\0\0\0\0\x01",
    ):
        path = _saved(tmp_path, _run_length_bmp(code, 3, 2), "x.bmp")
        for read in (read_image, read_mask):
            with pytest.raises(
                ImageError, match="leaves out pixels: its run-length code jumps or ends early; fix: export"
            ):
                read(path)


_HEADER = chunk(b"IHDR", bytes([0, 0, 0, 2, 0, 0, 0, 1, 8, 0, 0, 0, 0]))
_PIXELS = zlib.compress(bytes([0, 1, 2]))
_PALETTE, _TEXT = chunk(b"PLTE", bytes(6)), chunk(b"tEXt", b"a\0b")


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([_TEXT, _HEADER, chunk(b"IDAT", _PIXELS)], "expected one header (IHDR), at the beginning"),
        ([_HEADER, _HEADER, chunk(b"IDAT", _PIXELS)], "expected one header (IHDR), at the beginning"),
        ([_HEADER, chunk(b"IDAT", _PIXELS), _PALETTE], "expected one palette (PLTE), before the pixels"),
        ([_HEADER, _PALETTE, _PALETTE, chunk(b"IDAT", _PIXELS)], "expected one palette (PLTE), before the pixels"),
        (
            [_HEADER, chunk(b"IDAT", _PIXELS[:5]), _TEXT, chunk(b"IDAT", _PIXELS[5:])],
            "has other data between its pixels",
        ),
        ([chunk(b"CgBI", bytes(4)), _HEADER, chunk(b"IDAT", _PIXELS)], "expected one header (IHDR), at the beginning"),
        ([_HEADER, chunk(b"ZzzZ", b""), chunk(b"IDAT", _PIXELS)], "has the unknown part b'ZzzZ'"),
    ],
)
def test_png_whose_chunks_are_out_of_order_is_refused(tmp_path: Path, chunks: list[bytes], words: str) -> None:
    """As the PNG specification and libpng do; Pillow reads some of them with the depth of another header."""
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")
    for read in (read_image, read_mask):
        with pytest.raises(ImageError) as caught:
            read(_saved(tmp_path, data, "x.png"))
        assert words in str(caught.value)
        assert "; fix: copy or download it again" in str(caught.value)
    in_order = b"\x89PNG\r\n\x1a\n" + b"".join([_HEADER, _TEXT, chunk(b"IDAT", _PIXELS), _TEXT, chunk(b"IEND", b"")])
    assert read_mask(_saved(tmp_path, in_order, "x.png")).tolist() == [[1, 2]]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("bits", "color"), [(8, 0), (1, 0), (16, 0), (8, 2), (8, 6)])
def test_png_with_fewer_rows_than_its_header_says_is_refused(
    tmp_path: Path, bits: int, color: int, interlaced: bool
) -> None:
    """The compressed stream is whole, and has right checksums; Pillow makes black pixels of the missing ones."""
    size = 8 * (3 if color == 2 else 4 if color == 6 else 1) * bits // 8
    # Of Adam7, an image of 8 x 8 has 1, 1, 1, 2, 2, 4 and 4 rows of 1, 1, 2, 2, 4, 4 and 8 pixels.
    passes = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8)) if interlaced else ((8, 8),)
    whole = b"".join((b"\0" + b"\1" * -(-size * columns // 8)) * rows for rows, columns in passes)
    for rows, is_whole in ((whole, True), (whole[:-1], False), (whole[: len(whole) // 2], False), (whole + b"x", True)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, color, 0, 0, interlaced))
        parts = [b"\x89PNG\r\n\x1a\n", header, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
        path = _saved(tmp_path, b"".join(parts), "x.png")
        if is_whole:
            assert read_mask(path).shape[:2] == (8, 8)
            continue
        for read in (read_image, read_mask):
            with pytest.raises(ImageError, match=r"is damaged or cut: .*; fix: copy or download"):
                read(path)


@pytest.mark.parametrize("place", [-1, -4])
def test_png_whose_pixels_contradict_their_checksum_is_refused(tmp_path: Path, place: int) -> None:
    """The stream's own checksum (Adler-32) is its last four bytes; the chunk around it is right."""
    packed = bytearray(zlib.compress(b"\0" + b"\1" * 8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, 8, 0, 0, 0, 0))
    for flipped in (0, 1):
        packed[place] ^= flipped
        parts = [b"\x89PNG\r\n\x1a\n", header, chunk(b"IDAT", bytes(packed)), chunk(b"IEND", b"")]
        path = _saved(tmp_path, b"".join(parts), "x.png")
        if not flipped:
            assert read_mask(path).tolist() == [[1] * 8]
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=r"is damaged or cut: .*; fix: copy or download"):
            read(path)


def test_black_png_is_whole(tmp_path: Path) -> None:
    for size in ((1, 1), (2000, 1500)):
        path = _saved(tmp_path, encoded(np.zeros(size, np.uint8), "PNG"), "x.png")
        assert read_mask(path).tolist() == np.zeros(size, int).tolist()


def test_a_gray_bmp_with_an_index_beyond_its_palette_is_refused(tmp_path: Path) -> None:
    data = bytearray(encoded(np.array([[False, True]]), "BMP"))
    assert read_image(_saved(tmp_path, bytes(data), "x.bmp")).tolist() == [[[0] * 3, [255] * 3]]
    # biClrUsed: the palette has one color, black.
    data[46:50] = (1).to_bytes(4, "little")
    with pytest.raises(ImageError, match="has the palette index 1, but a palette of 1 colors; fix: export it as 8-bit"):
        read_image(_saved(tmp_path, bytes(data), "x.bmp"))


@pytest.mark.parametrize("tag", [274, 277, 284])
def test_tiff_with_numbers_stored_as_bytes_is_refused(tmp_path: Path, tag: int) -> None:
    """Allowed by TIFF 6.0, and passed over by Pillow: an orientation would not turn the image."""
    data = bytearray(tiff([_PAIR], (1, 2), {274: [3], 277: [1], 284: [1]}))
    assert read_mask(_saved(tmp_path, bytes(data))).tolist() == [[2, 1]]
    # The entry's type, LONG, becomes BYTE.
    place = data.index(struct.pack("<HHI", tag, 4, 1))
    data[place + 2] = 1
    with pytest.raises(ImageError, match=f"stores the tag {tag} as bytes instead of numbers; fix: export"):
        read_mask(_saved(tmp_path, bytes(data)))


def test_rounded_masks_are_refused(tmp_path: Path) -> None:
    """Colors multiplied by alpha are divided again and rounded."""
    data = tiff([bytes([10, 20, 30, 99])], (1, 1), {258: [8] * 4, 262: [2], 277: [4], 338: [1]})
    with pytest.raises(MaskError, match="is a lossy TIFF, which does not keep the labels exactly"):
        read_mask(_saved(tmp_path, data))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", ["gray", "color"])
def test_few_bits_in_a_16_bit_file_are_refused(tmp_path: Path, bits: int, kind: str) -> None:
    """Such data would be read nearly black. All zero is black whatever the range."""
    shape = (4, 5) if kind == "gray" else (4, 5, 3)
    values = np.full(shape, 2**bits - 1, np.uint16)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"x{suffix}"
        assert cv2.imwrite(str(path), values)
        with pytest.raises(ImageError, match=rf"small part of the 16-bit range 0\.\.65535: .* value is {2**bits - 1};"):
            read_image(path)
        assert cv2.imwrite(str(path), values * 0)
        assert not read_image(path).any()


def test_a_palette_index_without_a_color_is_refused(tmp_path: Path) -> None:
    data = png(3, 1, 2, 3, packed_rows(np.array([[2, 0, 3]]), 2), palette=bytes(9))
    with pytest.raises(ImageError, match="has the palette index 3, but a palette of 3 colors"):
        read_image(_saved(tmp_path, data, "x.png"))
    assert read_mask(_saved(tmp_path, data, "x.png")).tolist() == [[2, 0, 3]]


def _transparent_palette() -> tuple[bytes, np.ndarray]:
    colors = np.random.default_rng(0).integers(0, 256, (17, 3)).astype(np.uint8)
    indices = np.random.default_rng(1).integers(0, 17, (20, 31)).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", transparency=bytes(range(0, 170, 10)))
    return buffer.getvalue(), colors[indices]


def test_a_palette_with_transparency_keeps_its_colors_without_a_warning(tmp_path: Path) -> None:
    data, colors = _transparent_palette()
    path = _saved(tmp_path, data, "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path), colors)
        np.testing.assert_array_equal(from_pil(Image.open(path)), colors)
        loaded = Image.open(path)
        loaded.load()
        np.testing.assert_array_equal(from_pil(loaded), colors)


def test_warnings_as_errors_give_the_same_pixels(tmp_path: Path) -> None:
    """A palette with transparency, a cut EXIF block, an animation of no frames; a predictor that libtiff refuses."""
    _saved(tmp_path, _transparent_palette()[0], "a.png")
    good = encoded(photo(), "JPEG")
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x01\x12\0\x03"
    _saved(tmp_path, good[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + good[2:], "b.jpg")
    still = encoded(photo(), "PNG")
    _saved(tmp_path, still[:33] + chunk(b"acTL", bytes(8)) + still[33:], "c.png")
    _saved(tmp_path, tiff([bytes(8)], (2, 4), {317: [9]}, deflate=True), "d.tif")
    code = (
        "import sys\nfrom pixelwise.errors import ImageError\nfrom pixelwise.images import read_image\n"
        "print([(read_image(p).shape, int(read_image(p).sum())) for p in sys.argv[2:]])\n"
        "try: read_image(sys.argv[1])\n"
        "except ImageError as error: print(error)"
    )
    said = [
        subprocess.run(
            [sys.executable, *flags, "-c", code, *(tmp_path / name for name in ("d.tif", "a.png", "b.jpg", "c.png"))],
            capture_output=True,
            text=True,
            check=True,
        )
        for flags in ([], ["-W", "error"])
    ]
    assert said[0].stdout == said[1].stdout
    assert f"{tmp_path / 'd.tif'}: is damaged or cut: " in said[0].stdout
    assert said[0].stderr == said[1].stderr == ""


def _assert_same_by_path_and_by_pil(path: Path) -> None:
    expected = read_image(path)
    np.testing.assert_array_equal(from_pil(Image.open(path)), expected)
    loaded = Image.open(path)
    loaded.load()
    np.testing.assert_array_equal(from_pil(loaded), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(from_pil(Image.open(file)), expected)


def test_a_pil_image_gives_the_pixels_of_its_path(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 31, 3)).astype(np.uint16)
    for name in ("deep.png", "deep.tif"):
        assert cv2.imwrite(str(tmp_path / name), deep)
        np.testing.assert_array_equal(read_image(tmp_path / name), np.rint(deep[..., ::-1] / 257))
        _assert_same_by_path_and_by_pil(tmp_path / name)
    real = np.random.default_rng(0).random((9, 8)).astype(np.float32)
    _assert_same_by_path_and_by_pil(_saved(tmp_path, encoded(real, "TIFF")))
    np.testing.assert_array_equal(from_pil(Image.fromarray(real))[..., 0], np.rint(real * 255))
    exif = Image.Exif()
    exif[274] = 6
    for kind in ("PNG", "TIFF", "JPEG"):
        _assert_same_by_path_and_by_pil(_saved(tmp_path, encoded(photo(), kind, exif=exif), f"turned.{kind}"))
    inverted = tiff([_bytes([0, 25700, 65535], "u2")], (1, 3), {258: [16], 262: [0]})
    _assert_same_by_path_and_by_pil(_saved(tmp_path, inverted))
    with pytest.raises(ImageError, match="leaves out 2 of its 3 strips"):
        from_pil(Image.open(_saved(tmp_path, tiff(_STRIPS, (3, 2), {273: [150, 0, 0]}))))


def test_a_changed_pil_image_is_not_read_from_its_file(tmp_path: Path) -> None:
    image = Image.open(_saved(tmp_path, encoded(photo(), "PNG"), "x.png"))
    image.putpixel((0, 0), (9, 8, 7))
    changed = photo()
    changed[0, 0] = (9, 8, 7)
    np.testing.assert_array_equal(from_pil(image), changed)
    smaller = Image.open(_saved(tmp_path, encoded(photo(), "JPEG"), "x.jpg"))
    smaller.draft("RGB", (20, 12))
    assert from_pil(smaller).shape == (12, 20, 3)


def test_masks_by_color(tmp_path: Path) -> None:
    """Palette files give their palette's colors, shallow gray the gray that a viewer shows."""
    data = png(3, 1, 2, 3, packed_rows(np.array([[2, 0, 1]]), 2), palette=bytes([1, 2, 3, 40, 50, 60, 250, 0, 9]))
    path = _saved(tmp_path, data, "x.png")
    assert read_mask(path, by_color=True).tolist() == [[[250, 0, 9], [1, 2, 3], [40, 50, 60]]]
    assert read_mask(path).tolist() == [[2, 0, 1]]
    bilevel = _saved(tmp_path, png(2, 1, 1, 0, packed_rows(np.array([[0, 1]]), 1)), "b.png")
    assert read_mask(bilevel, by_color=True).tolist() == [[[0] * 3, [255] * 3]]


def _by_pillow(data: bytes) -> NDArray[np.uint8] | None:
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=("WEBP",)).convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return None


def test_damaged_lossless_webp_is_read_or_refused_as_by_pillow(tmp_path: Path) -> None:
    """Plain files are decoded by OpenCV: bits flipped, the end cut or lengthened, lengths changed, bytes inserted."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (13, 22, 3)).astype(np.uint8)
    alpha = np.concatenate([noise, noise[..., :1]], 2)
    files = [encoded(pixels, "WEBP", lossless=True) for pixels in (photo(), noise, alpha, noise[:1, :1])]
    files += [encoded(photo(), "WEBP", lossless=True, quality=0, method=0), encoded(photo(), "WEBP")]
    outcomes = []
    for number in range(480):
        data = bytearray(files[number % len(files)])
        place = int(rng.integers(len(data)))
        match number % 5:
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                del data[place:]
            case 2:
                data += bytes(int(rng.integers(1, 9)))
            case 3:
                data[[4, 16, 21][number % 3]] = int(rng.integers(256))
            case _:
                data[place:place] = bytes(2)
        expected = _by_pillow(bytes(data))
        try:
            pixels = read_image(_saved(tmp_path, bytes(data), "x.webp"))
        except ImageError:
            assert expected is None
        else:
            np.testing.assert_array_equal(pixels, expected)
        outcomes.append(expected is None)
    assert 100 < sum(outcomes) < 400, "some are read, some refused"
