"""Import published weights of other projects, strictly: every array of a file has its place, or the file is refused.

Reading order: `import_model` here; `load.py` opens a file (by `safe_open.py` or, for Caffe, `caffemodel.py`) and copies
mapped arrays into a network; what a file holds and the place of its arrays are known by `fcn_nets.py` for the FCN
family, `torchvision_nets.py` for torchvision's segmentation nets, `classifiers.py` for image classifiers. A `.tflite`
is read by `tflite.py` and followed, operator by operator, by `deeplab_tflite.py`.

A `.caffemodel` is a whole FCN (one stream, early or late fusion, two heads) or an image classifier (VGG16, VGG19,
CaffeNet, BVLC GoogLeNet); a `.pth` or `.safetensors` is one of torchvision's classifiers or segmentation nets. A
classifier gives the backbone and fc6, fc7; its last layer is left out and the score layers start at zero. A `.tflite`
is Google's quantized DeepLab v3 on MobileNetV2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import CheckpointError, ConfigError
from ...models import MODELS
from .classifiers import import_backbone, load_classifier
from .deeplab_tflite import NETWORK, import_tflite
from .efficientnet_lite import with_our_names
from .fcn_nets import import_fcn, whole_net
from .load import Imported, Report, Request, read_weight_file
from .safe_open import TORCH_ENDINGS
from .tflite import TFLITE_ENDING
from .torchvision_nets import import_torchvision_net

__all__ = ["Imported", "Report", "import_model", "load_classifier"]


def import_model(
    path: str | Path,
    name: str | None = None,
    num_classes: int | None = None,
    *,
    in_channels: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Imported:
    """Build the registered network `name` and load a published weight file into it.

    name         may be left out for a file that fits one network only: a .tflite
    num_classes  K; left out, it is the file's own, or 21 (VOC) where the file is an image classifier
    in_channels  channels of the images; left out, it is the file's own, or the network's default
    options      further options of the model, such as {"backbone": "efficientnet_b0"}; the pixel normalization follows
                 from the file, and for FCN on VGG, AlexNet and GoogLeNet the backbone too
    Raises CheckpointError for a file that is damaged, of another network, or has layers missing or too many;
    UnknownNameError and ConfigError for the model's name and options; ResourceError for a .tflite without the package
    that reads it.
    """
    is_tflite = Path(path).suffix == TFLITE_ENDING
    if name is None and not is_tflite:
        fix = "name the network, such as --as fcn8s_vgg16; `pixelwise models` lists them"
        raise ConfigError("--as", f"{Path(path).suffix or 'this'} files fit several networks", fix)
    name = name or NETWORK
    if is_tflite:
        return import_tflite(path, Request(MODELS[name].name, num_classes, in_channels, options or {}))
    importable = MODELS[name].product.import_format
    request = Request(name, num_classes, in_channels, options or {})
    if importable == "caffe":
        return import_fcn(with_our_names(read_weight_file(path)), request)
    if importable == "torchvision":
        return import_torchvision_net(read_weight_file(path, TORCH_ENDINGS), request)
    fcns, torchvision_nets = _networks("caffe"), _networks("torchvision")
    if importable != "backbone":
        fix = f"choose one of {', '.join(fcns + torchvision_nets)}, or a network on a published backbone"
        raise ConfigError(name, "no published weights fit this network", fix)
    file = with_our_names(read_weight_file(path))
    net = whole_net(file)
    if net is not None:
        what = f"expected an image classifier for {name}, got a whole net with {net.layout}"
        raise CheckpointError(path, what, "import it as " + " or ".join(fcns))
    return import_backbone(file, request)


def _networks(importable: str) -> list[str]:
    """Return the names of the registered networks that declare this import format."""
    return sorted(name for name in MODELS if MODELS[name].product.import_format == importable)
