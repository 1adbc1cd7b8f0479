"""The compiled loops that build a permutohedral lattice: simplices around points, vertices, neighbors, lines.

Source: Adams, Baek, Davis 2010, sections 3.1 to 3.3. Arithmetic is single precision, in the order of the authors' C++
code with ties rounded to even: a point on the border of two simplices then lands in the same one as there, and so the
same vertices exist, which a comparison to the last digits needs.

Codes are added as unsigned integers, which wrap around where random strides exceed 64 bits. numba lets LLVM assume that
signed integers never wrap around, and then compares wrongly the sums that did.

Rows are copied item by item: numba takes twenty times as long to compile a copy of slices, because of its error
message.

`crf/torchcrf.py` repeats the geometry of `enclose` for whole tensors. Both use the constants of `crf/codes.py`, and a
test compares them vertex by vertex; shared code would be slow in both. Here a point's coordinates stay in a few
registers and its vertices go into a hash table at once; there every step must be one operation on all points, on their
device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit.compiled import compiled

_ONE = np.float32(1)
_EMPTY = np.int64(-1)


@compiled
def enclose(features: Any, factors: Any, steps: Any, *, first_id: int, column: int, ids: Any, weights: Any) -> Any:
    """Find the simplex around each point, number the vertices in the order of their first use, and weigh them.

    features (n, d) float32; factors (d,) of `elevation_factors`; steps (d + 1,) uint64, the first of `code_strides`.
    Fills d + 1 columns, from `column` on, of ids (n, V) int32, numbered from first_id on, and of weights (n, V)
    float32, barycentric, summing to 1. Returns the codes (m,) int64 of the vertices.
    """
    num, d = features.shape
    elevated, corner, rank = np.empty(d + 1, np.float32), np.empty(d + 1, np.float32), np.empty(d + 1, np.int64)
    axis, offset, codes = np.empty(d + 1, np.int64), np.empty(d + 1, np.float32), np.zeros(d + 1, np.uint64)
    table, count, whole = np.full((4096, 2), _EMPTY, np.int64), 0, steps.sum()
    for i in range(num):
        locate(features[i], factors, elevated, corner, rank)
        code = np.uint64(0)
        for j in range(d + 1):  # coordinates in rising order of their offset from the corner
            axis[d - rank[j]] = j
            offset[d - rank[j]] = elevated[j]
            code += np.uint64(np.int64(corner[j])) * steps[j]
        # Vertex r is the corner plus 1 on all coordinates, less d + 1 on the r axes of the least offsets. Its
        # barycentric weight is the difference of two offsets that follow each other.
        same = i > 0
        for r in range(d + 1):
            weights[i, column + r] = offset[r] - offset[r - 1] if r else offset[0] + (_ONE - offset[d])
            same = same and codes[r] == code
            codes[r] = code
            code += whole - np.uint64(d + 1) * steps[axis[r]]
        if same:  # neighboring pixels mostly share a simplex; no need to look its vertices up again
            for r in range(d + 1):
                ids[i, column + r] = ids[i - 1, column + r]
            continue
        if 2 * (count + d + 1) > len(table):
            table = enlarged(table)
        for r in range(d + 1):
            slot = find_slot(table, np.int64(codes[r]))
            if table[slot, 1] < 0:
                table[slot, 0] = np.int64(codes[r])
                table[slot, 1] = count
                count += 1
            ids[i, column + r] = first_id + table[slot, 1]
    vertices = np.empty(count, np.int64)
    for slot in range(len(table)):
        if table[slot, 1] >= 0:
            vertices[table[slot, 1]] = table[slot, 0]
    return vertices


@compiled
def locate(point: Any, factors: Any, elevated: Any, corner: Any, rank: Any) -> None:
    """Find the simplex around a point (d,): its corner on multiples of d + 1, and the order of its other vertices.

    Fills corner (d + 1,) float32, elevated (d + 1,) float32 with the point's offset from the corner over d + 1, and
    rank (d + 1,) int64, the place of each offset among them, 0 for the largest.
    """
    d = len(point)
    above = np.float32(0)
    for j in range(d, 0, -1):  # elevate the point into the plane of d + 1 coordinates that add up to zero
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
    for i in range(d + 1):  # rounding may have left the plane: go back where it costs least
        shift = (d + 1) * (np.int64(rank[i] < 0) - np.int64(rank[i] > d))
        rank[i] += shift
        corner[i] += np.float32(shift)
        elevated[i] = (elevated[i] - corner[i]) * inverse


@compiled
def find_slot(table: Any, code: Any) -> Any:
    """Return the row of a code, or of where it belongs, in a hash table of (code, number) with open addressing."""
    mask = len(table) - 1
    mixed = np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while table[slot, 1] >= 0 and table[slot, 0] != code:
        slot = (slot + 1) & mask
    return slot


@compiled
def enlarged(table: Any) -> Any:
    """Return the same hash table, four times as long."""
    larger = np.full((4 * len(table), 2), _EMPTY, np.int64)
    for old in range(len(table)):
        if table[old, 1] >= 0:
            slot = find_slot(larger, table[old, 0])
            larger[slot, 0] = table[old, 0]
            larger[slot, 1] = table[old, 1]
    return larger


@compiled
def neighbors_along(codes: Any, step: Any, neighbors: Any) -> Any:
    """Find the points' neighbors along one direction, whose codes are `step` less and `step` more.

    codes (m,) int64, ascending. Fills neighbors (2, m) int32 with the numbers of those before and after, -1 for none.
    Returns the largest difference between the numbers of two neighbors.
    """
    max_offset, k, wanted, unsigned_step = 0, 0, codes[0], np.uint64(step)
    for i in range(len(codes)):
        neighbors[0, i] = neighbors[1, i] = -1
    for i in range(len(codes)):
        following = np.int64(np.uint64(codes[i]) + unsigned_step)
        if i == 0 or following < wanted:  # the start, or the sum has wrapped around
            k = 0
        wanted = following
        while k < len(codes) and codes[k] < wanted:
            k += 1
        if k < len(codes) and codes[k] == wanted:
            neighbors[1, i], neighbors[0, k] = k, i
            max_offset = max(max_offset, abs(k - i))
    return max_offset


@compiled
def lines_of(neighbors: Any, order: Any, links: Any) -> None:
    """Order the points by the lines that they form along one direction; neighbors (2, m) of `neighbors_along`.

    Fills order (m,) int32 with the points' numbers, line after line, and links (m,) float32 with the weight of the
    point before in the blur: 1/2, or 0 where a line begins.
    """
    done = 0
    for i in range(len(order)):
        if neighbors[0, i] < 0:
            order[done], links[done] = i, 0
            done += 1
            following = neighbors[1, i]
            while following >= 0:
                order[done], links[done] = following, 0.5
                done += 1
                following = neighbors[1, following]


@compiled
def copies_of(points: Any, num_points: int) -> Any:
    """Return where each lattice point stands in the list `points` (R,) of all bands' own points.

    Returns starts (num_points + 1,) and copies (R,) int32: point p stands at copies[starts[p] : starts[p + 1]], in
    order.
    """
    starts, copies = np.zeros(num_points + 1, np.int32), np.empty(len(points), np.int32)
    for i in range(len(points)):
        starts[points[i] + 1] += 1
    for point in range(num_points):
        starts[point + 1] += starts[point]
    cursor = starts.copy()
    for i in range(len(points)):
        copies[cursor[points[i]]] = i
        cursor[points[i]] += 1
    return starts, copies
