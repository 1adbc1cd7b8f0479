"""Files for the FCN family: whole nets of the authors, and image classifiers that fill the layers up to fc7.

The layer names of a whole net follow from the network (`caffe_names`). Layers without learned numbers are checked
instead of loaded: bilinear upsampling kernels, and the scales of FCN-8s at once.

Source: shelhamer/fcn.berkeleyvision.org, net.py of voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce,
voc-fcn-alexnet, nyud-fcn32s-color, -hha, -color-d, -color-hha, siftflow-fcn32s, -16s, -8s, pascalcontext-fcn32s, -16s,
-8s; BVLC/caffe, models/bvlc_googlenet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...backbones import BACKBONES
from ...errors import CheckpointError
from ...models import MODELS, ModelSpec
from ...models.base import SegmentationModel
from ...models.fcn import FCN, FCN8s, FullyConnected
from ...models.fcn_fusion import LateFusionFCN, TwoHeadFCN
from ...nn.preprocessing import NYUD_COLOR_DEPTH, NYUD_COLOR_HHA, SIFT_FLOW
from ...nn.upsampling import bilinear_kernel
from ..published import find_by_file_name
from .classifiers import (
    LAST_LAYER_REASON,
    STREAMS,
    VOC_CLASSES,
    backbone_in,
    caffe_moves,
    file_preprocessing,
    leftover,
    load_backbone,
    without_missing_counters,
)
from .load import Imported, KeyMapping, Request, SourceArray, WeightFile, load_mapped

ONE_HEAD, TWO_HEADS, TWO_STREAMS = "one stream and one head", "two heads", "two streams"
# Suffixes of score and upsampling layers in nets of two heads.
TASKS = ("_sem", "_geo")
# The first layer's name in early fusion says what it looks at: blue, green, red, depth.
FIRST_LAYER, EARLY_FUSION = "conv1_1", "conv1_1_bgrd"


def import_fcn(file: WeightFile, request: Request) -> Imported:
    """Build a network of the FCN family and load a file. Errors are those of `import_model`."""
    model = _spec_for(file, request).build()
    assert isinstance(model, FCN | LateFusionFCN)
    fix = "choose the model that the file was made for, with the file's number of classes"
    if isinstance(model, FCN) and model.backbone.same_stem_padding is None and not whole_net(file):
        return Imported(model.eval(), model.spec, load_backbone(model, file, fix))
    mapping = map_whole_net(model, file) if whole_net(file) else map_classifier_to_fcn(model, file)
    return Imported(model.eval(), model.spec, load_mapped(model, file, mapping, fix))


@dataclass(frozen=True)
class WholeNet:
    """What the file of a whole net says about its network; None for numbers that it does not hold."""

    layout: str
    num_classes: int | None
    num_geometric: int | None
    in_channels: int | None
    preprocessing: Mapping[str, Any] | None


def whole_net(file: WeightFile) -> WholeNet | None:
    """Return the net of the authors that the file's layer names are of; None for an image classifier.

    The pixel normalization is known where the names belong to the nets of one data set: NYUDv2, SIFT Flow.
    """
    if not file.is_caffe:
        return None

    def size(axis: int, *layers: str) -> int | None:
        """Return the layers' number of outputs (axis 0) or inputs (axis 1), summed; None where one has no such axis."""
        shapes = [file.arrays[f"{layer}.weight"].shape for layer in layers if f"{layer}.weight" in file.arrays]
        if len(shapes) < len(layers) or any(len(shape) <= axis for shape in shapes):
            return None
        return sum(shape[axis] for shape in shapes)

    layers = {name.rpartition(".")[0] for name in file.arrays}
    if any(layer.endswith(STREAMS) for layer in layers):
        in_channels = size(1, *(FIRST_LAYER + stream for stream in STREAMS))
        spec = NYUD_COLOR_HHA if in_channels == 6 else None
        return WholeNet(TWO_STREAMS, size(0, "score_frcolor"), None, in_channels, spec)
    if any(layer.endswith(TASKS) for layer in layers):
        return WholeNet(TWO_HEADS, size(0, "score_fr_sem"), size(0, "score_fr_geo"), None, SIFT_FLOW)
    if any(layer.startswith(("score_", "upscore")) for layer in layers):
        in_channels = size(1, EARLY_FUSION)
        spec = NYUD_COLOR_DEPTH if in_channels == 4 else None
        return WholeNet(ONE_HEAD, size(0, "score_fr"), None, in_channels, spec)
    return None


def _spec_for(file: WeightFile, request: Request) -> ModelSpec:
    """Return the requested network, completed from the file. Raises CheckpointError where the two disagree."""
    entry, net, backbone = MODELS[request.name], whole_net(file), backbone_in(file)
    layout = _layout(entry.product)
    fitting = [name for name in MODELS if issubclass(MODELS[name].product, FCN | LateFusionFCN)]
    derived: dict[str, Any] = {}
    if net is not None:
        fitting = [name for name in fitting if _layout(MODELS[name].product) == net.layout]
        if net.layout != layout:
            what = f"expected a net with {layout} for {request.name}, got one with {net.layout}"
            raise CheckpointError(file.path, what, "import it as " + " or ".join(sorted(fitting)))
        if None not in (request.in_channels, net.in_channels) and request.in_channels != net.in_channels:
            what = f"takes images of {net.in_channels} channels, got in_channels={request.in_channels}"
            raise CheckpointError(file.path, what, "leave the number of channels out")
        # The nets of several data sets have the same layers, so only the published file name tells them apart.
        entry_of_file = find_by_file_name(file.path)
        published = "caffe" if entry_of_file is None else entry_of_file.preprocessing
        derived["preprocessing"] = net.preprocessing or published
        if net.num_geometric is not None:
            derived["num_geometric"] = net.num_geometric
    elif not file.is_caffe:
        derived["preprocessing"] = file_preprocessing(file)
    if backbone is not None:
        default = request.options.get("backbone", entry.options["backbone"].default)
        architecture = BACKBONES[backbone].product.architecture
        if architecture != BACKBONES[default].product.architecture:
            defaults = {name: BACKBONES[MODELS[name].options["backbone"].default].product for name in fitting}
            others = [name for name in fitting if defaults[name].architecture == architecture]
            what = f"expected {default}, the backbone of {request.name}, got {backbone}"
            raise CheckpointError(file.path, what, "import it as " + " or ".join(sorted(others)))
        derived["backbone"] = backbone
    num_classes = _first(request.num_classes, net.num_classes if net else None, VOC_CLASSES)
    in_channels = _first(request.in_channels, net.in_channels if net else None, entry.options["in_channels"].default)
    return ModelSpec(request.name, num_classes, in_channels, {**derived, **request.options})


def _first(*numbers: int | None) -> int:
    """Return the first number that is known."""
    return next(number for number in numbers if number is not None)


def _layout(product: type[SegmentationModel]) -> str:
    if issubclass(product, LateFusionFCN):
        return TWO_STREAMS
    return TWO_HEADS if issubclass(product, TwoHeadFCN) else ONE_HEAD


def map_whole_net(model: FCN | LateFusionFCN, file: WeightFile) -> KeyMapping:
    """Return the place of every array of a whole net; upsampling kernels are checked, and loaded where learned."""
    names = model.caffe_names()
    if f"{EARLY_FUSION}.weight" in file.arrays and FIRST_LAYER in names:
        names[EARLY_FUSION] = names.pop(FIRST_LAYER)
    own = model.state_dict()
    # No published net has batch norm after fc6 and fc7.
    norms = tuple(f"{path}.norm." for path, layer in model.named_modules() if isinstance(layer, FullyConnected))
    mapping = KeyMapping(caffe_moves(model, names), fresh=[key for key in own if key.startswith(norms)])
    if isinstance(model, FCN8s):
        for layer, scale in (("scale_pool4", model.scale_pool4), ("scale_pool3", model.scale_pool3)):
            if scale != 1:
                mapping.checks[f"{layer}.weight"] = _constant_check(f"{layer}.weight", scale)
    heads = {"": model.num_classes}
    if isinstance(model, TwoHeadFCN):
        heads = dict(zip(TASKS, (model.num_classes, model.num_geometric), strict=True))
    for module, kernel in model.upscore_kernels().items():
        # The authors call the only upsampling of FCN-32s just upscore.
        layer, key = ("upscore" if module == "upscore32" else module), f"{module}.weight"
        arrays = [f"{layer}{suffix}.weight" for suffix in heads]
        for name, num_maps in zip(arrays, heads.values(), strict=True):
            mapping.checks[name] = _kernel_check(name, num_maps, kernel=kernel, must_be_bilinear=key not in own)
        if key in own:
            diagonals = " and ".join(arrays) + " (diagonal)"
            mapping.moves[key] = diagonals
            if all(name in file.arrays for name in arrays):
                shape = (sum(heads.values()), 1, kernel, kernel)
                mapping.derived[diagonals] = _diagonals([file.arrays[name] for name in arrays], shape)
    return mapping


def map_classifier_to_fcn(model: FCN | LateFusionFCN, file: WeightFile) -> KeyMapping:
    """Return the place of a classifier's arrays in each stream: the backbone, fc6 and fc7; the last layer has none."""
    mapping = KeyMapping(dropped=leftover(file))
    streams = {"color.": model.color, "hha.": model.hha} if isinstance(model, LateFusionFCN) else {"": model}
    for prefix, stream in streams.items():
        convs = [
            name for name, layer in (("fc6", stream.fc6), ("fc7", stream.fc7)) if isinstance(layer, FullyConnected)
        ]
        if file.is_caffe:
            names = {layer: f"backbone.{module}" for layer, module in stream.backbone.caffe_names().items()}
            moves = caffe_moves(stream, names | {fc: f"{fc}.conv" for fc in convs})
        else:
            moves = {f"backbone.{name}": name for name in stream.backbone.state_dict()}
            # fc6, fc7 and the last layer are the only linear ones outside of the auxiliary classifiers.
            weights = [
                name for name, array in file.arrays.items() if name.endswith(".weight") and len(array.shape) == 2
            ]
            linears = sorted(name[: -len(".weight")] for name in weights if name.startswith(("classifier.", "fc.")))
            if len(linears) < len(convs):
                what = f"expected {len(convs)} fully connected layers for {' and '.join(convs)}, got {len(linears)}"
                raise CheckpointError(file.path, what, "use the file of a whole classifier")
            for fc, linear in zip(convs, linears, strict=False):
                moves |= {f"{fc}.conv.{kind}": f"{linear}.{kind}" for kind in ("weight", "bias")}
            for linear in linears[len(convs) : len(convs) + 1]:
                mapping.dropped |= {f"{linear}.{kind}": LAST_LAYER_REASON for kind in ("weight", "bias")}
        mapping.moves |= {f"{prefix}{key}": name for key, name in moves.items()}
    # The layers after fc7 are new. A layer of the backbone that the file lacks is an error, not fresh.
    loaded = tuple(f"{prefix}{part}." for prefix in streams for part in ("backbone", "fc6.conv", "fc7.conv"))
    mapping.fresh = [key for key in model.state_dict() if not key.startswith(loaded)]
    return without_missing_counters(mapping, file)


def _constant_check(name: str, expected: float) -> Callable[[Tensor], str]:
    def check(values: Tensor) -> str:
        same = torch.allclose(values, torch.full_like(values, expected), rtol=1e-5, atol=0)
        return "" if same else f"{name} is not {expected:g} everywhere"

    return check


def _kernel_check(name: str, num_maps: int, *, kernel: int, must_be_bilinear: bool) -> Callable[[Tensor], str]:
    """Return a check of Caffe's K x K kernels, of which only the diagonal may differ from zero."""

    def check(values: Tensor) -> str:
        if tuple(values.shape) not in ((num_maps, num_maps, kernel, kernel), (num_maps, 1, kernel, kernel)):
            return f"{name} {'x'.join(map(str, values.shape))} for {num_maps} kernels of {kernel}x{kernel}"
        if values.shape[1] > 1 and values[~torch.eye(num_maps, dtype=torch.bool)].any():
            return f"{name} mixes classes: it is not zero off the diagonal"
        bilinear = bilinear_kernel(kernel, num_maps)
        if must_be_bilinear and not torch.allclose(_diagonal(values), bilinear, rtol=0, atol=1e-5):
            return f"{name} is learned, not bilinear: build the model with upsampling=learned"
        return ""

    return check


def _diagonals(arrays: list[SourceArray], shape: tuple[int, ...]) -> SourceArray:
    """Return the kernels from each class to itself, one head after the other; read when they are needed."""

    def part(start: int, stop: int) -> Tensor:
        return torch.cat([_diagonal(array.read()) for array in arrays]).reshape(-1)[start:stop]

    return SourceArray(shape, part)


def _diagonal(values: Tensor) -> Tensor:
    """Return the kernel from each class to itself, (K, K, k, k) -> (K, 1, k, k)."""
    if values.shape[1] == 1:
        return values
    return values.diagonal(dim1=0, dim2=1).permute(2, 0, 1).unsqueeze(1)
