"""A hash of an image that other files of the same photo share up to a few bits."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# Lowest frequencies per axis, of an image of 4 times as many pixels. With 8, as usual for photos, fundus photos of two
# eyes are as near as two files of one photo; with 16 they are not.
_SIDE = 16
_SMALLEST = 24
# Gray levels. The frequencies of a plain image are noise.
_MIN_CONTRAST = 3.0


def perceptual_hash(image: NDArray[np.uint8]) -> bytes:
    """Return the signs of an image's lowest frequencies, 32 bytes; empty for a plain image or one below 24 pixels.

    Known as perceptual hash: small, cosine transform, and one bit per frequency: whether it is above the median. Green
    stands for the gray of the image. The first bit, of the mean, is always 0.

    image  (H, W, 3) uint8
    """
    if min(image.shape[:2]) < _SMALLEST:
        return b""
    # Every n-th pixel of one channel first: reading all would take longer than the rest.
    down, right = (max(size // (8 * _SIDE), 1) for size in image.shape[:2])
    sample = np.ascontiguousarray(image[::down, ::right, 1])
    small = cv2.resize(sample, (4 * _SIDE, 4 * _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _MIN_CONTRAST:
        return b""
    frequencies = cv2.dct(small)[:_SIDE, :_SIDE].ravel()
    bits = frequencies > np.median(frequencies[1:])
    bits[0] = False
    return np.packbits(bits).tobytes()
