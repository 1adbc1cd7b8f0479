"""Open a file, check that it is a whole image of an allowed format, and decode it with Pillow."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError

# Twice Pillow's own warning limit, the size from which Pillow refuses an image: 512 MiB as RGB.
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**31

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
# TIFF tags, which EXIF shares.
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 258, 259, 262, 274
_JPEG_IN_TIFF = (6, 7)
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
# First bytes of the allowed formats.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
)
# First bytes, in lower case, of other files that are often found under an image's name: (bytes, what it is, fix).
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

    image        loaded; its orientation tag is not applied unless `turned`
    data         the bytes of the file
    bits         per channel, as stored: Pillow stretches gray of 2 and 4 bits to 8, and cuts color of 16 to 8
    orientation  EXIF's, 1..8
    turned       True for TIFF, which Pillow turns while loading
    inverted     True for gray TIFF with white as zero, which Pillow inverts while loading
    lossy        True where the decoded values may differ from the values that were saved (JPEG)
    """

    image: Image.Image
    data: bytes
    bits: int
    orientation: int
    turned: bool = False
    inverted: bool = False
    lossy: bool = False


def decode(path: str | Path) -> Decoded:
    """Read, check and decode an image of an allowed format. Raises ImageError with file, fault and fix."""
    data = _read_bytes(path)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            what = f"is too large: {height}x{width} (height x width), at most {MAX_PIXELS} pixels are allowed"
            raise ImageError(path, what, "cut it into tiles")
        # A stack of pages or an animation has no single meaning. A phone's MPO is a photo followed by a preview.
        pages = getattr(image, "n_frames", 1)
        if pages > 1 and image.format != "MPO":
            raise ImageError(path, f"holds {pages} pages or frames", "save each as a file of its own")
        if image.format == "PNG":
            # `load` does not check the checksums of pixel chunks, so damaged pixels would pass. `verify` does, and
            # leaves the image unusable.
            image.verify()
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        # Pillow turns TIFF while loading and drops the tag; in the other formats the tag may stand after the pixels.
        orientation = _tiff_tag(image, _ORIENTATION, 1)
        image.load()
        if image.format != "TIFF":
            orientation = _exif_orientation(image)
    except UnidentifiedImageError:
        raise _unidentified(path, data) from None
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
            return decoded._replace(
                bits=_tiff_tag(image, _BITS_PER_SAMPLE, 1),
                turned=True,
                inverted=image.mode in ("1", "L") and _tiff_tag(image, _PHOTOMETRIC, 1) == 0,
                lossy=_tiff_tag(image, _COMPRESSION, 1) in _JPEG_IN_TIFF,
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


def _unidentified(path: str | Path, data: bytes) -> ImageError:
    """Return the error for bytes that Pillow opens as none of the allowed formats."""
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, words, fix in _OTHER_KINDS:
        if head.startswith(start):
            return ImageError(path, f"is {words}", fix)
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        return ImageError(path, f"is a {brand} file (HEIC, AVIF or video)", _EXPORT)
    for start, name in _SIGNATURES:
        if data.startswith(start):
            what = f"begins as {name}, but is damaged, or stores its pixels in an unsupported way"
            return ImageError(path, what, _EXPORT)
    return ImageError(path, "is not an image of a known format (PNG, JPEG, TIFF, WebP, BMP)", _EXPORT)


def _exif_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation; 1 (upright) for a broken EXIF block, as viewers do: its pixels are whole."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DECODE_ERRORS:
        return 1


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    values = getattr(image, "tag_v2", {}).get(tag, default)
    return int(values[0] if isinstance(values, tuple) else values)


def _has_lossy_webp_chunk(data: bytes) -> bool:
    """Return whether a RIFF file holds a "VP8 " chunk; lossless WebP holds "VP8L" instead."""
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"VP8 ":
            return True
        position += 8 + length + (length & 1)
    return False
