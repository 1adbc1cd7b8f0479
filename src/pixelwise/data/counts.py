"""The one pass over the files of a dataset before training, on all cores; and what is counted in it.

What the pass found is judged by `check`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from .dataset import Dataset, Item, Split, must_be_disjoint
from .inspection import Inspected, inspect_item
from .seen_masks import SeenMask

_SECONDS_PER_LINE = 20
# Masks per split whose shapes are looked at.
_MAX_SHAPES = 24


def inspect_splits(dataset: Dataset, splits: Sequence[Split]) -> dict[str, list[Inspected]]:
    """Read the images and masks of some splits once, on all cores; return what was found, by the split's name.

    The images of the splits that must share none with them are read as well, to find copies. The shapes of the classes
    are looked at in 24 masks of each split, evenly spread.
    A bar on standard error shows the time that is left; where it is no terminal, a line every half a minute does.
    """
    names = [split.name for split in splits]
    others = [
        split
        for split in dataset.splits.values()
        if split.name not in names
        and any(must_be_disjoint(n, split.name) or must_be_disjoint(split.name, n) for n in names)
    ]
    jobs: list[tuple[Split, Item, bool]] = []
    seen: set[Path] = set()
    for split in (*splits, *others):
        every = max(1, len(split) // _MAX_SHAPES)
        for number, item in enumerate(split.items):
            if split.name in names:
                jobs.append((split, item, number % every == 0))
            elif item.image not in seen:
                jobs.append((split, Item(item.key, item.image), False))
            seen.add(item.image)
    found: dict[str, list[Inspected]] = {name: [] for name in names}
    with ThreadPoolExecutor() as executor:
        results = executor.map(lambda job: inspect_item(*job[:2], shapes=job[2], seen=_seen(dataset, job[1])), jobs)
        try:
            for (split, _, _), inspected in zip(jobs, _with_progress(results, len(jobs)), strict=True):
                found.setdefault(split.name, []).append(inspected)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _seen(dataset: Dataset, item: Item) -> SeenMask | None:
    return None if item.mask is None else dataset.seen.get(item.mask)


def _with_progress(results: Iterable[Inspected], total: int) -> Iterator[Inspected]:
    title = "reading images and masks"
    if sys.stderr is not None and sys.stderr.isatty():
        yield from track(results, title, total, console=Console(stderr=True), transient=True)
        return
    started = printed = time.monotonic()
    for number, inspected in enumerate(results, 1):
        yield inspected
        now = time.monotonic()
        if now - printed > _SECONDS_PER_LINE:
            printed, left = now, (now - started) / number * (total - number)
            print(f"{title}: {number} of {total}, {left:.0f} seconds left", file=sys.stderr, flush=True)


def count_pixels(
    split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None
) -> NDArray[np.int64]:
    """Count the pixels of each class over the masks of a split, (K,) int64; ignored pixels are not counted.

    With several labels per pixel, a pixel counts once per label.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    found     what `inspect_splits` found, to read no mask again
    """
    found = inspect_masks(split) if found is None else found
    for inspected in found:
        if inspected.error is not None and not skip_bad:
            raise inspected.error
    return count_ids(split, found)[: split.taxonomy.num_classes]


def count_ids(split: Split, found: Sequence[Inspected]) -> NDArray[np.int64]:
    """Return the number of pixels of every id 0..ignore_id, (ignore_id + 1,) int64."""
    total = np.zeros(split.taxonomy.ignore_id + 1, np.int64)
    for inspected in found:
        for id_, count in inspected.pixels.items():
            total[id_] += count
    return total


def inspect_masks(split: Split) -> list[Inspected]:
    """Read the masks of a split, without the images, on all cores."""
    with ThreadPoolExecutor() as executor:
        return list(executor.map(lambda item: inspect_item(split, item, image=False), split.items))
