"""A writer of `.tflite` files for the tests, with DeepLab v3 on MobileNetV2 as Google's files hold it, and its float
reading in NumPy.

The network is written down from the papers' tables, and computed from the graph of this file, so that neither knows the
reader or the network under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

DTYPES = {"UINT8": np.uint8, "INT8": np.int8, "INT32": np.int32, "FLOAT32": np.float32}
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "ARG_MAX": "ArgMaxOptions",
    "MUL": "MulOptions",
}
# Expansion, channels, repeats and stride of table 2 of the MobileNetV2 paper.
TABLE_2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass
class Tensor:
    """A tensor; `values` are its integers. `buffer` and `data` replace what the file says about its bytes."""

    shape: tuple[int, ...]
    type: str = "UINT8"
    values: NDArray[Any] | None = None
    scale: tuple[float, ...] = (0.1,)
    zero_point: tuple[int, ...] = (0,)
    axis: int = 0
    buffer: int | None = None
    data: bytes | None = None

    def numbers(self) -> NDArray[np.float64]:
        """Return scale * (q - zero_point), index by index of the axis."""
        assert self.values is not None
        q = np.moveaxis(self.values.astype(np.float64), self.axis, -1)
        zero_point = np.array(self.zero_point, np.float64)
        return np.moveaxis(np.array(self.scale, np.float32).astype(np.float64) * (q - zero_point), -1, self.axis)


@dataclass
class Operator:
    """An operator; options have the schema's names. `code` replaces the index of its kind."""

    kind: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, Any]
    code: int | None = None
    options_type: str = ""


@dataclass
class Graph:
    """A graph that can be written, changed and computed."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    version: int = 3
    copies: int = 1
    scores: int = -1

    def tensor(self, *args: Any, **fields: Any) -> int:
        self.tensors.append(Tensor(*args, **fields))
        return len(self.tensors) - 1

    def add(self, kind: str, inputs: list[int], shape: tuple[int, ...], **options: Any) -> int:
        output = self.tensor(shape)
        self.operators.append(Operator(kind, inputs, [output], options))
        return output

    def of_kind(self, kind: str) -> list[Operator]:
        return [operator for operator in self.operators if operator.kind == kind]

    def run(self, image: NDArray[np.uint8]) -> dict[int, NDArray[np.float64]]:
        """Return every computed tensor for an image (H, W, 3), as real numbers (h, w, channels)."""
        pixels = self.tensors[self.inputs[0]]
        found = {self.inputs[0]: pixels.scale[0] * (image.astype(np.float64) - pixels.zero_point[0])}
        for operator in self.operators:
            x, options = found[operator.inputs[0]], operator.options
            match operator.kind:
                case "CONV_2D" | "DEPTHWISE_CONV_2D":
                    weight, bias = (self.tensors[i].numbers() for i in operator.inputs[1:])
                    y = activated(convolved(x, weight, options, operator.kind[0] == "D") + bias, options)
                case "ADD":
                    y = x + found[operator.inputs[1]]
                case "AVERAGE_POOL_2D":
                    y = x.mean((0, 1), keepdims=True)
                case "RESIZE_BILINEAR":
                    y = resized(x, self.tensors[operator.outputs[0]].shape[1:3])
                case "CONCATENATION":
                    y = np.concatenate([found[i] for i in operator.inputs], axis=2)
                case "ARG_MAX":
                    y = x.argmax(2).astype(np.float64)
                case _:
                    y = x
            found[operator.outputs[0]] = y
        return found

    def write(self, mark: bytes = b"TFL3", rng: np.random.Generator | None = None) -> bytes:
        """Return the file; with `rng`, its tensors lie in another order than they are computed in."""
        return written(self, mark, rng or np.random.default_rng(0))


def activated(x: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
    kind = options["FusedActivationFunction"]
    return x if kind == 0 else np.clip(x, 0, 6 if kind == tflite.ActivationFunctionType.RELU6 else None)


def convolved(
    x: NDArray[np.float64], weight: NDArray[np.float64], options: dict[str, Any], depthwise: bool
) -> NDArray[np.float64]:
    """Return a convolution with TensorFlow's SAME padding, summed kernel position by kernel position."""
    stride, dilation = options["StrideH"], options["DilationHFactor"]
    _, height, width, _ = weight.shape
    sizes = [ceil(size / stride) for size in x.shape[:2]]
    pads = [
        max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        for out, kernel, size in zip(sizes, (height, width), x.shape, strict=False)
    ]
    padded = np.pad(x, [*((pad // 2, pad - pad // 2) for pad in pads), (0, 0)])
    y = np.zeros((*sizes, weight.shape[3 if depthwise else 0]))
    for i in range(height):
        for j in range(width):
            rows = slice(i * dilation, i * dilation + (sizes[0] - 1) * stride + 1, stride)
            columns = slice(j * dilation, j * dilation + (sizes[1] - 1) * stride + 1, stride)
            part = padded[rows, columns]
            y += part * weight[0, i, j] if depthwise else part @ weight[:, i, j].T
    return y


def resized(x: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a bilinear resize with aligned corners."""
    for axis, out in enumerate(size):
        at = np.linspace(0, x.shape[axis] - 1, out)
        low = np.minimum(at.astype(int), x.shape[axis] - 1)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


class DeepLab:
    """Draws DeepLab v3 on MobileNetV2, operator by operator, with random quantized weights."""

    def __init__(self, rng: np.random.Generator, *, per_channel: bool) -> None:
        self.rng = rng
        self.per_channel = per_channel
        self.graph = Graph()

    def conv(self, x: int, channels: int, kernel: int = 1, *, activation: int = 0, stride: int = 1, dilation: int = 1,
             depthwise: bool = False) -> int:  # fmt: skip
        _, height, width, inputs = self.graph.tensors[x].shape
        shape = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, inputs)
        numbers = self.rng.normal(0, (2 / (kernel * kernel * (1 if depthwise else inputs))) ** 0.5, shape)
        axis = 3 if depthwise else 0
        if self.per_channel:
            peak = np.abs(numbers).max(tuple(a for a in range(4) if a != axis), keepdims=True)
            weight = self.graph.tensor(
                shape, "INT8", np.round(numbers / peak * 127).astype(np.int8), tuple(peak.reshape(-1) / 127),
                (0,) * channels, axis,
            )  # fmt: skip
            bias_scale = tuple(peak.reshape(-1) / 127 * 0.05)
        else:
            scale = float(np.ptp(numbers)) / 255
            zero_point = int(np.round(-numbers.min() / scale))
            values = np.clip(np.round(numbers / scale) + zero_point, 0, 255).astype(np.uint8)
            weight = self.graph.tensor(shape, "UINT8", values, (scale,), (zero_point,))
            bias_scale = (scale * 0.05,)
        values = self.rng.integers(-300, 300, channels, dtype=np.int32)
        bias = self.graph.tensor((channels,), "INT32", values, bias_scale, (0,) * len(bias_scale))
        options = {
            "Padding": 0, "StrideH": stride, "StrideW": stride, "DilationHFactor": dilation,
            "DilationWFactor": dilation, "FusedActivationFunction": activation,
        }  # fmt: skip
        options |= {"DepthMultiplier": 1} if depthwise else {}
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        out = (1, ceil(height / stride), ceil(width / stride), channels)
        return self.graph.add(kind, [x, weight, bias], out, **options)

    def resize(self, x: int, size: int) -> int:
        shape = (1, size, size, self.graph.tensors[x].shape[3])
        sizes = self.graph.tensor((2,), "INT32", np.full(2, size, np.int32), (), ())
        return self.graph.add("RESIZE_BILINEAR", [x, sizes], shape, AlignCorners=True)


def deeplab(
    rng: np.random.Generator,
    *,
    width_mult: float,
    head: int,
    num_classes: int,
    size: int = 33,
    output_stride: int = 16,
    per_channel: bool = False,
    pooling_first: bool = True,
    labels: bool = True,
) -> Graph:
    """Return the graph of the released network: the paper's table 2 by `width_mult`, then a head of `head` channels.

    Channels are rounded to whole numbers (at width 1, all are multiples of 8), the expanded ones to multiples of 8. The
    rest is the layout of Google's files.
    """
    relu, relu6 = tflite.ActivationFunctionType.RELU, tflite.ActivationFunctionType.RELU6
    net = DeepLab(rng, per_channel=per_channel)
    graph = net.graph
    x = graph.tensor((1, size, size, 3), "UINT8", None, (1 / 128,), (128,))
    graph.inputs = [x]
    x = net.conv(x, divisible(32 * width_mult, 1), 3, activation=relu6, stride=2)
    stride, dilation, channels = 2, 1, divisible(32 * width_mult, 1)
    for expansion, base, repeats, stage_stride in TABLE_2:
        for repeat in range(repeats):
            start, step, rate = x, 1, dilation
            nominal = stage_stride if repeat == 0 else 1
            if nominal == 2 and stride == output_stride:
                dilation *= 2
            elif nominal == 2:
                step, stride = 2, stride * 2
            if expansion > 1:
                channels = divisible(channels * expansion, 8)
                x = net.conv(x, channels, activation=relu6)
            x = net.conv(x, channels, 3, activation=relu6, stride=step, dilation=rate, depthwise=True)
            channels = divisible(base * width_mult, 1)
            x = net.conv(x, channels)
            if nominal == 1 and graph.tensors[start].shape == graph.tensors[x].shape:
                x = graph.add("ADD", [x, start], graph.tensors[x].shape)
    pooled = graph.add("AVERAGE_POOL_2D", [x], (1, 1, 1, channels))
    branch = net.conv(x, head, activation=relu)
    shape = graph.tensors[branch].shape
    pooled = graph.add("QUANTIZE", [net.resize(net.conv(pooled, head, activation=relu), shape[1])], shape)
    halves = [pooled, branch] if pooling_first else [branch, pooled]
    x = graph.add("CONCATENATION", halves, (*shape[:3], 2 * head), Axis=3)
    graph.scores = x = net.conv(net.conv(x, head, activation=relu), num_classes)
    x = net.resize(net.resize(x, shape[1]), size)
    if labels:
        dimension = graph.tensor((), "INT32", np.array(3, np.int32), (), ())
        x = graph.add("ARG_MAX", [x, dimension], (1, size, size))
    graph.outputs = [x]
    return graph


def divisible(value: float, divisor: int) -> int:
    """Return the rounding of slim's MobileNets: to a multiple, not below 90 % of the value."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def written(graph: Graph, mark: bytes, rng: np.random.Generator) -> bytes:
    """Return the bytes of a file with `graph.copies` times the graph."""
    builder = flatbuffers.Builder(1 << 16)
    place = [int(i) for i in rng.permutation(len(graph.tensors))]  # tensor -> its index in the file
    held = [tensor.data if tensor.data is not None else _bytes(tensor) for tensor in graph.tensors]
    buffers = []
    for data in [b"", *held]:
        vector = builder.CreateByteVector(data)
        tflite.BufferStart(builder)
        tflite.BufferAddData(builder, vector)
        buffers.append(tflite.BufferEnd(builder))
    tensors = [_tensor(builder, tensor, i + 1) for i, tensor in enumerate(graph.tensors)]
    order = sorted(range(len(tensors)), key=lambda i: place[i])
    moved = [place[i] if 0 <= i < len(place) else i for i in range(len(place))]

    def indices(values: list[int]) -> int:
        numbers = np.array([moved[i] if 0 <= i < len(moved) else i for i in values], np.int32)
        return int(builder.CreateNumpyVector(numbers))

    kinds = list(dict.fromkeys(operator.kind for operator in graph.operators))
    operators = []
    for operator in graph.operators:
        options = _options(builder, operator)
        inputs, outputs = indices(operator.inputs), indices(operator.outputs)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, kinds.index(operator.kind) if operator.code is None else operator.code)
        tflite.OperatorAddInputs(builder, inputs)
        tflite.OperatorAddOutputs(builder, outputs)
        if options:
            name = operator.options_type or OPTIONS[operator.kind]
            tflite.OperatorAddBuiltinOptionsType(builder, vars(tflite.BuiltinOptions)[name])
            tflite.OperatorAddBuiltinOptions(builder, options)
        operators.append(tflite.OperatorEnd(builder))
    codes = []
    for kind in kinds:
        tflite.OperatorCodeStart(builder)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, vars(tflite.BuiltinOperator)[kind])
        tflite.OperatorCodeAddBuiltinCode(builder, vars(tflite.BuiltinOperator)[kind])
        codes.append(tflite.OperatorCodeEnd(builder))
    inputs, outputs = indices(graph.inputs), indices(graph.outputs)
    tensor_vector, operator_vector = _tables(builder, [tensors[i] for i in order]), _tables(builder, operators)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensor_vector)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, operator_vector)
    subgraph = tflite.SubGraphEnd(builder)
    vectors = [_tables(builder, tables) for tables in (codes, [subgraph] * graph.copies, buffers)]
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, graph.version)
    tflite.ModelAddOperatorCodes(builder, vectors[0])
    tflite.ModelAddSubgraphs(builder, vectors[1])
    tflite.ModelAddBuffers(builder, vectors[2])
    builder.Finish(tflite.ModelEnd(builder), file_identifier=mark)
    return bytes(builder.Output())


def _bytes(tensor: Tensor) -> bytes:
    return b"" if tensor.values is None else np.ascontiguousarray(tensor.values, DTYPES[tensor.type]).tobytes()


def _tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    shape = builder.CreateNumpyVector(np.array(tensor.shape, np.int32))
    scale = builder.CreateNumpyVector(np.array(tensor.scale, np.float32))
    zero_point = builder.CreateNumpyVector(np.array(tensor.zero_point, np.int64))
    tflite.QuantizationParametersStart(builder)
    tflite.QuantizationParametersAddScale(builder, scale)
    tflite.QuantizationParametersAddZeroPoint(builder, zero_point)
    tflite.QuantizationParametersAddQuantizedDimension(builder, tensor.axis)
    quantization = tflite.QuantizationParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, shape)
    tflite.TensorAddType(builder, vars(tflite.TensorType)[tensor.type])
    tflite.TensorAddBuffer(builder, buffer if tensor.buffer is None else tensor.buffer)
    tflite.TensorAddQuantization(builder, quantization)
    return int(tflite.TensorEnd(builder))


def _options(builder: Any, operator: Operator) -> int:
    name = OPTIONS.get(operator.kind)
    if name is None:
        return 0
    functions = vars(tflite)
    functions[f"{name}Start"](builder)
    for option, value in operator.options.items():
        functions[f"{name}Add{option}"](builder, value)
    return int(functions[f"{name}End"](builder))


def _tables(builder: Any, tables: list[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())
