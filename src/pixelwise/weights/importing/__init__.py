"""Published weights of other projects -> networks of this one, strictly: all of a file has its place, or it is refused.

A `.caffemodel` is a whole FCN (one stream, early or late fusion, two heads) or an image classifier (VGG16, VGG19, CaffeNet,
BVLC GoogLeNet); a `.pth` or `.safetensors` is one of torchvision's classifiers or segmentation nets. A classifier gives the
backbone and fc6, fc7; its last layer is left out and the score layers start at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...backbones.classifier import ClassifierBackbone
from ...errors import CheckpointError, ConfigError
from ...models import MODELS, ModelSpec
from ...models.fcn import FCN
from ...models.fcn_fusion import LateFusionFCN
from ..published import find_by_file_name
from . import caffe_names as caffenames
from . import torch_names as torchnames
from .assign import Imported, Report, SourceArray, fill
from .backbone_files import has_backbone, import_backbone
from .caffemodel import CaffeLayer, read_caffemodel
from .fcn_parts import fcn_names, is_fcn, layout_of
from .safe_open import regular_file
from .torch_file import TORCH_ENDINGS, read_tensors
from .torchvision_files import import_whole, is_whole, whole_names

__all__ = [
    "CaffeLayer",
    "Imported",
    "Report",
    "fcn_names",
    "import_fcn",
    "import_model",
    "load_classifier",
    "read_caffemodel",
    "read_tensors",
]

VOC_CLASSES = 21
FAMILIES = ("vgg", "alexnet", "googlenet")
_FIX = "choose the model that the file was made for, with the file's number of classes"


@dataclass(frozen=True)
class _Content:
    """A file's arrays, and what they say about the network that they are of; `whole` is None for an image classifier."""

    arrays: dict[str, SourceArray]
    backbone: str | None
    preprocessing: str | Mapping[str, Any] | None
    whole: caffenames.WholeNet | None
    caffe: bool


def import_model(
    path: str | Path,
    name: str,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Build the registered network `name` and fill it from a foreign file: an FCN, one of torchvision's nets, or any network's
    backbone from an image classifier.

    Arguments and errors are those of `import_fcn`.
    """
    if is_whole(name) or is_fcn(name):
        read = import_whole if is_whole(name) else import_fcn
        return read(path, name, num_classes, in_channels=in_channels, options=options)
    if not has_backbone(name):
        fitting = ", ".join(fcn_names() + whole_names())
        raise ConfigError(
            name, "no published weights fit this network", f"choose one of {fitting}, or one on a published backbone"
        )
    content = _read(Path(path))
    if content.whole is not None:
        raise CheckpointError(
            path, f"holds a whole net of {content.whole.layout}", "import it as " + " or ".join(fcn_names())
        )
    said = {"preprocessing": content.preprocessing or "caffe", **(options or {})}
    spec = ModelSpec(name, num_classes or VOC_CLASSES, in_channels or 3, options=said)
    return import_backbone(Path(path), content.arrays, content.caffe, spec)


def import_fcn(
    path: str | Path,
    name: str,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    tiny: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Build the registered FCN `name` and fill it from a foreign file.

    num_classes  K; left out, it is the file's own, or 21 (VOC) where the file is an image classifier
    in_channels  channels of the images; left out, it is the file's own, or what the network takes by default
    options      further options of the model; the backbone and the pixels' normalisation follow from the file
    Raises CheckpointError for a file that is damaged, of another network, or has layers missing or too many;
    UnknownNameError and ConfigError for the model's name and options.
    """
    if not is_fcn(name):
        raise ConfigError(
            name, "no published weights fit this network", "choose one of " + ", ".join(fcn_names() + whole_names())
        )
    content = _read(Path(path))
    spec = _spec_for(path, name, content, num_classes, in_channels, tiny, options or {})
    model = spec.build()
    assert isinstance(model, FCN | LateFusionFCN)
    if content.caffe:
        plan = caffenames.plan_fcn(model, content.arrays)
    else:
        plan = torchnames.plan_fcn(model, content.arrays, content.backbone or _backbone_of(name))
    return Imported(model.eval(), spec, fill(model, content.arrays, plan, path, _FIX))


def _spec_for(
    path: str | Path,
    name: str,
    content: _Content,
    num_classes: int | None,
    in_channels: int | None,
    tiny: bool,
    options: Mapping[str, Any],
) -> ModelSpec:
    """What is asked for, and of the rest what the file says. Raises CheckpointError where the two cannot go together."""
    derived: dict[str, Any] = {}
    if content.preprocessing is not None:
        derived["preprocessing"] = content.preprocessing
    if content.backbone is not None:
        derived["backbone"] = _backbone_for(path, name, content.backbone, content.whole)
    whole = content.whole
    if whole is not None:
        if whole.layout != layout_of(name):
            fitting = " or ".join(other for other in fcn_names() if layout_of(other) == whole.layout)
            raise CheckpointError(
                path, f"holds a net of {whole.layout}, {name} has {layout_of(name)}", f"import it as {fitting}"
            )
        if None not in (in_channels, whole.in_channels) and in_channels != whole.in_channels:
            what = f"takes images of {whole.in_channels} channels, asked for are {in_channels}"
            raise CheckpointError(path, what, "leave the number of channels out")
        if whole.num_geometric is not None:
            derived["num_geometric"] = whole.num_geometric
    said = (whole.num_classes, whole.in_channels) if whole is not None else (None, None)
    classes = _first(num_classes, said[0], VOC_CLASSES)
    channels = _first(in_channels, said[1], MODELS[name].options["in_channels"].default)
    small = MODELS[name].tiny if tiny else {}
    return ModelSpec(name, classes, channels, options={**small, **derived, **options})


def _first(*values: int | None) -> int:
    """The first number that is said at all."""
    return next(value for value in values if value is not None)


def load_classifier(backbone: ClassifierBackbone, path: str | Path) -> Report:
    """Fill an image classifier, built with the file's number of classes, from a foreign file.

    Raises CheckpointError as `import_fcn` does, ConfigError for a backbone without its classifier.
    """
    if backbone.head() is None:
        raise ConfigError("backbone", "was built without a classifier", "create it with num_classes=1000")
    content = _read(Path(path))
    plan = (caffenames if content.caffe else torchnames).plan_classifier(backbone, content.arrays)
    return fill(
        backbone,
        content.arrays,
        plan,
        path,
        "create the backbone that the file was made for, with its number of classes",
    )


def _read(path: Path) -> _Content:
    """Read a file by its ending. Raises CheckpointError for an ending that is none of those that are known."""
    regular_file(path)
    if path.suffix == ".caffemodel":
        arrays = caffenames.arrays_of(read_caffemodel(path))
        whole = caffenames.whole_net(arrays)
        return _Content(arrays, caffenames.backbone_in(arrays), _caffe_preprocessing(path, whole), whole, caffe=True)
    if path.suffix in TORCH_ENDINGS:
        arrays = {name: SourceArray.of_tensor(tensor) for name, tensor in read_tensors(path).items()}
        backbone = torchnames.backbone_in(arrays)
        # torchvision undoes its usual normalisation in front of this net, whose numbers come from TensorFlow.
        preprocessing = "tensorflow" if backbone == "googlenet_torchvision" else "torchvision"
        return _Content(arrays, backbone, preprocessing, whole=None, caffe=False)
    endings = ", ".join((".caffemodel", *TORCH_ENDINGS))
    raise CheckpointError(path, f"ends in {path.suffix!r}, known are {endings}", "give the file the ending of its kind")


def _caffe_preprocessing(path: Path, whole: caffenames.WholeNet | None) -> str | Mapping[str, Any] | None:
    """What a whole net subtracts: by its layers, else by its published file name, as the nets of one data set look alike.

    None for an image classifier: the network's own default then, since it is the network that will be trained.
    """
    if whole is None:
        return None
    entry = find_by_file_name(path)
    return whole.preprocessing or (entry.preprocessing if entry is not None else "caffe")


def _backbone_of(name: str) -> str:
    """The backbone that a registered FCN has by default."""
    return str(MODELS[name].options["backbone"].default)


def _backbone_for(path: str | Path, name: str, found: str, whole: caffenames.WholeNet | None) -> str:
    """The file's backbone, if it is of the family that the model is built on."""
    default = _backbone_of(name)
    family = next(family for family in FAMILIES if default.startswith(family))
    if not found.startswith(family):
        fitting = [other for other in fcn_names() if whole is None or layout_of(other) == whole.layout]
        others = [other for other in fitting if found.startswith(_backbone_of(other)[:3])]
        raise CheckpointError(
            path, f"holds {found}, and {name} is built on {default}", "import it as " + " or ".join(others)
        )
    return found
