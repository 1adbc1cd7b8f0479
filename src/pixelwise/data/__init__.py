"""From files on disk to batches: dataset formats, splits, augmentation, the loader.

Reading order: `opening` (a folder to a dataset), `dataset` (splits and items), `formats` (one file per folder layout),
`transforms` (augmentation), `loader` (batches). For U-Net's weight map of your own masks, see `border_weights`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .check import Finding, check_classes, check_masks, diagnose
    from .counts import count_pixels
    from .dataset import Dataset, Item, MaskEncoding, Split
    from .formats import DATASETS, DatasetFormat
    from .groups import Groups, find_groups
    from .opening import open_dataset
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "DATASETS": "formats",
            "Dataset": "dataset",
            "DatasetFormat": "formats",
            "Finding": "check",
            "Groups": "groups",
            "Item": "dataset",
            "MaskEncoding": "dataset",
            "Split": "dataset",
            "check_classes": "check",
            "check_masks": "check",
            "count_pixels": "counts",
            "diagnose": "check",
            "find_groups": "groups",
            "open_dataset": "opening",
        },
    )

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetFormat",
    "Finding",
    "Groups",
    "Item",
    "MaskEncoding",
    "Split",
    "check_classes",
    "check_masks",
    "count_pixels",
    "diagnose",
    "find_groups",
    "open_dataset",
]
