"""Caffe's layer names -> places in the FCN family, and what else a published `.caffemodel` holds.

Layers that a network here has under another name are said by the network itself (`caffe_names`). This file adds the
layers without learned numbers, which are proved instead of loaded: upsampling kernels and the scales of FCN-8s at once.

Source: shelhamer/fcn.berkeleyvision.org, net.py of voc-fcn32s, voc-fcn16s, voc-fcn8s, voc-fcn8s-atonce, voc-fcn-alexnet;
BVLC/caffe, models/bvlc_googlenet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ..backbones.classifier import ClassifierBackbone
from ..models.fcn import FCN
from ..nn.resample import bilinear_kernel
from ..nn.upscore import Upscore
from .assign import Foreign, Plan
from .caffemodel import CaffeLayer

BLOB_NAMES = ("weight", "bias")
# The layer behind each sum of scores, and the last one by the number of maps that are summed.
INNER_UPSCORES = ("upscore2", "upscore_pool4")
LAST_UPSCORES = {1: "upscore", 2: "upscore16", 3: "upscore8"}
# A layer that only one of the published trunks has. VGG19 has VGG16's names and more.
TRUNKS = {"inception_3a/1x1": "googlenet", "conv3_4": "vgg19", "conv3_3": "vgg16", "conv5": "alexnet_caffe"}
LAST_LAYERS = ("fc8", "loss3/classifier")
AUX_PREFIXES = ("loss1/", "loss2/")

LAST_LAYER_REASON = "the classifier's last layer: score layers take its place"
AUX_REASON = "an auxiliary classifier: for training the classifier only"


def arrays_of(layers: Iterable[CaffeLayer]) -> dict[str, Foreign]:
    """The blobs as `layer.weight`, `layer.bias`; a third one would be `layer.blob2`."""
    arrays = {}
    for layer in layers:
        for i, blob in enumerate(layer.blobs):
            kind = BLOB_NAMES[i] if i < len(BLOB_NAMES) else f"blob{i}"
            arrays[f"{layer.name}.{kind}"] = Foreign.of_array(blob)
    return arrays


def is_segmenter(arrays: Mapping[str, Foreign]) -> bool:
    """Whether the file is a whole FCN, score layers included, and no image classifier."""
    return "score_fr.weight" in arrays


def trunk_in(arrays: Mapping[str, Foreign]) -> str | None:
    """The backbone whose file this is, by its layers' names; None where it is none of the published ones."""
    for layer, trunk in TRUNKS.items():
        if f"{layer}.weight" in arrays:
            return trunk
    return None


def plan_fcn(model: FCN, arrays: dict[str, Foreign]) -> Plan:
    """Where the arrays go; views of the upsampling kernels' diagonals are added to `arrays` where the model learns them."""
    whole = is_segmenter(arrays)
    own = model.state_dict()
    plan = Plan()
    for layer, module in model.caffe_names().items():
        if whole or not module.startswith("head.scores."):
            plan.moves |= _moves(layer, module, own)
    if whole:
        _add_scales(plan, model)
        for layer, path, upscore in _upscores(model):
            _add_upscore(plan, arrays, layer, path, upscore)
    else:
        plan.dropped = _dropped(arrays)
        plan.fresh = [key for key in own if key.startswith("head.")]
    plan.fresh += [key for key in own if _is_norm_behind_fc(model, key)]
    return plan


def plan_classifier(backbone: ClassifierBackbone, arrays: Mapping[str, Foreign]) -> Plan:
    """Where the arrays of an image classifier go in a backbone built with its classes."""
    own = backbone.state_dict()
    plan = Plan()
    for layer, module in backbone.caffe_names().items():
        plan.moves |= _moves(layer, module, own)
    placed = set(plan.moves.values())
    plan.dropped = {name: reason for name, reason in _dropped(arrays).items() if name not in placed}
    return plan


def _moves(layer: str, module: str, own: Mapping[str, Tensor]) -> dict[str, str]:
    return {f"{module}.{kind}": f"{layer}.{kind}" for kind in BLOB_NAMES if f"{module}.{kind}" in own}


def _dropped(arrays: Mapping[str, Foreign]) -> dict[str, str]:
    reasons = {}
    for name in arrays:
        layer = name.rpartition(".")[0]
        if layer in LAST_LAYERS:
            reasons[name] = LAST_LAYER_REASON
        elif layer.startswith(AUX_PREFIXES):
            reasons[name] = AUX_REASON
    return reasons


def _is_norm_behind_fc(model: FCN, key: str) -> bool:
    """Whether a state name is of a batch normalisation behind fc6 or fc7, which no published classifier has."""
    module, _, _ = key.rpartition(".")
    return module.startswith("trunk.fc.") and isinstance(model.get_submodule(module), nn.BatchNorm2d)


def _add_scales(plan: Plan, model: FCN) -> None:
    for name, scale in zip(model.trunk.names, model.head.scales, strict=True):
        if scale != 1:
            layer = f"scale_{name}.weight"
            plan.checks[layer] = _constant_check(layer, scale)


def _constant_check(layer: str, expected: float) -> Callable[[Tensor], str]:
    def check(values: Tensor) -> str:
        same = torch.allclose(values, torch.full_like(values, expected), rtol=1e-5, atol=0)
        return "" if same else f"{layer} is not {expected:g} everywhere"

    return check


def _upscores(model: FCN) -> list[tuple[str, str, Upscore]]:
    """Caffe's layer, the module's path (empty where the model holds none) and the module, for each upsampling."""
    found = []
    for i, upscore in enumerate(model.head.upscores):
        assert isinstance(upscore, Upscore)
        found.append((INNER_UPSCORES[i], f"head.upscores.{i}", upscore))
    last = LAST_UPSCORES[len(model.trunk.names)]
    if model.head.upscore is not None:
        return [*found, (last, "head.upscore", model.head.upscore)]
    kernel, stride, _ = model.head.final
    return [*found, (last, "", Upscore(model.num_classes, kernel, stride, learned=False))]


def _add_upscore(plan: Plan, arrays: dict[str, Foreign], layer: str, path: str, upscore: Upscore) -> None:
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
            arrays[diagonal] = Foreign(
                (num_maps, 1, kernel, kernel), lambda start, stop: _diagonal(raw.read()).reshape(-1)[start:stop]
            )


def _kernel_check(name: str, num_maps: int, kernel: int, must_be_bilinear: bool) -> Callable[[Tensor], str]:
    def check(values: Tensor) -> str:
        if tuple(values.shape) not in ((num_maps, num_maps, kernel, kernel), (num_maps, 1, kernel, kernel)):
            return f"{name} {'x'.join(map(str, values.shape))} for {num_maps} kernels of {kernel}x{kernel}"
        if values.shape[1] > 1 and values[~torch.eye(num_maps, dtype=torch.bool)].any():
            return f"{name} mixes classes: it is not zero off the diagonal"
        if must_be_bilinear and not torch.allclose(_diagonal(values), bilinear_kernel(kernel, num_maps), rtol=0, atol=1e-5):
            return f"{name} is learned, not bilinear: build the model with upsampling=learned"
        return ""

    return check


def _diagonal(values: Tensor) -> Tensor:
    """(K, K, k, k) -> (K, 1, k, k): each class's own kernel."""
    if values.shape[1] == 1:
        return values
    return values.diagonal(dim1=0, dim2=1).permute(2, 0, 1).unsqueeze(1)
