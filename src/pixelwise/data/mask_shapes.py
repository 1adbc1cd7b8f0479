"""Shapes of the classes in a mask: how thick and how large their parts are, and where they occur."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mask_values import border_share

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
    classes: dict[int, ClassShape] = {}
    presence: dict[int, NDArray[np.bool_]] = {}
    if mask.ndim == 3:
        for k, plane in enumerate(mask):
            _measure((plane == 1).view(np.uint8), {1: k}, classes, presence)
        return MaskShapes(classes, presence, (float((mask == ignore_id).all(0).mean()), 0.0))
    ids = {id_: id_ for id_ in range(256) if id_ != ignore_id}
    values = mask
    if mask.dtype != np.uint8:
        # Of 65536 ids, few occur, for which bytes are enough.
        found, values = np.unique(mask, return_inverse=True)
        ids = {number: int(id_) for number, id_ in enumerate(found) if id_ != ignore_id}
        values = values.reshape(mask.shape).astype(np.uint8 if len(found) <= 256 else np.uint16)
    _measure(values, ids, classes, presence)
    return MaskShapes(classes, presence, border_share(mask, ignore_id))


def _measure(
    values: NDArray[Any],
    ids: Mapping[int, int],
    classes: dict[int, ClassShape],
    presence: dict[int, NDArray[np.bool_]],
) -> None:
    """Add shape and presence of each value (H, W) that has a class id in `ids`."""
    from .mask_loops import outline_lengths, parts_of

    num_values = int(values.max()) + 1
    part_values, part_areas, blocks = parts_of(values, num_values, block=BLOCK)
    outlines = outline_lengths(values, num_values)
    for value in np.unique(part_values).tolist():
        if value in ids:
            areas = part_areas[part_values == value]
            classes[ids[value]] = ClassShape(int(areas.sum()), float(outlines[value]), tuple(areas.tolist()))
            presence[ids[value]] = blocks[value]


def crop_shares(shapes: MaskShapes, crop: tuple[int, int]) -> dict[int, float]:
    """Return, by class id, the share of the crops (height, width) of a mask that contain the class.

    Crops lie on the grid of blocks; an image that is smaller than the crop is one crop.
    """
    shares = {}
    for class_id, blocks in shapes.presence.items():
        rows, columns = (min(max(1, round(side / BLOCK)), n) for side, n in zip(crop, blocks.shape, strict=True))
        sums = np.zeros((blocks.shape[0] + 1, blocks.shape[1] + 1), np.int64)
        blocks.cumsum(0, np.int64, sums[1:, 1:])
        sums[1:, 1:].cumsum(1, out=sums[1:, 1:])
        inside = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
        shares[class_id] = float((inside > 0).mean())
    return shares
