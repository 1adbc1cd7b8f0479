"""Validation images that nearly are training images: other files of one photo, and frames of one recording.

A score on them says how well the training images are known by heart. Equal pixels are found by `leaks`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import listed
from ..dataset import Dataset, Item, Split
from ..groups import Groups, find_groups
from ..inspection import Inspected
from ..sequences import numbers_count_frames, place_in_sequence
from .finding import Finding

MAX_DISTANCE = 24
"""Bits, of 255, in which hashes of two files of one photo differ at most. JPEG at quality 50 and half the size
change up to 12, a fifth more light up to 30. Fundus photos of two eyes differ in 50 or more, other photos in 100."""
_ROWS = 1024


def find_near_copies(dataset: Dataset, train: Split, val: Split, found: dict[str, list[Inspected]]) -> list[Finding]:
    """Return a warning if images of `val` have a near-copy in `train`, as a list of at most one.

    found  what `inspect_splits` found of both splits
    An image counts if its hash is within `MAX_DISTANCE` of a training image's, or if it lies between two
    training frames of a sequence: its name has the same group and a number between theirs, and the training images
    themselves show that the numbers count frames.
    """
    digests = {i.digest for i in found[train.name]}
    trained = [i for i in found[train.name] if i.perceptual_hash]
    scored = [i for i in found[val.name] if i.perceptual_hash and i.digest not in digests]
    if not trained or not scored:
        return []
    groups = find_groups(dataset)
    alike = _pairs_alike(scored, trained)
    between = _between_frames(scored, trained, groups)
    copies = alike.keys() | between.keys()
    if not copies:
        return []
    what = f"{len(copies)} of {len(val)} images have a near-copy in {train.name}:"
    items: list[Item] = []
    if between:
        item, (before, after) = next(iter(between.items()))
        example = f"{item.key} between {before.key} and {after.key}"
        what += f" {len(between)} lie between two training frames of one sequence ({example})"
        items += [before, item, after]
    if alike:
        examples = listed(f"{one.image.name} ~ {other.image.name}" for one, other in alike.items())
        what += f"{' and' if between else ''} {len(alike)} show the same ({examples})"
        items += [item for pair in alike.items() for item in pair]
    names = list(groups.sizes(train)) if groups else []
    fix = f"validate on whole groups, --data.hold_out with some of {listed(names)}" if len(names) > 1 else ""
    fix = f"its score will flatter the model; {fix or 'validate on images of other origin'}"
    keys = tuple(sorted(item.key for item in copies))
    return [Finding("near-copies", "warning", f"split {val.name}", what, fix, len(copies), keys, tuple(items))]


def _pairs_alike(scored: Sequence[Inspected], trained: Sequence[Inspected]) -> dict[Item, Item]:
    """Return the validation images whose hash is near that of a training image, with the nearest one."""
    pairs = {}
    theirs = _signs(trained)
    for start in range(0, len(scored), _ROWS):
        rows = scored[start : start + _ROWS]
        # Of two rows of +1 and -1, the product is the number of equal bits minus that of different ones.
        products = _signs(rows) @ theirs.T
        for inspected, nearest, product in zip(rows, products.argmax(1), products.max(1), strict=True):
            if (theirs.shape[1] - product) / 2 <= MAX_DISTANCE:
                pairs[inspected.item] = trained[int(nearest)].item
    return pairs


def _between_frames(
    scored: Sequence[Inspected], trained: Sequence[Inspected], groups: Groups | None
) -> dict[Item, tuple[Item, Item]]:
    """Return the validation images between two training frames of a sequence, with these frames."""
    frames: dict[str, list[tuple[int, int]]] = {}
    for index, inspected in enumerate(trained):
        place = place_in_sequence(inspected.item, groups)
        if place is not None:
            frames.setdefault(place[0], []).append((place[1], index))
    for rows in frames.values():
        rows.sort()
    if not _are_sequences([[index for _, index in rows] for rows in frames.values()], _signs(trained)):
        return {}
    between = {}
    for inspected in scored:
        place = place_in_sequence(inspected.item, groups)
        if place is not None and place[0] in frames:
            rows = frames[place[0]]
            numbers = [number for number, _ in rows]
            before, after = bisect_right(numbers, place[1]) - 1, bisect_left(numbers, place[1])
            if before >= 0 and after < len(rows):
                between[inspected.item] = trained[rows[before][1]].item, trained[rows[after][1]].item
    return between


def _are_sequences(sequences: Sequence[Sequence[int]], signs: NDArray[np.float32]) -> bool:
    """Return whether neighbors in the sequences, which are indices of `signs`, are nearer than images far apart."""
    near: list[float] = []
    far: list[float] = []
    for rows in sequences:
        if len(rows) >= 4:
            ordered = signs[list(rows)]
            near += (ordered[1:] != ordered[:-1]).sum(1).tolist()
            half = len(rows) // 2
            far += (ordered[half:] != ordered[:-half]).sum(1).tolist()
    return numbers_count_frames(near, far)


def _signs(inspected: Sequence[Inspected]) -> NDArray[np.float32]:
    """Return the hashes as rows of +1 and -1."""
    packed = np.frombuffer(b"".join(i.perceptual_hash for i in inspected), np.uint8).reshape(len(inspected), -1)
    return np.unpackbits(packed, axis=1)[:, 1:].astype(np.float32) * 2 - 1
