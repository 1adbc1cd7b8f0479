"""Vectors: the arithmetic on all classes, or on many channels, of a pixel at once, written in LLVM IR.

numba vectorizes short inner loops poorly; with these operations the CRF's main loop runs four times as fast.

How to read this file:

- A *vector* is a numba type of `num` blocks of eight numbers, `[num x <8 x float>]`, that stays in registers (LLVM cuts
  a block in two where a chip has four lanes). `num` is part of the type, so that each multiple of eight is compiled
  once. The numbers are float32 or float64, as the array that they come from; arrays of uint16 hold the bits of
  bfloat16, which becomes float32 in a vector and is rounded when it is stored.
- `load`, `store`, `plus_times` and so on are called in `crf/loops.py` and `nn/depthwise_loops.py` like functions. Each
  has two stages. Its outer body runs when numba infers the types of a loop: it receives *types* and returns the
  signature and `emit`.
- `emit` runs once per compiled loop: it receives the LLVM *values* of the arguments, in the order of the signature.
  Each call of `builder` appends one instruction to the loop. No data pass through Python; no call remains in the code.
- Helpers that begin with an underscore emit a few instructions each, for one block or for a list of blocks.
- numba's cache does not check this file for changes; `jit/compiled.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
"""Numbers per block."""

# numba has no types for these.
_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic
_declare: Callable[..., Any] = cgutils.get_or_insert_function

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_UNDEFINED = ir.Constant(_FLOATS, ir.Undefined)
_FIRST = ir.Constant(ir.IntType(32), 0)


class _Vector(types.Type):
    """The numba type of a vector of `num` blocks of float32 or float64."""

    def __init__(self, num: int, dtype: Any = types.float32) -> None:
        self.num = num
        self.block = _DOUBLES if dtype == types.float64 else _FLOATS
        super().__init__(f"pixelwise vector of {num} blocks of {'float64' if dtype == types.float64 else 'float32'}")


class _VectorModel(models.PrimitiveModel):
    """The representation of a vector in LLVM: an array of blocks."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(kind.block, kind.num))  # type: ignore[no-untyped-call]


register_model(_Vector)(_VectorModel)


@_intrinsic
def load(_: Any, array: Any, first: Any, stride: Any, blocks: Any) -> Any:
    """Return the vector of len(blocks) blocks that begin at first, first + stride, ... of a flat array."""
    vector = _Vector(len(blocks), array.dtype)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        loaded = [builder.load(address) for address in _addresses(context, builder, array, values[:3], vector)]
        for block in loaded:
            block.align = array.dtype.bitwidth // 8  # a number's own: blocks begin anywhere
        if array.dtype == types.uint16:
            # bfloat16 is the upper half of a float32.
            wide = [builder.shl(builder.zext(block, _INTEGERS), _integers(16)) for block in loaded]
            loaded = [builder.bitcast(block, _FLOATS) for block in wide]
        return _packed(builder, loaded)

    return vector(array, types.intp, types.intp, blocks), emit


@_intrinsic
def store(_: Any, array: Any, first: Any, stride: Any, vector: Any) -> Any:
    """Write a vector's blocks to first, first + stride, ... of a flat array."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        addresses = _addresses(context, builder, array, values[:3], vector)
        for block, address in zip(_unpacked(builder, values[3]), addresses, strict=True):
            number = _rounded(builder, block) if array.dtype == types.uint16 else block
            builder.store(number, address).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), emit


@_intrinsic
def zeros(_: Any, array: Any, blocks: Any) -> Any:
    """Return a vector of len(blocks) blocks of zeros, of the type that `load` returns for this array."""
    vector = _Vector(len(blocks), array.dtype)

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _packed(builder, [ir.Constant(vector.block, [0.0] * LANES)] * vector.num)

    return vector(array, blocks), emit


@_intrinsic
def plus_product(_: Any, base: Any, vector: Any, other: Any) -> Any:
    """Return base + vector * other, number by number, with one rounding where the chip has such an instruction."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        triples = zip(*(_unpacked(builder, value) for value in values), strict=True)
        return _packed(builder, [_call(builder, "fmuladd", one, two, start) for start, one, two in triples])

    return base(base, vector, other), emit


@_intrinsic
def plus_times(_: Any, base: Any, vector: Any, factor: Any) -> Any:
    """Return base + vector * factor, with one rounding where the chip has such an instruction."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pairs = zip(_unpacked(builder, values[0]), _unpacked(builder, values[1]), strict=True)
        factors = _broadcast(builder, values[2])
        return _packed(builder, [_call(builder, "fmuladd", other, factors, one) for one, other in pairs])

    return base(base, vector, types.float32), emit


@_intrinsic
def times(_: Any, vector: Any, factor: Any) -> Any:
    """Return vector * factor."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        factors = _broadcast(builder, values[1])
        return _packed(builder, [builder.fmul(block, factors) for block in _unpacked(builder, values[0])])

    return vector(vector, types.float32), emit


@_intrinsic
def plus(_: Any, vector: Any, other: Any) -> Any:
    """Return the sum of two vectors, number by number."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pairs = zip(*(_unpacked(builder, value) for value in values), strict=True)
        return _packed(builder, [builder.fadd(one, two) for one, two in pairs])

    return vector(vector, other), emit


@_intrinsic
def larger(_: Any, vector: Any, other: Any) -> Any:
    """Return the larger of two vectors, number by number; the first where they are equal."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pairs = zip(*(_unpacked(builder, value) for value in values), strict=True)
        return _packed(builder, [builder.select(builder.fcmp_ordered(">", two, one), two, one) for one, two in pairs])

    return vector(vector, other), emit


@_intrinsic
def where_larger(_: Any, vector: Any, other: Any, number: Any, otherwise: Any) -> Any:
    """Return `number` where `other` is larger than `vector`, and the numbers of the vector `otherwise` elsewhere."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        triples = zip(*(_unpacked(builder, values[i]) for i in (0, 1, 3)), strict=True)
        numbers = _broadcast(builder, values[2])
        chosen = [builder.select(builder.fcmp_ordered(">", two, one), numbers, start) for one, two, start in triples]
        return _packed(builder, chosen)

    return vector(vector, other, types.float32, otherwise), emit


@_intrinsic
def softmax(_: Any, vector: Any) -> Any:
    """Return exp of each class over the sum of all; shares below 1e-20 of the largest become 0."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def greater(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        scores = _unpacked(builder, values[0])
        top = _broadcast(builder, _folded(builder, scores, greater))
        shares = [_exponential(builder, builder.fsub(score, top)) for score in scores]
        total = _folded(builder, shares, builder.fadd)
        scale = _broadcast(builder, builder.fdiv(ir.Constant(ir.FloatType(), 1.0), total))
        return _packed(builder, [builder.fmul(share, scale) for share in shares])

    return vector(vector), emit


def _exponential(builder: Any, x: Any) -> Any:
    """Return exp(x) for x <= 0, to 1e-7 of its value; 0 below -46, where it is under 1e-20.

    Smaller ones, times a small weight, would become denormal numbers, which cost a hundredfold.
    Source: the polynomial of the Cephes library's expf (Moshier).
    """
    is_small = builder.fcmp_ordered("<", x, _constant(-46))
    x = builder.select(is_small, _constant(-46), x)
    # x = power * ln 2 + rest; 1.4427 = 1 / ln 2; ln 2 in two parts, the first exact in few bits
    power = _call(builder, "floor", _call(builder, "fmuladd", x, _constant(1.44269504), _constant(0.5)))
    rest = _call(builder, "fmuladd", power, _constant(-0.693359375), x)
    rest = _call(builder, "fmuladd", power, _constant(2.12194440e-4), rest)
    # exp(rest) = 1 + rest + rest^2 * series(rest), by Horner's rule
    series = _constant(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        series = _call(builder, "fmuladd", series, rest, _constant(factor))
    series = _call(builder, "fmuladd", series, builder.fmul(rest, rest), builder.fadd(rest, _constant(1)))
    # 2^power: the bits of the integer power + 127, moved to the exponent's place
    bits = builder.shl(builder.add(builder.fptosi(power, _INTEGERS), _integers(127)), _integers(23))
    return builder.select(is_small, _constant(0), builder.fmul(series, builder.bitcast(bits, _FLOATS)))


def _folded(builder: Any, blocks: list[Any], operation: Callable[[Any, Any], Any]) -> Any:
    """Return one float: the operation over all lanes of all blocks; the lanes by halves, 8 to 4 to 2 to 1."""
    result = blocks[0]
    for block in blocks[1:]:
        result = operation(result, block)
    half = LANES // 2
    while half:
        upper = ir.Constant(_INTEGERS, [(lane + half) % LANES for lane in range(LANES)])
        result = operation(result, builder.shuffle_vector(result, _UNDEFINED, upper))
        half //= 2
    return builder.extract_element(result, _FIRST)


def _rounded(builder: Any, block: Any) -> Any:
    """Return a block of floats as the bits of bfloat16: to the nearest, ties to even; NaN stays NaN."""
    bits = builder.bitcast(block, _INTEGERS)
    is_odd = builder.and_(builder.lshr(bits, _integers(16)), _integers(1))
    nearest = builder.lshr(builder.add(builder.add(bits, _integers(0x7FFF)), is_odd), _integers(16))
    is_nan = builder.fcmp_unordered("uno", block, block)
    return builder.trunc(builder.select(is_nan, _integers(0x7FC0), nearest), _HALVES)


def _addresses(context: Any, builder: Any, kind: Any, values: Any, vector: Any) -> list[Any]:
    """Return the addresses of a vector's blocks; values: a flat array of that kind, the first index, the stride."""
    array, first, stride = values
    block = _HALVES if kind.dtype == types.uint16 else vector.block
    data = context.make_array(kind)(context, builder, array).data
    indices = [builder.add(first, builder.mul(stride, ir.Constant(stride.type, i))) for i in range(vector.num)]
    return [builder.bitcast(builder.gep(data, [index]), block.as_pointer()) for index in indices]


def _unpacked(builder: Any, vector: Any) -> list[Any]:
    return [builder.extract_value(vector, i) for i in range(vector.type.count)]


def _packed(builder: Any, blocks: list[Any]) -> Any:
    vector = ir.Constant(ir.ArrayType(blocks[0].type, len(blocks)), ir.Undefined)
    for i, block in enumerate(blocks):
        vector = builder.insert_value(vector, block, i)
    return vector


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * LANES)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(_INTEGERS, [value] * LANES)


def _broadcast(builder: Any, value: Any) -> Any:
    """Return a block with one float in all lanes."""
    return builder.shuffle_vector(builder.insert_element(_UNDEFINED, value, _FIRST), _UNDEFINED, _integers(0))


def _call(builder: Any, name: str, *values: Any) -> Any:
    """Call one of LLVM's own functions on blocks."""
    kind = values[0].type
    signature = ir.FunctionType(kind, [kind] * len(values))
    suffix = f"v{LANES}f{64 if kind == _DOUBLES else 32}"
    return builder.call(_declare(builder.module, signature, f"llvm.{name}.{suffix}"), values)
