"""All families, in the order of the page."""

from __future__ import annotations

from .fcn import FCN_ROWS
from .rows import Family
from .trunks import SENET_ROWS, TRUNK_ROWS

FAMILIES: tuple[Family, ...] = (FCN_ROWS, TRUNK_ROWS, SENET_ROWS)
