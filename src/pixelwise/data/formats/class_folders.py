"""Pairs of images and masks where a pixel may have several labels: one mask file per class, or an array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...core import Taxonomy
from ...errors import DatasetError, listed
from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, PixelFormat, without_suffix
from ..class_masks import find_class_files, truth_files
from ..dataset import Item
from .base import files_by_stem, name_inside, read_lines, resolve_inside, split_pair


def pair_class_files(
    images: Mapping[str, Sequence[Path]], masks: Path, taxonomy: Taxonomy, *, expected: Iterable[str] = ()
) -> list[Item]:
    """Return an item per image, with its mask files; unlabeled without a folder of masks.

    images    key -> files of that name, of which there should be one
    expected  further keys that masks may belong to, such as those of other splits in one folder

    An image without any mask file gets the name of one that is missing, so that `Dataset.problems` reports it; an empty
    folder of its name means that all classes are absent. Raises DatasetError for files that cannot be assigned.
    """
    if not masks.is_dir():
        return [Item(key, image) for key, files in images.items() for image in files]
    assigned = find_class_files(masks, {*images, *expected}, taxonomy)
    if assigned.problems:
        fix = f"name them KEY/CLASS.png or KEY_CLASS.png, the classes {listed(taxonomy.file_names)}"
        raise DatasetError(masks, "; ".join(assigned.problems), fix)
    items = []
    for key, files in images.items():
        class_files = assigned.files.get(key, ())
        if not class_files and not (masks / key).is_dir():
            # Named, so that `Dataset.problems` reports that it is missing.
            class_files = ((0, masks / key / f"{taxonomy.file_names[0]}.png"),)
        mask = class_files[0][1] if class_files else masks / key
        items += [Item(key, image, mask, class_files=class_files) for image in files]
    return items


def read_class_folders(
    root: Path, taxonomy: Taxonomy, names: Sequence[str], pixels: PixelFormat
) -> dict[str, list[Item]]:
    """Return the splits of a folder with images/ and masks/: folders of these names in both, or lists beside them."""
    images, masks = root / "images", root / "masks"
    suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
    folders = [name for name in names if (images / name).is_dir()]
    if folders:
        return {
            name: pair_class_files(files_by_stem(images / name, suffixes, pixels), masks / name, taxonomy)
            for name in folders
        }
    every, splits = files_by_stem(images, suffixes, pixels), {}
    for name in names:
        split_list = root / f"{name}.txt"
        if os.path.lexists(split_list):
            listed_files: dict[str, list[Path]] = {}
            pairs: list[Item] = []
            for line in read_lines(split_list):
                image, mask = split_pair(line, split_list)
                path = PurePosixPath(name_inside(root, image).removeprefix("images/"))
                key = str(without_suffix(path) if path.suffix.lower() in suffixes else path)
                if mask is None:
                    listed_files.setdefault(key, []).extend(every.get(key, [images / f"{key}.*"]))
                else:
                    pairs.append(_listed_pair(key, resolve_inside(root, image), resolve_inside(root, mask), taxonomy))
            others = pair_class_files(listed_files, masks, taxonomy, expected=every) if listed_files else []
            splits[name] = [*pairs, *others]
    return splits


def _listed_pair(key: str, image: Path, mask: Path, taxonomy: Taxonomy) -> Item:
    """Return the item of a line `image mask`: a folder of masks, an array, or the mask of the only class."""
    is_one_file = mask.suffix.lower() == ARRAY_SUFFIX or (taxonomy.num_classes == 1 and not mask.is_dir())
    files = [(0, mask)] if is_one_file else truth_files(mask, taxonomy)
    return Item(key, image, mask, class_files=tuple(files))


def absent_files_note(items: Iterable[Item], taxonomy: Taxonomy) -> str:
    """Return a line that counts the images in which a class has no file; empty if every class has one everywhere."""
    found = [
        {k for k, _ in item.class_files}
        for item in items
        if item.class_files is not None and all(path.suffix.lower() != ARRAY_SUFFIX for _, path in item.class_files)
    ]
    lacking = {name: sum(k not in ids for ids in found) for k, name in enumerate(taxonomy.names)}
    counts = listed((f"{name} in {count}" for name, count in lacking.items() if count), 8)
    return f"a class without a mask file counts as absent: {counts} of {len(found)} images" if counts else ""
