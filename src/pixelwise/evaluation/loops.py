"""The compiled loops of the scores: pixels by true and predicted class, and pixels of the boundary regions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit.compiled import compiled

NO_CLASS = -1
"""Around a pixel, all pixels are ignored."""
MIXED = -2
"""Around a pixel, there are two classes or more."""


@compiled
def count_pairs(truth: Any, prediction: Any, tables: Any) -> None:
    """Count the pairs of bytes of two flat arrays: tables (4, 65536), of which four neighbors take one each.

    An image has long runs of one pair, and to count up one number again and again waits for the memory each time.
    """
    end = len(truth) // 4 * 4
    for i in range(0, end, 4):
        for n in range(4):
            tables[n, (np.intp(truth[i + n]) << 8) | prediction[i + n]] += 1
    for i in range(end, len(truth)):
        tables[0, (np.intp(truth[i]) << 8) | prediction[i]] += 1


@compiled
def count_boundaries(truth: Any, prediction: Any, ignore_id: int, distance: int, counts: Any) -> None:
    """Count, per class, the pixels of the boundary regions: counts (K, 3) of both, of the truth, of the prediction.

    A pixel is in the region if the square of 2 * distance + 1 pixels around it holds a second class or leaves the
    image. Its columns are looked at once per row, then its rows: going down, each column remembers since which row its
    surroundings hold one class. So the time does not depend on the distance.
    """
    height, width = truth.shape
    around, starts = np.empty(width, np.int32), np.zeros(width + 9, np.intp)
    changes = np.zeros((width + 7) // 8 * 8, np.uint8)
    current = np.full((2, width), NO_CLASS, np.int32)
    since, after = np.zeros((2, width), np.int32), np.zeros((2, width), np.int32)
    for row in range(height + distance):
        if row < height:
            classes_in_row(truth[row], truth[row], ignore_id, distance, changes, starts, around)
            look_down(around, row, current[0], since[0], after[0])
            classes_in_row(prediction[row], truth[row], ignore_id, distance, changes, starts, around)
            look_down(around, row, current[1], since[1], after[1])
        # The rows down to y + distance are known now.
        y = row - distance
        if y < 0:
            continue
        if y < distance or y >= height - distance:
            count_row(truth[y], prediction[y], ignore_id, since, -1, 0, width, counts)
        else:
            left, right = min(distance, width), max(width - distance, min(distance, width))
            count_row(truth[y], prediction[y], ignore_id, since, -1, 0, left, counts)
            count_row(truth[y], prediction[y], ignore_id, since, y - distance, left, right, counts)
            count_row(truth[y], prediction[y], ignore_id, since, -1, right, width, counts)


@compiled
def count_row(
    truth: Any, prediction: Any, ignore_id: int, since: Any, first: int, begin: int, end: int, counts: Any
) -> None:
    """Count the pixels begin ... end - 1 of a row whose surroundings do not hold one class since row `first`."""
    for x in range(begin, end):
        in_truth, in_prediction = since[0, x] > first, since[1, x] > first
        if (in_truth or in_prediction) and truth[x] != ignore_id:
            counts[truth[x], 1] += in_truth
            counts[prediction[x], 2] += in_prediction
            counts[truth[x], 0] += in_truth and in_prediction and truth[x] == prediction[x]


@compiled
def find_runs(ids: Any, truth: Any, ignore_id: int, changes: Any, starts: Any) -> int:
    """Write where the runs of one class, or of ignored pixels, start in a row, and its width; return their number."""
    width = len(ids)
    for x in range(1, width):
        changes[x] = (ids[x] != ids[x - 1]) | ((truth[x] == ignore_id) != (truth[x - 1] == ignore_id))
    count = 1
    # Eight pixels at a time, as most are like their neighbors.
    words = changes.view(np.uint64)
    for n in range(len(words)):
        if words[n]:
            for x in range(8 * n, 8 * n + 8):
                starts[count] = x
                count += changes[x]
    starts[count] = width
    return count


@compiled
def classes_in_row(ids: Any, truth: Any, ignore_id: int, distance: int, changes: Any, starts: Any, around: Any) -> None:
    """Write the one class that a row holds within the distance of each pixel, NO_CLASS for none, MIXED for several."""
    around[:] = MIXED
    # The last pixel of another class, and of the present class its pixels first ... last with few ignored ones between.
    label, before, first, last = np.int32(NO_CLASS), -distance - 1, 0, -distance - 1
    for n in range(find_runs(ids, truth, ignore_id, changes, starts)):
        x = starts[n]
        if truth[x] == ignore_id:
            continue
        found = np.int32(ids[x])
        if found != label or x - last > 2 * distance + 1:
            if label != NO_CLASS:
                begin, end = max(before + distance + 1, first - distance, 0), min(last + distance, x - distance - 1)
                around[begin : max(end + 1, begin)] = label
            begin = max(last + distance + 1, 0)
            around[begin : max(x - distance, begin)] = NO_CLASS
            before = last if found != label else before
            label, first = found, x
        last = starts[n + 1] - 1
    if label != NO_CLASS:
        begin = max(before + distance + 1, first - distance, 0)
        around[begin : max(last + distance + 1, begin)] = label
    around[max(last + distance + 1, 0) :] = NO_CLASS


@compiled
def look_down(around: Any, row: int, current: Any, since: Any, after: Any) -> None:
    """Go down one row: since when the surroundings hold no second class, that class, and the row after its last."""
    # int32 throughout, so that eight columns are computed at once.
    below, none, mixed = np.int32(row + 1), np.int32(NO_CLASS), np.int32(MIXED)
    for x in range(len(around)):
        found, label, first, next_row = around[x], current[x], since[x], after[x]
        is_other = (found != label) & (label != none) & (found != none)
        first = next_row if is_other else first
        since[x] = below if found == mixed else first
        after[x] = next_row if found == none else below
        label = label if found == none else found
        current[x] = none if found == mixed else label
