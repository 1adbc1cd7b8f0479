"""torchvision's segmentation nets: parameters and multiply-adds, with and without the auxiliary head."""

from __future__ import annotations

from functools import partial

from ..mult_adds import num_parameters
from .measure import macs, network
from .rows import Family

TORCHVISION_ROWS = Family("torchvision 0.28")
NAMES = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")


def _parameters(name: str, auxiliary: bool) -> int:
    return num_parameters(network(f"torchvision_{name}", auxiliary=auxiliary))


def _macs(name: str, auxiliary: bool) -> int:
    # The auxiliary head runs in training only.
    return macs(network(f"torchvision_{name}", auxiliary=auxiliary).train(auxiliary), 520)


for _name in NAMES:
    for _auxiliary, _suffix in ((True, "aux"), (False, "no aux")):
        TORCHVISION_ROWS.row(f"{_name} {_suffix}", "parameters")(partial(_parameters, _name, _auxiliary))
        TORCHVISION_ROWS.row(f"{_name} {_suffix}", "MACs")(partial(_macs, _name, _auxiliary))


@TORCHVISION_ROWS.row("lraspp_mobilenet_v3_large", "parameters")
def _lraspp_parameters() -> int:
    return num_parameters(network("torchvision_lraspp_mobilenet_v3_large"))


@TORCHVISION_ROWS.row("lraspp_mobilenet_v3_large", "MACs")
def _lraspp_macs() -> int:
    return macs(network("torchvision_lraspp_mobilenet_v3_large"), 520)
