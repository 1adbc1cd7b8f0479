"""The only door for pixels: pictures and masks are read and written here, so that every command sees the same ones.

What a picture becomes, always (H, W, 3) uint8 RGB, turned as its EXIF orientation says:
    8-bit grey, 1-bit    the grey value three times; 1-bit is black 0 and white 255
    palette              the palette's colours
    alpha                dropped, the colours stay as stored (transparent pixels keep theirs)
    CMYK, YCbCr          Pillow's plain conversion; colour profiles are not applied
    16-bit grey, colour  divided by 257 and rounded: 0..65535 fills 0..255
    float TIFF           0..1 times 255 and rounded; other ranges and NaN are refused
A mask keeps the numbers of its file: palette indices, 1-, 2- and 4-bit ids, 16-bit ids.
Refused: folders, pipes, empty, cut or damaged files, several pages or frames, more than MAX_PIXELS, and every format
outside the list (PDF, EPS, PSD and their like have a history of harmful files).
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from .errors import ImageError, InputError, MaskError
from .files import atomic_write
from .palette import voc_color

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
# Twice Pillow's own warning limit, where Pillow begins to refuse: 512 MiB as RGB.
MAX_PIXELS = 178_956_970
MAX_BYTES = 2**31

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
_EXPORT = "export the picture again as PNG or JPEG"
_AGAIN = "copy or download it again"
# What Pillow's decoders raise on damaged bytes, found by mutating files; warnings count where a program made them errors.
_DECODER_FAULTS = (
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
_IMPOSTERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself", "run `git lfs pull`"),
    (b"<!doctype html", "an HTML page, not a picture", "download the file again; the server answered with a page"),
    (b"<html", "an HTML page, not a picture", "download the file again; the server answered with a page"),
    (b"<svg", "an SVG drawing, not a pixel picture", "export it as PNG"),
    (b"<?xml", "an XML or SVG text, not a pixel picture", "export it as PNG"),
    (b"gif8", "a GIF", _EXPORT),
    (b"%pdf", "a PDF", _EXPORT),
    (b"%!ps", "a PostScript file", _EXPORT),
    (b"8bps", "a Photoshop file", _EXPORT),
    (b"pk\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "unpack it"),
    (b"\x93numpy", "a NumPy array", "save it as PNG"),
)


class _Decoded(NamedTuple):
    """A picture as Pillow decoded it, the file's bytes, its bits per channel, its EXIF orientation 1..8."""

    image: Image.Image
    data: bytes
    bits: int
    orientation: int


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture as (H, W, 3) uint8 RGB, turned upright; the module's docstring lists the conversions.

    Raises ImageError with the file, what is wrong with it and what to do.
    """
    return np.ascontiguousarray(_as_rgb(path, _decode(path)))


def read_mask(path: str | Path) -> NDArray[Any]:
    """Read a mask's file values exactly: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB where classes are colours.

    Palette files give indices, 1-, 2- and 4-bit files the ids as stored; alpha is dropped; orientation as in read_image.
    Raises ImageError for a file that cannot be read, MaskError for one that cannot hold labels (JPEG, lossy WebP, float).
    """
    decoded = _decode(path)
    _refuse_lossy(path, decoded)
    return np.ascontiguousarray(_as_labels(path, decoded))


def write_mask(path: str | Path, values: NDArray[Any], palette: NDArray[Any] | None = None) -> None:
    """Write labels (H, W) uint8 or uint16 as a palette PNG, or as a 16-bit grey PNG where a value exceeds 255.

    palette (n, 3) RGB 0..255 colours the values 0..n-1; the others, or all without it, get the VOC devkit's colours.
    Raises InputError for another suffix, shape or type, EnvironmentFault when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(path, f"masks are not written as {path.suffix or 'a file without suffix'}", "name it .png")
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16) or not values.size:
        raise InputError(path, f"a mask is (H, W) uint8 or uint16, got {values.shape} {values.dtype}", "convert it first")
    if values.max() > 255:
        picture = Image.fromarray(values.astype(np.uint16))
    else:
        picture = Image.fromarray(values.astype(np.uint8), "L")
        picture.putpalette(_palette_bytes(palette))
    with atomic_write(path) as file:
        picture.save(file, format="PNG")


def write_image(path: str | Path, rgb: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as PNG or, for .jpg and .jpeg, as JPEG of quality 95 with full colour resolution.

    Raises InputError for another suffix, shape or type, EnvironmentFault when the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(path, f"pictures are not written as {suffix or 'a file without suffix'}", "name it .png or .jpg")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise InputError(path, f"a picture is (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}", "convert it first")
    with atomic_write(path) as file:
        if suffix == ".png":
            Image.fromarray(rgb).save(file, format="PNG")
        else:
            Image.fromarray(rgb).save(file, format="JPEG", quality=95, subsampling=0)


class Listing(NamedTuple):
    """What a folder holds: pictures in order, and what has a picture's name but is not a regular file, with the reason."""

    images: list[Path]
    skipped: list[tuple[Path, str]]


def find_images(path: str | Path) -> list[Path]:
    """A file gives itself, a folder its pictures at any depth in sorted order; hidden and irregular files are left out.

    Raises InputError when there is nothing at `path`, or no picture in the folder.
    """
    return list_images(path).images


def list_images(path: str | Path) -> Listing:
    """As `find_images`, and tells what was skipped."""
    path = Path(path)
    sought = " ".join(IMAGE_SUFFIXES)
    if not path.exists():
        raise InputError(path, "does not exist", f"name a picture ({sought}) or a folder of pictures")
    if not path.is_dir():
        return Listing([path], [])
    listing = Listing([], [])
    for candidate in sorted(_visible_files(path)):
        kind = _kind_of(candidate)
        if kind == "file":
            listing.images.append(candidate)
        else:
            listing.skipped.append((candidate, kind))
    if not listing.images:
        raise InputError(path, "holds no pictures", f"sought are {sought}, at any depth")
    return listing


def _visible_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(place, name)


def _kind_of(path: str | Path) -> str:
    """ "file" for a regular one (or a link to it), otherwise the words for what it is."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be looked at: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode):
        return "file"
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((words for test, words in kinds if test(mode)), "a device")


def _read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file that may be a picture; the kind is looked up first, as opening a pipe would wait for ever."""
    kind = _kind_of(path)
    if kind != "file":
        what = f"is {kind}" if kind.startswith("a ") else kind
        raise ImageError(path, what, "name a regular picture file" if kind.startswith("a ") else "check the path")
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
        raise ImageError(path, f"is a {data[8:12].decode('ascii', 'replace').strip()} file (HEIC, AVIF or video)", _EXPORT)


def _decode(path: str | Path) -> _Decoded:
    data = _read_bytes(path)
    _refuse_imposter(path, data)
    if data.startswith(_PNG_SIGNATURE):
        _refuse_damaged_png(path, data)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        _refuse_bomb(path, image)
        _refuse_pages(path, image)
        # Pillow turns TIFF while loading and forgets the tag; for the other formats the tag may stand behind the pixels.
        orientation = _tiff_tag(image, _ORIENTATION, 1)
        image.load()
        if image.format != "TIFF":
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Image.UnidentifiedImageError:
        raise ImageError(path, "is no picture of a known format (PNG, JPEG, TIFF, WebP, BMP)", _EXPORT) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, f"is too large: {error}", "cut it into tiles") from None
    except _DECODER_FAULTS as error:
        raise ImageError(path, f"is damaged or cut: {error or type(error).__name__}", _AGAIN) from None
    return _Decoded(image, data, _bits(image, data), orientation if orientation in range(1, 9) else 1)


def _refuse_damaged_png(path: str | Path, data: bytes) -> None:
    """Walk the chunks: Pillow does not check the sums of pixel chunks, so rotted pixels would pass."""
    place = len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
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


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per channel as the file stores them: Pillow hides them by stretching grey and halving colour."""
    if image.format == "PNG":
        return data[24]
    return _tiff_tag(image, 258, 1) if image.format == "TIFF" else 8


def _upright(decoded: _Decoded) -> NDArray[Any]:
    """Pillow's pixels as a writable array, turned; Pillow has turned TIFF itself."""
    return _turn(np.array(decoded.image), 1 if decoded.image.format == "TIFF" else decoded.orientation)


def _turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply EXIF orientation 1..8 to (H, W, ...). Source: EXIF 2.3, tag Orientation."""
    if orientation in (5, 7):
        return np.rot90(np.fliplr(pixels), 1 if orientation == 5 else -1)
    if orientation in (2, 4):
        return np.fliplr(pixels) if orientation == 2 else np.flipud(pixels)
    return np.rot90(pixels, {3: 2, 6: -1, 8: 1}.get(orientation, 0))


def _as_rgb(path: str | Path, decoded: _Decoded) -> NDArray[np.uint8]:
    image = decoded.image
    if image.mode == "F":
        return _gray_to_rgb(_from_float(path, _upright(decoded)))
    if image.mode.startswith("I;16"):
        return _gray_to_rgb(_from_16_bit(_upright(decoded)))
    if image.mode.startswith("I"):
        what = f"has {decoded.bits}-bit whole numbers, and which range they fill is unknown"
        raise ImageError(path, what, "save it with 8 or 16 bits")
    if decoded.bits == 16:
        return _from_16_bit(_deep_pixels(path, decoded)[..., :3])
    try:
        return _upright(decoded._replace(image=_keep_format(image, image.convert("RGB"))))
    except _DECODER_FAULTS as error:
        raise ImageError(path, f"has pixels of mode {image.mode}: {error}", _EXPORT) from None


def _keep_format(image: Image.Image, converted: Image.Image) -> Image.Image:
    converted.format = image.format
    return converted


def _gray_to_rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[..., None], 3, axis=2)


def _from_16_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """65535 / 255 = 257, so every 8-bit picture that was stored with 16 bits comes back exactly."""
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_float(path: str | Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise ImageError(path, f"holds {count} pixels that are NaN or infinite", "replace them, or save with 8 or 16 bits")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        what = f"holds float pixels of {low:g} to {high:g}, allowed are 0 to 1"
        raise ImageError(path, what, "scale them to 0..1, or save with 8 or 16 bits")
    return np.rint(pixels * 255).astype(np.uint8)


def _deep_pixels(path: str | Path, decoded: _Decoded) -> NDArray[np.uint16]:
    """16-bit colour (H, W, 3 or 4) RGB upright: Pillow keeps the high byte only, OpenCV all; Pillow has proved the file whole."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(decoded.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ImageError(path, "has 16-bit colour in a layout that cannot be read", "save it with 8 bits, or as 16-bit PNG")
    swapped = np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2)
    return _turn(swapped, decoded.orientation)


def _refuse_lossy(path: str | Path, decoded: _Decoded) -> None:
    kind = decoded.image.format
    if kind in ("JPEG", "MPO") or (kind == "WEBP" and b"VP8 " in decoded.data[12:4096]):
        what = f"is a lossy {kind}, whose values are not the labels that were drawn"
        raise MaskError(path, what, "export the mask as PNG from its source")


def _as_labels(path: str | Path, decoded: _Decoded) -> NDArray[Any]:
    mode, bits = decoded.image.mode, decoded.bits
    if bits == 16 and mode in ("RGB", "RGBA"):
        raise MaskError(path, "has 16-bit colours", "save colour masks with 8 bits, or labels as 16-bit grey PNG")
    if mode in ("LA", "PA"):
        return _deep_pixels(path, decoded)[..., 0] if bits == 16 else _upright(decoded)[..., 0]
    if mode in ("RGB", "RGBA"):
        return _upright(decoded)[..., :3]
    if mode == "I":
        return _narrow(path, _upright(decoded))
    if mode in ("1", "L", "P") or mode.startswith("I;16"):
        return _stored_gray(decoded)
    raise MaskError(path, f"has pixels of mode {mode}, which are no labels", "save labels as 8- or 16-bit grey or palette PNG")


def _stored_gray(decoded: _Decoded) -> NDArray[Any]:
    """Undo what Pillow does to grey: 2- and 4-bit values stretched to 0..255, white-is-zero TIFF inverted."""
    values = _upright(decoded)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    elif decoded.image.mode == "L" and decoded.bits in (2, 4):
        values = values // (255 // (2**decoded.bits - 1))
    elif decoded.image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    if decoded.image.format == "TIFF" and decoded.image.mode in ("1", "L") and _tiff_tag(decoded.image, 262, 1) == 0:
        values = (2**decoded.bits - 1 - values).astype(np.uint8)
    return values


def _narrow(path: str | Path, values: NDArray[Any]) -> NDArray[np.uint16]:
    """32-bit labels, as array programs write them, when they fit into 16 bits."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise MaskError(path, f"holds labels of {low} to {high}, allowed are 0 to 65535", "number the classes from 0")
    return values.astype(np.uint16)


def _palette_bytes(palette: NDArray[Any] | None) -> bytes:
    table = np.array([voc_color(k) for k in range(256)], np.uint8)
    if palette is not None:
        colors = np.asarray(palette)[:256]
        table[: len(colors)] = colors
    return table.tobytes()
