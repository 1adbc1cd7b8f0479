"""Images and masks whose colors tell their ids, and sampling by loops, for tests of augmentation."""

from __future__ import annotations

import cv2
import numpy as np

from pixelwise.config import AugmentConfig
from pixelwise.data.transforms import BORDER_COLOR

IGNORE = 255
STILL = AugmentConfig(crop=[0, 0], scale=[1.0, 1.0], flip=0.0)
CODES = np.array([[10, 200, 60], [220, 40, 90], [90, 120, 240], [40, 90, 20]], np.uint8)
"""A color for each id, all far from each other and from the border's."""


def blocks(seed: int, height: int, width: int, cell: int = 12) -> np.ndarray:
    """A mask of cells of four ids."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, (-(-height // cell), -(-width // cell)), np.uint8)
    return ids.repeat(cell, 0).repeat(cell, 1)[:height, :width]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def inside(region: np.ndarray) -> np.ndarray:
    """The pixels of a region that are two away from its edge, and from the image's."""
    return cv2.erode(
        region.astype(np.uint8), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
    ).astype(bool)


def bilinear(image: np.ndarray, x: float, y: float) -> np.ndarray:
    left, top = int(np.floor(x)), int(np.floor(y))
    mixed = np.zeros(3)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - abs(y - top - dy)) * (1 - abs(x - left - dx))
        there = 0 <= top + dy < image.shape[0] and 0 <= left + dx < image.shape[1]
        mixed += weight * (image[top + dy, left + dx] if there else np.array(BORDER_COLOR))
    return mixed
