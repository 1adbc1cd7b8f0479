"""Count the pixels of each class, and check before training that every class occurs in the masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, InputError
from .dataset import Split


def check_classes(split: Split, *, skip_bad: bool = False) -> list[str]:
    """Return one warning for each class that no mask of the split contains; stop reading once every class was seen.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    Raises DatasetError for images without masks, and if one of two classes is missing while 255 is ignored: such 0/255
    masks usually mean 255 as a class.
    """
    unlabeled = [item.key for item in split.items if item.mask is None]
    if unlabeled:
        what = f"{len(unlabeled)} images have no mask, first {unlabeled[0]}"
        raise DatasetError(f"split {split.name}", what, "add masks, or train on a split that has them")
    taxonomy = split.taxonomy
    counts = np.zeros(taxonomy.ignore_id + 1, np.int64)
    for counts_of_mask in _count_ids(split, skip_bad=skip_bad):
        counts += counts_of_mask
        if counts[: taxonomy.num_classes].all():
            return []
    unseen = [taxonomy.names[k] for k in np.flatnonzero(counts[: taxonomy.num_classes] == 0)]
    if unseen and taxonomy.num_classes == 2 and 255 in taxonomy.ignored and counts[taxonomy.ignore_id]:
        what = (
            f"no mask contains class {unseen[0]!r}, but {counts[taxonomy.ignore_id]} pixels are 255, which is ignored"
        )
        fix = f"did you mean class {unseen[0]!r}? set `value: 255` for it in classes.yaml"
        raise DatasetError(f"split {split.name}", what, fix)
    return [f"split {split.name}: no mask contains class {name!r}; it cannot be learned" for name in unseen]


def count_pixels(split: Split, *, skip_bad: bool = False) -> NDArray[np.int64]:
    """Count the pixels of each class over the masks of a split, (K,) int64; ignored pixels are not counted.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    """
    total = np.zeros(split.taxonomy.ignore_id + 1, np.int64)
    for counts_of_mask in _count_ids(split, skip_bad=skip_bad):
        total += counts_of_mask
    return total[: split.taxonomy.num_classes]


def _count_ids(split: Split, *, skip_bad: bool) -> Iterator[NDArray[Any]]:
    """Yield, for each mask of the split, the number of pixels of every id 0..ignore_id."""
    for item in split.items:
        try:
            mask = split.read_labels(item)
        except InputError:
            if not skip_bad:
                raise
            continue
        if mask is not None:
            yield np.bincount(mask.ravel(), minlength=split.taxonomy.ignore_id + 1)
