"""Dataset formats: arrangements of a dataset in folders, one per file. Importing this package registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

from .base import DATASETS, DatasetFormat

__all__ = ["DATASETS", "DatasetFormat"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
