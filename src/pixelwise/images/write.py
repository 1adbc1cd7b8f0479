"""Write masks and images, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import voc_color
from ..errors import InputError
from ..files import atomic_write, write_bytes


def write_mask(path: str | Path, values: NDArray[Any], palette: NDArray[Any] | None = None) -> None:
    """Write labels (H, W) uint8 or uint16 as `encode_mask` makes them; the name ends in .png.

    Raises InputError for another suffix, shape or type, ResourceError when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(path, f"masks are not written as {path.suffix or 'a file without suffix'}", "name it .png")
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16) or not values.size:
        raise InputError(
            path, f"a mask is (H, W) uint8 or uint16, got {values.shape} {values.dtype}", "convert it first"
        )
    write_bytes(path, encode_mask(values, palette))


def encode_mask(values: NDArray[Any], palette: NDArray[Any] | None = None) -> bytes:
    """Labels (H, W) uint8 or uint16 as the bytes of a palette PNG, or of a 16-bit grey PNG where a value exceeds 255.

    palette (n, 3) RGB 0..255 colours the values 0..n-1; the others, or all without it, get the VOC devkit's colours.
    """
    if values.max() > 255:
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette(_palette_bytes(palette))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_image(path: str | Path, rgb: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as PNG or, for .jpg and .jpeg, as JPEG of quality 95 with full colour resolution.

    Raises InputError for another suffix, shape or type, ResourceError when the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise InputError(path, f"images are not written as {suffix or 'a file without suffix'}", "name it .png or .jpg")
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise InputError(path, f"an image is (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}", "convert it first")
    with atomic_write(path) as file:
        if suffix == ".png":
            Image.fromarray(rgb).save(file, format="PNG")
        else:
            Image.fromarray(rgb).save(file, format="JPEG", quality=95, subsampling=0)


def _palette_bytes(palette: NDArray[Any] | None) -> bytes:
    table = np.array([voc_color(k) for k in range(256)], np.uint8)
    if palette is not None:
        colors = np.asarray(palette)[:256]
        table[: len(colors)] = colors
    return table.tobytes()
