"""From a path to pixels as the file stores them, or a refusal: what may be opened, and what is whole."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import ImageError
from .listing import kind_of

# Twice Pillow's own warning limit, where Pillow begins to refuse: 512 MiB as RGB.
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**31

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# TIFF tags, which EXIF shares.
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 258, 259, 262, 274
_JPEG_IN_TIFF = (6, 7)
_EXPORT = "export the image again as PNG or JPEG"
_AGAIN = "copy or download it again"
# What Pillow's decoders raise on damaged bytes, found by mutating files; warnings count where a program made them errors.
DECODER_FAULTS = (
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
_SIGNATURES = ((b"\xff\xd8\xff", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"RIFF", "WebP"), (b"BM", "BMP"))
_IMPOSTERS = (
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
    """An image as Pillow decoded it, and what Pillow does not tell.

    image        loaded, its orientation tag not applied unless `turned`
    data         the bytes of the file
    bits         per channel, as stored: Pillow stretches grey of 2 and 4 bits and halves colour of 16
    orientation  EXIF's, 1..8
    turned       True for TIFF, which Pillow turns while loading
    inverted     True for grey TIFF with white as zero, which Pillow inverts while loading
    lossy        True where the stored values are near, not equal to, those that were saved
    """

    image: Image.Image
    data: bytes
    bits: int
    orientation: int
    turned: bool
    inverted: bool
    lossy: bool


def decode(path: str | Path) -> Decoded:
    """Open, check and decode an image of an allowed format. Raises ImageError with the file, what is wrong and a fix."""
    data = _read_bytes(path)
    _refuse_imposter(path, data)
    if data.startswith(_PNG_SIGNATURE):
        _refuse_damaged_png(path, data)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        _refuse_bomb(path, image)
        _refuse_pages(path, image)
        # Pillow turns TIFF while loading and forgets the tag; in the other formats the tag may stand behind the pixels.
        orientation = _tiff_tag(image, _ORIENTATION, 1)
        image.load()
        if image.format != "TIFF":
            orientation = _exif_orientation(image)
    except UnidentifiedImageError:
        raise ImageError(path, _unidentified(data), _EXPORT) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, f"is too large: {str(error).partition(',')[0]}", "cut it into tiles") from None
    except DECODER_FAULTS as error:
        raise ImageError(path, f"is damaged or cut: {error or type(error).__name__}", _AGAIN) from None
    return _with_facts(image, data, orientation if orientation in range(1, 9) else 1)


def _with_facts(image: ImageFile.ImageFile, data: bytes, orientation: int) -> Decoded:
    if image.format == "PNG":
        return Decoded(image, data, data[24], orientation, turned=False, inverted=False, lossy=False)
    if image.format == "TIFF":
        inverted = image.mode in ("1", "L") and _tiff_tag(image, _PHOTOMETRIC, 1) == 0
        lossy = _tiff_tag(image, _COMPRESSION, 1) in _JPEG_IN_TIFF
        return Decoded(
            image, data, _tiff_tag(image, _BITS_PER_SAMPLE, 1), orientation, turned=True, inverted=inverted, lossy=lossy
        )
    lossy = image.format in ("JPEG", "MPO") or (image.format == "WEBP" and _has_lossy_webp_chunk(data))
    return Decoded(image, data, 8, orientation, turned=False, inverted=False, lossy=lossy)


def _read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file that may be an image; the kind is looked up first, as opening a pipe would wait for ever."""
    kind = kind_of(path)
    if kind != "file":
        what = f"is {kind}" if kind.startswith("a ") else kind
        raise ImageError(path, what, "name a regular image file" if kind.startswith("a ") else "check the path")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(path, f"has {size} bytes, allowed are {MAX_BYTES}", "cut it into tiles")
            data = file.read()
    except OSError as error:
        raise ImageError(path, f"cannot be opened: {error.strerror or error}", "check its rights") from error
    if not data:
        raise ImageError(path, "is empty (0 bytes)", _AGAIN)
    return data


def _refuse_imposter(path: str | Path, data: bytes) -> None:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, words, fix in _IMPOSTERS:
        if head.startswith(start):
            raise ImageError(path, f"is {words}", fix)
    if data[4:8] == b"ftyp":
        raise ImageError(
            path, f"is a {data[8:12].decode('ascii', 'replace').strip()} file (HEIC, AVIF or video)", _EXPORT
        )


def _exif_orientation(image: Image.Image) -> int:
    """1 (upright) where the EXIF block is broken: its pixels are whole, and viewers show such an image as stored."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except DECODER_FAULTS:
        return 1


def _unidentified(data: bytes) -> str:
    kind = next((kind for start, kind in _SIGNATURES if data.startswith(start)), "")
    if kind:
        return f"begins as {kind}, but is damaged, or stores its pixels in a way that is not supported"
    return "is no image of a known format (PNG, JPEG, TIFF, WebP, BMP)"


def _refuse_damaged_png(path: str | Path, data: bytes) -> None:
    """Walk the chunks: Pillow does not check the sums of pixel chunks, so rotted pixels would pass."""
    view, place = memoryview(data), len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            what = f"is damaged: the checksum of the PNG chunk at byte {place} does not fit"
            raise ImageError(path, what, _AGAIN)
        if kind == b"IEND":
            return
        place = end
    raise ImageError(path, f"is cut: {len(data)} bytes, and the end of the PNG is missing", _AGAIN)


def _refuse_bomb(path: str | Path, image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        what = f"is too large: {height}x{width} (height x width), allowed are {MAX_PIXELS} pixels"
        raise ImageError(path, what, "cut it into tiles")


def _refuse_pages(path: str | Path, image: ImageFile.ImageFile) -> None:
    """A stack of pages or an animation has no one meaning; a phone's MPO holds a preview behind the photo and is fine."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":
        raise ImageError(path, f"holds {pages} pages or frames", "save each as a file of its own")


def _tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    values = getattr(image, "tag_v2", {}).get(tag, default)
    return int(values[0] if isinstance(values, tuple) else values)


def _has_lossy_webp_chunk(data: bytes) -> bool:
    place = 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        if kind == b"VP8 ":
            return True
        place += 8 + length + (length & 1)
    return False
