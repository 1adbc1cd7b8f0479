"""Numbered frames of one sequence: slices of a stack, frames of a video. One between two others is nearly a copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .dataset import Item
from .groups import Groups

SEQUENCE_RATIO = 0.85
"""Numbers in the names count frames if images of neighboring numbers differ by less than this share of what images far
apart in the same group do, in the median. It is 0.6 in a stack of sections, 0.7 in CamVid, and 0.97 to 1.03 where
numbers mean nothing."""
_MIN_PAIRS = 20
# Of fewer images, chance makes the medians differ more: by 0.04 of them, for 8 pairs of photos.
_SHORT_RATIO, _MIN_SHORT_PAIRS = 0.7, 8
# Pairs of images that are compared; thousands show no more.
_COMPARED = 48
SHORTEST = 5
"""Frames of which one fifth is a frame."""

SignOf = Callable[[Item], bytes]


def place_in_sequence(item: Item, groups: Groups | None = None) -> tuple[str, int] | None:
    """Return the group of an item and the last number in its name; the rest of the name is the group if none show."""
    match = re.search(r"\d+(?=\D*$)", item.key)
    if match is None:
        return None
    rest = item.key[: match.start()] + "#" + item.key[match.end() :]
    return groups.by_item.get(item, rest) if groups else rest, int(match[0])


def numbers_count_frames(near: Sequence[float], far: Sequence[float]) -> bool:
    """Return whether neighbors look alike, from the bits in which neighbors, and images far apart, differ."""
    ratio = SEQUENCE_RATIO if len(near) >= _MIN_PAIRS else _SHORT_RATIO if len(near) >= _MIN_SHORT_PAIRS else 0.0
    return bool(near) and bool(far) and float(np.median(near)) < ratio * float(np.median(far))


def find_sequences(items: Iterable[Item], sign_of: SignOf) -> list[list[Item]]:
    """Return the items whose names differ in one number, in its order, per name; none unless neighbors look alike.

    Sequences of fewer than `SHORTEST` items are left out.
    sign_of  the perceptual hash of an item; of some hundred of them at most, chosen by their places
    """
    by_name: dict[str, list[tuple[int, str, Item]]] = {}
    for item in items:
        if place := place_in_sequence(item):
            by_name.setdefault(place[0], []).append((place[1], item.key, item))
    sequences = [[item for *_, item in sorted(rows)] for _, rows in sorted(by_name.items()) if len(rows) >= SHORTEST]
    places = [(frames, k) for frames in sequences for k in range(len(frames) - 1)]
    near: list[float] = []
    far: list[float] = []
    for frames, k in places[:: max(1, len(places) // _COMPARED)]:
        half = len(frames) // 2
        sign, after, other = (sign_of(frames[j]) for j in (k, k + 1, k + half if k + half < len(frames) else k - half))
        near += [_distance(sign, after)] if sign and after else []
        far += [_distance(sign, other)] if sign and other else []
    return sequences if numbers_count_frames(near, far) else []


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()
