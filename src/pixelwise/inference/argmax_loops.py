"""The compiled form of `argmax_numpy.py`: upsampling and argmax in one pass, patch by patch.

Of a patch whose four logits disagree, a class can be best somewhere only if its largest logit reaches the largest of
all classes' smallest: mostly two or three classes are left to interpolate.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit.compiled import compiled
from ..jit.simd import LANES, larger, load, plus, store, times, where_larger, zeros
from ..jit.threads import Workers
from .argmax_numpy import Axis, label_dtype

ONE_BLOCK = (0,)
"""Its length is the number of vectors of eight pixels that are computed at once."""

LOGITS_PER_TASK = 200_000
"""Below it, a second thread costs more than it saves."""


def argmax_upsampled(scores: NDArray[np.float32], rows: Axis, columns: Axis) -> NDArray[Any]:
    """Return the class ids (H, W) of logits (h, w, K), C-contiguous, after upsampling, as `argmax_numpy.py` does."""
    height, width, num_classes = scores.shape
    best = np.empty((height, width), label_dtype(num_classes))
    labels = np.empty((len(rows.weights), len(columns.weights)), best.dtype)
    with Workers(None if scores.size >= 2 * LOGITS_PER_TASK else 1) as workers:
        workers.run(find_best, [(scores, best, *part) for part in _parts(height, workers.threads)])
        parts = _parts(len(rows.first), workers.threads)
        workers.run(label_patches, [(scores, best, rows, columns, labels, *part) for part in parts])
    labels[rows.outside] = 0
    labels[:, columns.outside] = 0
    return labels


def _parts(count: int, threads: int) -> list[tuple[int, int]]:
    """Cut 0 ... count into parts for the threads, of equal length."""
    bounds = [count * part // threads for part in range(threads + 1)]
    return list(pairwise(bounds))


@compiled
def find_best(scores: Any, best: Any, begin: int, end: int) -> None:
    """Write the best class of each logit position in the rows begin ... end - 1."""
    for y in range(begin, end):
        for x in range(scores.shape[1]):
            top, label = scores[y, x, 0], 0
            for k in range(1, scores.shape[2]):
                if scores[y, x, k] > top:
                    top, label = scores[y, x, k], k
            best[y, x] = label


@compiled
def label_patches(scores: Any, best: Any, rows: Any, columns: Any, labels: Any, begin: int, end: int) -> None:
    """Label the pixels of the runs of rows begin ... end - 1."""
    num_runs, width, num_classes = len(columns.first), len(columns.weights), scores.shape[2]
    # Vectors of eight pixels reach beyond the last one.
    weights = np.zeros((2, width + LANES), np.float32)
    weights[:, :width] = columns.weights.T
    winners = np.empty(width + LANES, np.float32)
    mixed, candidates = np.empty(num_runs, np.intp), np.empty(num_classes, np.intp)
    corners, edges = np.empty((4, num_classes), np.float32), np.empty((2, num_classes), np.float32)
    for i in range(begin, end):
        first_row, end_row, upper, lower = rows.starts[i], rows.starts[i + 1], rows.first[i], rows.second[i]
        num_mixed = 0
        for j in range(num_runs):
            left, right = columns.first[j], columns.second[j]
            label = best[upper, left]
            if label != best[upper, right] or label != best[lower, left] or label != best[lower, right]:
                mixed[num_mixed] = j
                num_mixed += 1
            for x in range(columns.starts[j], columns.starts[j + 1]):
                labels[first_row, x] = label
        for y in range(first_row + 1, end_row):
            labels[y] = labels[first_row]
        for j in mixed[:num_mixed]:
            left, right = columns.first[j], columns.second[j]
            count = find_candidates(
                scores[upper, left],
                scores[upper, right],
                scores[lower, left],
                scores[lower, right],
                candidates,
                corners,
            )
            for y in range(first_row, end_row):
                for n in range(count):
                    edges[0, n] = rows.weights[y, 0] * corners[0, n] + rows.weights[y, 1] * corners[2, n]
                    edges[1, n] = rows.weights[y, 0] * corners[1, n] + rows.weights[y, 1] * corners[3, n]
                label_row(weights, edges, count, winners, columns.starts[j], columns.starts[j + 1])
                for x in range(columns.starts[j], columns.starts[j + 1]):
                    labels[y, x] = candidates[int(winners[x])]


@compiled
def find_candidates(one: Any, two: Any, three: Any, four: Any, candidates: Any, corners: Any) -> int:
    """List the classes that can be best somewhere between four positions, with their logits; return their number."""
    least = min(min(one[0], two[0]), min(three[0], four[0]))
    for k in range(1, len(one)):
        smallest = min(min(one[k], two[k]), min(three[k], four[k]))
        least = smallest if smallest > least else least
    count = 0
    for k in range(len(one)):
        if one[k] >= least or two[k] >= least or three[k] >= least or four[k] >= least:
            candidates[count] = k
            corners[0, count], corners[1, count], corners[2, count], corners[3, count] = (
                one[k],
                two[k],
                three[k],
                four[k],
            )
            count += 1
    return count


@compiled
def label_row(weights: Any, edges: Any, count: int, winners: Any, begin: int, end: int) -> None:
    """Write which of the candidates is best in the pixels begin ... end - 1 of a row.

    weights  (2, pixels) of the left and the right logit
    edges    (2, candidates) the logits of the row at the left and the right edge of the patch
    """
    for x in range(begin, end, LANES):
        left, right = load(weights[0], x, LANES, ONE_BLOCK), load(weights[1], x, LANES, ONE_BLOCK)
        top = plus(times(left, edges[0, 0]), times(right, edges[1, 0]))
        winner = zeros(weights, ONE_BLOCK)
        for n in range(1, count):
            mixed = plus(times(left, edges[0, n]), times(right, edges[1, n]))
            winner = where_larger(top, mixed, np.float32(n), winner)
            top = larger(top, mixed)
        store(winners, x, LANES, winner)
