"""DeconvNet and FRRN, which label at full size: parameters and multiply-adds; the CRF after DeconvNet."""

from __future__ import annotations

from functools import partial

from torch import nn

from ...crf import PRESETS
from ...models.deconvnet import DeconvNet
from ..mult_adds import num_parameters
from .measure import macs, network, network_macs, network_parameters
from .rows import Family

DECONVNET_ROWS, FRRN_ROWS = Family("DeconvNet"), Family("FRRN")


def deconvnet() -> DeconvNet:
    """Return the network of the paper on the meta device."""
    model = network("deconvnet")
    assert isinstance(model, DeconvNet)
    return model


@DECONVNET_ROWS.row("21 classes", "parameters incl. BN affine")
def _all_parameters() -> int:
    return num_parameters(deconvnet())


@DECONVNET_ROWS.row("21 classes", "parameters w/o BN affine")
def _parameters_of_convolutions() -> int:
    norms = [layer for layer in deconvnet().modules() if isinstance(layer, nn.BatchNorm2d)]
    return num_parameters(deconvnet()) - sum(map(num_parameters, norms))


@DECONVNET_ROWS.row("21 classes", "parameters of fc6")
def _parameters_of_the_middle() -> int:
    model = deconvnet()
    return sum(map(num_parameters, (model.fc6, model.fc7, model.deconv_fc6)))


@DECONVNET_ROWS.row("21 classes", "MACs")
def _macs() -> int:
    return macs(deconvnet(), 224)


@DECONVNET_ROWS.row("CRF at inference", "gaussian")
def _crf() -> list[float]:
    found = PRESETS["deconvnet"]
    return [found.theta_gamma, found.w2, found.theta_alpha, found.theta_beta, found.w1, found.iterations]


for _letter in "AB":
    _name = f"frrn_{_letter.lower()}"
    FRRN_ROWS.row(_letter, "parameters")(partial(network_parameters, _name, 19))
    for _height in (256, 512):
        FRRN_ROWS.row(_letter, "MACs", f"3x{_height}x{2 * _height}")(
            partial(network_macs, _name, _height, 2 * _height, num_classes=19)
        )
