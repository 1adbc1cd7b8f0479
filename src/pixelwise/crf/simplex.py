"""Loops that build a permutohedral lattice: the simplex around each point, its vertices, their neighbours and lines.

Arithmetic is single precision, in the order of the authors' C++ code with ties rounded to even: a point on the border of
two simplices then lands in the same one as there, and so the same vertices exist, which a comparison to the last digits needs.

Rows are copied item by item: numba compiles a copy of slices twenty times slower, for the sake of its error message.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .compiled import compiled

_ONE = np.float32(1)
_EMPTY = np.int64(-1)


@compiled
def _slot(table: Any, code: Any) -> Any:
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
def enclose(features: Any, factors: Any, steps: Any, first_id: int, column: int, ids: Any, weights: Any) -> Any:
    """Find the simplex of each point, number the vertices in the order of their first use, and weigh them.

    features (n, d) float32; factors (d,) of `scales`; steps (d + 1,), the first of `strides`; first_id numbers the first vertex.
    Fills d + 1 columns, from `column` on, of ids (n, V) int32 and weights (n, V) float32, barycentric, summing to 1.
    Returns the codes (m,) int64.
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
            weights[i, column + r] = place[r] - place[r - 1] if r else place[0] + (_ONE - place[d])
            same = same and codes[r] == code
            codes[r] = code
            code += whole - (d + 1) * steps[axis[r]]
        if same:  # neighbouring pixels mostly share a simplex; the table need not be asked again
            for r in range(d + 1):
                ids[i, column + r] = ids[i - 1, column + r]
            continue
        if 2 * (count + d + 1) > len(table):
            table = _grown(table)
        for r in range(d + 1):
            slot = _slot(table, codes[r])
            if table[slot, 1] < 0:
                table[slot, 0] = codes[r]
                table[slot, 1] = count
                count += 1
            ids[i, column + r] = first_id + table[slot, 1]
    return _codes_of(table, count)


@compiled
def neighbours_along(codes: Any, step: Any, neighbours: Any) -> Any:
    """Find the vertices' neighbours along one direction, whose codes are `step` less and `step` more; how far off they are at most.

    codes (M,) int64, ascending. Fills neighbours (2, M) int32 with the numbers of those before and after, -1 where none is.
    """
    reach, k, wanted = 0, 0, codes[0] + step
    for i in range(len(codes)):
        neighbours[0, i] = neighbours[1, i] = -1
    for i in range(len(codes)):
        if codes[i] + step < wanted:  # the sum has passed the largest of 64 bits, as random strides let it
            k = 0
        wanted = codes[i] + step
        while k < len(codes) and codes[k] < wanted:
            k += 1
        if k < len(codes) and codes[k] == wanted:
            neighbours[1, i], neighbours[0, k] = k, i
            reach = max(reach, abs(k - i))
    return reach


@compiled
def lines_of(neighbours: Any, order: Any, links: Any) -> None:
    """Order the vertices by the lines that they form along one direction; neighbours (2, M) of `neighbours_along`.

    Fills order (M,) int32 with the vertices' numbers, line after line, and links (M,) float32 with the weight of the vertex
    before in the blur: 1/2, or 0 where a line begins.
    """
    done = 0
    for i in range(len(order)):
        if neighbours[0, i] < 0:
            order[done], links[done] = i, 0
            done += 1
            vertex = neighbours[1, i]
            while vertex >= 0:
                order[done], links[done] = vertex, 0.5
                done += 1
                vertex = neighbours[1, vertex]


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
