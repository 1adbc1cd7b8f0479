"""One pass over the files of a dataset before training: what is unreadable, which classes occur, what is shared."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ..errors import DatasetError, InputError, error_lines, listed, printable, shown
from ..images import odd_palettes
from .dataset import Dataset, Inspected, Item, Split, must_be_disjoint
from .near_copies import near_copies

_SECONDS_PER_LINE = 20


def inspect_splits(dataset: Dataset, splits: Sequence[Split]) -> dict[str, list[Inspected]]:
    """Read the images and masks of some splits once, on all cores; return what was found, by the split's name.

    The images of the splits that must share none with them are read as well, for `check_leaks`.
    A bar on standard error shows the time that is left; where it is no terminal, a line every half a minute does.
    """
    names = [split.name for split in splits]
    others = [
        split
        for split in dataset.splits.values()
        if split.name not in names
        and any(must_be_disjoint(n, split.name) or must_be_disjoint(split.name, n) for n in names)
    ]
    jobs: list[tuple[Split, Item]] = []
    seen: set[Path] = set()
    for split in (*splits, *others):
        for item in split.items:
            if split.name in names or item.image not in seen:
                jobs.append((split, item if split.name in names else Item(item.key, item.image)))
            seen.add(item.image)
    found: dict[str, list[Inspected]] = {name: [] for name in names}
    with ThreadPoolExecutor() as executor:
        results = executor.map(lambda job: job[0].inspect(job[1]), jobs)
        try:
            for (split, _), inspected in zip(jobs, _with_progress(results, len(jobs)), strict=True):
                found.setdefault(split.name, []).append(inspected)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return found


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


def check_dataset(dataset: Dataset, train: Split, val: Split, *, skip_bad: bool = False) -> list[Inspected]:
    """Read all images and masks of two splits once, print notes and warnings, and return what was found of `train`.

    skip_bad  warn of files that cannot be used, instead of raising their error
    Raises InputError for files that cannot be used, and DatasetError if nothing can be learned or scored.
    """
    found = inspect_splits(dataset, (train, val))
    warnings = []
    names = dict.fromkeys((train.name, val.name))
    bad = [(i.item, i.error) for name in names for i in found[name] if i.error is not None]
    if bad and not skip_bad:
        _refuse([error for _, error in bad], dataset.root)
    if bad:
        keys = listed(item.key for item, _ in bad)
        warnings.append(f"{len(bad)} images or masks cannot be used and are skipped: {keys}; the first: {bad[0][1]}")
    for name in names:
        if all(i.error is not None for i in found[name]):
            fix = "run `pixelwise train DATA --dry-run`, which lists what is wrong"
            raise DatasetError(name, "no sample of the split can be read", fix)
    ignore_id = dataset.taxonomy.ignore_id
    if not any(id_ != ignore_id for i in found[val.name] if i.error is None for id_ in i.pixels):
        what = "every pixel of every mask is ignored, so that no score can be computed"
        if dataset.taxonomy.multilabel:
            what = "no mask contains any class, so that no score can be computed"
        raise DatasetError(f"split {val.name}", what, "label some pixels, or name another --data.val_split")
    for name in found.keys() - names.keys():
        # Read for `check_leaks` alone: training does without them, their scores do not.
        unreadable = [i for i in found[name] if i.error is not None]
        if unreadable:
            keys = listed(i.item.key for i in unreadable)
            what = f"{len(unreadable)} of {len(found[name])} images cannot be read: {keys}; the first"
            warnings.append(f"split {name}: {what}: {unreadable[0].error}")
    warnings += check_classes(train, skip_bad=skip_bad, found=found[train.name])
    if val.name != train.name:
        warnings += check_masks(val, skip_bad=skip_bad, found=found[val.name])
        warnings += near_copies(dataset, train, val, found)
    for line in (*dataset.notes, *(f"warning: {line}" for line in (*warnings, *check_leaks(found)))):
        print(printable(line), file=sys.stderr)
    return found[train.name]


def _refuse(errors: Sequence[InputError], root: object) -> None:
    """Raise the error of a single file; of several, print one line for each kind and raise a summary."""
    if len(errors) == 1:
        raise errors[0]
    for line in error_lines(errors):
        print(f"error: {line}", file=sys.stderr)
    what = f"{len(errors)} images or masks cannot be used (listed above)"
    raise InputError(root, what, "fix or remove them, or set --train.on_read_error skip")


def check_leaks(found: dict[str, list[Inspected]]) -> list[str]:
    """Return a warning for each two splits that share images under other names, found by their pixels."""
    warnings = []
    images = {name: {i.digest: i.item for i in inspected if i.digest} for name, inspected in found.items()}
    for first, second in combinations(found, 2):
        if must_be_disjoint(first, second) or must_be_disjoint(second, first):
            shared = [
                f"{images[first][digest].image.name} = {images[second][digest].image.name}"
                for digest in images[first]
                if digest in images[second]
            ]
            if shared:
                what = f"{first} and {second} share images with equal pixels: {listed(shared)}"
                warnings.append(f"{what}; keep each image in one split, or its score is that of a seen image")
    return warnings


def check_classes(split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None) -> list[str]:
    """Return a warning for classes that no mask of the split contains, and those of `check_masks`.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    found     what `inspect_splits` found, to read no mask again
    Raises DatasetError for images without masks, for a single class, and if one of two classes is missing while 255 is
    ignored: such 0/255 masks usually mean 255 as a class.
    """
    unlabeled = [item.key for item in split.items if item.mask is None]
    if unlabeled:
        what = f"{len(unlabeled)} images have no mask, first {unlabeled[0]}"
        raise DatasetError(f"split {split.name}", what, "add masks, or train on a split that has them")
    taxonomy = split.taxonomy
    if taxonomy.num_classes == 1 and not taxonomy.multilabel:
        what = f"has the single class {shown(taxonomy.names[0])}: every pixel would get it, whatever the image"
        raise DatasetError(f"split {split.name}", what, "add a class for the rest of the pixels, such as background")
    found = inspect_masks(split) if found is None else found
    warnings = check_masks(split, skip_bad=skip_bad, found=found)
    counts = _count_ids(split, found, skip_bad=skip_bad)
    unseen = [taxonomy.names[k] for k in np.flatnonzero(counts[: taxonomy.num_classes] == 0)]
    is_pair = taxonomy.num_classes == 2 and not taxonomy.multilabel
    if unseen and is_pair and 255 in taxonomy.ignored and counts[taxonomy.ignore_id]:
        num_ignored = counts[taxonomy.ignore_id]
        what = f"no mask contains class {shown(unseen[0])}, but {num_ignored} pixels are 255, which is ignored"
        fix = f"did you mean class {shown(unseen[0])}? set `value: 255` for it in classes.yaml"
        raise DatasetError(f"split {split.name}", what, fix)
    if len(unseen) == taxonomy.num_classes:
        what = "every pixel of every mask is ignored, so that nothing can be learned"
        if taxonomy.multilabel:
            what = "no mask contains any class, so that nothing can be learned"
        raise DatasetError(f"split {split.name}", what, "label some pixels, or name another --data.train_split")
    if len(unseen) == 1:
        warnings.append(f"split {split.name}: no mask contains class {shown(unseen[0])}; it cannot be learned")
    elif unseen:
        names = listed(map(shown, unseen))
        of = f"{len(unseen)} of the {taxonomy.num_classes} classes"
        warnings.append(f"split {split.name}: no mask contains {of}: {names}; they cannot be learned")
    return warnings


def check_masks(split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None) -> list[str]:
    """Return a warning for each way in which the masks of a split may mean something else than what is read.

    - Two classes have one color, so that an overlay cannot tell them apart.
    - Some masks hold 0 and 255 and others 0 and 1, while 255 is ignored: their objects would be ignored.
    - Palettes differ between masks that are read as palette indices: a color would be another class in each.
    """
    taxonomy, start, warnings = split.taxonomy, f"split {split.name}: ", []
    colors: dict[tuple[int, int, int], list[str]] = {}
    for name, color in zip(taxonomy.names, taxonomy.colors, strict=True):
        colors.setdefault(color, []).append(name)
    alike = [listed(map(shown, names)) for names in colors.values() if len(names) > 1]
    if alike:
        warnings.append(
            f"{start}one color stands for several classes: {'; '.join(alike[:5])}; overlays cannot tell them apart"
        )
    if taxonomy.multilabel:
        # The masks of a class are bilevel: neither palettes nor a second coding of the classes.
        return warnings
    masks = [item.mask for item in split.items if item.mask is not None and item.drawing is None]
    if not split.encoding.by_color:
        odd = odd_palettes(masks)
        if odd:
            what = f"{len(odd)} of {len(masks)} masks have other palettes than the rest: {listed(odd)}"
            fix = "if their numbers mean other classes, save all with one palette, or write `masks: color`"
            warnings.append(f"{start}{what}; {fix}")
    if masks and taxonomy.num_classes == 2 and 255 in taxonomy.ignored and not split.encoding.by_color:
        background = taxonomy.values.index(min(taxonomy.values))
        only_255, labeled = [], False
        found = inspect_masks(split) if found is None else found
        _count_ids(split, found, skip_bad=skip_bad)
        for inspected in found:
            has_object = 1 - background in inspected.pixels
            labeled = labeled or has_object
            if taxonomy.ignore_id in inspected.pixels and not has_object:
                only_255.append(inspected.item.mask)
        if only_255 and labeled:
            what = f"{len(only_255)} of {len(masks)} masks contain 255, which is ignored, but not class"
            name, value = shown(taxonomy.names[1 - background]), taxonomy.values[1 - background]
            fix = f"if 255 means {name} there, save them with {value} in its place"
            warnings.append(f"{start}{what} {name} ({value}): {listed(only_255)}; {fix}")
    return warnings


def count_pixels(
    split: Split, *, skip_bad: bool = False, found: Sequence[Inspected] | None = None
) -> NDArray[np.int64]:
    """Count the pixels of each class over the masks of a split, (K,) int64; ignored pixels are not counted.

    With several labels per pixel, a pixel counts once per label.

    skip_bad  leave out masks that cannot be read, instead of raising their error
    found     what `inspect_splits` found, to read no mask again
    """
    found = inspect_masks(split) if found is None else found
    return _count_ids(split, found, skip_bad=skip_bad)[: split.taxonomy.num_classes]


def inspect_masks(split: Split) -> list[Inspected]:
    """Read the masks of a split, without the images, on all cores."""
    with ThreadPoolExecutor() as executor:
        return list(executor.map(lambda item: split.inspect(item, image=False), split.items))


def _count_ids(split: Split, found: Sequence[Inspected], *, skip_bad: bool) -> NDArray[np.int64]:
    """Return the number of pixels of every id 0..ignore_id."""
    total = np.zeros(split.taxonomy.ignore_id + 1, np.int64)
    for inspected in found:
        if inspected.error is not None and not skip_bad:
            raise inspected.error
        for id_, count in inspected.pixels.items():
            total[id_] += count
    return total
