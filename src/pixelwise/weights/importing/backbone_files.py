"""Image classifiers' files -> the backbones of networks that stand on one: all that the backbone has, or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...backbones.classifier import ClassifierBackbone
from ...errors import CheckpointError
from ...models import ModelSpec, create_model
from . import caffe_names as caffenames
from . import torch_names as torchnames
from .assign import Imported, SourceArray, fill

_REASON = "what the classifier has behind the backbone"


def has_backbone(name: str) -> bool:
    """Whether a registered network stands on one image classifier, its `backbone`. Raises UnknownNameError."""
    return isinstance(getattr(create_model(name, tiny=True), "backbone", None), ClassifierBackbone)


def import_backbone(path: Path, arrays: Mapping[str, SourceArray], caffe: bool, spec: ModelSpec) -> Imported:
    """Build the network and fill its backbone; what stands behind the backbone keeps its fresh weights.

    Raises CheckpointError that lists what is missing, mis-shaped, or belongs to no classifier.
    """
    model = spec.build()
    backbone = model.backbone
    assert isinstance(backbone, ClassifierBackbone)
    plan = (caffenames if caffe else torchnames).plan_classifier(backbone, arrays)
    plan.moves = {f"backbone.{key}": name for key, name in plan.moves.items()}
    plan.fresh = [key for key in model.state_dict() if key not in plan.moves]
    plan.dropped |= {name: _REASON for name in arrays if name not in plan.moves.values() and _is_behind(name, backbone)}
    if not plan.moves:
        raise CheckpointError(path, "holds nothing of the network's backbone", "import the file of its own backbone")
    return Imported(
        model.eval(), spec, fill(model, arrays, plan, path, "choose the file of the network's own backbone")
    )


def _is_behind(name: str, backbone: ClassifierBackbone) -> bool:
    """Whether a layer of the file comes behind the backbone's last map: of its head, or a later link of its chain."""
    if name.startswith(("fc", "classifier.", "head.", "aux1.", "aux2.")):
        return True
    links = {int(key.split(".")[1]) for key in backbone.state_dict() if key.startswith("features.")}
    return name.startswith("features.") and bool(links) and int(name.split(".")[1]) > max(links)
