"""A second label map per image, for networks with two heads: declared in classes.yaml, in a folder beside the masks.

    second:
      folder: geometry             # geometry/train/a.png, as masks/train/a.png
      classes: [sky, vertical, horizontal]
      ignore: [255]

In a training both maps travel as one mask, so that crops and all other changes are those of one label map: a pixel has
the number 256 * first + second, and `IGNORED` where both are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from ..core import Sample, Taxonomy
from ..errors import ConfigError, DatasetError, MaskError, listed, shown
from ..images import IMAGE_SUFFIXES
from ..strict_yaml import read_yaml
from .counts import count_pixels
from .dataset import Dataset, Item, SecondLabels, Split
from .pixel_formats import CLASS_FILES

if TYPE_CHECKING:
    from torch import Tensor

_FACTOR = 256
_EXAMPLE = "write such as `second: {folder: geometry, classes: [sky, vertical, horizontal]}`"


def with_second_labels(dataset: Dataset) -> Dataset:
    """Return the dataset with the second label map that classes.yaml declares, unchanged if it declares none.

    Raises ConfigError for a wrong declaration.
    """
    file = next((dataset.root / name for name in CLASS_FILES if (dataset.root / name).is_file()), None)
    data = read_yaml(file).get("second") if file else None
    if data is None:
        return dataset
    folder = data.get("folder") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(folder, str) or not folder or "/" in folder or "." in folder:
        raise ConfigError(file, f"`second`: expected a folder and classes, got {shown(data)}", _EXAMPLE)
    taxonomy = Taxonomy.from_dict({key: value for key, value in data.items() if key != "folder"}, file)
    if any(each.multilabel or each.num_classes > 255 for each in (taxonomy, dataset.taxonomy)):
        raise ConfigError(file, "`second`: expected one label per pixel, of at most 255 classes", _EXAMPLE)
    second = SecondLabels(dataset.root, folder, taxonomy)
    return replace(dataset, splits={name: split.with_second(second) for name, split in dataset.splits.items()})


def second_dataset(dataset: Dataset, name: str) -> Dataset:
    """Return the dataset with the masks and classes of its second label map. Raises ConfigError for another name."""
    declared = {split.second for split in dataset.splits.values()} - {None}
    second = next(iter(declared), None)
    if second is None or second.folder != name:
        known = "none" if second is None else second.folder
        what = f"has no second label map {shown(name)}; classes.yaml declares {known}"
        raise ConfigError(dataset.root, what, "declare it under `second`, or name the declared one")
    splits = {key: second_split(split) for key, split in dataset.splits.items()}
    return replace(dataset, taxonomy=second.taxonomy, splits=splits)


def second_split(split: Split) -> Split:
    """Return the split with the masks and classes of its second label map. Raises DatasetError for missing masks."""
    second = split.second
    assert second is not None, "the caller has checked it"
    items, missing = [], []
    for item in split.items:
        path = _second_mask(item, second)
        items.append(replace(item, mask=path))
        if path is None and item.mask is not None:
            missing.append(item.key)
    if missing:
        what = f"{len(missing)} of {len(split)} images of split {split.name} have no mask in {second.folder}: "
        raise DatasetError(second.root, what + listed(missing), "add them; they have the names of the other masks")
    return Split(split.name, items, second.taxonomy, pixels=split.pixels)


def _second_mask(item: Item, second: SecondLabels) -> Path | None:
    if item.mask is None or not item.mask.is_relative_to(second.root):
        return None
    _, *rest = item.mask.relative_to(second.root).parts
    stem = second.root.joinpath(second.folder, *rest).with_suffix("")
    return next((path for suffix in IMAGE_SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()), None)


def check_second_labels(split: Split) -> None:
    """Read every mask of the second label map. Raises MaskError or DatasetError for one that cannot be used."""
    count_pixels(second_split(split))


class PairSplit(Split):
    """A split whose masks hold both label maps, see above; for training alone."""

    def __init__(self, split: Split) -> None:
        super().__init__(split.name, split.items, split.taxonomy, split.encoding, pixels=split.pixels)
        self._second = second_split(split)

    @property
    def ignore_id(self) -> int:
        """The number of pixels that are ignored in both."""
        return _FACTOR * self.taxonomy.ignore_id + self._second.taxonomy.ignore_id

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Split: ...
    def __getitem__(self, index: int | slice) -> Sample | Split:
        """Read image i with both masks as one, (H, W) uint16. Raises ImageError or MaskError naming the file."""
        if isinstance(index, slice):
            raise TypeError("a PairSplit is not sliced")
        sample, item = super().__getitem__(index), self._second.items[index]
        second = self._second.read_labels(item)
        assert sample.mask is not None, "a training split has masks"
        assert second is not None, "`second_split` has found its mask"
        if second.shape != sample.mask.shape:
            what = f"expected the size {sample.mask.shape} of {self.items[index].mask}, got {second.shape}"
            raise MaskError(item.mask, what, "export both at one size")
        return replace(sample, mask=sample.mask.astype(np.uint16) * _FACTOR + second)


def split_pair(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the second label map of masks (B, H, W) of both, each with 255 for ignored pixels."""
    return masks // _FACTOR, masks % _FACTOR
