"""Turn decoded files into arrays: images as upright RGB, masks with the numbers of their file."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from ..errors import ImageError, MaskError
from .arrays import NPY, read_npy_mask
from .decode import Decoded, decode, decode_bytes, file_kind, read_bytes
from .facts import FileFacts, array_facts, file_facts
from .headers import DECODE_ERRORS

# 16-bit files that use less than a quarter of the range hold the values of a 10-, 12- or 14-bit camera.
_MIN_16_BIT_TOP = 2**14
_AS_RGB = "export it as 8-bit RGB"


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB, upright; the package's docstring lists the conversions.

    Raises ImageError for a file that is missing, damaged, too large or of another format, and for pixel values of an
    unknown range.
    """
    return np.require(read_image_file(path)[0], requirements="W")


def read_image_file(path: str | Path) -> tuple[NDArray[np.uint8], FileFacts]:
    """Return an image as `read_image` does, to be looked at, not written to, and the facts of its file."""
    decoded = decode(path)
    return _image_pixels(path, decoded), file_facts(decoded)


def exif_orientation(path: str | Path) -> int:
    """Return the EXIF orientation, 1..8, by which files are turned; 1 for one that Pillow does not decode."""
    try:
        return decode(path).orientation
    except ImageError:
        return 1


def from_pil(image: Image.Image) -> NDArray[np.uint8]:
    """Convert a PIL image to (H, W, 3) uint8 RGB, upright: the pixels that `read_image` reads from its file.

    Pillow cuts 16-bit color to 8 bits and ignores some tags of TIFF. Such an image, if it was opened from a file and
    not changed since, is read from that file.
    Raises ImageError for an image that cannot be decoded, and for mode I, whose range is unknown.
    """
    name = getattr(image, "filename", "") or "image"
    try:
        data = _opened_file(image)
        image.load()
        if data:
            decoded = decode_bytes(name, data)
            if decoded.image.mode == image.mode and np.array_equal(np.asarray(decoded.image), np.asarray(image)):
                return np.require(_image_pixels(name, decoded), requirements="W")
        upright = ImageOps.exif_transpose(image)
    except DECODE_ERRORS as error:
        fix = "copy or download it again, or export it as 8-bit RGB"
        raise ImageError(name, f"cannot be read: {error}", fix) from error
    bits = 16 if upright.mode.startswith("I;16") else 32 if upright.mode in ("I", "F") else 8
    return np.require(_image_pixels(name, Decoded(upright, b"", bits, orientation=1)), requirements="W")


def _opened_file(image: Image.Image) -> bytes:
    """Return the bytes of the TIFF or 16-bit PNG that Pillow opened; empty for other images, or if the file is gone."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in ("PNG", "TIFF"):
        return b""
    if image.tile and image.fp:
        # Not decoded yet: the file is open, and Pillow goes on reading at this position.
        position = image.fp.tell()
        image.fp.seek(0)
        data = image.fp.read()
        image.fp.seek(position)
    else:
        path = os.fsdecode(image.filename)
        data = Path(path).read_bytes() if file_kind(path) == "file" else b""
    return data if image.format == "TIFF" or data[24:25] == b"\x10" else b""


def _image_pixels(path: str | Path, decoded: Decoded) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB, upright, of a decoded image."""
    mode = decoded.image.mode
    if decoded.signed or mode == "I":
        what = f"has {decoded.bits}-bit integers of an unknown range"
        raise ImageError(path, what, "save it with 8 or 16 bits, unsigned")
    if mode == "F":
        values = _scale_float(path, upright(decoded))
    elif mode.startswith("I;16"):
        values = _scale_integer(path, upright(decoded), decoded.bits)
    elif decoded.bits == 16 and decoded.data and mode != "CMYK":
        return _rgb(_scale_integer(path, _read_16_bit_color(path, decoded), 16))
    else:
        if mode in ("1", "L") and decoded.data.startswith(b"BM"):
            _check_bmp_palette(path, decoded)
        return _rgb(upright(decoded._replace(image=_convert_to_rgb(path, decoded.image))))
    return _rgb(255 - values if decoded.white_is_zero else values)


def _check_bmp_palette(path: str | Path, decoded: Decoded) -> None:
    """Raise ImageError for indices without a color in a BMP whose palette is gray, which Pillow drops."""
    header, bits, used = struct.unpack_from("<I10xH16xI", decoded.data, 14)
    highest = int(np.asarray(decoded.image).max())
    if header >= 40 and bits <= 8 and 0 < used <= highest:
        raise ImageError(path, f"has the palette index {highest}, but a palette of {used} colors", _AS_RGB)


def _convert_to_rgb(path: str | Path, image: Image.Image) -> Image.Image:
    """Convert an image of 8 or fewer bits per channel to RGB: palette indices to their colors, without alpha."""
    if image.mode == "RGB":
        return image
    if image.mode in ("P", "PA"):
        colors = image.palette.getdata()[1] if image.palette else b""
        num_colors = len(colors) // len(image.palette.mode) if image.palette else 0
        highest = int(np.asarray(image)[..., :1].max()) if image.mode == "PA" else int(np.asarray(image).max())
        if highest >= num_colors:
            what = f"has the palette index {highest}, but a palette of {num_colors} colors"
            raise ImageError(path, what, _AS_RGB)
    # Alpha is dropped, and Pillow warns of a palette with alpha.
    image.info.pop("transparency", None)
    try:
        return image.convert("RGB")
    except DECODE_ERRORS as error:
        raise ImageError(path, f"has pixels of mode {image.mode}: {error}", _AS_RGB) from None


def read_mask(path: str | Path, *, by_color: bool = False) -> NDArray[Any]:
    """Read the exact values of a mask file: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB where classes are colors.

    Palette files give indices, 1-, 2- and 4-bit files the ids as stored; alpha is dropped; EXIF turns a mask like its
    image. An npy file holds integers (H, W), or colors (H, W, 3) of uint8.
    by_color  return the colors that a viewer shows, (H, W, 3) uint8 RGB, of every file of up to 8 bits per channel
    Raises ImageError for a file that cannot be read, MaskError for one without exact labels (JPEG, lossy WebP, float).
    """
    return np.require(read_mask_file(path, by_color=by_color)[0], requirements="W")


def read_mask_file(path: str | Path, *, by_color: bool = False, lossy: bool = False) -> tuple[NDArray[Any], FileFacts]:
    """Return the values of a mask as `read_mask` does, to be looked at, not written to, and the facts of its file.

    lossy  also read files that do not keep the labels exactly, to look at what is wrong with them
    """
    data = read_bytes(path)
    if data.startswith(NPY):
        values = read_npy_mask(path, data)
        return values, array_facts(values)
    decoded = decode_bytes(path, data)
    return _mask_values(path, decoded, by_color=by_color, lossy=lossy), file_facts(decoded)


def _mask_values(path: str | Path, decoded: Decoded, *, by_color: bool, lossy: bool) -> NDArray[Any]:
    mode, bits, values = decoded.image.mode, decoded.bits, upright(decoded)
    if decoded.lossy and not lossy:
        what = f"is a lossy {decoded.image.format}, which does not keep the labels exactly"
        raise MaskError(path, what, "export the mask as PNG from its source")
    if bits == 16 and mode in ("LA", "RGB", "RGBA"):
        fix = "save color masks with 8 bits, or labels as 16-bit gray PNG"
        raise MaskError(path, "has 16-bit colors or alpha", fix)
    if by_color and mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
        values = upright(decoded._replace(image=_convert_to_rgb(path, decoded.image)))
    elif mode in ("LA", "PA"):
        values = values[..., 0]
    elif mode in ("RGB", "RGBA"):
        values = values[..., :3]
    elif mode == "I" or decoded.signed:
        # Signed or 32-bit labels, as array programs write them.
        values = values.view(np.int8) if mode == "L" else values
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            what = f"expected labels of 0 to 65535, got {low} to {high}"
            raise MaskError(path, what, "number the classes from 0")
        values = values.astype(np.uint8 if mode == "L" else np.uint16)
    elif mode.startswith("I;16"):
        values = values.astype(np.uint16)
    elif mode in ("1", "L", "P"):
        values = values.astype(np.uint8, copy=False)
        # Undo Pillow's changes to gray: 2- and 4-bit values stretched to 0..255, white-is-zero inverted.
        if mode == "L" and bits in (2, 4):
            values = values // (255 // (2**bits - 1))
        if decoded.white_is_zero:
            values = 2**bits - 1 - values
    else:
        fix = "save labels as 8- or 16-bit gray or palette PNG"
        raise MaskError(path, f"has pixels of mode {mode}, which cannot hold labels", fix)
    return np.ascontiguousarray(values)


def odd_palettes(paths: Iterable[str | Path]) -> list[Path]:
    """Return the palette files whose palette differs from that of most, without decoding pixels.

    A shorter palette that begins alike does not differ: programs leave out unused colors at the end, or make them
    black.
    """
    palettes: dict[Path, bytes] = {}
    for path in map(Path, paths):
        with suppress(*DECODE_ERRORS), Image.open(path, formats=("PNG", "TIFF", "BMP", "GIF")) as image:
            if image.mode == "P" and image.palette is not None:
                colors = image.palette.tobytes()
                while colors.endswith(bytes(3)):
                    colors = colors[:-3]
                palettes[path] = colors
    # Of palettes that are equally frequent, the longest, which contains the others.
    most = max(Counter(palettes.values()).items(), key=lambda pair: (pair[1], len(pair[0])), default=(b"", 0))[0]
    return [p for p, colors in palettes.items() if not (most.startswith(colors) or colors.startswith(most))]


def upright(decoded: Decoded) -> NDArray[Any]:
    """Return Pillow's pixels, upright; they may be its own, which cannot be written to."""
    return turn(np.asarray(decoded.image), 1 if decoded.turned else decoded.orientation)


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels (H, W, ...) upright. Source: EXIF 2.3, tag Orientation, 1..8."""
    if orientation in (5, 7):
        turned = np.rot90(np.fliplr(pixels), 1 if orientation == 5 else -1)
    elif orientation in (2, 4):
        turned = np.fliplr(pixels) if orientation == 2 else np.flipud(pixels)
    else:
        turned = np.rot90(pixels, {3: 2, 6: -1, 8: 1}.get(orientation, 0))
    # A view of one row or column counts as contiguous with a negative stride, too, which torch refuses.
    return pixels if orientation == 1 else turned.copy()


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (H, W) or (H, W, 3) as (H, W, 3), contiguous."""
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels)


def _scale_integer(path: str | Path, pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Scale 9- to 16-bit values to 8 bits, rounded.

    65535 / 255 = 257, so an 8-bit image that was stored with 16 bits comes back exactly.
    Raises ImageError for 16-bit files that use a fraction of the range: 12-bit data would come out nearly black.
    """
    top, highest = 2**bits - 1, int(pixels.max())
    if bits == 16 and 0 < highest < _MIN_16_BIT_TOP:
        what = f"uses a small part of the 16-bit range 0..65535: its largest value is {highest}"
        raise ImageError(path, what, "scale its values to the whole range, or save it with 8 bits")
    scaled: NDArray[np.uint8] = ((pixels.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return scaled


def _scale_float(path: str | Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    finite = np.isfinite(pixels)
    if not finite.all():
        what = f"holds {int((~finite).sum())} pixels that are NaN or infinite"
        raise ImageError(path, what, "replace them, or save it with 8 or 16 bits")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        what = f"expected float pixels of 0 to 1, got {low:g} to {high:g}"
        raise ImageError(path, what, "scale them to 0..1, or save it with 8 or 16 bits")
    scaled: NDArray[np.uint8] = np.rint(pixels * 255).astype(np.uint8)
    return scaled


def _read_16_bit_color(path: str | Path, decoded: Decoded) -> NDArray[np.uint16]:
    """Decode 16-bit color as (H, W, 3), upright.

    Pillow, which has checked the file, keeps only the high byte of each value; OpenCV keeps both.
    """
    import cv2

    pixels = cv2.imdecode(np.frombuffer(decoded.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        what = "has 16-bit color in an unsupported layout"
        raise ImageError(path, what, "save it with 8 bits, or as 16-bit PNG")
    return turn(pixels[..., 2::-1], 1 if decoded.turned else decoded.orientation)
