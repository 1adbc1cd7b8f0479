"""Open a file, check that it is a complete image of an allowed format, and decode it with Pillow."""

from __future__ import annotations

import ctypes
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, _imaging

from ..errors import ImageError, shown

# Twice Pillow's own warning limit, the size from which Pillow refuses an image: 512 MiB as RGB.
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**31

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
# TIFF tags (TIFF 6.0), of which EXIF shares the orientation.
_WIDTH, _HEIGHT, _BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 259, 262, 274
_STRIP_OFFSETS, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _STRIP_BYTE_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_COLOR_MAP, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTE_COUNTS = 320, 322, 323, 324, 325
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _YCBCR_SUBSAMPLING = 332, 338, 339, 530
# Values of PhotometricInterpretation, and the color channels of those that have more than one.
_WHITE_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 2, 3, 5, 6, 8
_NUM_COLORS = {_RGB: 3, _CMYK: 4, _YCBCR: 3, _LAB: 3}
# Values of ExtraSamples: 0 is unspecified; 1 and 2 are alpha; Corel Draw writes 999 for alpha.
_PREMULTIPLIED_ALPHA = 1
_ALPHAS = (1, 2, 999)
_SIGNED, _FLOAT = 2, 3
_UNCOMPRESSED, _OLD_JPEG_IN_TIFF = 1, 6
_JPEG_IN_TIFF = (_OLD_JPEG_IN_TIFF, 7)
_EXPORT = "export the image again as PNG or JPEG"
_AGAIN = "copy or download it again"
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
# What Pillow says of headers, exif and damaged bytes while it loads pixels is raised as an error, or does not matter.
# Not by `catch_warnings`, which changes the filters of all threads, and images are loaded in several.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
# The handlers by which libtiff prints to standard error what Pillow raises as an error, too. Where Pillow has libtiff
# inside (Windows), they have no name.
with suppress(AttributeError, OSError):
    for _handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        _set_handler = getattr(ctypes.CDLL(_imaging.__file__), _handler)
        _set_handler.argtypes, _set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        _set_handler(None)
# First bytes of the allowed formats.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
)
# First bytes, in lower case, of other files that often have the name of an image: (bytes, kind of file, fix).
_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself", "run `git lfs pull`"),
    (b"<!doctype html", "an HTML page, not an image", "download the file again; the server answered with a page"),
    (b"<html", "an HTML page, not an image", "download the file again; the server answered with a page"),
    (b"<svg", "an SVG drawing, not a pixel image", "export it as PNG"),
    (b"<?xml", "an XML or SVG text, not a pixel image", "export it as PNG"),
    (b"gif8", "a GIF", _EXPORT),
    (b"%pdf", "a PDF", _EXPORT),
    (b"%!ps", "a PostScript file", _EXPORT),
    (b"8bps", "a Photoshop file", _EXPORT),
    (b"pk\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"\x93numpy", "a NumPy array", "save it as PNG"),
)


class Decoded(NamedTuple):
    """An image as Pillow decoded it, and the facts about its file that Pillow hides.

    image          loaded; its orientation tag is not applied unless `turned`
    data           the bytes of the file
    bits           per channel, as stored: Pillow stretches gray of 2 and 4 bits to 8, and cuts color of 16 to 8
    orientation    EXIF's, 1..8
    turned         True for TIFF, which Pillow and OpenCV rotate while loading
    white_is_zero  True for TIFF whose largest value is black; Pillow inverts it while loading, up to 8 bits only
    signed         True for TIFF of signed integers; Pillow reads those of 8 bits as unsigned
    lossy          True where the decoded values may differ from the values that were saved
    """

    image: Image.Image
    data: bytes
    bits: int
    orientation: int
    turned: bool = False
    white_is_zero: bool = False
    signed: bool = False
    lossy: bool = False


def decode(path: str | Path) -> Decoded:
    """Read, check and decode an image of an allowed format. Raises ImageError with file, fault and fix."""
    return decode_bytes(path, _read_bytes(path))


def decode_bytes(path: str | Path, data: bytes) -> Decoded:
    """Check and decode the bytes of an image file, whose name `path` only serves for errors."""
    if fault := _png_fault(data):
        raise ImageError(path, f"is damaged: {fault}", _AGAIN)
    tags = _tiff_tags(data)
    if tags and (fault := _tiff_fault(tags, big_endian=data.startswith(b"MM"))):
        raise ImageError(path, fault, _EXPORT)
    if data.startswith(b"BM") and len(data) > 34 and _leaves_out_pixels(data):
        raise ImageError(path, "leaves out pixels: its run-length code jumps or ends early", _EXPORT)
    try:
        image = _opened(data)
        width, height = image.size
        if width * height > MAX_PIXELS:
            what = f"is too large: {height}x{width} (height x width), at most {MAX_PIXELS} pixels are allowed"
            raise ImageError(path, what, "cut it into tiles")
        # A stack of pages or an animation has no single meaning. A phone's MPO is a photo followed by a preview.
        with _without_warnings():
            pages = getattr(image, "n_frames", 1)
        if pages > 1 and image.format != "MPO":
            raise ImageError(path, f"holds {pages} pages or frames", "save each as a file of its own")
        if image.format == "PNG":
            # `load` does not check the checksums of pixel chunks, so damaged pixels would pass. `verify` does, and
            # leaves the image unusable.
            image.verify()
            image = _opened(data)
        image.load()
        # The tag may stand after the pixels. TIFF has it among its own tags, and Pillow drops it while loading.
        orientation = _first(tags, _ORIENTATION, 1) if image.format == "TIFF" else _exif_orientation(image)
    except UnidentifiedImageError:
        raise _unidentified(path, data, tags) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, f"is too large: {str(error).partition(',')[0]}", "cut it into tiles") from None
    except DECODE_ERRORS as error:
        raise ImageError(path, f"is damaged or cut: {error or type(error).__name__}", _AGAIN) from None
    decoded = Decoded(image, data, 8, orientation if orientation in range(1, 9) else 1)
    match image.format:
        case "PNG":
            # Byte 24 is the bit depth in the IHDR chunk.
            return decoded._replace(bits=data[24])
        case "TIFF":
            # Colors that were multiplied by alpha, and YCbCr, come back rounded.
            is_rounded = (
                _first(tags, _EXTRA_SAMPLES, 0) == _PREMULTIPLIED_ALPHA or _first(tags, _PHOTOMETRIC, 1) == _YCBCR
            )
            return decoded._replace(
                bits=_first(tags, _BITS_PER_SAMPLE, 1),
                turned=True,
                white_is_zero=_first(tags, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO,
                signed=_first(tags, _SAMPLE_FORMAT, 1) == _SIGNED,
                lossy=is_rounded or _first(tags, _COMPRESSION, 1) in _JPEG_IN_TIFF,
            )
        case "WEBP":
            return decoded._replace(lossy=_has_lossy_webp_chunk(data))
        case "JPEG" | "MPO":
            return decoded._replace(lossy=True)
    return decoded


def file_kind(path: str | Path) -> str:
    """Return "file" for a regular file or a link to one, otherwise words: "a named pipe", "does not exist"."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be accessed: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode):
        return "file"
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((words for test, words in kinds if test(mode)), "a device")


def _read_bytes(path: str | Path) -> bytes:
    # The kind is looked up first: opening a named pipe would wait forever.
    kind = file_kind(path)
    if kind.startswith("a "):
        raise ImageError(path, f"is {kind}", "name a regular image file")
    if kind != "file":
        raise ImageError(path, kind, "check the path")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(path, f"has {size} bytes, at most {MAX_BYTES} are allowed", "cut it into tiles")
            data = file.read()
    except OSError as error:
        raise ImageError(path, f"cannot be opened: {error.strerror or error}", "check its permissions") from error
    if not data:
        raise ImageError(path, "is empty (0 bytes)", _AGAIN)
    return data


def _unidentified(path: str | Path, data: bytes, tags: dict[int, tuple[int, ...]]) -> ImageError:
    """Return the error for bytes that Pillow opens as none of the allowed formats."""
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, words, fix in _OTHER_KINDS:
        if head.startswith(start):
            return ImageError(path, f"is {words}", fix)
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        return ImageError(path, f"is a {brand} file (HEIC, AVIF or video)", _EXPORT)
    if tags:
        kinds = {_SIGNED: "signed", _FLOAT: "float"}
        kind = kinds.get(_first(tags, _SAMPLE_FORMAT, 1), "unsigned")
        what = (
            f"is a TIFF with {_first(tags, _SAMPLES_PER_PIXEL, 1)} samples per pixel of "
            f"{_first(tags, _BITS_PER_SAMPLE, 1)} bits ({kind}), PhotometricInterpretation "
            f"{_first(tags, _PHOTOMETRIC, 0)} and compression {_first(tags, _COMPRESSION, 1)}, which is not supported"
        )
        return ImageError(path, what, _EXPORT)
    for start, name in _SIGNATURES:
        if data.startswith(start):
            what = f"begins as {name}, but is damaged, or stores its pixels in an unsupported way"
            return ImageError(path, what, _EXPORT)
    return ImageError(path, "is not an image of a known format (PNG, JPEG, TIFF, WebP, BMP)", _EXPORT)


def _opened(data: bytes) -> ImageFile.ImageFile:
    with _without_warnings():
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        assert isinstance(image, ImageFile.ImageFile)
        return image


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about headers: they print its source code, and are errors under PYTHONWARNINGS=error.

    The lock is needed because `warnings.catch_warnings` changes the filters of all threads.
    """
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _exif_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation; 1 (upright) for a broken EXIF block, as viewers do: its pixels are whole."""
    try:
        with _without_warnings():
            return int(image.getexif().get(_ORIENTATION, 1))
    except DECODE_ERRORS:
        return 1


def _png_fault(data: bytes) -> str:
    """Return what is wrong with the order of a PNG's chunks, which Pillow does not check; "" for nothing or no PNG."""
    kinds: list[bytes] = []
    place = 8
    while data.startswith(b"\x89PNG") and place + 8 <= len(data) and kinds[-1:] != [b"IEND"]:
        length, kind = struct.unpack_from(">I4s", data, place)
        kinds.append(kind)
        place += length + 12
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


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the integer tags of the first page of a TIFF; empty for another format or a damaged header."""
    if not data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return {}
    found: dict[int, tuple[int, ...]] = {}
    try:
        with _without_warnings():
            header = data[:16] if data[2:3] == b"+" or data[3:4] == b"+" else data[:8]
            directory: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
            file = io.BytesIO(data)
            file.seek(directory.next)
            directory.load(file)
            for tag in directory:
                value = directory[tag]
                values = value if isinstance(value, tuple) else (value,)
                if all(isinstance(number, int) for number in values):
                    found[tag] = values
    except DECODE_ERRORS:
        return {}
    return found


def _first(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    return tags.get(tag, (default,))[0]


def _tiff_fault(tags: dict[int, tuple[int, ...]], *, big_endian: bool) -> str:
    """Return what the tags say that Pillow or OpenCV would not heed, inventing or dropping pixels; "" for none."""
    photometric, compression = _first(tags, _PHOTOMETRIC, -1), _first(tags, _COMPRESSION, _UNCOMPRESSED)
    samples, planar = _first(tags, _SAMPLES_PER_PIXEL, 1), _first(tags, _PLANAR, 1)
    bits, extra = _first(tags, _BITS_PER_SAMPLE, 1), _first(tags, _EXTRA_SAMPLES, 2)
    num_extra = samples - _NUM_COLORS.get(photometric, 1)
    if photometric < 0 and compression != _OLD_JPEG_IN_TIFF:
        return "does not say what its numbers mean: the tag PhotometricInterpretation is missing"
    if num_extra > 1 or (num_extra == 1 and extra not in _ALPHAS):
        return f"has {samples} samples per pixel, {num_extra} more than its colors and not alpha"
    if planar == 2 and (bits < 8 or (bits > 8 and samples > 1)):
        return f"stores its channels one after the other (planar) with {bits} bits each"
    if planar == 2 and num_extra == 1 and _EXTRA_SAMPLES not in tags:
        return f"stores {samples} samples one after the other (planar), and does not say that the last is alpha"
    if planar == 2 and photometric == _WHITE_IS_ZERO:
        return "stores gray with white as zero in a planar layout"
    if (
        big_endian
        and compression != _UNCOMPRESSED
        and _first(tags, _SAMPLE_FORMAT, 1) in (_SIGNED, _FLOAT)
        and bits > 8
    ):
        return f"holds compressed big-endian {bits}-bit numbers that are signed or float"
    subsampling = tags.get(_YCBCR_SUBSAMPLING, (2, 2))
    if photometric == _YCBCR and compression == _UNCOMPRESSED and subsampling != (1, 1) and samples > 1:
        return "holds uncompressed YCbCr with subsampled colors"
    if photometric == _CMYK and _first(tags, _INK_SET, 1) != 1:
        return "holds inks other than cyan, magenta, yellow and black"
    if photometric == _PALETTE and 0 < max(tags.get(_COLOR_MAP, (0,))) < 256:
        return "has a ColorMap of 8-bit instead of 16-bit colors"
    return "" if compression == _OLD_JPEG_IN_TIFF else _strip_fault(tags)


def _strip_fault(tags: dict[int, tuple[int, ...]]) -> str:
    """Return what is wrong with the strips or tiles that hold the pixels: their number, or bytes left out."""
    height, width = _first(tags, _HEIGHT, 0), _first(tags, _WIDTH, 0)
    if height < 1 or width < 1:
        return f"has a size of {height}x{width} (height x width)"
    samples = _first(tags, _SAMPLES_PER_PIXEL, 1)
    planes = samples if _first(tags, _PLANAR, 1) == 2 else 1
    is_tiled = _TILE_OFFSETS in tags and _STRIP_OFFSETS not in tags
    rows = max(
        1, _first(tags, _TILE_HEIGHT, height) if is_tiled else min(_first(tags, _ROWS_PER_STRIP, height), height)
    )
    columns = max(1, _first(tags, _TILE_WIDTH, width) if is_tiled else width)
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
    if _first(tags, _COMPRESSION, 1) == _UNCOMPRESSED and _first(tags, _PHOTOMETRIC, 1) != _YCBCR:
        bits = tags.get(_BITS_PER_SAMPLE, (1,))
        bits_per_pixel = bits[0] if planes > 1 else sum(bits) if len(bits) == samples else bits[0] * samples
        row_bytes, strips_per_plane = ceil(columns * bits_per_pixel / 8), ceil(height / rows)
        for k, count in enumerate(counts):
            last = not is_tiled and k % strips_per_plane == strips_per_plane - 1
            num_rows = height - rows * (strips_per_plane - 1) if last else rows
            if count < num_rows * row_bytes:
                return f"has {word} with too few bytes: number {k + 1} has {count} of {num_rows * row_bytes}"
    return ""


def _leaves_out_pixels(data: bytes) -> bool:
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


def _has_lossy_webp_chunk(data: bytes) -> bool:
    """Return whether a RIFF file holds a "VP8 " chunk; lossless WebP holds "VP8L" instead."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"VP8 ":
            return True
        position += 8 + length + (length & 1)
    return False
