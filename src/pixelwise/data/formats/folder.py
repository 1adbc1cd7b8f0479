"""Your own images: images/ and masks/ with the same names, and classes.yaml, which says what the numbers in masks mean.

    images/train/a.jpg  masks/train/a.png        splits as folders, or
    images/a.jpg        masks/a.png  train.txt   splits as lists: a name without suffix, or `image mask`, on each line

classes.yaml holds `classes` (a name, or {name, color, value}, each), optionally `ignore` (file values), and for masks
drawn in colors `masks: color` and `ignore_colors` (RGB triples). In its place, classes.txt holds one name per line;
CVAT's labelmap.txt is read too. Without any of them, the classes are inferred from the masks (`inferred_classes`).
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from ...errors import DatasetError
from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, RGB, file_kind, without_suffix
from ..dataset import Dataset, Item, Split
from ..pixel_formats import declared_pixels
from .base import (
    DATASETS,
    DatasetFormat,
    find_image,
    name_inside,
    pair_folders,
    read_classes,
    read_lines,
    resolve_inside,
    split_pair,
)
from .inferred_classes import infer_classes

_SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}


@DATASETS.register("folder", tiny={})
class Folder(DatasetFormat):
    """Your own images: images/, masks/ and classes.yaml."""

    needs = (
        "images/{train,val,test}/ and masks/{train,val,test}/ with the same names (or train.txt beside them), "
        "and classes.yaml"
    )

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        return folder if (folder / "images").is_dir() and (folder / "masks").is_dir() else None

    def read(self, root: Path) -> Dataset:
        """Read splits from the folders in images/, or else from the lists beside it."""
        images, masks = root / "images", root / "masks"
        _check_split_names(images, masks)
        pixels = declared_pixels(root) or RGB
        splits = {
            name: pair_folders(images / name, masks / name, pixels) for name in _SPLITS if (images / name).is_dir()
        }
        if not splits:
            for name in _SPLITS:
                split_list = root / f"{name}.txt"
                if os.path.lexists(split_list):
                    splits[name] = [_item(root, *split_pair(line, split_list)) for line in read_lines(split_list)]
        if not splits:
            what, fix = "has neither images/train nor train.txt", "sort the images into train and val, or list them"
            raise DatasetError(root, what, fix)
        if found := read_classes(root):
            taxonomy, encoding = found
            notes: tuple[str, ...] = ()
        else:
            files = dict.fromkeys(item.mask for items in splits.values() for item in items if item.mask is not None)
            taxonomy, encoding, note = infer_classes(root, [path for path in files if file_kind(path) == "file"])
            notes = (note,)
        named = {name: Split(name, items, taxonomy, encoding) for name, items in splits.items()}
        return Dataset("folder", root, taxonomy, named, notes)


def _check_split_names(images: Path, masks: Path) -> None:
    """Raise DatasetError for a split's folder under another name, which would be passed over in silence."""
    for folder in (images, masks):
        names = {path.name for path in folder.iterdir() if path.is_dir()}
        for name in sorted(names):
            split = _OTHER_NAMES.get(name.casefold(), name.casefold())
            if split in _SPLITS and name != split and split not in names:
                what = f"is not read: the split is named {split}"
                raise DatasetError(folder / name, what, f"rename it to {folder / split}")


def _item(root: Path, image: str, mask: str | None) -> Item:
    """Resolve `image mask` below the root, or one name below images/ and masks/, with or without its suffix."""
    name = name_inside(root, image).removeprefix("images/")
    if mask is not None:
        key = str(without_suffix(PurePosixPath(name)))
        return Item(key, resolve_inside(root, image), resolve_inside(root, mask))
    image_suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
    has_suffix = name.lower().endswith(image_suffixes)
    stem = str(without_suffix(Path(name))) if has_suffix else name
    image_stem, mask_stem = (resolve_inside(root / kind, stem) for kind in ("images", "masks"))
    # The names of missing files, for the message.
    path = root / "images" / name if has_suffix else find_image(image_stem, image_suffixes) or Path(f"{image_stem}.*")
    return Item(stem, path, find_image(mask_stem) or Path(f"{mask_stem}.png"))
