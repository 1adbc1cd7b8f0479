"""Backbones: parameters and multiply-adds of the classifiers, against torchvision's networks and the authors' files."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from ...backbones.efficientnet import SCALES
from ...nn.deform_conv import DeformConv2d, deform_conv2d
from ...nn.geometry import layers_of, receptive_field
from ...nn.separable_conv import depthwise, pointwise
from ..mult_adds import num_parameters
from .measure import backbone, classifier, classifier_macs, macs
from .rows import Family

BACKBONE_ROWS = Family("backbone")


def _parameters(name: str) -> int:
    return num_parameters(classifier(name, 1000))


for _name, _own, _size in (
    ("torchvision alexnet", "alexnet", 224),
    ("torchvision vgg16", "vgg16", 224),
    ("torchvision vgg16_bn", "vgg16_bn", 224),
):
    BACKBONE_ROWS.row(_name, "parameters")(partial(_parameters, _own))
    BACKBONE_ROWS.row(_name, "MACs")(partial(classifier_macs, _own, _size))

# The two Caffe networks differ only in the order of pooling and normalization, which does not change the counts.
for _name in ("Caffe alexnet", "Caffe caffenet"):
    BACKBONE_ROWS.row(f"{_name} (groups", "parameters")(partial(_parameters, "alexnet_caffe"))
    BACKBONE_ROWS.row(_name, "MACs")(partial(classifier_macs, "alexnet_caffe", 227))


def _backbone_parameters(name: str) -> int:
    return num_parameters(backbone(name))


def _backbone_macs(name: str, size: int) -> int:
    return macs(backbone(name), size)


def _macs_at_own_size(name: str) -> int:
    return classifier_macs(name, classifier(name).input_size)


def _googlenet(name: str) -> list[int]:
    return [
        num_parameters(backbone(name, num_classes=k, aux_heads=aux))
        for k, aux in ((0, False), (1000, False), (1000, True))
    ]


BACKBONE_ROWS.row("Caffe GoogLeNet", "parameters")(lambda: _googlenet("googlenet"))
BACKBONE_ROWS.row("Caffe GoogLeNet backbone", "MACs")(lambda: macs(backbone("googlenet"), 224))
BACKBONE_ROWS.row("torchvision googlenet [", "parameters")(lambda: _googlenet("googlenet_torchvision")[1:])
BACKBONE_ROWS.row("torchvision googlenet", "MACs")(lambda: classifier_macs("googlenet_torchvision", 224))
BACKBONE_ROWS.row("VGG16 conv1-conv5", "parameters")(lambda: num_parameters(backbone("vgg16")))


@BACKBONE_ROWS.row("VGG16 fc6 / fc7", "parameters")
def _vgg_fc_layers() -> list[int]:
    head = classifier("vgg16", 1000).head()
    assert head is not None
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    return [num_parameters(layer) for layer in linears[:2]]


def _resnet_fields(depth: int) -> list[int]:
    # Basic blocks have no 1x1: one number twice.
    locations = ("3x3", "1x1") if depth >= 50 else ("3x3", "3x3")
    backbones = (classifier(f"resnet{depth}", stride_in=location) for location in locations)
    return [receptive_field(layers_of(backbone.modules_to())).size for backbone in backbones]


def _macs_with_stride_in_1x1(depth: int) -> int:
    return macs(backbone(f"resnet{depth}", stride_in="1x1"), 224)


for _depth in (18, 34, 50, 101, 152):
    BACKBONE_ROWS.row(f"torchvision resnet{_depth}", "parameters")(partial(_parameters, f"resnet{_depth}"))
    BACKBONE_ROWS.row(f"torchvision resnet{_depth}", "MACs")(partial(classifier_macs, f"resnet{_depth}", 224))
    BACKBONE_ROWS.row(f"ResNet-{_depth}", "receptive field")(partial(_resnet_fields, _depth))
for _depth in (50, 101, 152):
    BACKBONE_ROWS.row(f"ResNet-{_depth} backbone", "MACs")(partial(_macs_with_stride_in_1x1, _depth))

SENET_ROWS = Family("SENet")


def _senet(depth: int, *, bias: bool) -> int:
    return num_parameters(backbone(f"se_resnet{depth}", num_classes=1000, se_bias=bias))


for _depth in (50, 101, 152):
    SENET_ROWS.row(f"SE-resnet{_depth} r=16, biased", "parameters")(partial(_senet, _depth, bias=True))
    SENET_ROWS.row(f"SE-resnet{_depth} r=16, no bias", "parameters")(partial(_senet, _depth, bias=False))

for _own, _name in (
    ("mobilenetv2", "mobilenet_v2"),
    *((f"densenet{depth}", f"densenet{depth}") for depth in (121, 161, 169, 201)),
    *((f"efficientnet_b{number}", f"efficientnet_b{number}") for number in range(8)),
):
    BACKBONE_ROWS.row(f"torchvision {_name}", "parameters")(partial(_parameters, _own))
    BACKBONE_ROWS.row(f"torchvision {_name}", "MACs")(partial(_macs_at_own_size, _own))

for _number in range(3):
    BACKBONE_ROWS.row(f"EfficientNet-Lite{_number}", "parameters")(partial(_parameters, f"efficientnet_lite{_number}"))

XCEPTION_ROWS = Family("Xception")
for _depth in (41, 65, 71):
    _name, _own = f"aligned Xception-{_depth}", f"xception{_depth}"
    XCEPTION_ROWS.row(_name, "backbone parameters")(partial(_backbone_parameters, _own))
    XCEPTION_ROWS.row(_name, "parameters with")(partial(_parameters, _own))
    XCEPTION_ROWS.row(_name, "MACs")(partial(_backbone_macs, _own, 299))

EFFICIENTNET_ROWS = Family("EfficientNet")
for _number, _scale in SCALES.items():
    EFFICIENTNET_ROWS.row(f"B{_number}", "[width, depth")(partial(list, _scale))


PART_ROWS = Family("depthwise separable")


@PART_ROWS.row("3->16 channels, 3x3", "weights")
def _separable_weights() -> list[int]:
    full, deep, point = nn.Conv2d(3, 16, 3, bias=False), depthwise(3), pointwise(3, 16)
    counts = [num_parameters(layer) for layer in (full, deep, point)]
    return [*counts, counts[1] + counts[2]]


DEFORM_ROWS = Family("deformable conv")


@DEFORM_ROWS.row("3x3, 1 group", "offset channels")
def _offset_channels() -> list[int]:
    return [DeformConv2d(4, 4, modulated=modulated).offset.out_channels for modulated in (False, True)]


@DEFORM_ROWS.row("bilinear sampling", "value at")
def _samples() -> list[float]:
    plane, one = torch.arange(25.0).view(1, 1, 5, 5), torch.ones(1, 1, 1, 1)
    positions = torch.tensor([(1.5, 2.25), (-0.5, 2), (4.25, 4.75), (-1, 0), (5, 0)])
    offsets = (position.view(1, 2, 1, 1).expand(1, 2, 5, 5) for position in positions)
    return [float(deform_conv2d(plane, offset, one)[0, 0, 0, 0]) for offset in offsets]


@DEFORM_ROWS.row("offset conv 512->18", "parameters")
def _offset_parameters() -> int:
    return num_parameters(backbone("resnet50", deformable="v1").get_submodule("layer4.0.conv2.offset"))
