"""torchvision's segmentation networks: parameters and multiply-adds, with and without the auxiliary head."""

from __future__ import annotations

from functools import partial

from .measure import macs, network, network_parameters
from .rows import Family

TORCHVISION_ROWS = Family("torchvision 0.28")
NAMES = ("fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large")
LRASPP = "lraspp_mobilenet_v3_large"


def training_macs(name: str) -> int:
    """Return the multiply-adds of one image of 520 x 520 in training, when the auxiliary head is computed too."""
    return macs(network(f"torchvision_{name}").train(), 520)


def macs_without_aux(name: str) -> int:
    """Return the multiply-adds of one image of 520 x 520 in evaluation, without the auxiliary head."""
    return macs(network(f"torchvision_{name}"), 520)


for _name in NAMES:
    TORCHVISION_ROWS.row(f"{_name} aux", "parameters")(partial(network_parameters, f"torchvision_{_name}"))
    TORCHVISION_ROWS.row(f"{_name} aux", "MACs")(partial(training_macs, _name))
    TORCHVISION_ROWS.row(f"{_name} no aux", "parameters")(
        partial(network_parameters, f"torchvision_{_name}", auxiliary=False)
    )
    TORCHVISION_ROWS.row(f"{_name} no aux", "MACs")(partial(macs_without_aux, _name))
TORCHVISION_ROWS.row(LRASPP, "parameters")(partial(network_parameters, f"torchvision_{LRASPP}"))
TORCHVISION_ROWS.row(LRASPP, "MACs")(partial(macs_without_aux, LRASPP))
