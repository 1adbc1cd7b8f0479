"""The loops of mean field that run over every pixel and every lattice vertex, eight classes at a time.

Rows of classes are padded to a multiple of eight. numba vectorises such short inner loops poorly, so this file opens with a
small vector type whose operations map to single instructions (LLVM cuts them in two where a chip has only four lanes): the
main loop runs 3.4 times faster than plain indexing. Both halves stay in one file, because numba's cache of compiled code
asks only the file of a function whether it has changed.

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

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_UNDEFINED = ir.Constant(_FLOATS, ir.Undefined)
_FIRST = ir.Constant(ir.IntType(32), 0)

_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic


class _VectorKind(types.Type):  # type: ignore[misc]
    """Eight floats, as compiled code sees them."""

    def __init__(self) -> None:
        super().__init__("pixelwise eight floats")


_VECTOR = _VectorKind()


class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


register_model(_VectorKind)(_VectorModel)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * LANES)


def _whole(value: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [value] * LANES)


def _spread(builder: Any, value: Any) -> Any:
    """One float into all lanes."""
    return builder.shuffle_vector(builder.insert_element(_UNDEFINED, value, _FIRST), _UNDEFINED, _whole(0))


def _call(builder: Any, name: str, *values: Any) -> Any:
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, f"llvm.{name}.v{LANES}f32"), values)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


def _folded(builder: Any, vector: Any, operation: Callable[[Any, Any], Any]) -> Any:
    """All lanes into one float, halving."""
    half = LANES // 2
    while half:
        upper = ir.Constant(_INTEGERS, [(lane + half) % LANES for lane in range(LANES)])
        vector = operation(vector, builder.shuffle_vector(vector, _UNDEFINED, upper))
        half //= 2
    return builder.extract_element(vector, _FIRST)


def _greater(builder: Any, one: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", one, other), one, other)


@_intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """Eight floats of a flat array from `index` on."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        eight = builder.load(_address(context, builder, signature.args[0], values[0], values[1]))
        eight.align = 4
        return eight

    return _VECTOR(array, types.intp), emit


@_intrinsic
def store(_: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write eight floats to a flat array from `index` on."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _address(context, builder, signature.args[0], values[0], values[1])).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), emit


@_intrinsic
def filled(_: Any, value: Any) -> Any:
    """Eight times the same float."""
    return _VECTOR(types.float32), lambda context, builder, signature, values: _spread(builder, values[0])


@_intrinsic
def plus(_: Any, one: Any, other: Any) -> Any:
    """The sums of each pair."""
    return _VECTOR(_VECTOR, _VECTOR), lambda context, builder, signature, values: builder.fadd(*values)


@_intrinsic
def plus_times(_: Any, base: Any, vector: Any, factor: Any) -> Any:
    """base + vector * factor, with one rounding where the chip has such an instruction."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call(builder, "fmuladd", values[1], _spread(builder, values[2]), values[0])

    return _VECTOR(_VECTOR, _VECTOR, types.float32), emit


@_intrinsic
def larger(_: Any, one: Any, other: Any) -> Any:
    """The larger of each pair."""
    return _VECTOR(_VECTOR, _VECTOR), lambda context, builder, signature, values: _greater(builder, *values)


@_intrinsic
def largest(_: Any, vector: Any) -> Any:
    """The largest of the eight."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _folded(builder, values[0], lambda one, other: _greater(builder, one, other))

    return types.float32(_VECTOR), emit


@_intrinsic
def total(_: Any, vector: Any) -> Any:
    """The sum of the eight."""
    return types.float32(_VECTOR), lambda context, builder, signature, values: _folded(builder, values[0], builder.fadd)


@_intrinsic
def exponential(_: Any, vector: Any, shift: Any) -> Any:
    """exp(vector - shift) for arguments up to 0, to 1e-7 of its value; 0 below -46, where it is under 1e-20.

    Smaller ones, times a small weight, would become denormal numbers, which cost a hundredfold.
    Source: the polynomial of the Cephes library's expf (Moshier).
    """

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        x = builder.fsub(values[0], _spread(builder, values[1]))
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

    return _VECTOR(_VECTOR, types.float32), emit


@compiled
def fetch(values: Any, points: Any, rows: Any) -> None:
    """Copy the lattice points' values into a band's own rows (r * L,), in the order in which its pixels first use them."""
    width = len(rows) // len(points)
    plane = len(values) // (width // LANES)
    for row in range(len(points)):
        for block in range(width // LANES):
            store(rows, row * width + block * LANES, load(values, block * plane + points[row] * LANES))


@compiled
def update(
    unary: Any, ids: Any, points: Any, weigh_in: Any, weigh_out: Any, values: Any, sums: Any, with_messages: bool, last: bool
) -> None:
    """One mean-field step of a band of pixels: gather the messages, take the softmax, spread it over the lattice again.

    unary      (n * L,) scores, log of the probabilities; `NOTHING` beyond the classes. The last step leaves Q here
    ids        (n, V) int32 rows of `sums`; points (r,) int32 the lattice point that each of them stands for
    weigh_in   (n, V) what each vertex gets of a pixel, weigh_out (n, V) what a pixel gets of each vertex
    values     (M * L,) the messages at the lattice points; not read unless `with_messages`
    sums       (r * L,) set to what this band's pixels spread; left alone in the `last` step

    One pass does what the steps of the paper's algorithm 1 do in four, so Q never goes through memory.
    """
    num, num_vertices = ids.shape
    width = len(unary) // num
    q = np.empty(width, np.float32)
    messages = np.empty(len(points) * width if with_messages else 0, np.float32)
    if with_messages:
        fetch(values, points, messages)
    if not last:
        for k in range(len(sums)):
            sums[k] = 0
    for i in range(num):
        top = filled(NOTHING)
        for o in range(0, width, LANES):
            score = load(unary, i * width + o)
            if with_messages:
                for v in range(num_vertices):
                    score = plus_times(score, load(messages, ids[i, v] * width + o), weigh_out[i, v])
            store(q, o, score)
            top = larger(top, score)
        highest, whole = largest(top), filled(np.float32(0))
        for o in range(0, width, LANES):
            share = exponential(load(q, o), highest)
            store(q, o, share)
            whole = plus(whole, share)
        scale = np.float32(1) / total(whole)
        for o in range(0, width, LANES):
            share = plus_times(filled(np.float32(0)), load(q, o), scale)
            if last:
                store(unary, i * width + o, share)
            else:
                for v in range(num_vertices):
                    row = ids[i, v] * width + o
                    store(sums, row, plus_times(load(sums, row), share, weigh_in[i, v]))


@compiled
def spread(pixels: Any, ids: Any, weights: Any, sums: Any) -> None:
    """Set sums (r * L,) to what the pixels (n * L,) give to the vertices that they lie between; ids, weights (n, V)."""
    num, num_vertices = ids.shape
    width = len(pixels) // num
    for k in range(len(sums)):
        sums[k] = 0
    for i in range(num):
        for o in range(0, width, LANES):
            share = load(pixels, i * width + o)
            for v in range(num_vertices):
                row = ids[i, v] * width + o
                store(sums, row, plus_times(load(sums, row), share, weights[i, v]))


@compiled
def gather(values: Any, ids: Any, points: Any, weights: Any, pixels: Any) -> None:
    """Set pixels (n * L,) to the weighted sum of the vertices' values (M * L,); the counterpart of `spread`."""
    num, num_vertices = ids.shape
    width = len(pixels) // num
    rows = np.empty(len(points) * width, np.float32)
    fetch(values, points, rows)
    for i in range(num):
        for o in range(0, width, LANES):
            result = filled(np.float32(0))
            for v in range(num_vertices):
                result = plus_times(result, load(rows, ids[i, v] * width + o), weights[i, v])
            store(pixels, i * width + o, result)


@compiled
def merge(sums: Any, starts: Any, places: Any, first: int, stop: int, width: int, factor: float, values: Any) -> None:
    """Add up what the bands hold of the lattice points first..stop, times `factor`, into values (M * L,).

    sums (R * L,) of all bands; point p's rows of it are places[starts[p] : starts[p + 1]].
    """
    plane = len(values) // (width // LANES)
    for point in range(first, stop):
        for block in range(width // LANES):
            result = filled(np.float32(0))
            for place in range(starts[point], starts[point + 1]):
                result = plus_times(result, load(sums, places[place] * width + block * LANES), np.float32(factor))
            store(values, block * plane + point * LANES, result)


@compiled
def blur(plane: Any, order: Any) -> None:
    """One direction of the blur, 1/2 1 1/2, in place: plane (M * 8,) of eight classes, order (m,) of `lines_along`.

    A line's ends have one neighbour. Following the lines, each row is read once and nothing has to be copied.
    """
    before = filled(np.float32(0))
    here = before
    row = -1
    for place in range(len(order)):
        following = order[place]
        if following < 0:  # a new line: the last one ends here
            if row >= 0:
                store(plane, row, plus_times(here, before, np.float32(0.5)))
            row = (-1 - following) * LANES
            before, here = filled(np.float32(0)), load(plane, row)
        else:
            after = load(plane, following * LANES)
            store(plane, row, plus_times(here, plus(before, after), np.float32(0.5)))
            before, here, row = here, after, following * LANES
    store(plane, row, plus_times(here, before, np.float32(0.5)))


@compiled
def to_rows(planes: Any, num_classes: int, padding: float, rows: Any) -> None:
    """Turn planes (C, n) into padded rows (n * L,); the classes beyond C hold `padding`."""
    num = planes.shape[1]
    width = len(rows) // num
    for i in range(num):
        for c in range(num_classes):
            rows[i * width + c] = planes[c, i]
        for c in range(num_classes, width):
            rows[i * width + c] = padding


@compiled
def to_planes(rows: Any, planes: Any) -> None:
    """Turn padded rows (n * L,) back into planes (C, n)."""
    num_classes, num = planes.shape
    width = len(rows) // num
    for i in range(num):
        for c in range(num_classes):
            planes[c, i] = rows[i * width + c]
