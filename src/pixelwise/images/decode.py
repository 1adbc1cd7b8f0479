"""Open a file, check that it is a complete image of an allowed format, and decode it with Pillow."""

from __future__ import annotations

import ctypes
import io
import os
import stat
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError, _imaging

from ..errors import ImageError
from ..files import open_without_waiting
from .headers import (
    BITS_PER_SAMPLE,
    COMPRESSION,
    DECODE_ERRORS,
    EXTRA_SAMPLES,
    FLOAT,
    JPEG_IN_TIFF,
    ORIENTATION,
    PHOTOMETRIC,
    PREMULTIPLIED_ALPHA,
    SAMPLE_FORMAT,
    SAMPLES_PER_PIXEL,
    SIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    first,
    has_lossy_webp_chunk,
    leaves_out_pixels,
    plain_webp_size,
    png_fault,
    png_lacks_pixels,
    tiff_fault,
    tiff_tags,
    without_warnings,
)

# Twice Pillow's own warning limit, the size from which Pillow refuses an image: 512 MiB as RGB.
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**31

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF")
_EXPORT = "export the image again as PNG or JPEG"
_AGAIN = "copy or download it again"
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
# First bytes of the allowed formats, and the usual suffix.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG", ".png"),
    (b"\xff\xd8\xff", "JPEG", ".jpg"),
    (b"II*\0", "TIFF", ".tif"),
    (b"MM\0*", "TIFF", ".tif"),
    (b"RIFF", "WebP", ".webp"),
    (b"BM", "BMP", ".bmp"),
    (b"GIF87a", "GIF", ".gif"),
    (b"GIF89a", "GIF", ".gif"),
)
# First bytes, in lower case, of other files that often have the name of an image: (bytes, kind of file, fix).
_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the image itself", "run `git lfs pull`"),
    (b"<!doctype html", "an HTML page, not an image", "download the file again; the server answered with a page"),
    (b"<html", "an HTML page, not an image", "download the file again; the server answered with a page"),
    (b"<svg", "an SVG drawing, not a pixel image", "export it as PNG"),
    (b"<?xml", "an XML or SVG text, not a pixel image", "export it as PNG"),
    (b"%pdf", "a PDF", _EXPORT),
    (b"%!ps", "a PostScript file", _EXPORT),
    (b"8bps", "a Photoshop file", _EXPORT),
    (b"pk\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"\x93numpy", "a NumPy array", "save it as PNG"),
    (b"matlab 5", "a MATLAB file", "save its arrays as PNG or npy"),
    (b"\x89hdf\r\n", "an HDF5 file, as MATLAB writes too", "save its arrays as PNG or npy"),
    *((f"p{k}{end}".encode(), "a PBM, PGM or PPM image", _EXPORT) for k in "123456" for end in "\n\r"),
)
# The same, by the place of the bytes.
_LATER_KINDS = (
    (128, b"DICM", "a DICOM image", "export it as PNG"),
    (344, b"n+1\0", "a NIfTI volume", "save its slices as PNG or npy"),
    (344, b"ni1\0", "a NIfTI volume", "save its slices as PNG or npy"),
)
_HEAD = 512


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
    return decode_bytes(path, read_bytes(path))


def decode_bytes(path: str | Path, data: bytes) -> Decoded:
    """Check and decode the bytes of an image file, whose name `path` only serves for errors."""
    tags = _checked_tags(path, data)
    if (plain := _decode_plain_webp(data)) is not None:
        return Decoded(plain, data, 8, orientation=1)
    try:
        image = _opened(data)
        width, height = image.size
        if width * height > MAX_PIXELS:
            what = f"is too large: {height}x{width} (height x width), at most {MAX_PIXELS} pixels are allowed"
            raise ImageError(path, what, "cut it into tiles")
        # A stack of pages or an animation has no single meaning. A phone's MPO is a photo followed by a preview.
        with without_warnings():
            pages = getattr(image, "n_frames", 1)
        if pages > 1 and image.format != "MPO":
            raise ImageError(path, f"holds {pages} pages or frames", "save each as a file of its own")
        if image.format == "GIF" and image.tile and image.tile[0].extents != (0, 0, width, height):
            raise ImageError(path, "leaves out pixels: its frame is smaller than the image", _EXPORT)
        if image.format == "PNG":
            # `load` does not check the checksums of pixel chunks, so damaged pixels would pass. `verify` does, and
            # leaves the image unusable.
            image.verify()
            image = _opened(data)
        image.load()
        # Missing rows are zero, so most files need no second look; interlaced rows may be missing anywhere.
        last_row = (0, height - 1, width, height)
        is_suspect = image.format == "PNG" and (data[28] or not any(image.crop(last_row).tobytes()))
        if is_suspect and png_lacks_pixels(data):
            raise ImageError(path, "is damaged or cut: its pixels end before the last row", _AGAIN)
        # The tag may stand after the pixels. TIFF has it among its own tags, and Pillow drops it while loading.
        orientation = first(tags, ORIENTATION, 1) if image.format == "TIFF" else _exif_orientation(image)
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
            is_rounded = first(tags, EXTRA_SAMPLES, 0) == PREMULTIPLIED_ALPHA or first(tags, PHOTOMETRIC, 1) == YCBCR
            return decoded._replace(
                bits=first(tags, BITS_PER_SAMPLE, 1),
                turned=True,
                white_is_zero=first(tags, PHOTOMETRIC, 1) == WHITE_IS_ZERO,
                signed=first(tags, SAMPLE_FORMAT, 1) == SIGNED,
                lossy=is_rounded or first(tags, COMPRESSION, 1) in JPEG_IN_TIFF,
            )
        case "WEBP":
            return decoded._replace(lossy=has_lossy_webp_chunk(data))
        case "JPEG" | "MPO":
            return decoded._replace(lossy=True)
    return decoded


def _checked_tags(path: str | Path, data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the tags of a TIFF, none of other files. Raises ImageError for headers that Pillow would not heed."""
    if fault := png_fault(data):
        raise ImageError(path, f"is damaged: {fault}", _AGAIN)
    tags = tiff_tags(data)
    if tags and (fault := tiff_fault(tags, big_endian=data.startswith(b"MM"))):
        raise ImageError(path, fault, _EXPORT)
    if data.startswith(b"BM") and len(data) > 34 and leaves_out_pixels(data):
        raise ImageError(path, "leaves out pixels: its run-length code jumps or ends early", _EXPORT)
    return tags


def _decode_plain_webp(data: bytes) -> Image.Image | None:
    """Decode a lossless WebP image without alpha; None for other files, damaged and large ones, which Pillow decodes.

    Pillow reads all WebP as animations, which takes nearly twice as long.
    """
    height, width = plain_webp_size(data) or (0, 0)
    if not 0 < height * width <= MAX_PIXELS:
        return None
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None or pixels.shape != (height, width, 3):
        return None
    image = Image.fromarray(np.asarray(pixels, np.uint8))
    image.format = "WEBP"
    return image


def image_suffix(path: str | Path) -> str:
    """Return the suffix, such as ".png", that fits the first bytes of a regular file; "" if it is no image."""
    head = _head(path) or b""
    return next((suffix for start, _, suffix in _SIGNATURES if _is_start(head, start)), "")


def describe_content(path: str | Path) -> str:
    """Return what a file is by its first bytes, in words: "a PNG image", "a MATLAB file", "text"."""
    head = _head(path)
    if not head:
        return "an empty file" if head is not None else "a file that cannot be read"
    name = next((name for start, name, _ in _SIGNATURES if _is_start(head, start)), "")
    if name:
        return f"a {name} image"
    if other := _other_kind(head):
        return other[0]
    is_text = all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    return "text" if is_text else f"an unknown kind of file, first bytes {head[:4].hex(' ')}"


def _head(path: str | Path) -> bytes | None:
    """Return the first bytes of a regular file; None if it is none, or cannot be read."""
    if file_kind(path) != "file":
        return None
    try:
        with open_without_waiting(path) as file:
            return file.read(_HEAD) or b""
    except OSError:
        return None


def _is_start(head: bytes, signature: bytes) -> bool:
    return head.startswith(signature) and (signature != b"RIFF" or head[8:12] == b"WEBP")


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


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a regular file of at most MAX_BYTES. Raises ImageError."""
    # The kind is looked up first: opening a named pipe would wait forever.
    kind = file_kind(path)
    if kind.startswith("a "):
        raise ImageError(path, f"is {kind}", "name a regular image file")
    if kind != "file":
        raise ImageError(path, kind, "check the path")
    try:
        with open_without_waiting(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(path, f"has {size} bytes, at most {MAX_BYTES} are allowed", "cut it into tiles")
            data = file.read() or b""
    except OSError as error:
        raise ImageError(path, f"cannot be opened: {error.strerror or error}", "check its permissions") from error
    if not data:
        raise ImageError(path, "is empty (0 bytes)", _AGAIN)
    return data


def _other_kind(data: bytes) -> tuple[str, str] | None:
    """Return the kind of a file that is no image of the allowed formats, in words, and the fix; None if unknown."""
    head = data[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, words, fix in _OTHER_KINDS:
        if head.startswith(start):
            return words, fix
    for place, signature, words, fix in _LATER_KINDS:
        if data[place:].startswith(signature):
            return words, fix
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        return f"a {brand} file (HEIC, AVIF or video)", _EXPORT
    return None


def _unidentified(path: str | Path, data: bytes, tags: dict[int, tuple[int, ...]]) -> ImageError:
    """Return the error for bytes that Pillow opens as none of the allowed formats."""
    if other := _other_kind(data):
        return ImageError(path, f"is {other[0]}", other[1])
    if tags:
        kinds = {SIGNED: "signed", FLOAT: "float"}
        kind = kinds.get(first(tags, SAMPLE_FORMAT, 1), "unsigned")
        what = (
            f"is a TIFF with {first(tags, SAMPLES_PER_PIXEL, 1)} samples per pixel of "
            f"{first(tags, BITS_PER_SAMPLE, 1)} bits ({kind}), PhotometricInterpretation "
            f"{first(tags, PHOTOMETRIC, 0)} and compression {first(tags, COMPRESSION, 1)}, which is not supported"
        )
        return ImageError(path, what, _EXPORT)
    for start, name, _ in _SIGNATURES:
        if data.startswith(start):
            what = f"begins as {name}, but is damaged, or stores its pixels in an unsupported way"
            return ImageError(path, what, _EXPORT)
    return ImageError(path, "is not an image of a known format (PNG, JPEG, TIFF, WebP, BMP, GIF)", _EXPORT)


def _opened(data: bytes) -> ImageFile.ImageFile:
    with without_warnings():
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        assert isinstance(image, ImageFile.ImageFile)
        return image


def _exif_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation; 1 (upright) for a broken EXIF block, as viewers do: its pixels are whole."""
    try:
        with without_warnings():
            return int(image.getexif().get(ORIENTATION, 1))
    except DECODE_ERRORS:
        return 1
