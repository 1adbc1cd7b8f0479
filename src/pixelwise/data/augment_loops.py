"""Compiled loops of the augmentation: masks sampled at pixel centers (nearest-exact), pixels pasted by class, hues.

NumPy would make a float64 and an int64 number per axis and pixel, which takes thirty times as long; OpenCV rounds
positions. The compiler is imported with this module, so that its importers do that where they call it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit.compiled import compiled
from .mask_loops import read_only


def sample_labels(
    mask: NDArray[Any],
    inverse_matrix: NDArray[np.float64],
    size: tuple[int, int],
    *,
    ignore_id: int,
    displacement: NDArray[np.float64] | None = None,
) -> NDArray[Any]:
    """Sample a mask (H, W) or (K, H, W) over a crop of `size`, nearest-exact; see `transforms.warp`."""
    planes = read_only(mask).reshape(-1, *mask.shape[-2:])
    sampled = np.full((len(planes), *size), ignore_id, mask.dtype)
    moves = np.zeros((2, 1, size[1])) if displacement is None else displacement
    _sample_nearest(planes, read_only(inverse_matrix), read_only(moves), sampled)
    return sampled.reshape(*mask.shape[:-2], *size)


def paste(
    target: tuple[NDArray[Any], NDArray[Any]], source: tuple[NDArray[Any], NDArray[Any]], is_pasted: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return image (H, W, C) and mask (H, W) of the target under the pixels of the source of some classes.

    is_pasted  whether each class id is pasted
    Images may have a margin around the mask, in which nothing is pasted.
    """
    image, mask = (np.array(array, order="C") for array in target)
    _paste_pixels(read_only(source[0]), read_only(source[1]), is_pasted, image, mask)
    return image, mask


@compiled
def _sample_nearest(planes: Any, matrix: Any, displacement: Any, sampled: Any) -> None:
    """Write the labels that lie inside the source into `sampled` (K, H, W), row by row.

    displacement  (2, H, W), or (2, 1, W) that all rows share
    """
    # Numbers in registers and a loop without branches, which becomes vectors.
    height, width = planes.shape[1:]
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 0], matrix[1, 1], matrix[1, 2]
    columns = np.arange(sampled.shape[2]) + 0.5
    index = np.empty(len(columns), np.int32)
    for row in range(sampled.shape[1]):
        to_right, to_bottom = displacement[0, row % displacement.shape[1]], displacement[1, row % displacement.shape[1]]
        for column in range(len(columns)):
            right, down = columns[column] + to_right[column], (row + 0.5) + to_bottom[column]
            x, y = a * right + b * down + c, d * right + e * down + f
            is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index[column] = np.int32(y) * np.int32(width) + np.int32(x) if is_inside else -1
        for plane in range(len(planes)):
            source = planes[plane].reshape(-1)
            for column in range(len(columns)):
                if index[column] >= 0:
                    sampled[plane, row, column] = source[np.uintp(index[column])]


@compiled
def _paste_pixels(source_image: Any, source_mask: Any, is_pasted: Any, image: Any, mask: Any) -> None:
    margin = (image.shape[0] - mask.shape[0]) // 2
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):
            label = source_mask[row, column]
            if is_pasted[label]:
                mask[row, column] = label
                for channel in range(image.shape[2]):
                    image[row + margin, column + margin, channel] = source_image[row + margin, column + margin, channel]


@compiled
def change_hues(hsv: Any, hues: Any, saturations: Any) -> None:
    """Look up the hue and the saturation of every pixel of hsv (H, W, 3) uint8 in tables (256,), in place."""
    for row in range(hsv.shape[0]):
        for column in range(hsv.shape[1]):
            hsv[row, column, 0] = hues[hsv[row, column, 0]]
            hsv[row, column, 1] = saturations[hsv[row, column, 1]]
