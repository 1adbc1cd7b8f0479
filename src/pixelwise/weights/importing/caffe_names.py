"""Caffe's layer names -> places in the FCN family, and what else a published `.caffemodel` holds.

Layers that a network here has under another name are said by the network itself (`caffe_names`). This file adds the
layers without learned numbers, which are proved instead of loaded: upsampling kernels and the scales of FCN-8s at once.

Source: shelhamer/fcn.berkeleyvision.org, net.py of voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce, voc-fcn-alexnet,
nyud-fcn32s-color, -hha, -color-d, -color-hha, siftflow-fcn32s, -16s, -8s, pascalcontext-fcn32s, -16s, -8s; BVLC/caffe,
models/bvlc_googlenet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.classifier import ClassifierBackbone
from ...nn.preprocessing import NYUD_COLOR_DEPTH, NYUD_COLOR_HHA, SIFT_FLOW
from ...nn.upsampling import Upscore, bilinear_kernel
from .assign import KeyMapping, SourceArray
from .caffemodel import CaffeLayer
from .fcn_parts import LATE_FUSION, ONE_HEAD, TWO_HEADS, Head, Network, encoders, heads

BLOB_NAMES = ("weight", "bias")
# The layer behind each sum of scores, and the last one by the number of maps that are summed.
INNER_UPSCORES = ("upscore2", "upscore_pool4")
LAST_UPSCORES = {1: "upscore", 2: "upscore16", 3: "upscore8"}
# A layer that only one of the published backbones has. VGG19 has VGG16's names and more.
BACKBONES = {"inception_3a/1x1": "googlenet", "conv3_4": "vgg19", "conv3_3": "vgg16", "conv5": "alexnet_caffe"}
STREAMS = ("color", "hha")
TASKS = ("_sem", "_geo")
# Early fusion is one stream whose first layer says what it looks at: blue, green, red, depth.
FIRST_LAYER, EARLY_FUSION = "conv1_1", "conv1_1_bgrd"
LAST_LAYERS = ("fc8", "loss3/classifier")
AUX_PREFIXES = ("loss1/", "loss2/")

LAST_LAYER_REASON = "the classifier's last layer: score layers take its place"
AUX_REASON = "an auxiliary classifier: for training the classifier only"


def arrays_of(layers: Iterable[CaffeLayer]) -> dict[str, SourceArray]:
    """The blobs as `layer.weight`, `layer.bias`; a third one would be `layer.blob2`."""
    arrays = {}
    for layer in layers:
        for i, blob in enumerate(layer.blobs):
            kind = BLOB_NAMES[i] if i < len(BLOB_NAMES) else f"blob{i}"
            arrays[f"{layer.name}.{kind}"] = SourceArray.of_array(blob)
    return arrays


@dataclass(frozen=True)
class WholeNet:
    """What a whole FCN's file says about the network it is of; None for a number that it does not hold."""

    layout: str
    num_classes: int | None
    num_geometric: int | None
    in_channels: int | None
    preprocessing: Mapping[str, Any] | None


def whole_net(arrays: Mapping[str, SourceArray]) -> WholeNet | None:
    """The FCN whose file this is, by its layers' names; None for an image classifier.

    The pixels' normalisation is known where the names are those of a single data set's nets: NYUDv2, SIFT Flow.
    """
    layers = {name.rpartition(".")[0] for name in arrays}
    if any(layer.endswith(STREAMS) for layer in layers):
        in_channels = _size(arrays, 1, *(FIRST_LAYER + stream for stream in STREAMS))
        spec = NYUD_COLOR_HHA if in_channels == 6 else None
        return WholeNet(LATE_FUSION, _size(arrays, 0, "score_frcolor"), None, in_channels, spec)
    if any(layer.endswith(TASKS) for layer in layers):
        semantic, geometric = (_size(arrays, 0, f"score_fr{task}") for task in TASKS)
        return WholeNet(TWO_HEADS, semantic, geometric, None, SIFT_FLOW)
    if any(layer.startswith(("score_", "upscore")) for layer in layers):
        in_channels = _size(arrays, 1, EARLY_FUSION)
        spec = NYUD_COLOR_DEPTH if in_channels == 4 else None
        return WholeNet(ONE_HEAD, _size(arrays, 0, "score_fr"), None, in_channels, spec)
    return None


def _size(arrays: Mapping[str, SourceArray], axis: int, *layers: str) -> int | None:
    """The sum of the layers' numbers of outputs (axis 0) or inputs (axis 1); None where one is missing or has no such axis."""
    shapes = [arrays[f"{layer}.weight"].shape for layer in layers if f"{layer}.weight" in arrays]
    if len(shapes) < len(layers) or any(len(shape) <= axis for shape in shapes):
        return None
    return sum(shape[axis] for shape in shapes)


def backbone_in(arrays: Mapping[str, SourceArray]) -> str | None:
    """The backbone whose file this is, by its layers' names; None where it is none of the published ones."""
    for layer, backbone in BACKBONES.items():
        if any(f"{layer}{stream}.weight" in arrays for stream in ("", *STREAMS)):
            return backbone
    return None


def plan_fcn(model: Network, arrays: dict[str, SourceArray]) -> KeyMapping:
    """Where the arrays go; views of the upsampling kernels' diagonals are added to `arrays` where the model learns them."""
    own = model.state_dict()
    plan = KeyMapping()
    if whole_net(arrays) is not None:
        for layer, module in model.caffe_names().items():
            plan.moves |= _moves(_name_in(arrays, layer), module, own)
        for head in heads(model):
            _add_scales(plan, head)
            for layer, path, upscore in _upscores(head):
                _add_upscore(plan, arrays, layer, path, upscore)
    else:
        for path, backbone in encoders(model).items():
            for layer, module in backbone.caffe_names().items():
                plan.moves |= _moves(layer, f"{path}.{module}", own)
        plan.dropped = _dropped(arrays)
        plan.fresh = [key for key in own if key.partition(".")[0] not in encoders(model)]
    plan.fresh += [key for key in own if _is_norm_behind_fc(model, key)]
    return plan


def _name_in(arrays: Mapping[str, SourceArray], layer: str) -> str:
    """The layer's name in this file: early fusion renames the first one."""
    early = layer == FIRST_LAYER and any(name.startswith(f"{EARLY_FUSION}.") for name in arrays)
    return EARLY_FUSION if early else layer


def plan_classifier(backbone: ClassifierBackbone, arrays: Mapping[str, SourceArray]) -> KeyMapping:
    """Where the arrays of an image classifier go in a backbone built with its classes."""
    own = backbone.state_dict()
    plan = KeyMapping()
    for layer, module in backbone.caffe_names().items():
        plan.moves |= _moves(layer, module, own)
    placed = set(plan.moves.values())
    plan.dropped = {name: reason for name, reason in _dropped(arrays).items() if name not in placed}
    return plan


def _moves(layer: str, module: str, own: Mapping[str, Tensor]) -> dict[str, str]:
    return {f"{module}.{kind}": f"{layer}.{kind}" for kind in BLOB_NAMES if f"{module}.{kind}" in own}


def _dropped(arrays: Mapping[str, SourceArray]) -> dict[str, str]:
    reasons = {}
    for name in arrays:
        layer = name.rpartition(".")[0]
        if layer in LAST_LAYERS:
            reasons[name] = LAST_LAYER_REASON
        elif layer.startswith(AUX_PREFIXES):
            reasons[name] = AUX_REASON
    return reasons


def _is_norm_behind_fc(model: Network, key: str) -> bool:
    """Whether a state name is of a batch normalisation behind fc6 or fc7, which no published classifier has."""
    module, _, _ = key.rpartition(".")
    behind_fc = module.startswith(tuple(f"{path}.fc." for path in encoders(model)))
    return behind_fc and isinstance(model.get_submodule(module), nn.BatchNorm2d)


def _add_scales(plan: KeyMapping, head: Head) -> None:
    for name, scale in zip(head.maps, head.module.scales, strict=True):
        if scale != 1:
            layer = f"scale_{name}{head.suffix}.weight"
            plan.checks[layer] = _constant_check(layer, scale)


def _constant_check(layer: str, expected: float) -> Callable[[Tensor], str]:
    def check(values: Tensor) -> str:
        same = torch.allclose(values, torch.full_like(values, expected), rtol=1e-5, atol=0)
        return "" if same else f"{layer} is not {expected:g} everywhere"

    return check


def _upscores(head: Head) -> list[tuple[str, str, Upscore]]:
    """Caffe's layer, the module's path (empty where the model holds none) and the module, for each upsampling of a head."""
    found = []
    for i, upscore in enumerate(head.module.upscores):
        assert isinstance(upscore, Upscore)
        found.append((INNER_UPSCORES[i] + head.suffix, f"{head.path}.upscores.{i}", upscore))
    last = LAST_UPSCORES[len(head.maps)] + head.suffix
    if head.module.upscore is not None:
        return [*found, (last, f"{head.path}.upscore", head.module.upscore)]
    kernel, stride, _ = head.module.final
    score = head.module.scores[0]
    assert isinstance(score, nn.Conv2d)
    return [*found, (last, "", Upscore(score.out_channels, kernel, stride, learned=False))]


def _add_upscore(plan: KeyMapping, arrays: dict[str, SourceArray], layer: str, path: str, upscore: Upscore) -> None:
    """A fixed kernel is proved to be bilinear, a learned one loaded from the diagonal of Caffe's K x K kernels."""
    name = f"{layer}.weight"
    num_maps, kernel = len(upscore.weight), upscore.kernel
    learned = isinstance(upscore.weight, nn.Parameter)
    plan.checks[name] = _kernel_check(name, num_maps, kernel, must_be_bilinear=not learned)
    if learned:
        diagonal = f"{name} (diagonal)"
        plan.moves[f"{path}.weight"] = diagonal
        if name in arrays:
            raw = arrays[name]
            arrays[diagonal] = SourceArray(
                (num_maps, 1, kernel, kernel), lambda start, stop: _diagonal(raw.read()).reshape(-1)[start:stop]
            )


def _kernel_check(name: str, num_maps: int, kernel: int, must_be_bilinear: bool) -> Callable[[Tensor], str]:
    def check(values: Tensor) -> str:
        if tuple(values.shape) not in ((num_maps, num_maps, kernel, kernel), (num_maps, 1, kernel, kernel)):
            return f"{name} {'x'.join(map(str, values.shape))} for {num_maps} kernels of {kernel}x{kernel}"
        if values.shape[1] > 1 and values[~torch.eye(num_maps, dtype=torch.bool)].any():
            return f"{name} mixes classes: it is not zero off the diagonal"
        if must_be_bilinear and not torch.allclose(
            _diagonal(values), bilinear_kernel(kernel, num_maps), rtol=0, atol=1e-5
        ):
            return f"{name} is learned, not bilinear: build the model with upsampling=learned"
        return ""

    return check


def _diagonal(values: Tensor) -> Tensor:
    """(K, K, k, k) -> (K, 1, k, k): each class's own kernel."""
    if values.shape[1] == 1:
        return values
    return values.diagonal(dim1=0, dim2=1).permute(2, 0, 1).unsqueeze(1)
