"""Pretrained backbones that install from the package index, by name: `--model.init_from efficientnet_lite0`.

`pretrained_files.py` finds and reads their files, which are then loaded as those of any other image classifier
(`importing/classifiers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..backbones.classifier import ClassifierBackbone
from ..errors import CheckpointError, listed
from ..models import SegmentationModel
from ..nn.channels import inflate_first_conv
from .importing.classifiers import load_backbone, map_backbone
from .importing.load import Report, SourceArray, WeightFile, load_mapped
from .pretrained_files import PRETRAINED, PretrainedWeights, find_file


def read_pretrained(weights: PretrainedWeights) -> WeightFile:
    """Return the arrays of an installed weight file under the names of its backbone; raises as `find_file` does."""
    path = find_file(weights)
    return WeightFile(path, {name: SourceArray.of_tensor(tensor) for name, tensor in weights.read(path).items()})


def load_pretrained(backbone: ClassifierBackbone, name: str) -> Report:
    """Load pretrained weights into a backbone, and into its classifier where it and the file have one.

    name  of PRETRAINED; the backbone must be of that architecture and width, at any output stride
    Raises as `find_file` does, CheckpointError for weights that do not fit.
    """
    weights = PRETRAINED[name]
    file = read_pretrained(weights)
    _check_fit(backbone, file, weights, "the backbone")
    return load_mapped(backbone, file, map_backbone(backbone, file), _fix(weights))


def start_from_pretrained(model: SegmentationModel, name: str, planes: Sequence[int] = (0, 1, 2)) -> str:
    """Load pretrained weights into the backbone of a network; its other layers keep their fresh values.

    planes  input channel of each color, for a network of more channels; see `inflate_first_conv`

    Returns a line that counts the copied tensors and lists the fresh ones. Raises as `load_pretrained` does,
    CheckpointError for a network without a backbone of this kind.
    """
    weights = PRETRAINED[name]
    backbone = model.backbones()[0] if model.backbone_names == ("backbone",) else None
    if not isinstance(backbone, ClassifierBackbone):
        raise CheckpointError(name, f"fits no part of {model.spec.name}", _fix(weights))
    file = _inflated(read_pretrained(weights), backbone, planes)
    _check_fit(backbone, file, weights, f"the backbone of {model.spec.name}")
    report = load_backbone(model, file, _fix(weights))
    layers = dict.fromkeys(key.rpartition(".")[0] for key in report.fresh)
    line = f"started from {name} ({weights.package}, {weights.license}): {len(report.loaded)} tensors copied"
    line += f", {len(report.fresh)} fresh: {listed(layers, 8)}" if report.fresh else ""
    line += f"; first layer inflated from RGB to {model.in_channels} channels" if model.in_channels != 3 else ""
    return line + (f"; {len(report.dropped)} of the file unused" if report.dropped else "")


def _inflated(file: WeightFile, backbone: ClassifierBackbone, planes: Sequence[int]) -> WeightFile:
    """Return the file with its first convolution for as many channels as the backbone takes."""
    own, arrays = backbone.state_dict(), dict(file.arrays)
    for key, name in map_backbone(backbone, file).moves.items():
        if name in arrays and key in own and own[key].ndim == 4 and arrays[name].shape[1] == 3 != own[key].shape[1]:
            inflated = inflate_first_conv(arrays[name].read(), own[key].shape[1], planes)
            arrays[name] = SourceArray.of_tensor(inflated)
    return replace(file, arrays=arrays)


def _check_fit(backbone: ClassifierBackbone, file: WeightFile, weights: PretrainedWeights, place: str) -> None:
    """Raise CheckpointError in a short line: the digest is right, so that the network is the wrong one."""
    mapping, own = map_backbone(backbone, file), backbone.state_dict()
    wrong = [key for key, value in own.items() if key not in file.arrays or file.arrays[key].shape != value.shape]
    unplaced = set(file.arrays) - {*mapping.moves.values(), *mapping.dropped}
    if wrong or unplaced:
        what = f"fits {weights.backbone}, not {place}: {len(wrong) + len(unplaced)} tensors differ"
        raise CheckpointError(weights.name, what, _fix(weights))


def _fix(weights: PretrainedWeights) -> str:
    return f"choose a network on the backbone {weights.backbone}, at its full width"
