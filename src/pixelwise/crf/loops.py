"""The compiled loops over pixels and lattice points, which mean field runs tens of times per image.

Arrays are flat here, in class vectors (`jit/simd.py`) of L floats, the C classes padded to a multiple of eight:

    pixels  (n * L,)      of a band: vector i begins at i * L
    sums    (r * L,)      of a band's own lattice points, likewise
    values  (L / 8, M, 8) of all lattice points: block 0 of all points, then block 1: one block at a time is blurred,
            and fits a cache

n pixels of a band, V vertices per pixel (d + 1 for each kernel), r lattice points that the band touches, M lattice
points in all. `blocks` is a tuple of length L / 8: its length tells the compiler the size of class vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..jit.compiled import compiled
from ..jit.simd import LANES, load, plus_times, softmax, store, times

NEG_INF = np.float32(-1e30)
"""The log-probability of the classes that pad a vector. Finite, as a difference of infinities is NaN."""


class Band(NamedTuple):
    """The tables of one band of pixels.

    ids            (n, V) int32: the band's own points around each pixel, 0..r
    points         (r,) int32: the lattice point that each of these is, 0..M
    splat_weights  (n, V) float32: weight of the pixel in each point's sum
    slice_weights  (n, V) float32: weight of each point in the pixel's new value
    """

    ids: Any
    points: Any
    splat_weights: Any
    slice_weights: Any


# Algorithm 1, pixel by pixel. A pass does several of its steps at once, so that Q and the messages of a pixel stay in
# registers.


@compiled
def initialize(band: Band, unary: Any, sums: Any, blocks: Any) -> None:
    """Set Q to the softmax of the log-probabilities `unary` (n * L,), and splat it into `sums`."""
    width = len(blocks) * LANES
    clear(sums)
    for i in range(len(band.ids)):
        q = softmax(load(unary, i * width, LANES, blocks))
        splat_pixel(q, i, band, sums, blocks)


@compiled
def update(band: Band, values: Any, unary: Any, sums: Any, blocks: Any) -> None:
    """Slice the messages `values`, add the unary scores, normalize, and splat the new Q into `sums`."""
    width, end = len(blocks) * LANES, band.ids.shape[1]
    messages = fetch(values, band.points, blocks)
    clear(sums)
    for i in range(len(band.ids)):
        # Local update: exp(scores) = exp(-psi_u - Q^), where -Q^ is sliced from the lattice points around the pixel.
        scores = load(unary, i * width, LANES, blocks)
        scores = slice_pixel(scores, i, band, messages, blocks, first=0, stop=end)
        q = softmax(scores)  # exp, and normalize
        # The next message passing begins.
        splat_pixel(q, i, band, sums, blocks)


@compiled
def last_update(band: Band, values: Any, unary: Any, blocks: Any) -> None:
    """Slice the messages, add the unary scores, normalize, and leave Q in `unary`."""
    width, end = len(blocks) * LANES, band.ids.shape[1]
    messages = fetch(values, band.points, blocks)
    for i in range(len(band.ids)):
        scores = load(unary, i * width, LANES, blocks)
        scores = slice_pixel(scores, i, band, messages, blocks, first=0, stop=end)
        store(unary, i * width, LANES, softmax(scores))


# Adams et al.: splat, blur, slice.


@compiled
def splat_pixel(pixel: Any, i: int, band: Band, sums: Any, blocks: Any) -> None:
    """Add the class vector of pixel i to the points around it."""
    width = len(blocks) * LANES
    for v in range(band.ids.shape[1]):
        point = band.ids[i, v] * width
        store(sums, point, LANES, plus_times(load(sums, point, LANES, blocks), pixel, band.splat_weights[i, v]))


@compiled
def slice_pixel(pixel: Any, i: int, band: Band, values: Any, blocks: Any, first: int, stop: int) -> Any:
    """Return the class vector `pixel` plus the weighted values of its vertices first..stop."""
    width = len(blocks) * LANES
    for v in range(first, stop):
        pixel = plus_times(pixel, load(values, band.ids[i, v] * width, LANES, blocks), band.slice_weights[i, v])
    return pixel


@compiled
def splat(band: Band, pixels: Any, blocks: Any, sums: Any) -> None:
    """Splat the pixels (n * L,) onto the points around them: set `sums`."""
    width = len(blocks) * LANES
    clear(sums)
    for i in range(len(band.ids)):
        pixel = load(pixels, i * width, LANES, blocks)
        splat_pixel(pixel, i, band, sums, blocks)


@compiled
def merge(
    sums: Any, values: Any, blocks: Any, *, starts: Any, copies: Any, first: int, stop: int, factor: float
) -> None:
    """Add up the bands' sums at the lattice points first..stop, times `factor`, into `values`.

    sums (R * L,) of all bands; point p stands there at copies[starts[p] : starts[p + 1]].
    """
    width, plane, scale = len(blocks) * LANES, len(values) // len(blocks), np.float32(factor)
    for point in range(first, stop):
        total = times(load(sums, copies[starts[point]] * width, LANES, blocks), scale)
        for k in range(starts[point] + 1, starts[point + 1]):
            total = plus_times(total, load(sums, copies[k] * width, LANES, blocks), scale)
        store(values, point * LANES, plane, total)


@compiled
def blur_lines(plane: Any, order: Any, links: Any) -> None:
    """Blur by 1/2 1 1/2 along one direction, in place.

    plane (m * 8,): one block of classes; order, links (m,) of `simplex.lines_of`.

    The ends of a line have one neighbor. The loop follows the lines, so each point is read once and nothing is copied.
    Where a line ends, the link is 0: most lines of an image's colors are two points long, and a branch would be
    mispredicted there.
    """
    point = order[0] * LANES
    here = load(plane, point, LANES, (0,))
    result = here
    for k in range(1, len(order)):
        following, link = order[k] * LANES, links[k]
        after = load(plane, following, LANES, (0,))
        store(plane, point, LANES, plus_times(result, after, link))
        result = plus_times(after, here, link)
        here, point = after, following
    store(plane, point, LANES, result)


@compiled
def blur_window(plane: Any, neighbors: Any, max_offset: int) -> None:
    """Blur along every direction in one pass, in place.

    plane (m * 8,): one block of classes; neighbors (d + 1, 2, m), -1 for none.

    No neighbor is further than `max_offset` points away. So the points are cut into chunks of that length, and each
    direction follows the one before at a distance of one chunk: between them lie few enough points for a cache.

        chunk            0   1   2   3   4  ...
        direction 0  ->              *              reads the plane, writes the ring
        direction 1  ->          *                  reads the ring, writes the plane
        direction 2  ->      *                      reads the plane, writes the ring
        copy back    ->  *                          after an odd number of directions
    """
    directions, _, num = neighbors.shape
    stages = directions + directions % 2
    length = 1
    while length < (stages + 1) * max_offset:
        length *= 2
    ring, everywhere, around = np.empty(length * LANES, np.float32), ~0, length - 1
    for start in range(0, num + stages * max_offset, max_offset):
        for stage in range(stages):
            first = start - stage * max_offset
            if first < 0 or first >= num:
                continue
            stop = min(first + max_offset, num)
            if stage == directions:
                for i in range(first, stop):
                    store(plane, i * LANES, LANES, load(ring, (i & around) * LANES, LANES, (0,)))
            elif stage % 2:
                blur_chunk(
                    ring, plane, neighbors[stage], first=first, stop=stop, source_mask=around, target_mask=everywhere
                )
            else:
                blur_chunk(
                    plane, ring, neighbors[stage], first=first, stop=stop, source_mask=everywhere, target_mask=around
                )


@compiled
def blur_chunk(
    source: Any, target: Any, neighbors: Any, first: int, stop: int, source_mask: int, target_mask: int
) -> None:
    """Blur points first..stop along one direction; `number & mask` is a point's index in an array."""
    half = np.float32(0.5)
    for i in range(first, stop):
        blurred = load(source, (i & source_mask) * LANES, LANES, (0,))
        before, after = neighbors[0, i], neighbors[1, i]
        if before >= 0:
            blurred = plus_times(blurred, load(source, (before & source_mask) * LANES, LANES, (0,)), half)
        if after >= 0:
            blurred = plus_times(blurred, load(source, (after & source_mask) * LANES, LANES, (0,)), half)
        store(target, (i & target_mask) * LANES, LANES, blurred)


@compiled
def slice_(band: Band, values: Any, pixels: Any, blocks: Any, *, first: int, stop: int) -> None:
    """Set the pixels (n * L,) to the weighted sum of their vertices first..stop in `values`."""
    width = len(blocks) * LANES
    own = fetch(values, band.points, blocks)
    clear(pixels)
    for i in range(len(band.ids)):
        zero = load(pixels, i * width, LANES, blocks)
        sliced = slice_pixel(zero, i, band, own, blocks, first=first, stop=stop)
        store(pixels, i * width, LANES, sliced)


@compiled
def fetch(values: Any, points: Any, blocks: Any) -> Any:
    """Return the values of these lattice points (r * L,), in the order in which a band's pixels first use them."""
    width, plane = len(blocks) * LANES, len(values) // len(blocks)
    own = np.empty(len(points) * width, np.float32)
    for i in range(len(points)):
        store(own, i * width, LANES, load(values, points[i] * LANES, plane, blocks))
    return own


@compiled
def clear(numbers: Any) -> None:
    """Set all to 0, item by item: numba takes twenty times as long to compile an assignment to a slice."""
    for k in range(len(numbers)):
        numbers[k] = 0


# Conversion between planes (one image per class) and class vectors.


@compiled
def to_vectors(planes: Any, num_classes: int, padding: Any, pixels: Any) -> None:
    """Turn planes (C, n) into class vectors (n * L,); the classes beyond C hold `padding`."""
    num = planes.shape[1]
    width = len(pixels) // num
    for i in range(num):
        for c in range(num_classes):
            pixels[i * width + c] = planes[c, i]
        for c in range(num_classes, width):
            pixels[i * width + c] = padding


@compiled
def to_planes(pixels: Any, planes: Any, *, top: int, bottom: int, left: int, right: int) -> None:
    """Turn the class vectors (h * w * L,) of the tile top..bottom, left..right back into planes (C, H, W)."""
    width = right - left
    padded = len(pixels) // ((bottom - top) * width)
    for y in range(top, bottom):
        for x in range(left, right):
            for c in range(len(planes)):
                planes[c, y, x] = pixels[((y - top) * width + x - left) * padded + c]
