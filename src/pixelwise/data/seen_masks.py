"""One look at all masks of a folder without classes.yaml, which is kept so that no mask is read twice.

Every mask is read and its values are counted. Which pixels lie on edges, and which fill areas, is only needed to tell
values that mix two others from classes. Most masks need no such look: once a part of the pixels of each rare value has
shown that it is no mixture, the rest cannot change that.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..images import FileFacts, odd_palettes, read_mask_file
from .mask_values import MaskValues, are_classes, count_mask, gray_code, look_at_values, rare_values

# Shares of the pixels of each rare value that are looked at, until all are known to be classes: two in a hundred would
# do if none of them lay on an edge.
_SHARES = (0.025, 0.1, 1.0)


class SeenMask(NamedTuple):
    """A mask file as it was read.

    stamp   time of its last change and its bytes
    size    (height, width)
    file    facts of the file
    values  its values or colors, counted
    """

    stamp: tuple[int, int]
    size: tuple[int, int]
    file: FileFacts
    values: MaskValues

    def is_still(self, path: Path) -> bool:
        """Return whether the file has not been changed since."""
        try:
            return _stamp(path) == self.stamp
        except OSError:
            return False


def look_at_masks(masks: Sequence[Path]) -> tuple[MaskValues, dict[Path, SeenMask]]:
    """Read all masks, on all cores; return what they contain together, and each one that can be read.

    Where any mask is drawn in colors, palette files count by their colors as well, and also where their palettes differ
    and their colors agree: GIF files are written with the colors in use alone, so that an index is another class in
    each. The edges and areas of the result are those of as many masks as show what is a class: see `are_classes`.
    """
    found = MaskValues()
    with ThreadPoolExecutor() as executor:
        read = zip(masks, executor.map(_read_one, masks), strict=True)
        seen = {path: one for path, one in read if one is not None}
        palettes = [path for path, one in seen.items() if one.file.mode in ("P", "PA")]
        by_color = any(one.values.colors for one in seen.values())
        if by_color or odd_palettes(palettes):
            again = zip(palettes, executor.map(lambda path: _read_one(path, by_color=True), palettes), strict=True)
            colored = {path: one for path, one in again if one is not None}
            # Palettes of any colors would make more of them than there are numbers.
            before = [seen[path] for path in colored]
            is_renumbered = all(map(_is_renumbered, before)) or _num_values(colored.values()) <= _num_values(before)
            by_color = by_color or is_renumbered
            seen |= colored if by_color else {}
        for one in seen.values():
            found.add(one.values)
        # Two values have none in between.
        undecided = [p for p, one in seen.items() if len(one.values.counts()) > 2 or one.file.lossy]
        plain = seen.keys() - set(undecided)
        looked_at = sum((seen[path].values.counts() for path in plain), Counter[int]())
        look_closer = partial(_look_closer, by_color=by_color)
        counts = {path: seen[path].values.counts() for path in undecided}
        for share in _SHARES:
            if are_classes(found, looked_at):
                break
            chosen = _next_masks(found, looked_at, counts, share)
            for path, closer in zip(chosen, executor.map(look_closer, chosen), strict=True):
                looked_at += counts.pop(path)
                if closer is not None:
                    found.on_edge += closer.on_edge
                    found.flat += closer.flat
                    found.passed_by += closer.passed_by
    if by_color and not found.colors:
        # Palettes of grays: the values are colors as well.
        for counter in (found.pixels, found.on_edge, found.flat):
            grays = {gray_code(value): count for value, count in counter.items()}
            counter.clear()
            counter.update(grays)
        found.colors, found.pixels = found.pixels, Counter()
    return found, seen


def _is_renumbered(mask: SeenMask) -> bool:
    """Return whether a mask is a GIF whose indices are 0, 1, 2 without a gap, as writers of GIF make them."""
    return mask.file.format == "GIF" and sorted(mask.values.pixels) == [*range(len(mask.values.pixels))]


def _num_values(masks: Iterable[SeenMask]) -> int:
    return len({value for mask in masks for value in (*mask.values.pixels, *mask.values.colors)})


def _next_masks(
    found: MaskValues, looked_at: Mapping[int, int], counts: Mapping[Path, Counter[int]], share: float
) -> list[Path]:
    """Return masks with a share of the pixels of each rare value, those with most of them first; all for a share of 1.

    counts  of the masks that were not looked at
    """
    if share == 1:
        return list(counts)
    chosen: dict[Path, None] = {}
    reached = Counter(looked_at)
    for value, total in sorted(rare_values(found).items(), key=lambda pair: pair[1]):
        for path in sorted(counts, key=lambda path: -counts[path][value]):
            if reached[value] >= share * total:
                break
            if path not in chosen:
                chosen[path] = None
                reached += counts[path]
    return list(chosen)


def _read_one(path: Path, *, by_color: bool = False) -> SeenMask | None:
    """Return what a mask holds; None for one that cannot be read, which the check of the dataset reports."""
    try:
        stamp = _stamp(path)
        raw, file = read_mask_file(path, by_color=by_color, lossy=True)
    except (InputError, OSError):
        return None
    return SeenMask(stamp, (raw.shape[0], raw.shape[1]), file, count_mask(raw, lossy=file.lossy))


def _look_closer(path: Path, *, by_color: bool) -> MaskValues | None:
    try:
        raw, file = read_mask_file(path, by_color=by_color, lossy=True)
    except InputError:
        return None
    return look_at_values(raw, lossy=file.lossy)


def _stamp(path: Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_mtime_ns, facts.st_size
