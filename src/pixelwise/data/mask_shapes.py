"""Shapes of the classes in a mask: how thick and how large their parts are, and where they occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..taxonomy import count_bytes
from .mask_values import near_two_classes

BLOCK = 16
"""Pixels per side of the blocks in which the presence of classes is kept."""


@dataclass(frozen=True)
class ClassShape:
    """One class of a mask.

    area     pixels
    outline  length of all its outlines, holes included, in pixels
    parts    areas of its connected parts, in pixels
    """

    area: int
    outline: float
    parts: tuple[int, ...]


@dataclass(frozen=True)
class MaskShapes:
    """The classes of one mask.

    classes   shape by class id
    presence  by class id, whether a block of 16 x 16 pixels contains the class, (H / 16, W / 16) rounded up
    ignored   share of the pixels that are ignored, and of those the share that lies as a border between two classes
    """

    classes: dict[int, ClassShape]
    presence: dict[int, NDArray[np.bool_]]
    ignored: tuple[float, float]


def mask_shapes(mask: NDArray[Any], ignore_id: int) -> MaskShapes:
    """Return the shapes of the classes of a mask (H, W) of class ids, or (K, H, W) of several labels per pixel."""
    planes = {k: plane == 1 for k, plane in enumerate(mask)} if mask.ndim == 3 else {}
    if not planes:
        ids = np.flatnonzero(count_bytes(mask)) if mask.dtype == np.uint8 else np.unique(mask)
        planes = {int(k): mask == k for k in ids if k != ignore_id}
    classes: dict[int, ClassShape] = {}
    presence: dict[int, NDArray[np.bool_]] = {}
    height, width = mask.shape[-2:]
    for class_id, plane in planes.items():
        if not plane.any():
            continue
        is_class = plane.astype(np.uint8)
        contours, _ = cv2.findContours(is_class, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outline = sum(cv2.arcLength(contour, closed=True) for contour in contours)
        # There are no more parts than outlines; 16-bit labels are twice as fast.
        labels = cv2.CV_16U if len(contours) < 2**16 - 1 else cv2.CV_32S
        # The first part is the rest of the image.
        stats = cv2.connectedComponentsWithStats(is_class, connectivity=8, ltype=labels)[2]
        parts = stats[1:, cv2.CC_STAT_AREA]
        classes[class_id] = ClassShape(cv2.countNonZero(is_class), outline, tuple(parts.tolist()))
        blocks = np.maximum.reduceat(is_class, np.arange(0, height, BLOCK), axis=0)
        presence[class_id] = np.maximum.reduceat(blocks, np.arange(0, width, BLOCK), axis=1) > 0
    if mask.ndim == 3:
        return MaskShapes(classes, presence, (float((mask == ignore_id).all(0).mean()), 0.0))
    # Every fourth pixel of a large mask shows as much.
    step = max(1, min(mask.shape) // 256)
    small = np.ascontiguousarray(mask[::step, ::step])
    is_ignored = small == ignore_id
    num_border = int((is_ignored & near_two_classes(small, ignore_id)).sum())
    return MaskShapes(classes, presence, (float(is_ignored.mean()), num_border / max(1, int(is_ignored.sum()))))


def crop_shares(shapes: MaskShapes, crop: tuple[int, int]) -> dict[int, float]:
    """Return, by class id, the share of the crops (height, width) of a mask that contain the class.

    Crops lie on the grid of blocks; an image that is smaller than the crop is one crop.
    """
    shares = {}
    for class_id, blocks in shapes.presence.items():
        rows, columns = (min(max(1, round(side / BLOCK)), n) for side, n in zip(crop, blocks.shape, strict=True))
        sums = np.pad(blocks.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        inside = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
        shares[class_id] = float((inside > 0).mean())
    return shares
