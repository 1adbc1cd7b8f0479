"""Read a quantized `.tflite` file: the operators and tensors of its one graph, and the numbers that it holds.

The tables of the file (FlatBuffers) are read by the package `tflite`, which flatc generates from TensorFlow's schema,
on Google's runtime `flatbuffers`. Python checks every access, so that a damaged offset is an error and never a crash;
what they do not check is checked here: counts before a loop, indices, and the number of bytes of a tensor.

Source: tensorflow/tensorflow, `tensorflow/compiler/mlir/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import importlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError, ResourceError, shown
from .safe_open import map_file

TFLITE_ENDING = ".tflite"
INSTALL = "pip install 'pixelwise[tflite]'"

# Far beyond MobileNetV2's 72 operators and 186 tensors: limits that refuse malicious files before time runs out.
MAX_TENSORS = 4000
MAX_OPERATORS = 2000
MAX_INPUTS = 64
MAX_SCALES = 10_000
MAX_AXES = 8
_MARK = b"TFL3"
_VERSION = 3
_NO_TENSOR = -1  # the input that an operator leaves out

# Types of quantized tensors. Biases are INT32.
_DTYPES = {"UINT8": "<u1", "INT8": "<i1", "INT32": "<i4"}
# What the packages raise where an offset or a length leaves the file, or a table that must be there is not.
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)
# The options of each operator that an import compares, by the schema's names.
_CONV = ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction")
_OPTIONS = {
    "CONV_2D": ("Conv2DOptions", _CONV),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_CONV, "DepthMultiplier")),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", ("FusedActivationFunction",)),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
}


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor: its shape (images are B, H, W, C) and type ("UINT8", ...), and how its integers are read.

    A number is scale * (q - zero_point), with one scale and zero point, or one per index along `axis`.

    values  the integers q, a read-only view of the file; None for what an operator computes, and for other types
    """

    shape: tuple[int, ...]
    type: str
    values: NDArray[Any] | None
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int


@dataclass(frozen=True)
class TfliteOperator:
    """One operator: its position in the file, kind ("CONV_2D", ...), tensors by index, and options by schema name."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class TfliteGraph:
    """The graph of a file: its tensors, its operators in the order of execution, and the tensors of its ends."""

    path: Path
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def numbers(self, index: int) -> NDArray[np.float32]:
        """Return the numbers of a tensor that the file holds. Raises CheckpointError for any other tensor."""
        tensor = self.tensors[index]
        if tensor.values is None or len(tensor.scale) == 0:
            what = f"tensor {index}: expected quantized numbers, got {tensor.type} without them"
            raise CheckpointError(self.path, what, "pass a quantized file")
        along = [1] * len(tensor.shape)
        if len(tensor.scale) > 1:
            along[tensor.axis] = len(tensor.scale)
        # In double precision both steps are exact; the product is rounded once. Too large a scale gives infinity,
        # which no network takes.
        scale = tensor.scale.astype(np.float64).reshape(along)
        zero_point = tensor.zero_point.astype(np.float64).reshape(along)
        with np.errstate(over="ignore", invalid="ignore"):
            return (scale * (tensor.values - zero_point)).astype(np.float32)


def read_tflite(path: str | Path) -> TfliteGraph:
    """Return the graph of a file.

    Raises CheckpointError for a file that is damaged, of another version, or holds several graphs; ResourceError
    without the package `tflite`.
    """
    try:
        tflite = importlib.import_module("tflite")
    except ImportError as error:
        raise ResourceError("tflite", f"cannot be imported: {error}", INSTALL) from error
    path, data = Path(path), map_file(path)
    if data[4:8] != _MARK:
        what = f"expected {shown(_MARK)} at byte 4 of a TensorFlow Lite file, got {shown(data[4:8])}"
        raise CheckpointError(path, what, "pass the .tflite file itself")
    try:
        return _Reader(path, tflite, data).graph()
    except _DAMAGE:
        what = f"damaged: its tables do not fit into its {len(data)} bytes"
        raise CheckpointError(path, what, "download it again") from None


class _Reader:
    """The tables of an opened file, and what is checked while they are read."""

    def __init__(self, path: Path, tflite: ModuleType, data: mmap.mmap) -> None:
        self.path = path
        self.tflite = tflite
        self.data = data
        self.model = tflite.Model.GetRootAsModel(data, 0)
        self.names = {
            enumeration: {value: name for name, value in vars(vars(tflite)[enumeration]).items() if name[0] != "_"}
            for enumeration in ("TensorType", "BuiltinOperator", "ActivationFunctionType")
        }

    def graph(self) -> TfliteGraph:
        version, num_graphs = self.model.Version(), self.model.SubgraphsLength()
        if version != _VERSION:
            what = f"expected version {_VERSION} of TensorFlow Lite's schema, got {version}"
            raise CheckpointError(self.path, what, "convert the network again with a present TensorFlow")
        if num_graphs != 1:
            raise CheckpointError(self.path, f"expected one graph, got {num_graphs}", "convert the network alone")
        graph = self.model.Subgraphs(0)
        num_tensors = self.bounded("tensors", graph.TensorsLength(), MAX_TENSORS)
        num_operators = self.bounded("operators", graph.OperatorsLength(), MAX_OPERATORS)
        return TfliteGraph(
            self.path,
            tuple(self.tensor(graph.Tensors(i), i) for i in range(num_tensors)),
            tuple(self.operator(graph.Operators(i), i, num_tensors) for i in range(num_operators)),
            self.indices(graph.InputsAsNumpy(), num_tensors, "the graph"),
            self.indices(graph.OutputsAsNumpy(), num_tensors, "the graph"),
        )

    def tensor(self, table: Any, index: int) -> TfliteTensor:
        where = f"tensor {index}"
        shape = tuple(int(axis) for axis in self.limited(table.ShapeAsNumpy(), MAX_AXES, f"{where}: axes"))
        kind = self.named("TensorType", table.Type())
        buffer = self.model.Buffers(self.below(table.Buffer(), self.model.BuffersLength(), f"{where}: buffer"))
        held = self.limited(buffer.DataAsNumpy(), len(self.data), f"{where}: bytes")
        values: NDArray[Any] | None = None
        if len(held) and kind in _DTYPES:
            dtype = np.dtype(_DTYPES[kind])
            if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != len(held):
                what = f"{where}: expected the bytes of {kind} {shown(shape)}, got {len(held)} bytes"
                raise CheckpointError(self.path, what, "download it again")
            values = np.frombuffer(held, dtype).reshape(shape)
        quantization = table.Quantization()
        scale, zero_point, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        if quantization is not None:
            scale = self.limited(quantization.ScaleAsNumpy(), MAX_SCALES, f"{where}: scales")
            zero_point = self.limited(quantization.ZeroPointAsNumpy(), MAX_SCALES, f"{where}: zero points")
            axis = quantization.QuantizedDimension()
        if len(zero_point) == 0:
            zero_point = np.zeros(len(scale), np.int64)
        fits = len(scale) <= 1 or (0 <= axis < len(shape) and len(scale) == shape[axis])
        if not fits or len(zero_point) != len(scale) or not bool((np.isfinite(scale) & (scale > 0)).all()):
            what = f"{where}: expected a positive scale and a zero point, or those of each index of one axis"
            raise CheckpointError(self.path, f"{what}, got {len(scale)} and {len(zero_point)}", "download it again")
        return TfliteTensor(shape, kind, values, scale, zero_point, axis)

    def operator(self, table: Any, index: int, num_tensors: int) -> TfliteOperator:
        where = f"operator {index}"
        code = self.model.OperatorCodes(
            self.below(table.OpcodeIndex(), self.model.OperatorCodesLength(), f"{where}: code")
        )
        # Codes up to 127 stand in an older field of one byte; files of newer converters fill both.
        kind = self.named("BuiltinOperator", max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        options = {}
        if kind in _OPTIONS:
            name, fields = _OPTIONS[kind]
            if table.BuiltinOptionsType() != vars(self.tflite.BuiltinOptions)[name]:
                what = f"{where} ({kind}): expected {name}, got options of type {table.BuiltinOptionsType()}"
                raise CheckpointError(self.path, what, "download it again")
            union, found = table.BuiltinOptions(), vars(self.tflite)[name]()
            found.Init(union.Bytes, union.Pos)
            options = {field: getattr(found, field)() for field in fields}
        if "FusedActivationFunction" in options:
            activation = self.named("ActivationFunctionType", options["FusedActivationFunction"])
            options["FusedActivationFunction"] = activation
        inputs = self.indices(table.InputsAsNumpy(), num_tensors, where)
        return TfliteOperator(index, kind, inputs, self.indices(table.OutputsAsNumpy(), num_tensors, where), options)

    def indices(self, values: Any, count: int, where: str) -> tuple[int, ...]:
        """Return the indices of an operator's tensors, each below `count`; an input that is left out is -1."""
        found = tuple(int(value) for value in self.limited(values, MAX_INPUTS, f"{where}: tensors"))
        return tuple(value if value == _NO_TENSOR else self.below(value, count, f"{where}: tensor") for value in found)

    def limited(self, values: Any, limit: int, what: str) -> NDArray[Any]:
        """Return an array of the packages, or an empty one for the 0 that they return for a missing array."""
        found: NDArray[Any] = np.zeros(0, np.int64) if isinstance(values, int) else values
        self.bounded(what, len(found), limit)
        return found

    def bounded(self, what: str, count: int, limit: int) -> int:
        if not 0 <= count <= limit:
            raise CheckpointError(self.path, f"{what}: must be at most {limit}, got {count}", "download it again")
        return count

    def below(self, value: int, count: int, what: str) -> int:
        if not 0 <= value < count:
            raise CheckpointError(self.path, f"{what}: must be below {count}, got {value}", "download it again")
        return value

    def named(self, enumeration: str, value: int) -> str:
        """Return the schema's name of a value, such as "CONV_2D"; a value that it lacks as text."""
        return str(self.names[enumeration].get(value, value))
