"""What the headers of an image file say that Pillow does not heed: tags, order of parts, pixels that are left out."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

from PIL import Image, TiffImagePlugin

from ..errors import shown

# The seven passes of an interlaced PNG: first column and row, and the steps to the next.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Bytes that are unpacked at a time.
_PIECE = 2**20
# TIFF tags (TIFF 6.0), of which EXIF shares the orientation.
_WIDTH, _HEIGHT, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIP_OFFSETS, SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _STRIP_BYTE_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_COLOR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTE_COUNTS = 320, 322, 323, 324, 325
_FILL_ORDER, _INK_SET, EXTRA_SAMPLES, SAMPLE_FORMAT, _YCBCR_SUBSAMPLING = 266, 332, 338, 339, 530
_NUMBERS = (
    256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 320, 322, 323, 324, 325, 332, 338, 339, 530
)  # fmt: skip
# In place of a tag: the number of one that is stored as bytes, which Pillow does not take for a number.
_IN_BYTES = -1
# Values of PhotometricInterpretation, and the color channels of those that have more than one.
WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, YCBCR, _LAB = 0, 2, 3, 5, 6, 8
_NUM_COLORS = {_RGB: 3, _CMYK: 4, YCBCR: 3, _LAB: 3}
# Values of ExtraSamples: 0 is unspecified; 1 and 2 are alpha; Corel Draw writes 999 for alpha.
PREMULTIPLIED_ALPHA = 1
_ALPHAS = (1, 2, 999)
SIGNED, FLOAT = 2, 3
_UNCOMPRESSED, _OLD_JPEG_IN_TIFF = 1, 6
JPEG_IN_TIFF = (_OLD_JPEG_IN_TIFF, 7)
# Exceptions of Pillow's decoders on damaged bytes, found by mutating files. Warnings are listed because a program may
# turn them into errors.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    UserWarning,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_warnings_lock = threading.Lock()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about headers: they print its source code, and are errors under PYTHONWARNINGS=error.

    The lock is needed because `warnings.catch_warnings` changes the filters of all threads.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _png_parts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each chunk of a PNG, to the end (IEND) or as far as there are bytes."""
    place, kind = 8, b""
    while place + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += length + 12


def png_fault(data: bytes) -> str:
    """Return what is wrong with the order of a PNG's chunks, which Pillow does not check; "" for nothing or no PNG."""
    kinds = [kind for kind, _ in _png_parts(data)] if data.startswith(b"\x89PNG") else []
    if not kinds:
        return ""
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") > 1:
        return "expected one header (IHDR), at the beginning"
    if kinds.count(b"PLTE") > 1 or (b"PLTE" in kinds and b"IDAT" in kinds[: kinds.index(b"PLTE")]):
        return "expected one palette (PLTE), before the pixels"
    pixels = [k for k, kind in enumerate(kinds) if kind == b"IDAT"]
    if pixels and pixels[-1] - pixels[0] >= len(pixels):
        return "has other data between its pixels (IDAT)"
    # The first letter of a chunk that may not be skipped is a capital. Other letters stand in a damaged file.
    unknown = [kind for kind in kinds if kind[:1].isupper() and kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND")]
    return f"has the unknown part {shown(unknown[0])}" if unknown else ""


def png_lacks_pixels(data: bytes) -> bool:
    """Return whether the compressed pixels of a PNG end before its last row; Pillow fills up with zeros.

    data  a file that Pillow has decoded
    """
    width, height, bits, color, interlace = struct.unpack_from(">IIBB2xB", data, 16)
    bits_per_pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    expected = 0
    for left, top, right, down in _ADAM7 if interlace else ((0, 0, 1, 1),):
        columns, rows = ceil((width - left) / right), ceil((height - top) / down)
        # Each row follows a byte that names its filter.
        expected += rows * (1 + ceil(columns * bits_per_pixel / 8)) if columns > 0 else 0
    packed = b"".join(body for kind, body in _png_parts(data) if kind == b"IDAT")
    inflater, count = zlib.decompressobj(), 0
    while count < expected and not inflater.eof:
        piece = inflater.decompress(packed, _PIECE)
        packed, count = inflater.unconsumed_tail, count + len(piece)
        if not piece and not packed:
            break
    return count < expected


def tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the integer tags of the first page of a TIFF; empty for another format or a damaged header."""
    if not data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return {}
    found: dict[int, tuple[int, ...]] = {}
    try:
        with without_warnings():
            header = data[:16] if data[2:3] == b"+" or data[3:4] == b"+" else data[:8]
            directory: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
            file = io.BytesIO(data)
            file.seek(directory.next)
            directory.load(file)
            for tag in directory:
                value = directory[tag]
                if isinstance(value, bytes) and tag in _NUMBERS:
                    found[_IN_BYTES] = (tag,)
                values = value if isinstance(value, tuple) else (value,)
                if all(isinstance(number, int) for number in values):
                    found[tag] = values
    except DECODE_ERRORS:
        return {}
    return found


def first(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    return tags.get(tag, (default,))[0]


def num_further_samples(tags: dict[int, tuple[int, ...]]) -> int:
    """Return the number of samples per pixel beside the colors and alpha."""
    num_extra = first(tags, SAMPLES_PER_PIXEL, 1) - _NUM_COLORS.get(first(tags, PHOTOMETRIC, -1), 1)
    return 0 if num_extra == 1 and first(tags, EXTRA_SAMPLES, 2) in _ALPHAS else max(num_extra, 0)


def tiff_fault(tags: dict[int, tuple[int, ...]], *, big_endian: bool) -> str:
    """Return what the tags say that Pillow or OpenCV would not heed, inventing or dropping pixels; "" for none."""
    photometric, compression = first(tags, PHOTOMETRIC, -1), first(tags, COMPRESSION, _UNCOMPRESSED)
    samples, planar = first(tags, SAMPLES_PER_PIXEL, 1), first(tags, _PLANAR, 1)
    bits, extra = first(tags, BITS_PER_SAMPLE, 1), first(tags, EXTRA_SAMPLES, 2)
    if _IN_BYTES in tags:
        return f"stores the tag {tags[_IN_BYTES][0]} as bytes instead of numbers"
    num_extra = samples - _NUM_COLORS.get(photometric, 1)
    if photometric < 0 and compression != _OLD_JPEG_IN_TIFF:
        return "does not say what its numbers mean: the tag PhotometricInterpretation is missing"
    if num_extra > 1 or (num_extra == 1 and extra not in _ALPHAS):
        return f"has {samples} samples per pixel, {num_extra} more than its colors and not alpha"
    if planar == 2 and (bits < 8 or (bits > 8 and samples > 1)):
        return f"stores its channels one after the other (planar) with {bits} bits each"
    if planar == 2 and num_extra == 1 and EXTRA_SAMPLES not in tags:
        return f"stores {samples} samples one after the other (planar), and does not say that the last is alpha"
    # Of the order of bytes and bits, and of the sense of gray, Pillow heeds nothing there.
    is_reversed = photometric == WHITE_IS_ZERO or first(tags, _FILL_ORDER, 1) != 1
    if planar == 2 and (is_reversed or (samples == 1 and bits > 8)):
        return f"stores {bits}-bit numbers in a planar layout, where the order of bytes, bits or grays is lost"
    if big_endian and compression != _UNCOMPRESSED and first(tags, SAMPLE_FORMAT, 1) in (SIGNED, FLOAT) and bits > 8:
        return f"holds compressed big-endian {bits}-bit numbers that are signed or float"
    subsampling = tags.get(_YCBCR_SUBSAMPLING, (2, 2))
    if photometric == YCBCR and compression == _UNCOMPRESSED and subsampling != (1, 1) and samples > 1:
        return "holds uncompressed YCbCr with subsampled colors"
    if photometric == _CMYK and first(tags, _INK_SET, 1) != 1:
        return "holds inks other than cyan, magenta, yellow and black"
    if photometric == _PALETTE and 0 < max(tags.get(_COLOR_MAP, (0,))) < 256:
        return "has a ColorMap of 8-bit instead of 16-bit colors"
    return "" if compression == _OLD_JPEG_IN_TIFF else _strip_fault(tags)


def _strip_fault(tags: dict[int, tuple[int, ...]]) -> str:
    """Return what is wrong with the strips or tiles that hold the pixels: their number, or bytes left out."""
    height, width = first(tags, _HEIGHT, 0), first(tags, _WIDTH, 0)
    if height < 1 or width < 1:
        return f"has a size of {height}x{width} (height x width)"
    samples = first(tags, SAMPLES_PER_PIXEL, 1)
    planes = samples if first(tags, _PLANAR, 1) == 2 else 1
    is_tiled = _TILE_OFFSETS in tags and _STRIP_OFFSETS not in tags
    rows = max(1, first(tags, _TILE_HEIGHT, height) if is_tiled else min(first(tags, _ROWS_PER_STRIP, height), height))
    columns = max(1, first(tags, _TILE_WIDTH, width) if is_tiled else width)
    offsets = tags.get(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, ())
    counts = tags.get(_TILE_BYTE_COUNTS if is_tiled else _STRIP_BYTE_COUNTS, ())
    word = "tiles" if is_tiled else "strips"
    expected = ceil(height / rows) * ceil(width / columns) * planes
    if len(offsets) != expected:
        return f"expected {expected} {word} of pixels, got {len(offsets)}"
    left_out = sum(offset == 0 for offset in offsets) or sum(count == 0 for count in counts)
    if left_out:
        return f"leaves out {left_out} of its {expected} {word} of pixels"
    # Subsampled colors take fewer bytes.
    if first(tags, COMPRESSION, 1) == _UNCOMPRESSED and first(tags, PHOTOMETRIC, 1) != YCBCR:
        bits = tags.get(BITS_PER_SAMPLE, (1,))
        bits_per_pixel = bits[0] if planes > 1 else sum(bits) if len(bits) == samples else bits[0] * samples
        row_bytes, strips_per_plane = ceil(columns * bits_per_pixel / 8), ceil(height / rows)
        for k, count in enumerate(counts):
            last = not is_tiled and k % strips_per_plane == strips_per_plane - 1
            num_rows = height - rows * (strips_per_plane - 1) if last else rows
            if count < num_rows * row_bytes:
                return f"has {word} with too few bytes: number {k + 1} has {count} of {num_rows * row_bytes}"
    return ""


def leaves_out_pixels(data: bytes) -> bool:
    """Return whether a BMP of run-length code (compression 1: 8 bits, 2: 4 bits) skips pixels, which have no value."""
    position, header_bytes, width, height, compression = struct.unpack_from("<10xIIii4xI", data)
    if header_bytes < 40 or compression not in (1, 2):
        return False
    count = 0
    while width > 0 and position + 1 < len(data):
        length, value = data[position : position + 2]
        position += 2
        if length or value > 2:
            # A run of one value, or that many values one by one, filled up to whole pairs of bytes.
            num_bytes = 0 if length else value if compression == 1 else (value + 1) // 2
            count, position = count + (length or value), position + num_bytes + num_bytes % 2
        elif value == 1:
            break
        elif value == 2 or count % width:
            return True
    return bool(count < width * abs(height))


def has_lossy_webp_chunk(data: bytes) -> bool:
    """Return whether a RIFF file holds a "VP8 " chunk; lossless WebP holds "VP8L" instead."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"VP8 ":
            return True
        position += 8 + length + (length & 1)
    return False


def plain_webp_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a file that is one lossless WebP image without alpha; None for any other file.

    Source: RFC 9649, sections 2.4, 2.6 and 3.4.
    """
    if len(data) < 25 or data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or data[20] != 0x2F:
        return None
    file_bytes, image_bytes, header = struct.unpack_from("<I8xIxI", data, 4)
    has_alpha = header >> 28 & 1
    if has_alpha or file_bytes != len(data) - 8 or image_bytes + image_bytes % 2 != len(data) - 20:
        return None
    return (header >> 14 & 0x3FFF) + 1, (header & 0x3FFF) + 1
