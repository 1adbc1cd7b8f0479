"""ClassMix: half of the classes of one image pasted over another, pixel for pixel.

Source: Olsson et al. 2021, "ClassMix: Segmentation-based data augmentation for semi-supervised learning"
(https://arxiv.org/abs/2007.07936), section 3.1, here with true masks in place of predicted ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def paste_classes(
    under: tuple[NDArray[np.uint8], NDArray[Any]],
    over: tuple[NDArray[np.uint8], NDArray[Any]],
    ignore_id: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """A new pair: `under`, covered by the pixels of half of the classes of `over` (one class at least).

    Both are (image (H, W, C) uint8, mask (H, W) class ids) of one size. Ignored pixels of `over` cover nothing.
    """
    image, mask = over
    classes = np.unique(mask)
    classes = classes[classes != ignore_id]
    if not len(classes):
        return under
    chosen = rng.permutation(classes)[: max(len(classes) // 2, 1)]
    covers = np.isin(mask, chosen)
    return np.where(covers[..., None], image, under[0]), np.where(covers, mask, under[1])
