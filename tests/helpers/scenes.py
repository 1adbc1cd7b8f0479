"""Images that look alike, as frames of one recording do, and others that do not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def scene(seed: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Smooth noise of several sizes, as the light and dark parts of a photo."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for size in (4, 8, 16):
        noise = rng.normal(size=(height // size + 1, width // size + 1, 3)).astype(np.float32)
        total += size * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 8 * total, 0, 255).astype(np.uint8)


def drive(number: int, frame: int) -> NDArray[np.uint8]:
    """A frame of a camera that moves over a long scene."""
    return np.ascontiguousarray(scene(number, 300)[:, frame : frame + 96])
