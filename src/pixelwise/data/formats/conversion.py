"""What a conversion passes to the format that writes: the samples, where images go, and what was left out."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core import Taxonomy
from ...errors import InputError, MaskError
from ...files import atomic_write, write_text
from ...images import exif_orientation, image_suffix
from ...strict_yaml import to_yaml
from ..dataset import Dataset, Item
from .base import name_inside

SPLITS = ("train", "val", "test")
"""The splits that the written folders know by name."""


@dataclass
class Conversion:
    """A dataset on its way into a new folder.

    dataset  what is converted
    out      the new folder, which exists and is empty
    link     link to the images instead of copying them
    report   called with the number of images done and their total
    notes    lines for the user: what the format cannot hold, what was left out
    counts   number of images that were written, per split
    """

    dataset: Dataset
    out: Path
    link: bool = False
    report: Callable[[int, int], None] | None = None
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _names: dict[Path, Item] = field(default_factory=dict)

    @property
    def taxonomy(self) -> Taxonomy:
        """The classes."""
        return self.dataset.taxonomy

    def samples(self, *, all_splits: bool = False) -> Iterator[tuple[str, Item, NDArray[Any]]]:
        """Yield split, item and mask of every labeled image, as `Split` reads it; each image is decoded once.

        all_splits  include splits of other names than train, val and test
        Raises ImageError or MaskError naming a file that cannot be read.
        """
        chosen = [split for name, split in self.dataset.splits.items() if all_splits or name in SPLITS]
        left_out = [name for name in self.dataset.splits if not all_splits and name not in SPLITS]
        if left_out:
            self.notes.append(f"not written: split {', '.join(left_out)}; the format holds train, val and test")
        total, done, turned = sum(len(split) for split in chosen), 0, 0
        unlabeled: Counter[str] = Counter()
        for split in chosen:
            for k, item in enumerate(split.items):
                done += 1
                if self.report:
                    self.report(done, total)
                if item.mask is None:
                    unlabeled[split.name] += 1
                    continue
                sample = split[k]
                turned += exif_orientation(item.image) > 1
                assert sample.mask is not None, "the item has a mask"
                self.counts[split.name] += 1
                yield split.name, item, sample.mask
        if unlabeled:
            counts = ", ".join(f"{count} of split {name}" for name, count in unlabeled.items())
            self.notes.append(f"not written: images without a mask ({counts})")
        if turned:
            self.notes.append(
                f"{turned} images have an EXIF orientation, and stay as they are: "
                "the new masks fit the images as viewers show them"
            )

    @property
    def labels(self) -> list[str]:
        """The names of the classes that get shapes: all but the background, which is what has no shape."""
        rest = () if self.taxonomy.multilabel else self.taxonomy.background[:1]
        return [name for k, name in enumerate(self.taxonomy.names) if k not in rest]

    def regions(self, item: Item, mask: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield label and pixels (H, W) of each class in a mask that has a shape, and of what is ignored as `ignored`.

        Where no class is background, ignored pixels need no shape: a reader ignores what has none. Of several labels
        per pixel, the regions overlap. Raises MaskError for pixels that are unknown for some of the classes alone.
        """
        taxonomy = self.taxonomy
        if taxonomy.multilabel:
            is_unknown = mask == taxonomy.ignore_id
            everywhere = is_unknown.all(0)
            if (is_unknown & ~everywhere).any():
                what = "has pixels that are unknown for some classes alone, which shapes cannot say"
                raise MaskError(item.mask, what, "convert to `folder` or `npy`")
            for label, plane in zip(taxonomy.names, mask, strict=True):
                if (plane == 1).any():
                    yield label, plane == 1
            if everywhere.any():
                yield "ignored", everywhere
            return
        rest = taxonomy.background[0] if taxonomy.background else taxonomy.ignore_id
        for id_ in np.unique(mask).tolist():
            if id_ != rest:
                yield "ignored" if id_ == taxonomy.ignore_id else taxonomy.names[id_], mask == id_

    def place_image(self, item: Item, folder: str, name: str | None = None) -> str:
        """Copy or link the image of an item byte for byte, and return its path below `out`, with forward slashes.

        name  without suffix; the item's key if None
        """
        suffix = item.image.suffix or image_suffix(item.image)
        place = f"{folder}/{name_inside(self.out, name or item.key)}{suffix}"
        target = self.out / place
        other = self._names.setdefault(Path(str(target).casefold()), item)
        if other.image != item.image:
            raise InputError(item.image, f"and {other.image} would both be written to {place}", "rename one of them")
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            if not os.path.lexists(target):
                target.symlink_to(item.image.resolve())
        else:
            with open(item.image, "rb") as source, atomic_write(target) as file:
                shutil.copyfileobj(source, file)
        return place

    def write_classes(self, *, by_color: bool = False, ignored: bool = False) -> None:
        """Write classes.yaml.

        ignored  add the value 255, or 65535, where the taxonomy has no value for ignored pixels, which mask files need;
                 those of several labels per pixel have a file for them
        """
        data = self.taxonomy.to_dict()
        if ignored and not data["ignore"] and not self.taxonomy.multilabel:
            data["ignore"] = [free_value(self.taxonomy)]
        if by_color:
            data["masks"] = "color"
            data["ignore_colors"] = [list(self.taxonomy.ignore_color)]
        write_text(self.out / "classes.yaml", to_yaml(data))


def free_value(taxonomy: Taxonomy) -> int:
    """Return the value that ignored pixels have in a mask file: the first of the taxonomy, or one that is no class."""
    if taxonomy.ignored:
        return taxonomy.ignored[0]
    candidates: tuple[int, ...] = (255, 65535, *range(65536))
    return next(value for value in candidates if value not in taxonomy.values)
