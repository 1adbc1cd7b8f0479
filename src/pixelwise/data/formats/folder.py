"""Your own images: images/ and masks/ with the same names, and classes.yaml, which says what the numbers in masks mean.

    images/train/a.jpg  masks/train/a.png        splits as folders, or
    images/a.jpg        masks/a.png  train.txt   splits as lists: a name without suffix, or `image mask`, on each line

classes.yaml holds `classes` (a name, or {name, color, value}, each), optionally `ignore` (file values), and for masks
drawn in colors `masks: color` and `ignore_colors` (RGB triples). In its place, classes.txt holds one name per line;
CVAT's labelmap.txt is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...core import MAX_BORDER_FRACTION, Taxonomy
from ...errors import DatasetError, InputError
from ...images import IMAGE_SUFFIXES, file_kind, read_mask
from ..dataset import Dataset, Item, MaskEncoding, Split, pack_colors
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

_SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}
# Masks that are read, and values that are listed, to propose a classes.yaml.
_MAX_MASKS = 24
_MAX_VALUES = 64


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
        splits = {name: pair_folders(images / name, masks / name) for name in _SPLITS if (images / name).is_dir()}
        if not splits:
            for name in _SPLITS:
                split_list = root / f"{name}.txt"
                if split_list.is_file():
                    splits[name] = [_item(root, *split_pair(line, split_list)) for line in read_lines(split_list)]
        if not splits:
            what, fix = "has neither images/train nor train.txt", "sort the images into train and val, or list them"
            raise DatasetError(root, what, fix)
        taxonomy, encoding = _read_classes(root, splits)
        named = {name: Split(name, items, taxonomy, encoding) for name, items in splits.items()}
        return Dataset("folder", root, taxonomy, named)


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
        key = str(PurePosixPath(name).with_suffix(""))
        return Item(key, resolve_inside(root, image), resolve_inside(root, mask))
    has_suffix = name.lower().endswith(IMAGE_SUFFIXES)
    stem = str(Path(name).with_suffix("")) if has_suffix else name
    image_stem, mask_stem = (resolve_inside(root / kind, stem) for kind in ("images", "masks"))
    # The names of missing files, for the message.
    path = root / "images" / name if has_suffix else find_image(image_stem) or Path(f"{image_stem}.*")
    return Item(stem, path, find_image(mask_stem) or Path(f"{mask_stem}.png"))


def _read_classes(root: Path, splits: Mapping[str, list[Item]]) -> tuple[Taxonomy, MaskEncoding]:
    if found := read_classes(root):
        return found
    masks = [i.mask for items in splits.values() for i in items if i.mask is not None and file_kind(i.mask) == "file"]
    raise _missing_classes(root, masks[:: max(1, len(masks) // _MAX_MASKS)][:_MAX_MASKS])


def _missing_classes(root: Path, masks: list[Path]) -> DatasetError:
    """Return the error of a dataset without classes.yaml: values or colors of some masks, and a file to start from."""
    codes: dict[str, set[int]] = {"values": set(), "colors": set()}
    # Whether 255 covers no more than a border in every mask.
    is_border = True
    for path in masks:
        try:
            raw = read_mask(path)
        except InputError:
            # Reported by the check of the dataset.
            continue
        is_gray = raw.ndim == 2 or bool((raw == raw[..., :1]).all())
        pixels = (raw if raw.ndim == 2 else raw[..., 0]) if is_gray else pack_colors(raw)
        codes["values" if is_gray else "colors"] |= set(np.unique(pixels).tolist())
        is_border = is_border and not (is_gray and (pixels == 255).mean() > MAX_BORDER_FRACTION)
    # If any mask is drawn in colors, gray ones are not looked at.
    kind = "colors" if codes["colors"] else "values"
    values: list[Any] = sorted(codes[kind])
    if kind == "colors":
        values = [[code >> 16, code >> 8 & 255, code & 255] for code in values]
    shown = ", ".join(map(str, values[:_MAX_VALUES])) + (", ..." if len(values) > _MAX_VALUES else "")
    found = f"{len(masks)} of its masks contain the {kind} {shown}" if values else "and no mask could be read"
    if not values or len(values) > _MAX_VALUES:
        proposal = (
            "{classes: [background, name, ...]}; masks must contain one class per pixel, drawn without antialiasing"
        )
    elif kind == "colors":
        rows = ", ".join(f"{{name: class{k}, color: {color}}}" for k, color in enumerate(values))
        proposal = f"{{masks: color, classes: [{rows}]}}"
    else:
        # 255 is a class if it is one of two values, or covers more than a border.
        ignored = [255] if 255 in values and len(values) > 2 and is_border else []
        rows = ", ".join(f"{{name: class{value}, value: {value}}}" for value in values if value not in ignored)
        proposal = f"{{classes: [{rows}], ignore: {ignored}}}"
    return DatasetError(root, f"has no classes.yaml; {found}", f"write classes.yaml as {proposal}")
