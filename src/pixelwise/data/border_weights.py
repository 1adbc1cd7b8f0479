"""U-Net's weight map: background between two cells that nearly touch counts more, so that a net learns to part them.

w(x) = w_c(x) + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), where w_c balances the classes and d1, d2 are the distances to the nearest
and the second nearest cell. Source: Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), equation 2; w0 10, sigma 5.

Ours, where the paper is silent: a distance is Euclidean, from a background pixel's centre to that of the nearest pixel of a cell;
pixels of cells get no second term.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Beyond so many sigmas the term is below 1e-10 of its largest value: nothing beside a weight in single precision.
_REACH = 7


def label_cells(mask: NDArray[Any], ignore_id: int, background: int = 0) -> NDArray[np.int32]:
    """mask (H, W) class ids -> cells (H, W): 0 on background and ignored pixels, a number of its own on each connected region.

    Regions are of one class and hang together by sides, not by corners.
    """
    cells = np.zeros(mask.shape, np.int32)
    for k in np.unique(mask):
        if k not in (ignore_id, background):
            _, regions = cv2.connectedComponents((mask == k).astype(np.uint8), connectivity=4)
            cells[regions > 0] = regions[regions > 0] + cells.max()
    return cells


def separate_cells(cells: NDArray[np.int32]) -> NDArray[np.int32]:
    """Cells (H, W) that touch, apart: a pixel with a neighbour, corners included, of a higher number becomes background.

    For masks that number each cell: the line of one pixel that it draws is what the network is to label as background, and what
    `border_weights` then weighs.
    """
    highest = cv2.dilate(cells.astype(np.float64), np.ones((3, 3), np.uint8))
    return np.where((cells > 0) & (highest > cells), 0, cells).astype(np.int32)


def border_weights(cells: NDArray[np.int32], w0: float = 10, sigma: float = 5) -> NDArray[np.float32]:
    """cells (H, W) of 0 and positive numbers -> the second term of w, (H, W) float32; 0 on cells and where there are not two."""
    nearest, second = np.full((2, *cells.shape), np.inf, np.float32)
    reach = math.ceil(_REACH * sigma)
    for number, (top, left, bottom, right) in _boxes(cells).items():
        around = slice(max(top - reach, 0), bottom + reach), slice(max(left - reach, 0), right + reach)
        distance = cv2.distanceTransform((cells[around] != number).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    with np.errstate(under="ignore"):
        term = w0 * np.exp(-np.square(nearest.astype(np.float64) + second) / (2 * sigma**2))
    return np.where(cells == 0, term, 0).astype(np.float32)


def weight_map(
    mask: NDArray[Any],
    class_weights: NDArray[np.float32],
    ignore_id: int,
    w0: float = 10,
    sigma: float = 5,
    background: int = 0,
) -> NDArray[np.float32]:
    """w (H, W) float32 of a mask (H, W) of class ids, its connected regions taken for cells; 0 on ignored pixels.

    class_weights  w_c of each class, (K,)
    """
    counted = mask != ignore_id
    balance = np.where(counted, np.asarray(class_weights, np.float32)[np.where(counted, mask, 0)], 0)
    extra = border_weights(label_cells(mask, ignore_id, background), w0, sigma)
    return np.where(counted, balance + extra, 0).astype(np.float32)


def _boxes(cells: NDArray[np.int32]) -> dict[int, tuple[int, int, int, int]]:
    """Number of each cell -> top, left, bottom, right of the rectangle around it, half open."""
    rows, columns = np.nonzero(cells)
    numbers, place = np.unique(cells[rows, columns], return_inverse=True)
    first, last = (np.full((len(numbers), 2), start) for start in (max(cells.shape), -1))
    for axis, positions in enumerate((rows, columns)):
        np.minimum.at(first[:, axis], place, positions)
        np.maximum.at(last[:, axis], place, positions)
    return {
        int(n): (int(a[0]), int(a[1]), int(b[0]) + 1, int(b[1]) + 1)
        for n, a, b in zip(numbers, first, last, strict=True)
    }
