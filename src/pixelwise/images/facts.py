"""What an image file says of its pixels before they are converted: format, bits, channels, orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decode import Decoded

_CHANNELS = {"LA": 2, "PA": 2, "RGB": 3, "YCbCr": 3, "LAB": 3, "HSV": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4}


@dataclass(frozen=True)
class FileFacts:
    """The facts of a file that its pixels as read no longer show.

    format       such as "PNG"
    mode         Pillow's, such as "P" for palette indices
    bits         per channel, as stored
    channels     as stored, alpha included
    size         (height, width), upright
    orientation  EXIF's, 1..8
    lossy        whether the values may differ from those that were saved
    highest      the largest value of a gray file of 9 to 16 bits, otherwise 0
    """

    format: str
    mode: str
    bits: int
    channels: int
    size: tuple[int, int]
    orientation: int
    lossy: bool
    highest: int = 0


def array_facts(values: NDArray[Any]) -> FileFacts:
    """Return the facts of an npy file."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    bits = 8 * values.dtype.itemsize
    return FileFacts("NPY", "", bits, channels, (values.shape[0], values.shape[1]), 1, lossy=False)


def file_facts(decoded: Decoded) -> FileFacts:
    """Return the facts of a decoded file."""
    image, mode = decoded.image, decoded.image.mode
    height, width = image.height, image.width
    if decoded.orientation > 4 and not decoded.turned:
        height, width = width, height
    highest = int(np.asarray(image).max()) if mode.startswith("I") and not decoded.signed else 0
    channels = _CHANNELS.get(mode, 1)
    size = (height, width)
    return FileFacts(str(image.format), mode, decoded.bits, channels, size, decoded.orientation, decoded.lossy, highest)
