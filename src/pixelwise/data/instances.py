"""DeconvNet's training crops: one object at a time, then boxes that overlap one.

Source: Noh et al. 2015 (https://arxiv.org/abs/1505.04366), section 4.2. The authors have masks of instances and edge boxes; here an
object is a connected region of one class, and a proposal a box drawn at random that overlaps its box by half or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core import Window
from .transforms import Point, Transform, warp

BACKGROUND = 0
# Source: DeconvNet section 4.2, and the size that the authors' data layer resizes to.
ENLARGED = 1.2
MIN_OVERLAP = 0.5
SIDE = 250
_TRIES = 50


@dataclass(frozen=True)
class InstanceCrops:
    """Cut an object's surroundings, resized to a square of `side` pixels, for `inner` to augment.

    stage  "ground_truth" labels everything but the object (and what is ignored) as class 0, the background; "proposals" keeps all labels
    An image that holds nothing but background is shown whole.
    """

    inner: Transform
    stage: Literal["ground_truth", "proposals"]
    ignore_id: int
    side: int = SIDE

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[Any], rng: np.random.Generator, center: Point | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """image (H, W, C) uint8, mask (H, W) class ids -> what `inner` makes of the square."""
        assert center is None, "an object says where its crop lies"
        region = draw_region(mask, self.ignore_id, rng)
        window = Window(0, 0, *mask.shape)
        if region is not None:
            box = bounds(region)
            window = enlarge(
                box if self.stage == "ground_truth" else draw_overlapping(box, mask.shape, rng), mask.shape
            )
            if self.stage == "ground_truth":
                mask = np.where(region | (mask == self.ignore_id), mask, np.asarray(BACKGROUND, mask.dtype))
        height, width = window.size
        inverse_matrix = np.array([[width / self.side, 0, window.left], [0, height / self.side, window.top]])
        return self.inner(*warp(image, mask, inverse_matrix, (self.side, self.side), ignore_id=self.ignore_id), rng)


def draw_region(mask: NDArray[Any], ignore_id: int, rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """The connected region (H, W) around a pixel drawn from a class drawn evenly; None where all is background."""
    classes = np.setdiff1d(np.unique(mask), [BACKGROUND, ignore_id])
    if not len(classes):
        return None
    inside = mask == rng.choice(classes)
    _, regions = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
    place = rng.choice(np.flatnonzero(inside))
    found: NDArray[np.bool_] = np.asarray(regions == regions.flat[place])
    return found


def bounds(region: NDArray[np.bool_]) -> Window:
    """The smallest window that holds all True pixels."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return Window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def enlarge(window: Window, shape: tuple[int, ...], factor: float = ENLARGED) -> Window:
    """The window grown about its middle, cut off at the borders of an image of `shape` (height, width)."""
    down, right = ((factor - 1) / 2 * length for length in window.size)
    top, left = max(int(np.floor(window.top - down)), 0), max(int(np.floor(window.left - right)), 0)
    return Window(
        top, left, min(int(np.ceil(window.bottom + down)), shape[0]), min(int(np.ceil(window.right + right)), shape[1])
    )


def overlap(a: Window, b: Window) -> float:
    """Intersection over union, 0..1."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    common = max(height, 0) * max(width, 0)
    return common / (a.size[0] * a.size[1] + b.size[0] * b.size[1] - common)


def draw_overlapping(box: Window, shape: tuple[int, ...], rng: np.random.Generator) -> Window:
    """A box whose corners are moved by up to half of its size, overlapping it by MIN_OVERLAP or more."""
    height, width = box.size
    for _ in range(_TRIES):
        up, left, down, right = rng.uniform(-0.5, 0.5, 4)
        top, start = max(int(box.top + up * height), 0), max(int(box.left + left * width), 0)
        bottom, end = min(int(box.bottom + down * height), shape[0]), min(int(box.right + right * width), shape[1])
        drawn = Window(top, start, bottom, end)
        if top < bottom and start < end and overlap(box, drawn) >= MIN_OVERLAP:
            return drawn
    return box
