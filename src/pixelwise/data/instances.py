"""DeconvNet's training crops: one object at a time (stage 1), then boxes that overlap an object (stage 2).

Source: Noh et al. 2015 (https://arxiv.org/abs/1505.04366), section 4.2. The authors use instance masks and edge boxes.
Here an object is a connected region of one class, and a proposal is a random box that overlaps the object's box by half
or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..core import Window
from .transforms import XY, Transform, warp

BACKGROUND = 0
# Source: DeconvNet, section 4.2: boxes are enlarged by 1.2, proposals overlap by an IoU of 0.5 or more, images have 250
# x 250.
ENLARGED = 1.2
MIN_OVERLAP = 0.5
SIDE = 250
_TRIES = 50


@dataclass(frozen=True)
class InstanceCrops:
    """A transform that cuts out an object with its surroundings, resizes them to a square and augments it by `inner`.

    inner      see `Transform`
    stage      "ground_truth" labels all but the object and ignored pixels as background; "proposals" keeps all labels
    ignore_id  id of the pixels that do not count
    side       of the square, in pixels

    An image without objects is shown whole.
    """

    inner: Transform
    stage: Literal["ground_truth", "proposals"]
    ignore_id: int
    side: int = SIDE

    def __call__(
        self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator, center: XY | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return what `inner` makes of a random object of image (H, W, C) uint8 and mask (H, W)."""
        assert center is None, "the object determines the crop"
        region = draw_region(mask, self.ignore_id, rng)
        window = Window(0, 0, *mask.shape)
        if region is not None and self.stage == "ground_truth":
            window = enlarge(bounding_box(region), mask.shape)
            mask = np.where(region | (mask == self.ignore_id), mask, np.asarray(BACKGROUND, mask.dtype))
        elif region is not None:
            window = enlarge(draw_overlapping(bounding_box(region), mask.shape, rng), mask.shape)
        height, width = window.size
        inverse_matrix = np.array([[width / self.side, 0, window.left], [0, height / self.side, window.top]])
        square = warp(image, mask, inverse_matrix, (self.side, self.side), ignore_id=self.ignore_id)
        return self.inner(*square, rng)


def draw_region(mask: NDArray[Any], ignore_id: int, rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """Draw a class evenly and a pixel of it; return its connected region (H, W), None if all is background."""
    from .mask_loops import ids_in

    classes = ids_in(mask, ignore_id)
    classes = classes[classes != BACKGROUND]
    if not len(classes):
        return None
    of_class = mask == int(rng.choice(classes))
    _, regions = cv2.connectedComponents(of_class.astype(np.uint8), connectivity=8)
    pixel = rng.choice(np.flatnonzero(of_class))
    found: NDArray[np.bool_] = np.asarray(regions == regions.flat[pixel])
    return found


def bounding_box(region: NDArray[np.bool_]) -> Window:
    """Return the smallest window that contains all True pixels."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return Window(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def enlarge(window: Window, shape: tuple[int, ...], factor: float = ENLARGED) -> Window:
    """Scale a window about its center and clip it to an image of `shape` (height, width)."""
    down, right = ((factor - 1) / 2 * length for length in window.size)
    top, left = max(int(np.floor(window.top - down)), 0), max(int(np.floor(window.left - right)), 0)
    return Window(
        top, left, min(int(np.ceil(window.bottom + down)), shape[0]), min(int(np.ceil(window.right + right)), shape[1])
    )


def box_iou(a: Window, b: Window) -> float:
    """Compute the intersection over union of two windows, 0..1."""
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    width = min(a.right, b.right) - max(a.left, b.left)
    common = max(height, 0) * max(width, 0)
    return common / (a.size[0] * a.size[1] + b.size[0] * b.size[1] - common)


def draw_overlapping(box: Window, shape: tuple[int, ...], rng: np.random.Generator) -> Window:
    """Move the corners of a box by up to half of its size, until its IoU with the box is MIN_OVERLAP or more."""
    height, width = box.size
    for _ in range(_TRIES):
        up, left, down, right = rng.uniform(-0.5, 0.5, 4)
        top, start = max(int(box.top + up * height), 0), max(int(box.left + left * width), 0)
        bottom, end = min(int(box.bottom + down * height), shape[0]), min(int(box.right + right * width), shape[1])
        drawn = Window(top, start, bottom, end)
        if top < bottom and start < end and box_iou(box, drawn) >= MIN_OVERLAP:
            return drawn
    return box
