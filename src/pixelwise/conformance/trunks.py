"""Trunks: the classifiers' parameters and multiply-adds, against torchvision's nets and the authors' files."""

from __future__ import annotations

from functools import partial

from torch import nn

from ..geometry import layers_of, receptive_field
from .measure import classifier, classifier_macs, macs, parameters, trunk
from .rows import Family

TRUNK_ROWS = Family("backbone")


def _parameters(name: str) -> int:
    return parameters(classifier(name, 1000))


for _name, _own, _size in (
    ("torchvision alexnet", "alexnet", 224),
    ("torchvision vgg16", "vgg16", 224),
    ("torchvision vgg16_bn", "vgg16_bn", 224),
):
    TRUNK_ROWS.add(partial(_parameters, _own), _name, "parameters")
    TRUNK_ROWS.add(partial(classifier_macs, _own, _size), _name, "MACs")

# The two Caffe nets differ in the order of pooling and normalisation, which no count sees.
for _name in ("Caffe alexnet", "Caffe caffenet"):
    TRUNK_ROWS.add(partial(_parameters, "alexnet_caffe"), f"{_name} (groups", "parameters")
    TRUNK_ROWS.add(partial(classifier_macs, "alexnet_caffe", 227), _name, "MACs")


def _googlenet(name: str) -> list[int]:
    return [parameters(trunk(name, num_classes=k, aux_heads=aux)) for k, aux in ((0, False), (1000, False), (1000, True))]


TRUNK_ROWS.add(lambda: _googlenet("googlenet"), "Caffe GoogLeNet", "parameters")
TRUNK_ROWS.add(lambda: macs(trunk("googlenet"), 224), "Caffe GoogLeNet trunk", "MACs")
TRUNK_ROWS.add(lambda: _googlenet("googlenet_torchvision")[1:], "torchvision googlenet [", "parameters")
TRUNK_ROWS.add(lambda: classifier_macs("googlenet_torchvision", 224), "torchvision googlenet", "MACs")
TRUNK_ROWS.add(lambda: parameters(trunk("vgg16")), "VGG16 conv1-conv5", "parameters")


@TRUNK_ROWS("VGG16 fc6 / fc7", "parameters")
def _vgg_hidden() -> list[int]:
    head = classifier("vgg16", 1000).head()
    assert head is not None
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    return [parameters(layer) for layer in linears[:2]]


def _resnet_fields(depth: int) -> list[int]:
    places = ("3x3", "1x1") if depth >= 50 else ("3x3", "3x3")
    return [receptive_field(layers_of(classifier(f"resnet{depth}", stride_in=place).path())).size for place in places]


def _strided_first(depth: int) -> int:
    return macs(trunk(f"resnet{depth}", stride_in="1x1"), 224)


for _depth in (18, 34, 50, 101, 152):
    TRUNK_ROWS.add(partial(_parameters, f"resnet{_depth}"), f"torchvision resnet{_depth}", "parameters")
    TRUNK_ROWS.add(partial(classifier_macs, f"resnet{_depth}", 224), f"torchvision resnet{_depth}", "MACs")
    TRUNK_ROWS.add(partial(_resnet_fields, _depth), f"ResNet-{_depth}", "receptive field")
for _depth in (50, 101, 152):
    TRUNK_ROWS.add(partial(_strided_first, _depth), f"ResNet-{_depth} trunk", "MACs")

SENET_ROWS = Family("SENet")


def _senet(depth: int, bias: bool) -> int:
    return parameters(trunk(f"se_resnet{depth}", num_classes=1000, bias=bias))


for _depth in (50, 101, 152):
    SENET_ROWS.add(partial(_senet, _depth, True), f"SE-resnet{_depth} r=16, biased", "parameters")
    SENET_ROWS.add(partial(_senet, _depth, False), f"SE-resnet{_depth} r=16, no bias", "parameters")
