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
    from .augment_loops import paste
    from .mask_loops import ids_in

    classes = ids_in(source[1], ignore_id)
    if not len(classes):
        return target
    is_pasted = np.zeros(np.iinfo(source[1].dtype).max + 1, bool)
    is_pasted[rng.permutation(classes)[: max(len(classes) // 2, 1)]] = True
    return paste(target, source, is_pasted)
