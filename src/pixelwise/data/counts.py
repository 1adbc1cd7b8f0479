"""Which classes the masks of a split hold, looked at before hours of training on a set that cannot teach them."""

from __future__ import annotations

import numpy as np

from ..errors import DatasetError, InputError
from .dataset import Split


def check_classes(split: Split, *, skip_bad: bool = False) -> list[str]:
    """A line for each class that no mask of the split holds; masks are read only until every class was seen.

    Raises DatasetError for images without masks, and for the 0/255 masks of a two-class set in which 255 is ignored, so
    that only one class is left; the error of a mask that cannot be read, unless `skip_bad` leaves it out.
    """
    if not split.has_masks:
        bare = [item.key for item in split.items if item.mask is None]
        what = f"{len(bare)} images have no mask, the first is {bare[0]}"
        raise DatasetError(f"split {split.name}", what, "add masks, or train on a split that has them")
    taxonomy = split.taxonomy
    counts = np.zeros(taxonomy.ignore_id + 1, np.int64)
    for item in split.items:
        if counts[: taxonomy.num_classes].all():
            return []
        try:
            mask = split.read_labels(item)
        except InputError:
            if not skip_bad:
                raise
            continue
        assert mask is not None, "has_masks said so"
        counts += np.bincount(mask.ravel(), minlength=len(counts))
    unseen = [taxonomy.names[k] for k in np.flatnonzero(counts[: taxonomy.num_classes] == 0)]
    if unseen and taxonomy.num_classes == 2 and 255 in taxonomy.ignored and counts[taxonomy.ignore_id]:
        what = f"no mask holds class {unseen[0]!r}, but {counts[taxonomy.ignore_id]} pixels are 255, which is ignored"
        fix = f"did you mean class {unseen[0]!r}? set `value: 255` for it in classes.yaml"
        raise DatasetError(f"split {split.name}", what, fix)
    return [f"split {split.name}: no mask holds class {name!r}; it cannot be learned" for name in unseen]


def count_pixels(split: Split, *, skip_bad: bool = False) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Pixels of each class over the masks of a split, (K,) int64; ignored ones are not counted.

    Raises the error of a mask that cannot be read, or leaves it out with `skip_bad`.
    """
    total = np.zeros(split.taxonomy.num_classes, np.int64)
    for item in split.items:
        try:
            mask = split.read_labels(item)
        except InputError:
            if not skip_bad:
                raise
            continue
        if mask is not None:
            total += np.bincount(mask.ravel(), minlength=split.taxonomy.ignore_id + 1)[: len(total)]
    return total
