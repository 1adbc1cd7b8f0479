"""From a file to the pixels that every command sees: RGB images upright, masks with the numbers of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, MaskError
from .decode import DECODER_FAULTS, Decoded, decode


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB, turned upright; the module's docstring lists the conversions.

    Raises ImageError with the file, what is wrong with it and what to do.
    """
    return np.ascontiguousarray(_as_rgb(path, decode(path)))


def read_mask(path: str | Path) -> NDArray[Any]:
    """Read a mask's file values exactly: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB where classes are colours.

    Palette files give indices, 1-, 2- and 4-bit files the ids as stored; alpha is dropped; orientation as in read_image.
    Raises ImageError for a file that cannot be read, MaskError for one that cannot hold labels (JPEG, lossy WebP, float).
    """
    decoded = decode(path)
    if decoded.lossy:
        what = f"is a lossy {decoded.image.format}, whose values are not the labels that were drawn"
        raise MaskError(path, what, "export the mask as PNG from its source")
    return np.ascontiguousarray(_as_labels(path, decoded))


def _as_rgb(path: str | Path, decoded: Decoded) -> NDArray[np.uint8]:
    image = decoded.image
    if image.mode == "F":
        return _gray_to_rgb(_from_float(path, _upright(decoded)))
    if image.mode.startswith("I;16"):
        return _gray_to_rgb(_from_deep(_upright(decoded), decoded.bits))
    if image.mode.startswith("I"):
        what = f"has {decoded.bits}-bit whole numbers, and which range they fill is unknown"
        raise ImageError(path, what, "save it with 8 or 16 bits")
    if decoded.bits == 16:
        return _from_deep(_deep_pixels(path, decoded)[..., :3], 16)
    try:
        return _upright(decoded._replace(image=image.convert("RGB")))
    except DECODER_FAULTS as error:
        raise ImageError(path, f"has pixels of mode {image.mode}: {error}", "export it as 8-bit RGB") from None


def _upright(decoded: Decoded) -> NDArray[Any]:
    """Pillow's pixels as a writable array, turned."""
    return _turn(np.array(decoded.image), 1 if decoded.turned else decoded.orientation)


def _turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply EXIF orientation 1..8 to (H, W, ...). Source: EXIF 2.3, tag Orientation."""
    if orientation in (5, 7):
        return np.rot90(np.fliplr(pixels), 1 if orientation == 5 else -1)
    if orientation in (2, 4):
        return np.fliplr(pixels) if orientation == 2 else np.flipud(pixels)
    return np.rot90(pixels, {3: 2, 6: -1, 8: 1}.get(orientation, 0))


def _gray_to_rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[..., None], 3, axis=2)


def _from_deep(pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """9 to 16 bits to 8, rounded. 65535 / 255 = 257, so an 8-bit image that was stored with 16 comes back exactly."""
    top = 2**bits - 1
    levels: NDArray[np.uint8] = ((pixels.astype(np.uint32) * 255 + top // 2) // top).astype(np.uint8)
    return levels


def _from_float(path: str | Path, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    finite = np.isfinite(pixels)
    if not finite.all():
        what = f"holds {int((~finite).sum())} pixels that are NaN or infinite"
        raise ImageError(path, what, "replace them, or save it with 8 or 16 bits")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        what = f"holds float pixels of {low:g} to {high:g}, allowed are 0 to 1"
        raise ImageError(path, what, "scale them to 0..1, or save it with 8 or 16 bits")
    levels: NDArray[np.uint8] = np.rint(pixels * 255).astype(np.uint8)
    return levels


def _deep_pixels(path: str | Path, decoded: Decoded) -> NDArray[np.uint16]:
    """16-bit colour (H, W, 3 or 4) RGB upright. Pillow keeps the high byte only, OpenCV all; Pillow has proved the file whole."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(decoded.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ImageError(
            path, "has 16-bit colour in a layout that cannot be read", "save it with 8 bits, or as 16-bit PNG"
        )
    return _turn(np.concatenate([pixels[..., 2::-1], pixels[..., 3:]], axis=2), decoded.orientation)


def _as_labels(path: str | Path, decoded: Decoded) -> NDArray[Any]:
    mode, bits = decoded.image.mode, decoded.bits
    if bits == 16 and mode in ("LA", "RGB", "RGBA"):
        raise MaskError(
            path, "has 16-bit colours or alpha", "save colour masks with 8 bits, or labels as 16-bit grey PNG"
        )
    if mode in ("LA", "PA"):
        return _upright(decoded)[..., 0]
    if mode in ("RGB", "RGBA"):
        return _upright(decoded)[..., :3]
    if mode == "I":
        return _narrowed(path, _upright(decoded))
    if mode in ("1", "L", "P") or mode.startswith("I;16"):
        return _stored_gray(decoded)
    raise MaskError(
        path, f"has pixels of mode {mode}, which are no labels", "save labels as 8- or 16-bit grey or palette PNG"
    )


def _stored_gray(decoded: Decoded) -> NDArray[Any]:
    """Undo what Pillow does to grey: 2- and 4-bit values stretched to 0..255, white-is-zero inverted."""
    values = _upright(decoded)
    if decoded.image.mode.startswith("I;16"):
        return values.astype(np.uint16)
    if decoded.image.mode == "L" and decoded.bits in (2, 4):
        values = values // (255 // (2**decoded.bits - 1))
    if decoded.inverted:
        values = 2**decoded.bits - 1 - values.astype(np.uint8)
    return values.astype(np.uint8)


def _narrowed(path: str | Path, values: NDArray[Any]) -> NDArray[np.uint16]:
    """32-bit labels, as array programs write them, where they fit into 16 bits."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise MaskError(path, f"holds labels of {low} to {high}, allowed are 0 to 65535", "number the classes from 0")
    return values.astype(np.uint16)
