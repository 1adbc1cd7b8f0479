"""torchvision's state names -> places in the FCN family: AlexNet, VGG 11 to 19 with and without norm, GoogLeNet.

The backbones carry torchvision's own names, so a map is only needed for the fully connected layers, which become convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ...backbones import BACKBONES
from ...backbones.classifier import ClassifierBackbone
from ...backbones.vgg import DEPTHS
from .assign import KeyMapping, SourceArray
from .caffe_names import AUX_REASON, LAST_LAYER_REASON
from .fcn_parts import Network, encoders

# A count that batch normalisation keeps and does not use here; files from before torch 0.4.1 lack it.
COUNTER = "num_batches_tracked"


def backbone_in(arrays: Mapping[str, SourceArray]) -> str | None:
    """The backbone whose file this is, by its names and shapes; None where it is none of torchvision's."""
    if "inception3a.branch1.conv.weight" in arrays:
        return "googlenet_torchvision"
    convs = [
        name
        for name, a in arrays.items()
        if name.startswith("features.") and name.endswith(".weight") and len(a.shape) == 4
    ]
    if convs and arrays[convs[0]].shape[-1] == 11:
        return "alexnet"
    depth = {sum(stages): depth for depth, stages in DEPTHS.items()}.get(len(convs))
    if depth is None:
        return None
    return f"vgg{depth}" + ("_bn" if any(name.endswith(".running_mean") for name in arrays) else "")


def plan_fcn(model: Network, arrays: Mapping[str, SourceArray], backbone: str) -> KeyMapping:
    """Where the arrays go: the backbone under its own names, hidden layers to fc6 and fc7, the last layer nowhere."""
    own = model.state_dict()
    hidden, leftover = _classifier_names(backbone)
    plan = KeyMapping(dropped=leftover)
    for path, body in encoders(model).items():
        plan.moves |= {f"{path}.backbone.{name}": name for name in body.backbone.state_dict()}
        convs = [f"{path}.fc.{i}" for i, layer in enumerate(body.fc) if isinstance(layer, nn.Conv2d)]
        for module, layer in zip(convs, hidden, strict=True):
            plan.moves |= {f"{module}.{kind}": f"{layer}.{kind}" for kind in ("weight", "bias")}
    plan.fresh = [key for key in own if key not in plan.moves]
    return without_missing_counters(plan, arrays)


def plan_classifier(backbone: ClassifierBackbone, arrays: Mapping[str, SourceArray]) -> KeyMapping:
    """Where the arrays go in a backbone built with its classes: all under their own names, auxiliary heads if it has them."""
    plan = KeyMapping(moves={name: name for name in backbone.state_dict()})
    plan.dropped = {
        name: AUX_REASON for name in arrays if name.startswith(("aux1.", "aux2.")) and name not in plan.moves
    }
    return without_missing_counters(plan, arrays)


def without_missing_counters(plan: KeyMapping, arrays: Mapping[str, SourceArray]) -> KeyMapping:
    """The plan with the counters that the file lacks left at zero."""
    lacking = [key for key, name in plan.moves.items() if name.endswith(COUNTER) and name not in arrays]
    for key in lacking:
        del plan.moves[key]
    plan.fresh += lacking
    return plan


def _classifier_names(backbone: str) -> tuple[list[str], dict[str, str]]:
    """Names of the hidden fully connected layers, and what FCN has no place for; read from a small twin."""
    heads = {"aux_heads": True} if "aux_heads" in BACKBONES[backbone].options else {}
    full = BACKBONES.create(backbone, tiny=True, num_classes=2, **heads)
    linears = [
        name for name, layer in full.named_modules() if isinstance(layer, nn.Linear) and not name.startswith("aux")
    ]
    leftover = {name: AUX_REASON for name in full.state_dict() if name.startswith("aux")}
    leftover |= {f"{linears[-1]}.{kind}": LAST_LAYER_REASON for kind in ("weight", "bias")}
    return linears[:-1], leftover
