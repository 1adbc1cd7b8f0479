"""A family of masks per class: x_RAW.jpg with x_CRACK.png, x_LANE.png and x_POTHOLE.png, or a folder for each class.

Several masks of one image may also be those of several observers. Masks of two values that hardly cover the same pixels
are of several classes; observers agree. A pixel may then have several labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core import Taxonomy
from ...errors import ConfigError, DatasetError, InputError, listed
from ...images import read_mask
from ..dataset import Dataset, Item, Split
from .class_folders import absent_files_note
from .families import Base, Family

# Images whose masks are compared; masks of observers have most of their pixels in common.
_LOOKED_AT, _MAX_COMMON = 6, 0.3

Files = Mapping[Base, tuple[Path, Path]]


def classes_of_families(families: Mapping[Family, Files], *, declared: bool) -> dict[str, Family] | None:
    """Return the families by the name of their class; None if they are no classes, or their words do not name them.

    families  of masks of the same images: image and mask by base
    declared  whether classes.yaml says that there are several labels per pixel, so that the masks are not compared
    """
    if len(families) < 2:
        return None
    words = {f: re.findall(r"[^\W_]+", f"{f.folder} {f.before} {f.after}".casefold()) for f in families}
    common = set.intersection(*map(set, words.values()))
    names = {family: "_".join(word for word in each if word not in common) for family, each in words.items()}
    if not all(names.values()) or len(set(names.values())) < len(names):
        return None
    if not declared and not _are_classes(list(families.values())):
        return None
    found = {name: family for family, name in sorted(names.items(), key=lambda pair: pair[1])}
    try:
        Taxonomy(tuple(found), kind="multilabel")
    except ConfigError:
        return None
    return found


def _are_classes(families: Sequence[Files]) -> bool:
    """Return whether masks have two values, and those of one image hardly the same pixels."""
    shared = sorted(set.intersection(*(set(files) for files in families)))
    shares: dict[tuple[int, int], list[float]] = {}
    for base in shared[:: max(1, len(shared) // _LOOKED_AT)][:_LOOKED_AT]:
        masks = [_object(files[base][1]) for files in families]
        for (one, mask), (other, other_mask) in combinations(enumerate(masks), 2):
            if mask is None or other_mask is None or mask.shape != other_mask.shape:
                return False
            if mask.any() and other_mask.any():
                common = float((mask & other_mask).sum() / (mask | other_mask).sum())
                shares.setdefault((one, other), []).append(common)
    return bool(shared) and all(np.mean(each) <= _MAX_COMMON for each in shares.values())


def _object(path: Path) -> NDArray[np.bool_] | None:
    """Return where a mask of 0 and 1, or 0 and 255, is not 0; None for any other file."""
    try:
        mask = read_mask(path)
    except InputError:
        return None
    if mask.ndim == 3:
        mask = mask[..., 0] if (mask == mask[..., :1]).all() else mask
    is_bilevel = mask.ndim == 2 and set(np.unique(mask).tolist()) in ({0}, {0, 1}, {0, 255}, {1}, {255})
    return np.asarray(mask > 0) if is_bilevel else None


def read_class_families(
    root: Path,
    images: Family,
    families: Mapping[Family, Files],
    classes: Mapping[str, Family],
    *,
    rest: Iterable[Path],
    alone: Iterable[Path],
) -> Dataset:
    """Return the dataset of images with a mask per class.

    rest   images without any mask, which are left out and named
    alone  masks without an image, which are a fault
    """
    taxonomy = Taxonomy(tuple(classes), kind="multilabel")
    found: dict[Base, tuple[Path, list[tuple[int, Path]]]] = {}
    for k, family in enumerate(classes.values()):
        for base, (image, mask) in families[family].items():
            found.setdefault(base, (image, []))[1].append((k, mask))
    splits: dict[str, list[Item]] = {}
    for base, (image, files) in sorted(found.items()):
        splits.setdefault(base.split or "train", []).append(
            Item(base.key, image, files[0][1], class_files=tuple(files))
        )
    each = ", ".join(f"{family} = {name}" for name, family in classes.items())
    notes = [f"{root}: {len(found)} images {images} with masks of several labels per pixel: {each}"]
    items = [item for split in splits.values() for item in split]
    if lacking := absent_files_note(items, taxonomy):
        notes.append(f"{root}: {lacking}")
    without = sorted(set(rest) - {item.image for item in items})
    if without:
        names = listed(path.relative_to(root) for path in without)
        notes.append(f"{root}: {len(without)} images without a mask are left out: {names}")
    faults = []
    if masks := sorted({path.relative_to(root) for path in alone}):
        what = f"{len(masks)} masks have no image: {listed(masks)}"
        faults.append(DatasetError(root, what, "add the images, or take the masks out of the folder"))
    order = sorted(splits, key=lambda name: (name != "train", name))
    named = {name: Split(name, splits[name], taxonomy) for name in order}
    return Dataset("pairs", root, taxonomy, named, tuple(notes), tuple(faults))
