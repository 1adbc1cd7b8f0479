"""Shapes of the classes in a mask: how thick and how large their parts are, and where they occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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
    planes = planes or {int(k): mask == k for k in np.unique(mask[mask != ignore_id])}
    classes: dict[int, ClassShape] = {}
    presence: dict[int, NDArray[np.bool_]] = {}
    height, width = mask.shape[-2:]
    padding = ((0, -height % BLOCK), (0, -width % BLOCK))
    for class_id, plane in planes.items():
        if not plane.any():
            continue
        is_class = plane.astype(np.uint8)
        contours, _ = cv2.findContours(is_class, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        outline = sum(cv2.arcLength(contour, closed=True) for contour in contours)
        # The first part is the rest of the image.
        parts = cv2.connectedComponentsWithStats(is_class, connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        classes[class_id] = ClassShape(int(is_class.sum()), outline, tuple(parts.tolist()))
        blocks = np.pad(is_class, padding).reshape((height + padding[0][1]) // BLOCK, BLOCK, -1, BLOCK)
        presence[class_id] = np.asarray(blocks.any((1, 3)))
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
