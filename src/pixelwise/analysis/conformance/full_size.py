"""DeconvNet and FRRN, which label at full size: parameters and multiply-adds; the CRF behind the first."""

from __future__ import annotations

from functools import partial

from torch import nn

from ...crf import PRESETS
from ...models.deconvnet import DeconvNet
from ..mult_adds import num_parameters
from .measure import macs, network
from .rows import Family

DECONVNET_ROWS, FRRN_ROWS = Family("DeconvNet"), Family("FRRN")


def _deconvnet() -> DeconvNet:
    model = network("deconvnet")
    assert isinstance(model, DeconvNet)
    return model


@DECONVNET_ROWS.row("21 classes", "parameters incl. BN affine")
def _all_parameters() -> int:
    return num_parameters(_deconvnet())


@DECONVNET_ROWS.row("21 classes", "parameters w/o BN affine")
def _parameters_of_convolutions() -> int:
    norms = [layer for layer in _deconvnet().modules() if isinstance(layer, nn.BatchNorm2d)]
    return num_parameters(_deconvnet()) - sum(map(num_parameters, norms))


@DECONVNET_ROWS.row("21 classes", "parameters of fc6")
def _parameters_of_the_middle() -> int:
    model = _deconvnet()
    return sum(map(num_parameters, (model.fc6, model.fc7, model.deconv_fc6)))


@DECONVNET_ROWS.row("21 classes", "MACs")
def _macs() -> int:
    return macs(_deconvnet(), 224)


@DECONVNET_ROWS.row("CRF at inference", "gaussian")
def _crf() -> list[float]:
    found = PRESETS["deconvnet"]
    return [found.theta_gamma, found.w2, found.theta_alpha, found.theta_beta, found.w1, found.iterations]


def _frrn_parameters(name: str) -> int:
    return num_parameters(network(name, 19))


def _frrn_macs(name: str, height: int) -> int:
    return macs(network(name, 19), height, 2 * height)


for _letter in "AB":
    _name = f"frrn_{_letter.lower()}"
    FRRN_ROWS.row(_letter, "parameters")(partial(_frrn_parameters, _name))
    for _height in (256, 512):
        FRRN_ROWS.row(_letter, "MACs", f"3x{_height}x{2 * _height}")(partial(_frrn_macs, _name, _height))
