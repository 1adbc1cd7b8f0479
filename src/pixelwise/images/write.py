"""Write masks and images. A file appears whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..colors import voc_color
from ..errors import InputError
from ..files import atomic_write, write_bytes


def write_mask(path: str | Path, values: NDArray[Any], *, palette: NDArray[Any] | None = None) -> None:
    """Write labels (H, W) uint8 or uint16 to a .png file, as `encode_mask` encodes them.

    Raises InputError for another suffix, shape or type, ResourceError when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(path, f"masks cannot be written as {path.suffix or 'a file without suffix'}", "name it .png")
    if values.ndim != 2 or values.dtype not in (np.uint8, np.uint16) or not values.size:
        what = f"expected a mask (H, W) uint8 or uint16, got {values.shape} {values.dtype}"
        raise InputError(path, what, "convert it first")
    write_bytes(path, encode_mask(values, palette=palette))


def encode_mask(values: NDArray[Any], *, palette: NDArray[Any] | None = None) -> bytes:
    """Encode labels (H, W) uint8 or uint16 as a palette PNG, or as a 16-bit gray PNG where a value exceeds 255.

    palette (n, 3) RGB 0..255 colors the values 0..n-1; other values get the colors of the VOC devkit.
    """
    if values.max() > 255:
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = Image.fromarray(values.astype(np.uint8))
        table = np.array([voc_color(k) for k in range(256)], np.uint8)
        if palette is not None:
            colors = np.asarray(palette)[:256]
            table[: len(colors)] = colors
        image.putpalette(table.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_binary_mask(path: str | Path, mask: NDArray[np.bool_]) -> None:
    """Write a mask (H, W) of bool as a PNG with one bit per pixel, white where it is True."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    write_bytes(Path(path), buffer.getvalue())


def write_image(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image as PNG or, for .jpg and .jpeg, as JPEG of quality 95 without chroma subsampling.

    pixels  (H, W, 3) uint8 RGB, or (H, W) uint8 gray
    Raises InputError for another suffix, shape or type, ResourceError when the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        what = f"images cannot be written as {suffix or 'a file without suffix'}"
        raise InputError(path, what, "name it .png or .jpg")
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if not is_image or pixels.dtype != np.uint8 or not pixels.size:
        what = f"expected an image (H, W, 3) or (H, W) uint8, got {pixels.shape} {pixels.dtype}"
        raise InputError(path, what, "convert it first")
    with atomic_write(path) as file:
        if suffix == ".png":
            Image.fromarray(pixels).save(file, format="PNG")
        else:
            Image.fromarray(pixels).save(file, format="JPEG", quality=95, subsampling=0)
