"""U-Net's weight map: background between objects that nearly touch weighs more, so the network learns to separate them.

    w(x) = w_c(x) + w0 * exp(-(d1(x) + d2(x))^2 / (2 sigma^2))

w_c balances the classes; d1 and d2 are the distances from pixel x to the nearest and to the second nearest instance (a
biological cell in the paper). Source: Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), equation 2; w0 = 10,
sigma about 5 pixels.

Ours, where the paper is silent: a distance is Euclidean, from the center of a background pixel to that of the nearest
pixel of an instance; pixels of instances get no second term.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# At a distance of 7 sigma the second term is exp(-24.5) = 2e-11 of w0: nothing beside a weight in single precision.
_CUTOFF_SIGMAS = 7


def label_instances(mask: NDArray[Any], ignore_id: int, background: int = 0) -> NDArray[np.int32]:
    """Label the connected regions of a mask (H, W) of class ids by 1, 2, ...; background and ignored pixels are 0.

    A region has one class. Its pixels are connected by their sides, not by their corners.
    """
    instances = np.zeros(mask.shape, np.int32)
    for k in np.unique(mask):
        if k not in (ignore_id, background):
            _, regions = cv2.connectedComponents((mask == k).astype(np.uint8), connectivity=4)
            instances[regions > 0] = regions[regions > 0] + instances.max()
    return instances


def separate_instances(instances: NDArray[np.int32]) -> NDArray[np.int32]:
    """Insert background between touching instances: set a pixel with a higher-numbered neighbor to 0.

    For masks (H, W) that number each object; diagonal neighbors count. The network learns to label the resulting line
    of one pixel as background, and `border_weights` gives it the largest weight.
    """
    highest = cv2.dilate(instances.astype(np.float64), np.ones((3, 3), np.uint8))
    return np.where((instances > 0) & (highest > instances), 0, instances).astype(np.int32)


def border_weights(instances: NDArray[np.int32], w0: float = 10, sigma: float = 5) -> NDArray[np.float32]:
    """Compute the second term of the weight map, (H, W) float32, from instances (H, W) numbered from 1.

    The term is 0 on instances, and everywhere if there are fewer than two.
    """
    height, width = instances.shape
    nearest, second = np.full((2, height, width), np.inf, np.float32)
    margin = math.ceil(_CUTOFF_SIGMAS * sigma)
    rows, columns = np.nonzero(instances)
    numbers, index = np.unique(instances[rows, columns], return_inverse=True)
    # Bounding box of every instance, so that each distance transform sees only the pixels that it can matter to.
    top, left = np.full(len(numbers), height), np.full(len(numbers), width)
    bottom, right = np.zeros((2, len(numbers)), np.int64)
    for first, last, positions in ((top, bottom, rows), (left, right, columns)):
        np.minimum.at(first, index, positions)
        np.maximum.at(last, index, positions + 1)
    for k, number in enumerate(numbers):
        box = (
            slice(max(int(top[k]) - margin, 0), int(bottom[k]) + margin),
            slice(max(int(left[k]) - margin, 0), int(right[k]) + margin),
        )
        distance = cv2.distanceTransform(
            (instances[box] != number).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        # OpenCV's last bit depends on where the array lies in memory, and a resumed run must see the same bits. The
        # square of a distance between pixels is an integer, so its root can be taken exactly.
        distance = np.sqrt(np.rint(np.square(distance, dtype=np.float64))).astype(np.float32)
        # Keep the two smallest distances seen so far.
        second[box] = np.minimum(second[box], np.maximum(nearest[box], distance))
        nearest[box] = np.minimum(nearest[box], distance)
    with np.errstate(under="ignore"):
        term = w0 * np.exp(-np.square(nearest.astype(np.float64) + second) / (2 * sigma**2))
    return np.where(instances == 0, term, 0).astype(np.float32)


def weight_map(
    mask: NDArray[Any],
    class_weights: NDArray[np.float32],
    *,
    ignore_id: int,
    w0: float = 10,
    sigma: float = 5,
    background: int = 0,
) -> NDArray[np.float32]:
    """Compute the whole weight map w, (H, W) float32, of a mask (H, W) of class ids; ignored pixels weigh 0.

    class_weights  (K,), w_c of each class
    background     class id of the pixels between the instances
    """
    valid = mask != ignore_id
    balance = np.where(valid, np.asarray(class_weights, np.float32)[np.where(valid, mask, 0)], 0)
    border = border_weights(label_instances(mask, ignore_id, background), w0, sigma)
    return np.where(valid, balance + border, 0).astype(np.float32)
