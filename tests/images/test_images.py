"""Images: what each odd format becomes, by hand-made files and other decoders, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.bad_inputs import BAD_IMAGES, chunk, encoded, make_bad_images, packed_rows, photo, png
from pixelwise.errors import ImageError, InputError, ResourceError
from pixelwise.images import find_images, list_images, read_image, write_image

DATA = Path(__file__).parents[1] / "samples"


def _saved(tmp_path: Path, data: bytes, name: str = "x.png") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_rgb_comes_back(tmp_path: Path, kind: str, options: dict[str, bool]) -> None:
    pixels = read_image(_saved(tmp_path, encoded(photo(), kind, **options)))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, photo())


def test_jpeg_is_decoded_as_opencv_does(tmp_path: Path) -> None:
    data = encoded(photo(), "JPEG", quality=90, subsampling=0)
    other = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
    assert np.abs(read_image(_saved(tmp_path, data, "x.jpg")).astype(int) - other).max() <= 1


def test_16_bit_gray_is_level_exact(tmp_path: Path) -> None:
    """65536 levels: 257 k is k, and all others round to the nearest level."""
    ramp = np.arange(65536).reshape(256, 256)
    pixels = read_image(_saved(tmp_path, png(256, 256, 16, 0, packed_rows(ramp, 16))))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(ramp / 257))
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_16_bit_gray_tiff_equals_png(tmp_path: Path) -> None:
    ramp = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    pixels = read_image(_saved(tmp_path, encoded(ramp, "TIFF"), "x.tif"))
    np.testing.assert_array_equal(pixels[..., 1], np.rint(ramp / 257))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_color_is_rounded_and_keeps_channel_order(tmp_path: Path, suffix: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    path = tmp_path / f"x{suffix}"
    assert cv2.imwrite(str(path), deep[..., ::-1])
    np.testing.assert_array_equal(read_image(path), np.rint(deep / 257))


def test_16_bit_alpha_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    deep = (np.arange(4 * 5 * 4).reshape(4, 5, 4) * 257).astype(np.uint16)
    assert cv2.imwrite(str(path), deep)
    np.testing.assert_array_equal(read_image(path), deep[..., 2::-1] // 257)


def test_16_bit_gray_with_alpha(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + struct.pack(">4H", *(257 * v for v in line)) for line in ([1, 9, 200, 0], [255, 255, 0, 3]))
    pixels = read_image(_saved(tmp_path, png(2, 2, 16, 4, rows)))
    np.testing.assert_array_equal(pixels[..., 0], [[1, 200], [255, 0]])


@pytest.mark.parametrize(("bits", "factor"), [(1, 255), (2, 85), (4, 17)])
def test_shallow_gray_fills_the_range(tmp_path: Path, bits: int, factor: int) -> None:
    values = np.arange(2**bits).reshape(1, -1)
    pixels = read_image(_saved(tmp_path, png(2**bits, 1, bits, 0, packed_rows(values, bits))))
    np.testing.assert_array_equal(pixels, np.repeat(values[..., None] * factor, 3, axis=2))


def test_palette_gives_its_colors(tmp_path: Path) -> None:
    data = png(3, 1, 2, 3, packed_rows(np.array([[2, 0, 1]]), 2), palette=bytes([1, 2, 3, 40, 50, 60, 250, 0, 9]))
    assert read_image(_saved(tmp_path, data)).tolist() == [[[250, 0, 9], [1, 2, 3], [40, 50, 60]]]


def test_alpha_is_dropped_and_colors_stay(tmp_path: Path) -> None:
    rgba = np.concatenate([photo(), np.zeros((*photo().shape[:2], 1), np.uint8)], axis=2)
    np.testing.assert_array_equal(read_image(_saved(tmp_path, encoded(rgba, "PNG"))), photo())


def test_gray_with_alpha_is_gray(tmp_path: Path) -> None:
    data = png(2, 1, 8, 4, bytes([0, 10, 0, 200, 255]))
    assert read_image(_saved(tmp_path, data)).tolist() == [[[10] * 3, [200] * 3]]


def test_cmyk_follows_the_plain_formula(tmp_path: Path) -> None:
    """R = (255 - C) (255 - K) / 255, within a level."""
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [10, 100, 200, 50]]], np.uint8)
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (3, 1), inks.tobytes()).save(buffer, format="TIFF")
    pixels = read_image(_saved(tmp_path, buffer.getvalue(), "x.tif"))
    expected = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    assert np.abs(pixels - expected).max() <= 1


def test_float_tiff_of_0_to_1_is_stretched(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    pixels = read_image(_saved(tmp_path, encoded(values, "TIFF"), "x.tif"))
    np.testing.assert_array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))


# EXIF 2.3: where the stored first row and first column lie in the image that a person sees. (row, column) of the stored
# pixel that is shown at (i, j), for a stored height h and width w.
SHOWN = {
    1: lambda i, j, h, w: (i, j),
    2: lambda i, j, h, w: (i, w - 1 - j),
    3: lambda i, j, h, w: (h - 1 - i, w - 1 - j),
    4: lambda i, j, h, w: (h - 1 - i, j),
    5: lambda i, j, h, w: (j, i),
    6: lambda i, j, h, w: (h - 1 - j, i),
    7: lambda i, j, h, w: (h - 1 - j, w - 1 - i),
    8: lambda i, j, h, w: (j, w - 1 - i),
}


def _shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    h, w = stored.shape[:2]
    height, width = (w, h) if orientation > 4 else (h, w)
    return np.array([[stored[SHOWN[orientation](i, j, h, w)] for j in range(width)] for i in range(height)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_turns_the_image(tmp_path: Path, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        data = encoded(photo(), kind, exif=exif, **options)
        difference = read_image(_saved(tmp_path, data)).astype(int) - _shown(photo(), orientation)
        assert np.abs(difference).max() <= (4 if kind == "JPEG" else 0), orientation


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_turns_16_bit_color(tmp_path: Path, orientation: int) -> None:
    exif = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, orientation, 0) + b"\0\0\0\0")
    deep = photo().astype(np.uint16) * 257
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)
    data = png(deep.shape[1], deep.shape[0], 16, 2, rows, after=exif)
    np.testing.assert_array_equal(read_image(_saved(tmp_path, data)), _shown(photo(), orientation))


def test_orientation_outside_1_to_8_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 99
    np.testing.assert_array_equal(read_image(_saved(tmp_path, encoded(photo(), "PNG", exif=exif))), photo())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_broken_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    """It claims entries that are not there; Pillow warns, and the image is whole."""
    good = encoded(photo(), "JPEG", quality=95, subsampling=0)
    block = b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12\0\x03"
    data = good[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + good[2:]
    assert np.abs(read_image(_saved(tmp_path, data, "x.jpg")).astype(int) - photo()).max() <= 4


def test_a_link_to_an_image_is_read(tmp_path: Path) -> None:
    _saved(tmp_path, encoded(photo(), "PNG"))
    (tmp_path / "link.png").symlink_to("x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "link.png"), photo())


def test_every_bad_file_is_refused_in_one_line(tmp_path: Path) -> None:
    words = make_bad_images(tmp_path)
    assert len(words) > len(BAD_IMAGES) + 2
    for name, expected in words.items():
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / name}: "), message
        assert "; fix: " in message
        assert "\n" not in message
        assert all(word in message for word in expected), (name, message)


def test_a_flipped_bit_of_a_png_never_changes_a_pixel(tmp_path: Path) -> None:
    """Every byte in turn: the file is refused, or its pixels are the ones that were saved."""
    data = encoded(photo(), "PNG")
    num_refused = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        path = _saved(tmp_path, bytes(damaged))
        try:
            np.testing.assert_array_equal(read_image(path), photo(), err_msg=f"byte {position}")
        except ImageError:
            num_refused += 1
    # Only length and checksum of the empty last chunk are not checked.
    assert num_refused >= len(data) - 8


def test_a_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(ImageError, match="null byte"):
        read_image("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_never_hangs(tmp_path: Path) -> None:
    """In a process of its own, so that a hang is a failure and not a hung test run."""
    os.mkfifo(tmp_path / "x.png")
    code = "import sys\nfrom pixelwise.images import read_image\nread_image(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.png")], capture_output=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert b"is a named pipe" in done.stderr


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    """60000 x 60000 RGB would be 10 GB."""
    BAD_IMAGES["bomb.png"][0](tmp_path / "bomb.png")
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"is too large: .*3600000000|60000x60000"):
        read_image(tmp_path / "bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


GOOD = {
    "png": encoded(photo(), "PNG"),
    "palette png": png(3, 1, 2, 3, packed_rows(np.array([[2, 0, 1]]), 2), palette=bytes(9)),
    "deep png": png(8, 4, 16, 0, packed_rows(np.arange(32).reshape(4, 8) * 2000, 16)),
    "jpeg": encoded(photo(), "JPEG"),
    "turned jpeg": encoded(
        photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    ),
    "webp": encoded(photo(), "WEBP"),
    "tiff": encoded(photo(), "TIFF", compression="tiff_adobe_deflate"),
    "bmp": encoded(photo(), "BMP"),
}
KINDS = st.sampled_from(["flip", "cut", "double", "drop"])
MUTANTS = st.builds(
    lambda kind, edits, repair: _mutate(GOOD[kind], edits, repair),
    st.sampled_from(sorted(GOOD)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), KINDS, st.integers(0, 255)), max_size=4),
    st.booleans(),
)


def _mutate(data: bytes, edits: list[tuple[float, str, int]], repair: bool) -> bytes:
    out = bytearray(data)
    for share, kind, value in edits:
        place = int(share * len(out))
        if kind == "flip" and out:
            out[place] = value
        elif kind == "cut":
            del out[place:]
        elif kind == "double":
            out[place:place] = out[place : place + value]
        else:
            del out[place : place + value]
    return _with_right_sums(bytes(out)) if repair else bytes(out)


@settings(max_examples=300, deadline=None)
@given(data=MUTANTS)
def test_only_image_errors_leave_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "mutant"
    path.write_bytes(data)
    try:
        pixels = read_image(path)
    except ImageError as error:
        message = str(error)
    else:
        message = f"{path}: {pixels.dtype} {pixels.ndim} {pixels.shape[2]}"
        assert message.endswith("uint8 3 3")
    assert message.startswith(f"{path}: ")


def _with_right_sums(data: bytes) -> bytes:
    """Correct the checksums of a PNG, so that damage reaches the code after the check."""
    out, place = bytearray(data), 8
    while data.startswith(b"\x89PNG") and place + 12 <= len(out):
        end = place + 12 + struct.unpack_from(">I", out, place)[0]
        if end > len(out):
            break
        struct.pack_into(">I", out, end - 4, zlib.crc32(out[place + 4 : end - 4]))
        place = end
    return bytes(out)


def test_real_photos_are_read() -> None:
    images = find_images(DATA)
    assert read_image(next(p for p in images if p.suffix == ".jpg")).shape == (160, 256, 3)
    # RGBA in the file, alpha 255 everywhere.
    nuclei = next(p for p in images if p.parts[-3:-1] == ("nuclei", "images"))
    np.testing.assert_array_equal(read_image(nuclei), np.asarray(cv2.imread(str(nuclei), cv2.IMREAD_COLOR))[..., ::-1])


def test_a_folder_gives_its_images_and_tells_what_it_skips(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.webp", ".hidden.png", ".git/x.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.png").symlink_to("nowhere")
    listing = list_images(tmp_path)
    assert listing.images == [tmp_path / "a/b/c.webp", tmp_path / "a/z.JPG", tmp_path / "b.png"]
    assert listing.skipped == [(tmp_path / "gone.png", "a link to nothing")]
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


def test_nothing_to_find_says_what_was_sought(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no images; fix: expected files \.png \.jpg"):
        find_images(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: does not exist; fix: name an image"):
        find_images(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "tolerance"), [("x.png", 0), ("x.JPG", 6)])
def test_a_written_image_is_read_by_another_library(tmp_path: Path, name: str, tolerance: int) -> None:
    write_image(tmp_path / name, photo())
    other = np.asarray(cv2.imread(str(tmp_path / name)))[..., ::-1].astype(int)
    assert np.abs(other - photo()).max() <= tolerance
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_write_image_refuses(tmp_path: Path) -> None:
    halves: Any = photo() / 2
    with pytest.raises(InputError, match=r"x\.gif: images cannot be written as \.gif; fix: name it \.png"):
        write_image(tmp_path / "x.gif", photo())
    with pytest.raises(InputError, match=r"\(24, 40, 3\) float64"):
        write_image(tmp_path / "x.png", halves)
    with pytest.raises(ResourceError, match="cannot be written"):
        write_image(tmp_path / "no" / "x.png", photo())
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_hides_nothing(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    for name in ("loop", "loop.png"):
        (tmp_path / name).symlink_to(name)
    listing = list_images(tmp_path)
    assert listing.images == [tmp_path / "a.png"]
    assert [path.name for path, _ in listing.skipped] == ["loop.png"]


@pytest.mark.timeout(60)
@pytest.mark.skipif(not os.access("/proc/kmsg", os.R_OK), reason="the kernel's log, which root reads")
def test_a_file_whose_end_never_comes_is_refused() -> None:
    """It says that it is a regular file of size 0, and a reader waits for the next line for ever."""
    with pytest.raises(ImageError):
        read_image("/proc/kmsg")
