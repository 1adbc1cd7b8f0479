"""torchvision's segmentation nets: parameters and multiply-adds, with and without the auxiliary head."""

from __future__ import annotations

from functools import partial

from .measure import macs, network, parameters
from .rows import Family

TORCHVISION_ROWS = Family("torchvision 0.28")
NAMES = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")


def _parameters(name: str, auxiliary: bool) -> int:
    return parameters(network(f"torchvision_{name}", auxiliary=auxiliary))


def _macs(name: str, auxiliary: bool) -> int:
    # The auxiliary head runs in training only.
    return macs(network(f"torchvision_{name}", auxiliary=auxiliary).train(auxiliary), 520)


for _name in NAMES:
    for _auxiliary, _suffix in ((True, "aux"), (False, "no aux")):
        TORCHVISION_ROWS.add(partial(_parameters, _name, _auxiliary), f"{_name} {_suffix}", "parameters")
        TORCHVISION_ROWS.add(partial(_macs, _name, _auxiliary), f"{_name} {_suffix}", "MACs")


@TORCHVISION_ROWS("lraspp_mobilenet_v3_large", "parameters")
def _lraspp_parameters() -> int:
    return parameters(network("torchvision_lraspp_mobilenet_v3_large"))


@TORCHVISION_ROWS("lraspp_mobilenet_v3_large", "MACs")
def _lraspp_macs() -> int:
    return macs(network("torchvision_lraspp_mobilenet_v3_large"), 520)
