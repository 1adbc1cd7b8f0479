"""The backbones of FCN: an image classifier, padded so that FCN's crops align its maps.

The authors pad the first convolution of VGG, AlexNet and GoogLeNet by 100 pixels and round sizes up. Classifiers whose
layers are all padded already (ResNet, the mobile networks) fit geometry "same" as they are.

Paper: https://arxiv.org/abs/1411.4038, the authors' net files.
"""

from __future__ import annotations

from typing import Any, Literal

from ..backbones import BACKBONES
from ..backbones.classifier import ClassifierBackbone
from ..errors import ConfigError, shown
from ..nn.geometry import layers_of
from ..registry import suggest

Geometry = Literal["caffe", "same"]

# Padding of the first convolution in the authors' nets: even an image of 1x1 pixels leaves fc6 a map of 7x7.
CAFFE_PADDING = 100
# Positions of VGG16's pool3, pool4, pool5 (stride 8, 16, 32) among the backbone's maps.
POOL3, POOL4, POOL5 = -3, -2, -1


def build_backbone(name: str, in_channels: int, *, geometry: Geometry, width_mult: float) -> ClassifierBackbone:
    """Return a classifier's convolutions, padded for FCN. Raises ConfigError for a backbone that cannot be."""
    known = [b for b in BACKBONES if issubclass(BACKBONES[b].product, ClassifierBackbone)]
    if name not in known:
        raise ConfigError("backbone", f"unknown FCN backbone {shown(name)}", suggest(name, known))
    entry, same = BACKBONES[name], geometry == "same"
    options: dict[str, Any] = {} if width_mult == 1 else {"width_mult": width_mult}
    if entry.product.same_stem_padding is not None:
        options |= {"stem_padding": entry.product.same_stem_padding if same else CAFFE_PADDING, "ceil_mode": True}
        # AlexNet's and GoogLeNet's poolings are 3x3, so that "same" pads them too; VGG's are 2x2.
        if "pool_padding" in entry.options:
            options["pool_padding"] = int(same)
    elif not same:
        raise ConfigError("geometry", f"{name} cannot be padded by {CAFFE_PADDING} pixels", "set geometry same")
    if "last_conv" in entry.options:
        options["last_conv"] = False  # the 1x1 to 1280 channels is for the classifier
    built = BACKBONES.create(name, in_channels=in_channels, **options)
    assert isinstance(built, ClassifierBackbone)
    # A map of floor(n / stride) positions leaves the last pixels of some sizes without a score.
    layers = layers_of(built.modules_to()) if same else []
    if any(2 * layer.padding < layer.dilation * (layer.kernel - 1) and not layer.ceil_mode for layer in layers):
        what = f"poolings of {name} round sizes down, so that FCN would not score the last pixels"
        raise ConfigError("backbone", what, "choose another backbone")
    assert built.strides[POOL3:] == (8, 16, 32), f"{name} has maps of strides {built.strides}"
    return built
