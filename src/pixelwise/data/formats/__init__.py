"""Dataset formats: arrangements of a dataset in folders, one per file. `DATASETS` imports them when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._lazy import lazy_names
from ...registry import Registry

if TYPE_CHECKING:
    from .base import DatasetFormat
else:
    __getattr__ = lazy_names(__name__, {"DatasetFormat": "base"})

__all__ = ["DATASETS", "DatasetFormat"]

DATASETS: Registry[DatasetFormat] = Registry("dataset format", "pixelwise datasets", package=__name__)
