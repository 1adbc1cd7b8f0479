"""Google's quantized DeepLab v3 on MobileNetV2 (`.tflite`) into `deeplabv3plus_mobilenetv2`.

The files hold the whole network for uint8 images, with all norms folded into the convolutions (quantization-aware
training); names say little after the conversion. So the graph is followed from the image along the network: each
convolution must have the stride, dilation, activation and size of ours, and no operator may be left over.

What differs from our network: kernels are (out, h, w, in), and (1, h, w, channels) where depthwise; the projection of
the head reads the image pooling first, then the 1x1 branch; the image is (x - 128) / 128.

Source: tensorflow/models, research/deeplab: `g3doc/quantize.md`, `model.py`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...backbones.mobilenetv2 import STAGES, InvertedResidual, MobileNetV2
from ...errors import CheckpointError, ConfigError, listed
from ...models import ModelSpec
from ...models.deeplabv3plus import DeepLabV3Plus
from .load import Imported, KeyMapping, Request, SourceArray, WeightFile, load_mapped
from .tflite import TfliteGraph, TfliteOperator, TfliteTensor, read_tflite

NETWORK = "deeplabv3plus_mobilenetv2"
FIX = "import a quantized DeepLab v3 on MobileNetV2, such as deeplabv3_mnv2_pascal_quant.tflite"
# Channels of the network at width 1: of the last feature map, and of the head.
LAST_CHANNELS, HEAD_CHANNELS = STAGES[-1][1], 256
# No published width is beyond 1.4; a made file must not ask for a network that exhausts the memory.
MAX_WIDTH_MULT = 2.0

Activation = Literal["NONE", "RELU", "RELU6"]


def import_tflite(path: str | Path, request: Request) -> Imported:
    """Build the network of a file and load its numbers; width, output stride, classes and pixels are the file's.

    Raises CheckpointError for a damaged file and for another network, ConfigError for another name, ResourceError
    without the package `tflite`.
    """
    if request.name != NETWORK:
        raise ConfigError(request.name, f"a .tflite file fits {NETWORK} alone", f"import it as {NETWORK}")
    walk = _Walk(read_tflite(path))
    num_classes, options = walk.find_options()
    options |= request.options
    spec = ModelSpec(NETWORK, request.num_classes or num_classes, request.in_channels or 3, options)
    model = spec.build()
    assert isinstance(model, DeepLabV3Plus)
    walk.follow(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            # The folded norm adds its bias alone: weight 1, mean 0 (both fresh), and a deviation of 1.
            module.running_var.fill_(1 - module.eps)
    file = WeightFile(walk.graph.path, walk.arrays)
    report = load_mapped(model, file, KeyMapping(walk.moves, fresh=walk.folded), FIX)
    # Nothing of a folded norm is left to train before use.
    return Imported(model.eval(), model.spec, replace(report, fresh=()))


@dataclass
class _Layer:
    """A convolution of our network, by its state name, with the norm and the activation that follow it."""

    name: str
    conv: nn.Conv2d
    norm: str = ""
    activation: Activation = "NONE"


def _layers(model: nn.Module, prefix: str) -> list[_Layer]:
    """Return the convolutions of a submodule in the order of execution."""
    layers: list[_Layer] = []
    for name, module in model.get_submodule(prefix).named_modules(prefix=prefix):
        if isinstance(module, nn.Conv2d):
            layers.append(_Layer(name, module))
        elif isinstance(module, nn.BatchNorm2d):
            layers[-1].norm = name
        elif isinstance(module, (nn.ReLU, nn.ReLU6)):
            layers[-1].activation = "RELU6" if isinstance(module, nn.ReLU6) else "RELU"
    return layers


class _Walk:
    """Follows a graph along our network: every operator has its place, or the file is refused.

    arrays  numbers of the file: "operators.5.weight" and "operators.5.bias", of the convolution in position 5
    moves   state name of the network -> array name
    folded  state names of the norms that the file folded into its convolutions
    """

    def __init__(self, graph: TfliteGraph) -> None:
        self.graph = graph
        self.arrays: dict[str, SourceArray] = {}
        self.moves: dict[str, str] = {}
        self.folded: list[str] = []
        self.left = {operator.index: operator for operator in graph.operators}
        self.readers: defaultdict[int, list[TfliteOperator]] = defaultdict(list)
        for operator in graph.operators:
            for tensor in dict.fromkeys(operator.inputs):
                self.readers[tensor].append(operator)

    def refused(self, what: str) -> CheckpointError:
        return CheckpointError(self.graph.path, f"not DeepLab v3 on MobileNetV2: {what}", FIX)

    def find_options(self) -> tuple[int, dict[str, Any]]:
        """Return the number of classes, and the options of our network that the graph's sizes give."""
        convs = [operator for operator in self.graph.operators if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
        pools = [operator for operator in self.graph.operators if operator.kind == "AVERAGE_POOL_2D"]
        after = [reader for pool in pools for x in pool.outputs for reader in self.readers[x] if reader in convs]
        if len(after) != 1 or len(self.graph.inputs) != 1:
            raise self.refused(f"expected one image and one image pooling, got {_kinds(self.graph)}")
        # The 1x1 after the image pooling has the head's channels and those of the backbone.
        head, *_, features = self.tensor(after[0], 1).shape or (0,)
        width_mult, head_width_mult = features / LAST_CHANNELS, head / HEAD_CHANNELS
        if not 0 < width_mult <= MAX_WIDTH_MULT or not 0 < head_width_mult <= MAX_WIDTH_MULT:
            raise self.refused(
                f"expected about {LAST_CHANNELS} and {HEAD_CHANNELS} channels, got {features} and {head}"
            )
        output_stride = prod(conv.options["StrideH"] for conv in convs)
        if output_stride not in (8, 16, 32):
            raise self.refused(f"expected an output stride of 8, 16 or 32, got {output_stride}")
        image = self.graph.tensors[self.graph.inputs[0]]
        if image.type != "UINT8" or image.shape[:1] != (1,) or image.shape[3:] != (3,) or len(image.scale) != 1:
            raise self.refused(f"expected a quantized UINT8 image of 1xHxWx3, got {image.type} {_size(image.shape)}")
        # A pixel x stands for scale * (x - zero_point): 1/128 and 128 in Google's files.
        mean, std = float(image.zero_point[0]), 1 / float(image.scale[0])
        options = {"output_stride": output_stride, "width_mult": width_mult, "head_width_mult": head_width_mult}
        preprocessing = {"order": "rgb", "mean": [mean] * 3, "std": [std] * 3}
        num_classes = (self.tensor(convs[-1], 1).shape or (0,))[0]
        return max(1, num_classes), options | {"preprocessing": preprocessing}

    def follow(self, model: DeepLabV3Plus) -> None:
        """Give each convolution of the network its numbers. Raises CheckpointError where the graph is another."""
        backbone = model.backbone
        assert isinstance(backbone, MobileNetV2)
        x = self.graph.inputs[0]
        for position, block in enumerate(backbone.features):
            start = x
            for layer in _layers(model, f"backbone.features.{position}"):
                x = self.conv(x, layer)
            if isinstance(block, InvertedResidual) and block.has_shortcut:
                x = self.add(start, x)
        (branch_layer,), (pooling_layer,), (project_layer,), (score_layer,) = (
            _layers(model, prefix) for prefix in ("aspp.branches.0", "aspp.pooling", "aspp.project", "score")
        )
        branch = self.requantized(self.conv(x, branch_layer))
        pooled = self.requantized(self.resize(self.conv(self.pool(x), pooling_layer)))
        concatenation = self.take(branch, "CONCATENATION")
        if sorted(concatenation.inputs) != sorted((branch, pooled)) or concatenation.options["Axis"] not in (3, -1):
            raise self.refused(f"operator {concatenation.index}: expected image pooling and 1x1 branch, concatenated")
        # In our network the 1x1 branch stands first.
        swapped = concatenation.inputs[0] == pooled
        x = self.conv(self.output(concatenation), project_layer, swap_halves=swapped)
        x = self.conv(x, score_layer)
        while self.readers[x] and self.readers[x][0].kind == "RESIZE_BILINEAR":
            x = self.resize(x)
        if self.readers[x]:
            x = self.output(self.take(x, "ARG_MAX"))
        if self.left:
            left = listed(f"operator {operator.index} ({operator.kind})" for operator in self.left.values())
            raise self.refused(f"{left} without a place in the network")
        if self.graph.outputs != (x,):
            raise self.refused(f"expected the labels or the class scores as the output, got {self.graph.outputs}")

    def take(self, x: int, kind: str) -> TfliteOperator:
        """Return the operator of a kind that reads tensor `x`; each operator is taken once."""
        found = [operator for operator in self.readers[x] if operator.kind == kind and operator.index in self.left]
        if len(found) != 1:
            others = listed(f"{operator.kind} ({operator.index})" for operator in self.readers[x]) or "none"
            raise self.refused(f"expected one {kind} that reads tensor {x}, got the operators {others}")
        if found[0].options.get("FusedActivationFunction", "NONE") != "NONE" and "CONV" not in kind:
            raise self.refused(f"operator {found[0].index} ({kind}): expected no activation")
        return self.left.pop(found[0].index)

    def output(self, operator: TfliteOperator) -> int:
        """Return the one tensor that an operator writes."""
        if len(operator.outputs) != 1 or operator.outputs[0] < 0:
            raise self.refused(f"operator {operator.index} ({operator.kind}): expected one output")
        return operator.outputs[0]

    def tensor(self, operator: TfliteOperator, position: int) -> TfliteTensor:
        """Return an input of an operator that must be in the file, such as the weight of a convolution (1)."""
        if len(operator.inputs) <= position or operator.inputs[position] < 0:
            what = f"expected more than {position} inputs, got {operator.inputs}"
            raise self.refused(f"operator {operator.index} ({operator.kind}): {what}")
        return self.graph.tensors[operator.inputs[position]]

    def conv(self, x: int, layer: _Layer, *, swap_halves: bool = False) -> int:
        """Give a convolution its weight and bias, and return the tensor that it writes."""
        conv = layer.conv
        depthwise = conv.groups > 1
        operator = self.take(x, "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D")
        outputs, inputs, height, width = conv.weight.shape
        weight, bias = self.tensor(operator, 1), self.tensor(operator, 2)
        expected = {
            "weight": (1, height, width, outputs) if depthwise else (outputs, height, width, inputs),
            "bias": (outputs,),
            "stride": conv.stride,
            "dilation": conv.dilation,
            "activation": layer.activation,
            "padding": 0,  # SAME
            "multiplier": 1,
        }
        options = operator.options
        got = {
            "weight": weight.shape,
            "bias": bias.shape,
            "stride": (options["StrideH"], options["StrideW"]),
            "dilation": (options["DilationHFactor"], options["DilationWFactor"]),
            "activation": options["FusedActivationFunction"],
            "padding": options["Padding"],
            "multiplier": options.get("DepthMultiplier", 1),
        }
        wrong = [f"{key} {expected[key]}, got {got[key]}" for key in expected if expected[key] != got[key]]
        if operator.inputs[0] != x or wrong:
            what = wrong[0] if wrong else f"the image from tensor {x}, got tensor {operator.inputs[0]}"
            raise self.refused(f"operator {operator.index} ({operator.kind}) for {layer.name}: expected {what}")
        kernel = self.graph.numbers(operator.inputs[1]).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        if swap_halves:
            kernel = np.roll(kernel, inputs // 2, axis=1)
        self.place(f"{layer.name}.weight", f"operators.{operator.index}.weight", kernel)
        if layer.norm:
            rest = ("weight", "running_mean", "running_var", "num_batches_tracked")
            self.folded += [f"{layer.norm}.{kind}" for kind in rest]
        numbers = self.graph.numbers(operator.inputs[2])
        self.place(f"{layer.norm or layer.name}.bias", f"operators.{operator.index}.bias", numbers)
        return self.output(operator)

    def place(self, key: str, name: str, numbers: NDArray[np.float32]) -> None:
        self.arrays[name] = SourceArray.of_tensor(torch.from_numpy(np.ascontiguousarray(numbers)))
        self.moves[key] = name

    def add(self, start: int, x: int) -> int:
        """Follow the shortcut of a block."""
        operator = self.take(x, "ADD")
        if sorted(operator.inputs) != sorted((start, x)):
            raise self.refused(f"operator {operator.index} (ADD): expected a shortcut over the block before it")
        return self.output(operator)

    def pool(self, x: int) -> int:
        """Follow the average over the whole feature map."""
        pooled = self.output(self.take(x, "AVERAGE_POOL_2D"))
        if self.graph.tensors[pooled].shape[1:3] != (1, 1):
            size = _size(self.graph.tensors[pooled].shape)
            raise self.refused(f"expected an image pooling to 1x1, got a map of {size}")
        return pooled

    def resize(self, x: int) -> int:
        """Follow a bilinear upsampling, whose corners must be aligned as ours are."""
        operator = self.take(x, "RESIZE_BILINEAR")
        if not operator.options["AlignCorners"] or operator.options["HalfPixelCenters"]:
            raise self.refused(f"operator {operator.index} (RESIZE_BILINEAR): expected aligned corners")
        return self.output(operator)

    def requantized(self, x: int) -> int:
        """Return the tensor after operators that change only the scale of integers."""
        while [operator.kind for operator in self.readers[x]] == ["QUANTIZE"]:
            x = self.output(self.take(x, "QUANTIZE"))
        return x


def _kinds(graph: TfliteGraph) -> str:
    kinds = [operator.kind for operator in graph.operators]
    return listed(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)) or "no operator"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(axis) for axis in shape)
