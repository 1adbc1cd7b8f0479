"""Compiled loops over masks and images of the pass over a dataset: counts, shapes, checksums.

Masks are flat: most of a row is runs of equal pixels, and most squares of 2 x 2 pixels have one value. Each loop passes
over the pixels once, whatever the number of classes. The compiler is imported with this module, so that its importers
do that where they call it.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit.compiled import compiled

_ONES = np.uint64(0x0101010101010101)
# Source: xxHash, XXH64: multipliers and rotation of its four lanes.
_FIRST, _SECOND = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
_LEFT, _RIGHT = np.uint64(31), np.uint64(33)


def count_values(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return how often each value occurs in an array of uint8, (256,), or uint16, (65536,)."""
    if values.dtype != np.uint8:
        return np.bincount(values.ravel(), minlength=65536)
    counts = np.zeros(256, np.int64)
    _count_bytes(*_words(values, 8), counts)
    return counts


def ids_in(mask: NDArray[Any], ignore_id: int) -> NDArray[np.int64]:
    """Return the class ids that occur in a mask of uint8 or uint16, in order."""
    values = np.flatnonzero(count_values(mask))
    ids: NDArray[np.int64] = values[values != ignore_id]
    return ids


def checksum(pixels: NDArray[Any]) -> bytes:
    """Return 16 bytes that two contiguous arrays share if they are equal, and otherwise practically never.

    It takes a third of the time of a CRC, and is made for accidents, not for an adversary.
    """
    words, rest = _words(pixels, 32)
    total = hashlib.blake2b(_sum_words(words).tobytes() + rest.tobytes(), digest_size=16)
    total.update(f"{pixels.shape} {pixels.dtype}".encode())
    return total.digest()


def parts_of(
    mask: NDArray[Any], num_values: int, *, block: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return value and area of every 8-connected part of a mask (H, W), by first pixels; and what blocks contain.

    The last array is (num_values, H / block, W / block), rounded up: whether a block contains a value.
    """
    presence = np.zeros((num_values, *(-(-size // block) for size in mask.shape)), bool)
    values, areas = _find_parts(read_only(mask), presence, block)
    return values, areas, presence


def outline_lengths(mask: NDArray[Any], num_values: int) -> NDArray[np.float64]:
    """Return the length of all outlines of each value of a mask (H, W), holes included, as OpenCV follows them."""
    straight, diagonal = np.zeros((2, num_values), np.int64)
    _count_steps(read_only(mask), straight, diagonal)
    return straight + math.sqrt(2) * diagonal


def _words(values: NDArray[Any], multiple: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return the bytes of a contiguous array as words, of as many bytes as the multiple allows, and the rest."""
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    whole = len(flat) // multiple * multiple
    return read_only(flat[:whole].view(np.uint64)), read_only(flat[whole:])


def read_only(values: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous view that cannot be written: a loop is compiled anew for each kind of array."""
    view = np.ascontiguousarray(values).view()
    view.setflags(write=False)
    return view


@compiled
def _count_bytes(words: NDArray[np.uint64], rest: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
    """Add to `counts` (256,) how often each byte occurs in `words`, eight at a time, and in `rest`."""
    byte = np.uint64(255)
    for word in words:
        low = word & byte
        if word == low * _ONES:
            counts[low] += 8
        else:
            for shift in range(0, 64, 8):
                counts[(word >> np.uint64(shift)) & byte] += 1
    for value in rest:
        counts[value] += 1


@compiled
def _sum_words(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return four sums of 64 bits, of every fourth word each, that depend on all bits and on their order."""
    sums = np.array([_FIRST, _SECOND, _FIRST ^ _SECOND, _FIRST + _SECOND], np.uint64)
    a, b, c, d = sums
    for k in range(0, len(words) - 3, 4):
        a += words[k] * _SECOND
        b += words[k + 1] * _SECOND
        c += words[k + 2] * _SECOND
        d += words[k + 3] * _SECOND
        a = ((a << _LEFT) | (a >> _RIGHT)) * _FIRST
        b = ((b << _LEFT) | (b >> _RIGHT)) * _FIRST
        c = ((c << _LEFT) | (c >> _RIGHT)) * _FIRST
        d = ((d << _LEFT) | (d >> _RIGHT)) * _FIRST
    sums[0], sums[1], sums[2], sums[3] = a, b, c, d
    return sums


@compiled
def _root(parents: NDArray[np.int32], run: int) -> int:
    """Return the first run of the part that a run belongs to, and shorten the way to it."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@compiled
def _find_parts(
    mask: NDArray[Any], presence: NDArray[np.bool_], block: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the value and the area of every part, and set `presence`, by value and block."""
    height, width = mask.shape
    num_runs = height
    for y in range(height):
        for x in range(1, width):
            num_runs += mask[y, x] != mask[y, x - 1]
    parents = np.empty(num_runs, np.int32)
    values, areas = np.empty(num_runs, np.int64), np.empty(num_runs, np.int64)
    # Where runs start and end; those of the row above are `above` to `row`.
    starts, ends = np.empty(num_runs, np.int32), np.empty(num_runs, np.int32)
    above = row = run = 0
    for y in range(height):
        start = 0
        upper = above
        for x in range(1, width + 1):
            value = mask[y, start]
            if x < width and mask[y, x] == value:
                continue
            starts[run], ends[run] = start, x
            parents[run], values[run], areas[run] = run, value, x - start
            for column in range(start // block, (x - 1) // block + 1):
                presence[value, y // block, column] = True
            # Runs of the row above that touch this one, if only by a corner.
            while upper < row and ends[upper] < start:
                upper += 1
            other = upper
            while other < row and starts[other] <= x:
                if values[other] == value:
                    first, second = _root(parents, other), _root(parents, run)
                    if first != second:
                        # The earlier run stands for both.
                        earlier, later = min(first, second), max(first, second)
                        parents[later] = earlier
                        areas[earlier] += areas[later]
                other += 1
            start = x
            run += 1
        above, row = row, run
    is_part = parents == np.arange(num_runs)
    return values[is_part], areas[is_part]


@compiled
def _count_steps(mask: NDArray[Any], straight: NDArray[np.int64], diagonal: NDArray[np.int64]) -> None:
    """Count the straight and the diagonal steps of all outlines of each value.

    An outline runs from pixel to pixel along the inside. In a square of 2 x 2 pixels, two of a value beside each other
    are a straight step, three are a diagonal one, and two at opposite corners are passed twice, diagonally. What lies
    outside of the mask is no value.
    """
    height, width = mask.shape
    square = np.empty(4, np.int64)
    for y in range(-1, height):
        is_inner = 0 <= y < height - 1
        for x in range(-1, width):
            if is_inner and 0 <= x < width - 1:
                value = mask[y, x]
                if value == mask[y, x + 1] and value == mask[y + 1, x] and value == mask[y + 1, x + 1]:
                    continue
            for k in range(4):
                down, right = y + k // 2, x + k % 2
                is_inside = 0 <= down < height and 0 <= right < width
                square[k] = mask[down, right] if is_inside else -1
            for k in range(4):
                value = square[k]
                same, before = 0, 0
                for other in range(4):
                    same += square[other] == value
                    before += other < k and square[other] == value
                if value < 0 or before:
                    continue
                if same == 3:
                    diagonal[value] += 1
                elif same == 2:
                    if square[3 - k] == value:
                        diagonal[value] += 2
                    else:
                        straight[value] += 1
