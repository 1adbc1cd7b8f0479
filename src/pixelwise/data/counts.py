"""Count the pixels of each class, and check before training that every class occurs in the masks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, InputError, listed
from ..images import odd_palettes
from .dataset import Item, Split


def check_classes(split: Split, *, skip_bad: bool = False) -> list[str]:
    """Return a warning for classes that no mask of the split contains, and those of `check_masks`.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    Raises DatasetError for images without masks, for a single class, and if one of two classes is missing while 255 is
    ignored: such 0/255 masks usually mean 255 as a class.
    """
    unlabeled = [item.key for item in split.items if item.mask is None]
    if unlabeled:
        what = f"{len(unlabeled)} images have no mask, first {unlabeled[0]}"
        raise DatasetError(f"split {split.name}", what, "add masks, or train on a split that has them")
    taxonomy = split.taxonomy
    if taxonomy.num_classes == 1:
        what = f"has the single class {taxonomy.names[0]!r}: every pixel would get it, whatever the image"
        raise DatasetError(f"split {split.name}", what, "add a class for the rest of the pixels, such as background")
    warnings = check_masks(split, skip_bad=skip_bad)
    counts = np.zeros(taxonomy.ignore_id + 1, np.int64)
    for _, counts_of_mask in _count_ids(split, skip_bad=skip_bad):
        counts += counts_of_mask
        if counts[: taxonomy.num_classes].all():
            return warnings
    unseen = [taxonomy.names[k] for k in np.flatnonzero(counts[: taxonomy.num_classes] == 0)]
    if unseen and taxonomy.num_classes == 2 and 255 in taxonomy.ignored and counts[taxonomy.ignore_id]:
        what = (
            f"no mask contains class {unseen[0]!r}, but {counts[taxonomy.ignore_id]} pixels are 255, which is ignored"
        )
        fix = f"did you mean class {unseen[0]!r}? set `value: 255` for it in classes.yaml"
        raise DatasetError(f"split {split.name}", what, fix)
    if len(unseen) == 1:
        warnings.append(f"split {split.name}: no mask contains class {unseen[0]!r}; it cannot be learned")
    elif unseen:
        names = listed(repr(name) for name in unseen)
        of = f"{len(unseen)} of the {taxonomy.num_classes} classes"
        warnings.append(f"split {split.name}: no mask contains {of}: {names}; they cannot be learned")
    return warnings


def check_masks(split: Split, *, skip_bad: bool = False) -> list[str]:
    """Return a warning for each way in which the masks of a split may mean something else than what is read.

    - Two classes have one color, so that an overlay cannot tell them apart.
    - Some masks hold 0 and 255 and others 0 and 1, while 255 is ignored: their objects would be ignored.
    - Palettes differ between masks that are read as palette indices: a color would be another class in each.
    """
    taxonomy, start, warnings = split.taxonomy, f"split {split.name}: ", []
    colors: dict[tuple[int, int, int], list[str]] = {}
    for name, color in zip(taxonomy.names, taxonomy.colors, strict=True):
        colors.setdefault(color, []).append(name)
    alike = [listed(map(repr, names)) for names in colors.values() if len(names) > 1]
    if alike:
        warnings.append(
            f"{start}one color stands for several classes: {'; '.join(alike[:5])}; overlays cannot tell them apart"
        )
    masks = [item.mask for item in split.items if item.mask is not None]
    if not split.encoding.by_color:
        odd = odd_palettes(masks)
        if odd:
            what = f"{len(odd)} of {len(masks)} masks have other palettes than the rest: {listed(odd)}"
            fix = "if their numbers mean other classes, save all with one palette, or write `masks: color`"
            warnings.append(f"{start}{what}; {fix}")
    if taxonomy.num_classes == 2 and 255 in taxonomy.ignored and not split.encoding.by_color:
        background = taxonomy.values.index(min(taxonomy.values))
        only_255, labeled = [], False
        for mask, counts in _count_ids(split, skip_bad=skip_bad):
            has_object = counts[1 - background] > 0
            labeled = labeled or has_object
            if counts[taxonomy.ignore_id] and not has_object:
                only_255.append(mask)
        if only_255 and labeled:
            what = f"{len(only_255)} of {len(masks)} masks contain 255, which is ignored, but not class"
            name, value = taxonomy.names[1 - background], taxonomy.values[1 - background]
            fix = f"if 255 means {name!r} there, save them with {value} in its place"
            warnings.append(f"{start}{what} {name!r} ({value}): {listed(only_255)}; {fix}")
    return warnings


def count_pixels(split: Split, *, skip_bad: bool = False) -> NDArray[np.int64]:
    """Count the pixels of each class over the masks of a split, (K,) int64; ignored pixels are not counted.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    """
    total = np.zeros(split.taxonomy.ignore_id + 1, np.int64)
    for _, counts_of_mask in _count_ids(split, skip_bad=skip_bad):
        total += counts_of_mask
    return total[: split.taxonomy.num_classes]


def _count_ids(split: Split, *, skip_bad: bool) -> Iterator[tuple[Path, NDArray[Any]]]:
    """Yield each mask file of the split, and the number of its pixels of every id 0..ignore_id.

    Masks are decoded by several threads, a few masks ahead.
    """
    items = [item for item in split.items if item.mask is not None]
    num_threads = os.cpu_count() or 1

    def count(item: Item) -> NDArray[Any] | None:
        try:
            mask = split.read_labels(item)
        except InputError:
            if not skip_bad:
                raise
            return None
        return None if mask is None else np.bincount(mask.ravel(), minlength=split.taxonomy.ignore_id + 1)

    with ThreadPoolExecutor(num_threads) as executor:
        for first in range(0, len(items), num_threads):
            part = items[first : first + num_threads]
            for item, counts in zip(part, executor.map(count, part), strict=True):
                if counts is not None and item.mask is not None:
                    yield item.mask, counts
