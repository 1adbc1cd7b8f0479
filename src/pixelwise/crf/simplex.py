"""Loops that build a permutohedral lattice: the simplex around each point, the table of its vertices, their lines.

The lattice is that of Adams, Baek, Davis, "Fast high-dimensional filtering using the permutohedral lattice" (Eurographics
2010), sections 3.1 to 3.3. d is the number of features. A vertex is d + 1 whole numbers that add up to zero.

Arithmetic is single precision, in the order of the authors' C++ code with ties rounded to even: a point on the border of
two simplices then lands in the same one as there, and so the same vertices exist, which a comparison to the last digits needs.

A vertex is stored as one 64-bit code, a sum of its first d coordinates times fixed strides. So a step along the lattice is
the addition of a constant, and no coordinates are kept. Rows are copied item by item: numba compiles a copy of slices
twenty times slower, for the sake of its error message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Longs = NDArray[np.int64]

_ONE = np.float32(1)
_EMPTY = np.int64(-1)


def scales(num_features: int) -> NDArray[np.float32]:
    """(d,): what each feature is multiplied by, so that the blur along the lattice has unit variance in feature space."""
    d = num_features
    deviation = float(np.float32(np.sqrt(2 / 3) * (d + 1)))
    return np.array([1 / np.sqrt((i + 1) * (i + 2)) * deviation for i in range(d)], np.float32)


def strides(lowest: NDArray[np.float32], highest: NDArray[np.float32]) -> Longs:
    """(d + 1,) int64: a vertex's code is the sum of its coordinates times these; the last one is 0.

    lowest, highest (d,): the features' range. The codes of all vertices around such points, and of their neighbours, differ.
    Where the range is so wide that 64 bits cannot hold it, the strides are odd random numbers: that two of a million
    vertices then share a code has a probability of one in ten million.
    """
    d = len(lowest)
    ends = np.stack([lowest, highest]).astype(np.float64) * scales(d)
    low, high = ends.min(0), ends.max(0)
    result = [1]
    for j in range(d - 1):
        # coordinate j is the sum of the scaled features from j on, less j times the one before
        own = [j * low[j - 1], j * high[j - 1]] if j else [0, 0]
        reach = high[j:].sum() - low[j:].sum() + own[1] - own[0]
        result.append(result[-1] * (int(np.ceil(reach)) + 8 * (d + 1)))
    if result[-1] > 2**40:
        result = np.random.default_rng(0).integers(1, 2**62, d).__or__(1).tolist()
    return np.array([*result, 0], np.int64)


@compiled
def _slot(table: Any, code: int) -> int:
    """Where in the table of (code, number) the code stands, or would stand: open addressing, a power of two long."""
    mask = len(table) - 1
    mixed = np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while table[slot, 1] >= 0 and table[slot, 0] != code:
        slot = (slot + 1) & mask
    return slot


@compiled
def _grown(table: Any) -> Any:
    """The same table, four times as long."""
    larger = np.full((4 * len(table), 2), _EMPTY, np.int64)
    for old in range(len(table)):
        if table[old, 1] >= 0:
            slot = _slot(larger, table[old, 0])
            larger[slot, 0] = table[old, 0]
            larger[slot, 1] = table[old, 1]
    return larger


@compiled
def _codes_of(table: Any, count: int) -> Any:
    """(count,) int64: the codes in the order of their numbers."""
    codes = np.empty(count, np.int64)
    for slot in range(len(table)):
        if table[slot, 1] >= 0:
            codes[table[slot, 1]] = table[slot, 0]
    return codes


@compiled
def _locate(point: Any, factors: Any, elevated: Any, corner: Any, rank: Any) -> None:
    """The simplex around a point (d,): its corner on a multiple of d + 1, and how its coordinates rank within.

    Fills corner (d + 1,) float32, elevated (d + 1,) float32 with the point's place from there over d + 1, rank (d + 1,) int64.
    """
    d = len(point)
    above = np.float32(0)
    for j in range(d, 0, -1):
        scaled = point[j - 1] * factors[j - 1]
        elevated[j] = above - np.float32(j) * scaled
        above += scaled
    elevated[0] = above
    inverse = _ONE / np.float32(d + 1)
    total = np.float32(0)
    for i in range(d + 1):
        nearest = np.rint(elevated[i] * inverse)
        corner[i] = nearest * np.float32(d + 1)
        total += nearest
    for i in range(d + 1):
        rank[i] = np.int64(total)
    for i in range(d):
        for j in range(i + 1, d + 1):
            below = np.int64(elevated[i] - corner[i] < elevated[j] - corner[j])
            rank[i] += below
            rank[j] += 1 - below
    for i in range(d + 1):  # back to the plane where coordinates add up to zero
        shift = (d + 1) * (np.int64(rank[i] < 0) - np.int64(rank[i] > d))
        rank[i] += shift
        corner[i] += np.float32(shift)
        elevated[i] = (elevated[i] - corner[i]) * inverse


@compiled
def enclose(features: Any, factors: Any, steps: Any, first_id: int, ids: Any, weights: Any) -> Any:
    """Find the simplex of each point, number the vertices in the order of their first use, and weigh them.

    features (n, d) float32; factors (d,) of `scales`; steps (d + 1,) of `strides`; first_id the number of the first vertex.
    Fills ids (n, d + 1) int32 and weights (n, d + 1) float32, barycentric, summing to 1. Returns the codes (m,) int64.
    """
    num, d = features.shape
    elevated, corner, rank = np.empty(d + 1, np.float32), np.empty(d + 1, np.float32), np.empty(d + 1, np.int64)
    axis, place, codes = np.empty(d + 1, np.int64), np.empty(d + 1, np.float32), np.zeros(d + 1, np.int64)
    table, count, whole = np.full((4096, 2), _EMPTY, np.int64), 0, steps.sum()
    for i in range(num):
        _locate(features[i], factors, elevated, corner, rank)
        code = np.int64(0)
        for j in range(d + 1):
            axis[d - rank[j]] = j
            place[d - rank[j]] = elevated[j]
            code += np.int64(corner[j]) * steps[j]
        same = i > 0
        for r in range(d + 1):
            weights[i, r] = place[r] - place[r - 1] if r else place[0] + (_ONE - place[d])
            same = same and codes[r] == code
            codes[r] = code
            code += whole - (d + 1) * steps[axis[r]]
        if same:  # neighbouring pixels mostly share a simplex; the table need not be asked again
            for r in range(d + 1):
                ids[i, r] = ids[i - 1, r]
            continue
        if 2 * (count + d + 1) > len(table):
            table = _grown(table)
        for r in range(d + 1):
            slot = _slot(table, codes[r])
            if table[slot, 1] < 0:
                table[slot, 0] = codes[r]
                table[slot, 1] = count
                count += 1
            ids[i, r] = first_id + table[slot, 1]
    return _codes_of(table, count)


@compiled
def unite(codes: Any, first: int, points: Any) -> Any:
    """Number the different codes from `first` on, in the order of first use. codes (R,) int64 with repeats.

    Fills points (R,) int32 with each code's number. Returns the different codes (M,) and the table from code to number less
    `first`.
    """
    table, count = np.full((8192, 2), _EMPTY, np.int64), 0
    for row in range(len(codes)):
        if 2 * (count + 1) > len(table):
            table = _grown(table)
        slot = _slot(table, codes[row])
        if table[slot, 1] < 0:
            table[slot, 0] = codes[row]
            table[slot, 1] = count
            count += 1
        points[row] = first + table[slot, 1]
    return _codes_of(table, count), table


@compiled
def lines_along(table: Any, codes: Any, step: int, first: int, chunk: int, order: Any) -> Any:
    """Order the vertices by the lines that they form along one direction, in which a neighbour's code is `step` more.

    codes (M,) int64 and their table. Fills order (M,) int32 with first + the vertices' numbers, line after line; a line's first
    vertex is written as -1 - number. Returns places in `order` where lines begin, `chunk` vertices apart or a little
    more, and the end.
    """
    following, is_first = np.empty(len(codes), np.int32), np.ones(len(codes), np.bool_)
    for i in range(len(codes)):
        following[i] = table[_slot(table, codes[i] + step), 1]
        if following[i] >= 0:
            is_first[following[i]] = False
    cuts, num_cuts, done = np.empty(len(codes) // chunk + 2, np.int64), 0, 0
    for i in range(len(codes)):
        if is_first[i]:
            if done >= num_cuts * chunk:
                cuts[num_cuts] = done
                num_cuts += 1
            order[done] = -1 - (first + i)
            done += 1
            vertex = following[i]
            while vertex >= 0:
                order[done] = first + vertex
                done += 1
                vertex = following[vertex]
    cuts[num_cuts] = done
    return cuts[: num_cuts + 1]


@compiled
def members_of(points: Any, num_points: int) -> Any:
    """Turn a list of points (R,) into, for each point, the places where it stands.

    Returns starts (num_points + 1,) and places (R,) int32: point p stands at places[starts[p] : starts[p + 1]], in order.
    """
    starts, places = np.zeros(num_points + 1, np.int32), np.empty(len(points), np.int32)
    for row in range(len(points)):
        starts[points[row] + 1] += 1
    for point in range(num_points):
        starts[point + 1] += starts[point]
    cursor = starts.copy()
    for row in range(len(points)):
        places[cursor[points[row]]] = row
        cursor[points[row]] += 1
    return starts, places
