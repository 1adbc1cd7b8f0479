"""Published weights of other projects -> networks of this one, strictly: all of a file has its place, or it is refused.

A `.caffemodel` is a whole FCN or an image classifier (VGG16, VGG19, CaffeNet, BVLC GoogLeNet); a `.pth` or `.safetensors`
is one of torchvision's classifiers. A classifier gives the trunk and fc6, fc7; its last layer is left out and the score
layers start at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backbones.classifier import ClassifierBackbone
from ..errors import CheckpointError, ConfigError
from ..models import MODELS, ModelSpec
from ..models.fcn import FCN
from . import caffenames, torchnames
from .assign import Foreign, Report, fill
from .caffemodel import CaffeLayer, read_caffemodel
from .foreign import regular_file
from .torchfile import read_tensors

__all__ = ["CaffeLayer", "Imported", "Report", "fcn_names", "import_fcn", "load_classifier", "read_caffemodel", "read_tensors"]

TORCH_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
VOC_CLASSES = 21
FAMILIES = ("vgg", "alexnet", "googlenet")
_FIX = "choose the model that the file was made for, with the file's number of classes"


@dataclass(frozen=True)
class Imported:
    """A network with published weights, and what was done with the file."""

    model: FCN
    spec: ModelSpec
    report: Report


@dataclass(frozen=True)
class _Content:
    """A file's arrays, and what they say about the network that they are of."""

    arrays: dict[str, Foreign]
    trunk: str | None
    preprocessing: str
    num_classes: int | None
    caffe: bool


def import_fcn(
    path: str | Path,
    name: str,
    num_classes: int | None = None,
    *,
    tiny: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Build the registered FCN `name` and fill it from a foreign file.

    num_classes  K; left out, it is the file's own, or 21 (VOC) where the file is an image classifier
    options      further options of the model; the trunk and the pixels' normalisation follow from the file
    Raises CheckpointError for a file that is damaged, of another network, or has layers missing or too many;
    UnknownNameError and ConfigError for the model's name and options.
    """
    entry = MODELS[name]
    if entry.build.__module__ != FCN.__module__:
        raise ConfigError(name, "no published weights fit this network", "choose one of " + ", ".join(fcn_names()))
    content = _read(Path(path))
    derived: dict[str, Any] = {"preprocessing": content.preprocessing}
    if content.trunk is not None:
        derived["trunk"] = _trunk_for(path, name, content.trunk)
    classes = num_classes if num_classes is not None else content.num_classes or VOC_CLASSES
    spec = ModelSpec(name, classes, tiny=tiny, options={**derived, **(options or {})})
    model = spec.build()
    assert isinstance(model, FCN)
    if content.caffe:
        plan = caffenames.plan_fcn(model, content.arrays)
    else:
        plan = torchnames.plan_fcn(model, content.arrays, content.trunk or _trunk_of(name))
    return Imported(model.eval(), spec, fill(model, content.arrays, plan, path, _FIX))


def load_classifier(backbone: ClassifierBackbone, path: str | Path) -> Report:
    """Fill an image classifier, built with the file's number of classes, from a foreign file.

    Raises CheckpointError as `import_fcn` does, ConfigError for a backbone without its classifier.
    """
    if backbone.head() is None:
        raise ConfigError("backbone", "was built without a classifier", "create it with num_classes=1000")
    content = _read(Path(path))
    plan = (caffenames if content.caffe else torchnames).plan_classifier(backbone, content.arrays)
    return fill(backbone, content.arrays, plan, path, "create the backbone that the file was made for, with its number of classes")


def fcn_names() -> list[str]:
    """The registered networks that published weights can be read into."""
    return sorted(name for name in MODELS if MODELS[name].build.__module__ == FCN.__module__)


def _read(path: Path) -> _Content:
    """Read a file by its ending. Raises CheckpointError for an ending that is none of those that are known."""
    regular_file(path)
    if path.suffix == ".caffemodel":
        arrays = caffenames.arrays_of(read_caffemodel(path))
        scores = arrays.get("score_fr.weight")
        num_classes = scores.shape[0] if scores is not None and scores.shape else None
        return _Content(arrays, caffenames.trunk_in(arrays), "caffe", num_classes, caffe=True)
    if path.suffix in TORCH_ENDINGS:
        arrays = {name: Foreign.of_tensor(tensor) for name, tensor in read_tensors(path).items()}
        trunk = torchnames.trunk_in(arrays)
        # torchvision undoes its usual normalisation in front of this net, whose numbers come from TensorFlow.
        preprocessing = "tensorflow" if trunk == "googlenet_torchvision" else "torchvision"
        return _Content(arrays, trunk, preprocessing, None, caffe=False)
    endings = ", ".join((".caffemodel", *TORCH_ENDINGS))
    raise CheckpointError(path, f"ends in {path.suffix!r}, known are {endings}", "give the file the ending of its kind")


def _trunk_of(name: str) -> str:
    """The trunk that a registered FCN has by default."""
    return str(MODELS[name].options["trunk"].default)


def _trunk_for(path: str | Path, name: str, found: str) -> str:
    """The file's trunk, if it is of the family that the model is built on."""
    default = _trunk_of(name)
    family = next(family for family in FAMILIES if default.startswith(family))
    if not found.startswith(family):
        others = [other for other in fcn_names() if found.startswith(_trunk_of(other)[:3])]
        raise CheckpointError(path, f"holds {found}, and {name} is built on {default}", "import it as " + " or ".join(others))
    return found
