"""Image classifiers' files: which backbone they hold, and the place of their arrays in a backbone.

Files are Caffe's (VGG16, VGG19, CaffeNet, GoogLeNet; names by `caffe_names`) or torchvision's, whose names the
backbones carry themselves. The classifier's last layer has no place in a segmentation network, nor have auxiliary
classifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from ...backbones.classifier import ClassifierBackbone
from ...backbones.vgg import DEPTHS
from ...errors import CheckpointError, ConfigError
from ...models import ModelSpec, SegmentationModel
from .load import Imported, KeyMapping, Report, Request, WeightFile, load_mapped, read_weight_file

VOC_CLASSES = 21
# A counter of batch norm that nothing here reads; files from before torch 0.4.1 lack it.
COUNTER = "num_batches_tracked"
# Suffixes of the layer names in late fusion, whose two streams are classifiers.
STREAMS = ("color", "hha")
# A layer that only one of Caffe's published classifiers has. VGG19 has VGG16's names and more.
CAFFE_BACKBONES = {"inception_3a/1x1": "googlenet", "conv3_4": "vgg19", "conv3_3": "vgg16", "conv5": "alexnet_caffe"}
CAFFE_LAST_LAYERS = ("fc8", "loss3/classifier")
# Auxiliary classifiers of GoogLeNet: Caffe's names, torchvision's.
AUX_PREFIXES = ("loss1/", "loss2/", "aux1.", "aux2.")

# Far beyond the number of layers in the chain of any classifier.
MAX_LINKS = 200

LAST_LAYER_REASON = "the classifier's last layer: score layers take its place"
AUX_REASON = "an auxiliary classifier: for training the classifier only"
AFTER_REASON = "layers of the classifier after the backbone"


def backbone_in(file: WeightFile) -> str | None:
    """Return the backbone that the file's names and shapes are of, or None for any other file."""
    if file.is_caffe:
        for layer, backbone in CAFFE_BACKBONES.items():
            if any(f"{layer}{stream}.weight" in file.arrays for stream in ("", *STREAMS)):
                return backbone
        return None
    if "inception3a.branch1.conv.weight" in file.arrays:
        return "googlenet_torchvision"
    weights = {name: array.shape for name, array in file.arrays.items() if name.endswith(".weight")}
    convs = [shape for name, shape in weights.items() if name.startswith("features.") and len(shape) == 4]
    if convs and convs[0][-1] == 11:
        return "alexnet"
    depth = {sum(stages): depth for depth, stages in DEPTHS.items()}.get(len(convs))
    if depth is None:
        return None
    return f"vgg{depth}" + ("_bn" if any(name.endswith(".running_mean") for name in file.arrays) else "")


def load_classifier(backbone: ClassifierBackbone, path: str | Path) -> Report:
    """Load a file into an image classifier that was built with the file's number of classes.

    Raises CheckpointError as `import_model` does, ConfigError for a backbone without its classifier.
    """
    if backbone.head() is None:
        raise ConfigError("backbone", "was built without a classifier", "create it with num_classes=1000")
    file = read_weight_file(path)
    fix = "create the backbone that the file was made for, with its number of classes"
    report = load_mapped(backbone, file, map_classifier(backbone, file), fix)
    return replace(report, preprocessing=file_preprocessing(file))


def map_classifier(backbone: ClassifierBackbone, file: WeightFile) -> KeyMapping:
    """Return the place of a classifier's arrays in a backbone, with its head where the backbone has one."""
    same_names = {name: name for name in backbone.state_dict()}
    moves = caffe_moves(backbone, backbone.caffe_names()) if file.is_caffe else same_names
    mapping = KeyMapping(moves, dropped=leftover(file))
    for name in moves.values():
        mapping.dropped.pop(name, None)
    return without_missing_counters(mapping, file)


def map_backbone(backbone: ClassifierBackbone, file: WeightFile) -> KeyMapping:
    """Return the place of a classifier's arrays in a backbone that may end earlier: what comes later has none."""
    mapping = map_classifier(backbone, file)
    # The head, and later links of the chain `features` where the backbone ends earlier. A made-up name is unexpected.
    positions = [key.split(".")[1] for key in backbone.state_dict() if key.startswith("features.")]
    links = [int(position) for position in positions if position.isdecimal()]  # DenseNet's have names
    later = tuple(f"features.{link}." for link in range(max(links) + 1, MAX_LINKS)) if links else ()
    placed = set(mapping.moves.values())
    for name in file.arrays:
        if name not in placed and name.startswith(("fc", "classifier.", "head.", "aux1.", "aux2.", *later)):
            mapping.dropped[name] = AFTER_REASON
    return mapping


def load_backbone(model: SegmentationModel, file: WeightFile, fix: str) -> Report:
    """Load a classifier's file into a network's submodule `backbone`; the layers after it keep their weights.

    Raises CheckpointError, with `fix`, that lists what is missing, mis-shaped, or belongs to no classifier.
    """
    backbone = model.get_submodule("backbone")
    if not isinstance(backbone, ClassifierBackbone):
        what = f"fits no part of {model.spec.name}, whose backbone was never an image classifier"
        raise CheckpointError(file.path, what, 'choose one by the options, such as "{backbone: efficientnet_b0}"')
    mapping = map_backbone(backbone, file)
    mapping.moves = {f"backbone.{key}": name for key, name in mapping.moves.items()}
    mapping.fresh = [key for key in model.state_dict() if key not in mapping.moves]
    if not mapping.moves:
        raise CheckpointError(file.path, "holds nothing of the network's backbone", fix)
    return load_mapped(model, file, mapping, fix)


def import_backbone(file: WeightFile, request: Request) -> Imported:
    """Build a network on a classifier and load its backbone; the layers after it keep their fresh weights.

    Raises CheckpointError that lists what is missing, mis-shaped, or belongs to no classifier.
    """
    options = {"preprocessing": file_preprocessing(file), **request.options}
    model = ModelSpec(request.name, request.num_classes or VOC_CLASSES, request.in_channels or 3, options).build()
    report = load_backbone(model, file, "choose the file of the network's own backbone")
    return Imported(model.eval(), model.spec, report)


def caffe_moves(network: nn.Module, names: Mapping[str, str]) -> dict[str, str]:
    """Return state name -> Caffe's array name, for layer name -> submodule."""
    own = network.state_dict()
    pairs = [(f"{module}.{kind}", f"{layer}.{kind}") for layer, module in names.items() for kind in ("weight", "bias")]
    return {key: name for key, name in pairs if key in own}


def leftover(file: WeightFile) -> dict[str, str]:
    """Return the arrays of a classifier's file that only classification needs, each with the reason."""
    dropped = {name: AUX_REASON for name in file.arrays if name.startswith(AUX_PREFIXES)}
    if file.is_caffe:
        last = [name for name in file.arrays if name.rpartition(".")[0] in CAFFE_LAST_LAYERS]
        dropped |= dict.fromkeys(last, LAST_LAYER_REASON)
    return dropped


def file_preprocessing(file: WeightFile) -> str:
    """Return the pixel normalization that a classifier's file was trained with."""
    return "caffe" if file.is_caffe else file.preprocessing or torch_preprocessing(file)


def torch_preprocessing(file: WeightFile) -> str:
    """Return the pixel normalization of torchvision's file; its GoogLeNet was trained in TensorFlow."""
    return "tensorflow" if backbone_in(file) == "googlenet_torchvision" else "torchvision"


def without_missing_counters(mapping: KeyMapping, file: WeightFile) -> KeyMapping:
    """Return the mapping with the norms' counters that the file lacks left at zero."""
    lacking = [key for key, name in mapping.moves.items() if name.endswith(COUNTER) and name not in file.arrays]
    for key in lacking:
        del mapping.moves[key]
    mapping.fresh += lacking
    return mapping
