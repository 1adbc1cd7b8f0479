"""All families, in the order of the page."""

from __future__ import annotations

from .fcn import FCN_ROWS
from .rows import Family
from .trunks import DEFORM_ROWS, EFFICIENTNET_ROWS, PART_ROWS, SENET_ROWS, TRUNK_ROWS, XCEPTION_ROWS

FAMILIES: tuple[Family, ...] = (
    FCN_ROWS,
    TRUNK_ROWS,
    SENET_ROWS,
    XCEPTION_ROWS,
    EFFICIENTNET_ROWS,
    PART_ROWS,
    DEFORM_ROWS,
)
