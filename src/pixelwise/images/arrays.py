"""Arrays of NumPy in files (.npy): one image or mask per file. Arrays of objects, which are pickles, are never read."""

from __future__ import annotations

import io
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, MaskError, cut

ARRAY_SUFFIX = ".npy"
NPY = b"\x93NUMPY"
"""The first bytes of such a file."""


def read_npy(path: str | Path, data: bytes) -> NDArray[Any]:
    """Return the array (H, W) or (H, W, C) in the bytes of a file `path`. Raises ImageError."""
    try:
        numbers = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError, MemoryError, TokenError) as error:
        raise ImageError(path, f"is not a whole npy file: {cut(error)}", "save it again with numpy.save") from None
    if numbers.dtype.kind not in "buif" or numbers.ndim not in (2, 3) or 0 in numbers.shape:
        what = f"expected integers or floats of shape (H, W) or (H, W, C), got {numbers.dtype} {numbers.shape}"
        raise ImageError(path, what, "save one image per file with numpy.save")
    return np.asarray(numbers, numbers.dtype.newbyteorder("="))


def read_npy_mask(path: str | Path, data: bytes) -> NDArray[Any]:
    """Return labels (H, W) uint8 or uint16, or colors (H, W, 3) uint8. Raises ImageError or MaskError."""
    values = read_npy(path, data)
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim == 3 and (values.shape[2] != 3 or values.dtype != np.uint8):
        what = f"expected labels (H, W), or colors (H, W, 3) of uint8, got {values.dtype} {values.shape}"
        raise MaskError(path, what, "save one class number per pixel with numpy.save")
    if values.dtype.kind == "f":
        raise MaskError(path, f"expected integers, got {values.dtype}", "save it with `.astype(numpy.uint8)`")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise MaskError(path, f"expected labels of 0 to 65535, got {low} to {high}", "number the classes from 0")
    return np.ascontiguousarray(values.astype(np.uint8 if high < 256 else np.uint16))
