"""Trunks: the classifiers' parameters and multiply-adds, against torchvision's nets and the authors' files."""

from __future__ import annotations

from functools import partial

from torch import nn

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
