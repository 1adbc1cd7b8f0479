"""ClassMix: half of the classes of one image are pasted over another image.

Source: Olsson et al. 2021, "ClassMix: Segmentation-based data augmentation for semi-supervised learning"
(https://arxiv.org/abs/2007.07936), section 3.1, here with ground truth in place of predicted masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[Any], NDArray[Any]]
"""Image (H + 2 * margin, W + 2 * margin, C) and mask (H, W) of class ids; all sides have the same margin, mostly 0."""


def paste_classes(target: Pair, source: Pair, ignore_id: int, rng: np.random.Generator) -> Pair:
    """Return `target` covered by the pixels of half of the classes of `source`, at least one class.

    Both pairs have the same sizes. Ignored pixels of `source` cover nothing, nor does the margin of its image.
    """
    image, mask = source
    classes = np.unique(mask)
    classes = classes[classes != ignore_id]
    if not len(classes):
        return target
    chosen = rng.permutation(classes)[: max(len(classes) // 2, 1)]
    pasted = np.isin(mask, chosen)
    pasted_in_image = np.pad(pasted, (image.shape[0] - mask.shape[0]) // 2)
    return np.where(pasted_in_image[..., None], image, target[0]), np.where(pasted, mask, target[1])
