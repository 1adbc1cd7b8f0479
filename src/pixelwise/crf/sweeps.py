"""The loops of mean field that run over every pixel and every lattice vertex.

A pixel's classes, padded to a multiple of eight, are one *row*: a type of compiled code that stays in registers, eight
classes a vector (LLVM cuts vectors in two where a chip has four lanes). numba vectorises short inner loops over classes
poorly; with rows the main loop runs four times as fast. The number of vectors is part of the type, so each multiple of eight
classes is compiled once. Rows and loops stay in one file, as numba's cache of compiled code asks only the file of a function
whether it has changed.

Letters: n pixels of a band, V vertices of a pixel (all kernels), r rows of a band's own sums, M lattice points of all kernels,
L padded classes. Arrays are flat here. Row i of pixels or of a band's sums begins at i * L; the lattice points' values are
(L / 8, M, 8): eight classes of all points, then the next eight, so that what is blurred together fits a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from .compiled import compiled

LANES = 8
NOTHING = np.float32(-1e30)  # the score of a class that does not exist

# numba has no types for these.
_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic
_declare: Callable[..., Any] = cgutils.get_or_insert_function

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_UNDEFINED = ir.Constant(_FLOATS, ir.Undefined)
_FIRST = ir.Constant(ir.IntType(32), 0)


class _RowKind(types.Type):
    """The type of a row of `num` vectors."""

    def __init__(self, num: int) -> None:
        self.num = num
        super().__init__(f"pixelwise row of {num}")


class _RowModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(_FLOATS, kind.num))  # type: ignore[no-untyped-call]


register_model(_RowKind)(_RowModel)


def _unpacked(builder: Any, row: Any) -> list[Any]:
    return [builder.extract_value(row, i) for i in range(row.type.count)]


def _packed(builder: Any, vectors: list[Any]) -> Any:
    row = ir.Constant(ir.ArrayType(_FLOATS, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        row = builder.insert_value(row, vector, i)
    return row


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * LANES)


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [value] * LANES)


def _spread(builder: Any, value: Any) -> Any:
    """One float into all lanes."""
    return builder.shuffle_vector(builder.insert_element(_UNDEFINED, value, _FIRST), _UNDEFINED, _whole(0))


def _call(builder: Any, name: str, *values: Any) -> Any:
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * len(values))
    return builder.call(_declare(builder.module, signature, f"llvm.{name}.v{LANES}f32"), values)


def _addresses(context: Any, builder: Any, kind: Any, values: Any, num: int) -> list[Any]:
    """Of `num` vectors; values: a flat array of that kind, the first index, the stride."""
    array, first, stride = values
    data = context.make_array(kind)(context, builder, array).data
    places = [builder.add(first, builder.mul(stride, ir.Constant(stride.type, i))) for i in range(num)]
    return [builder.bitcast(builder.gep(data, [place]), _FLOATS.as_pointer()) for place in places]


def _folded(builder: Any, vectors: list[Any], operation: Callable[[Any, Any], Any]) -> Any:
    """All lanes of all vectors into one, that of the first lane spread over all."""
    result = vectors[0]
    for vector in vectors[1:]:
        result = operation(result, vector)
    half = LANES // 2
    while half:
        upper = ir.Constant(_INTEGERS, [(lane + half) % LANES for lane in range(LANES)])
        result = operation(result, builder.shuffle_vector(result, _UNDEFINED, upper))
        half //= 2
    return result


def _exponential(builder: Any, x: Any) -> Any:
    """exp(x) for x up to 0, to 1e-7 of its value; 0 below -46, where it is under 1e-20.

    Smaller ones, times a small weight, would become denormal numbers, which cost a hundredfold.
    Source: the polynomial of the Cephes library's expf (Moshier).
    """
    is_small = builder.fcmp_ordered("<", x, _constant(-46))
    x = builder.select(is_small, _constant(-46), x)
    # x = power * ln 2 + rest; ln 2 in two parts, the first exact in few bits
    power = _call(builder, "floor", _call(builder, "fmuladd", x, _constant(1.44269504), _constant(0.5)))
    rest = _call(builder, "fmuladd", power, _constant(-0.693359375), x)
    rest = _call(builder, "fmuladd", power, _constant(2.12194440e-4), rest)
    series = _constant(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        series = _call(builder, "fmuladd", series, rest, _constant(factor))
    series = _call(builder, "fmuladd", series, builder.fmul(rest, rest), builder.fadd(rest, _constant(1)))
    # 2^power: its bits are those of the whole number power + 127, moved to the exponent's place
    bits = builder.shl(builder.add(builder.fptosi(power, _INTEGERS), _whole(127)), _whole(23))
    return builder.select(is_small, _constant(0), builder.fmul(series, builder.bitcast(bits, _FLOATS)))


@_intrinsic
def load(_: Any, array: Any, first: Any, stride: Any, blocks: Any) -> Any:
    """The row whose vectors begin at first, first + stride, ... of a flat array; as many as the tuple `blocks` is long."""
    num = len(blocks)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vectors = [builder.load(place) for place in _addresses(context, builder, array, values[:3], num)]
        for vector in vectors:
            vector.align = 4
        return _packed(builder, vectors)

    return _RowKind(num)(array, types.intp, types.intp, blocks), emit


@_intrinsic
def store(_: Any, array: Any, first: Any, stride: Any, row: Any) -> Any:
    """Write a row's vectors to first, first + stride, ... of a flat array."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        places = _addresses(context, builder, array, values[:3], row.num)
        for vector, place in zip(_unpacked(builder, values[3]), places, strict=True):
            builder.store(vector, place).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, row), emit


@_intrinsic
def plus_times(_: Any, base: Any, row: Any, factor: Any) -> Any:
    """base + row * factor, with one rounding where the chip has such an instruction."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pairs = zip(_unpacked(builder, values[0]), _unpacked(builder, values[1]), strict=True)
        factors = _spread(builder, values[2])
        return _packed(builder, [_call(builder, "fmuladd", other, factors, one) for one, other in pairs])

    return base(base, row, types.float32), emit


@_intrinsic
def times(_: Any, row: Any, factor: Any) -> Any:
    """row * factor."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        factors = _spread(builder, values[1])
        return _packed(builder, [builder.fmul(vector, factors) for vector in _unpacked(builder, values[0])])

    return row(row, types.float32), emit


@_intrinsic
def softmax(_: Any, row: Any) -> Any:
    """exp of each class over the sum of all; shares below 1e-20 of the largest become 0."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def greater(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        scores = _unpacked(builder, values[0])
        top = _spread(builder, builder.extract_element(_folded(builder, scores, greater), _FIRST))
        shares = [_exponential(builder, builder.fsub(score, top)) for score in scores]
        whole = builder.extract_element(_folded(builder, shares, builder.fadd), _FIRST)
        scale = _spread(builder, builder.fdiv(ir.Constant(ir.FloatType(), 1.0), whole))
        return _packed(builder, [builder.fmul(share, scale) for share in shares])

    return row(row), emit


@compiled
def update(
    unary: Any,
    ids: Any,
    points: Any,
    weigh_in: Any,
    weigh_out: Any,
    values: Any,
    sums: Any,
    blocks: Any,
    with_messages: bool,
    last: bool,
) -> None:
    """One mean-field step of a band of pixels: gather the messages, take the softmax, spread it over the lattice again.

    unary      (n * L,) scores, log of the probabilities; `NOTHING` beyond the classes. The last step leaves Q here
    ids        (n, V) int32 rows of `sums`; points (r,) int32 the lattice point that each of them stands for
    weigh_in   (n, V) what each vertex gets of a pixel, weigh_out (n, V) what a pixel gets of each vertex
    values     (M * L,) the messages at the lattice points; not read unless `with_messages`
    sums       (r * L,) set to what this band's pixels spread; left alone in the `last` step
    blocks     a tuple of length L / 8

    One pass does what the steps of the paper's algorithm 1 do in four, so Q never goes through memory.
    """
    width = len(blocks) * LANES
    messages = np.empty(len(points) * width if with_messages else 0, np.float32)
    if with_messages:
        fetch(values, points, blocks, messages)
    if not last:
        for k in range(len(sums)):
            sums[k] = 0
    for i in range(len(ids)):
        scores = load(unary, i * width, LANES, blocks)
        if with_messages:
            for v in range(ids.shape[1]):
                scores = plus_times(scores, load(messages, ids[i, v] * width, LANES, blocks), weigh_out[i, v])
        q = softmax(scores)
        if last:
            store(unary, i * width, LANES, q)
        else:
            for v in range(ids.shape[1]):
                row = ids[i, v] * width
                store(sums, row, LANES, plus_times(load(sums, row, LANES, blocks), q, weigh_in[i, v]))


@compiled
def fetch(values: Any, points: Any, blocks: Any, rows: Any) -> None:
    """Copy the lattice points' values into a band's own rows (r * L,), in the order in which its pixels first use them."""
    plane = len(values) // len(blocks)
    for i in range(len(points)):
        store(rows, i * len(blocks) * LANES, LANES, load(values, points[i] * LANES, plane, blocks))


@compiled
def spread(pixels: Any, ids: Any, weights: Any, blocks: Any, sums: Any) -> None:
    """Set sums (r * L,) to what the pixels (n * L,) give to the vertices that they lie between; ids, weights (n, V)."""
    width = len(blocks) * LANES
    for k in range(len(sums)):
        sums[k] = 0
    for i in range(len(ids)):
        share = load(pixels, i * width, LANES, blocks)
        for v in range(ids.shape[1]):
            row = ids[i, v] * width
            store(sums, row, LANES, plus_times(load(sums, row, LANES, blocks), share, weights[i, v]))


@compiled
def gather(values: Any, ids: Any, points: Any, weights: Any, first: int, stop: int, blocks: Any, pixels: Any) -> None:
    """Set pixels (n * L,) to the weighted sum of their vertices first..stop in values (M * L,); the counterpart of `spread`."""
    width = len(blocks) * LANES
    rows = np.empty(len(points) * width, np.float32)
    fetch(values, points, blocks, rows)
    for k in range(len(pixels)):
        pixels[k] = 0
    for i in range(len(ids)):
        result = load(pixels, i * width, LANES, blocks)
        for v in range(first, stop):
            result = plus_times(result, load(rows, ids[i, v] * width, LANES, blocks), weights[i, v])
        store(pixels, i * width, LANES, result)


@compiled
def merge(sums: Any, starts: Any, places: Any, first: int, stop: int, factor: float, blocks: Any, values: Any) -> None:
    """Add up what the bands hold of the lattice points first..stop, times `factor`, into values (M * L,).

    sums (R * L,) of all bands; point p's rows of it are places[starts[p] : starts[p + 1]].
    """
    width, plane, scale = len(blocks) * LANES, len(values) // len(blocks), np.float32(factor)
    for point in range(first, stop):
        result = times(load(sums, places[starts[point]] * width, LANES, blocks), scale)
        for k in range(starts[point] + 1, starts[point + 1]):
            result = plus_times(result, load(sums, places[k] * width, LANES, blocks), scale)
        store(values, point * LANES, plane, result)


@compiled
def blur_lines(plane: Any, order: Any, links: Any) -> None:
    """One direction of the blur, 1/2 1 1/2, in place: plane (m * 8,) of eight classes; order, links (m,) of `lines_of`.

    A line's ends have one neighbour. Following the lines, each row is read once and nothing has to be copied. Where a line
    ends, the link is 0: most lines of an image's colours are two vertices long, and a branch would be guessed wrongly there.
    """
    row = order[0] * LANES
    here = load(plane, row, LANES, (0,))
    result = here
    for k in range(1, len(order)):
        following, link = order[k] * LANES, links[k]
        after = load(plane, following, LANES, (0,))
        store(plane, row, LANES, plus_times(result, after, link))
        result = plus_times(after, here, link)
        here, row = after, following
    store(plane, row, LANES, result)


@compiled
def blur_window(plane: Any, neighbours: Any, reach: int) -> None:
    """The blur along every direction in one pass, in place: plane (m * 8,) of eight classes, neighbours (D, 2, m), -1 for none.

    No neighbour is further than `reach` points away. So the points are cut into chunks of that length, and each direction
    follows the one before at a distance of one chunk: between them lie few enough points for a cache. Directions read the
    plane and write a ring of chunks in turn, those that follow the other way round, and what the last one leaves in the
    ring is copied back.
    """
    directions, _, num = neighbours.shape
    stages = directions + directions % 2
    length = 1
    while length < (stages + 1) * reach:
        length *= 2
    ring, everywhere, around = np.empty(length * LANES, np.float32), ~0, length - 1
    for start in range(0, num + stages * reach, reach):
        for stage in range(stages):
            first = start - stage * reach
            if first < 0 or first >= num:
                continue
            stop = min(first + reach, num)
            if stage == directions:
                for i in range(first, stop):
                    store(plane, i * LANES, LANES, load(ring, (i & around) * LANES, LANES, (0,)))
            elif stage % 2:
                _blur_chunk(ring, around, neighbours[stage], first, stop, plane, everywhere)
            else:
                _blur_chunk(plane, everywhere, neighbours[stage], first, stop, ring, around)


@compiled
def _blur_chunk(
    source: Any, source_mask: int, neighbours: Any, first: int, stop: int, target: Any, target_mask: int
) -> None:
    """Points first..stop along one direction; a point's place is that part of its number which the mask leaves."""
    half = np.float32(0.5)
    for i in range(first, stop):
        row = load(source, (i & source_mask) * LANES, LANES, (0,))
        before, after = neighbours[0, i], neighbours[1, i]
        if before >= 0:
            row = plus_times(row, load(source, (before & source_mask) * LANES, LANES, (0,)), half)
        if after >= 0:
            row = plus_times(row, load(source, (after & source_mask) * LANES, LANES, (0,)), half)
        store(target, (i & target_mask) * LANES, LANES, row)


@compiled
def to_rows(planes: Any, num_classes: int, padding: Any, rows: Any) -> None:
    """Turn planes (C, n) into padded rows (n * L,); the classes beyond C hold `padding`."""
    num = planes.shape[1]
    width = len(rows) // num
    for i in range(num):
        for c in range(num_classes):
            rows[i * width + c] = planes[c, i]
        for c in range(num_classes, width):
            rows[i * width + c] = padding


@compiled
def to_planes(rows: Any, top: int, bottom: int, left: int, right: int, planes: Any) -> None:
    """Turn the padded rows (h * w * L,) of the tile top..bottom, left..right back into planes (C, H, W)."""
    width = right - left
    padded = len(rows) // ((bottom - top) * width)
    for y in range(top, bottom):
        for x in range(left, right):
            for c in range(len(planes)):
                planes[c, y, x] = rows[((y - top) * width + x - left) * padded + c]
