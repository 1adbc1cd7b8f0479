"""Hypercolumns: numbers per pixel, and parameters of their classifiers."""

from __future__ import annotations

from torch import nn

from ...models.hypercolumns import Hypercolumns
from ..mult_adds import num_parameters
from .measure import network
from .rows import Family

HYPERCOLUMN_ROWS = Family("Hypercolumns")


def _alexnet(num_classes: int) -> Hypercolumns:
    model = network("hypercolumns_alexnet", num_classes)
    assert isinstance(model, Hypercolumns)
    return model


@HYPERCOLUMN_ROWS.row("AlexNet pool2+conv4+fc7", "hypercolumn length")
def _length() -> int:
    return sum(layer.in_channels for layer in _alexnet(21).scores.children() if isinstance(layer, nn.Conv2d))


@HYPERCOLUMN_ROWS.row("K=10, one class", "classifier parameters")
def _classifier_parameters() -> int:
    return num_parameters(_alexnet(1).scores)
