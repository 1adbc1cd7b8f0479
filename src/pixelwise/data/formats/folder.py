"""Your own images: images/ and masks/ with the same names, and classes.yaml, which says what the numbers in masks mean.

    images/train/a.jpg  masks/train/a.png        splits as folders, or
    images/a.jpg        masks/a.png  train.txt   splits as lists: a name without suffix, or `image mask`, on each line

classes.yaml holds `classes` (a name, or {name, color, value}, each), optionally `ignore` (file values), and for masks
drawn in colors `masks: color` and `ignore_colors` (RGB triples). With `kind: multilabel`, a pixel may have several
labels, and each class has masks of its own: masks/train/a/CLASS.png (see `class_masks`). In place of classes.yaml,
classes.txt holds one name per line; CVAT's labelmap.txt is read too. Without any of them, the classes are inferred from
the masks (`inferred_classes`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from ...core import Taxonomy
from ...errors import DatasetError
from ...files import atomic_write
from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, RGB, PixelFormat, file_kind, without_suffix, write_image, write_mask
from ..class_masks import write_class_masks
from ..dataset import Dataset, Item, MaskEncoding, Split, check_colors
from ..near_misses import near_misses
from ..pixel_formats import declared_pixels
from ..seen_masks import SeenMask
from . import DATASETS
from .base import (
    MASK_SUFFIXES,
    DatasetFormat,
    declares_multilabel,
    find_image,
    name_inside,
    pair_folders,
    read_classes,
    read_lines,
    resolve_inside,
    split_pair,
)
from .class_folders import absent_files_note, read_class_folders
from .conversion import Conversion, free_value
from .inferred_classes import infer_classes
from .pairs import Pairs, describe_folder

_SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "testing": "test"}


@DATASETS.register("folder", tiny={})
class Folder(DatasetFormat):
    """Your own images: images/, masks/ and classes.yaml."""

    needs = (
        "images/{train,val,test}/ and masks/{train,val,test}/ with the same names (or train.txt beside them), "
        "and classes.yaml"
    )

    targets: Mapping[str, str] = MappingProxyType(
        {
            "folder": "images/ and masks/ with palette PNG whose numbers are the classes",
            "color": "images/ and masks/ with RGB PNG in the colors of the classes",
            "npy": "images/ and masks/ with npy files of numbers",
        }
    )
    one_label = frozenset({"color"})

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        return folder if (folder / "images").is_dir() and (folder / "masks").is_dir() else None

    def read(self, root: Path) -> Dataset:
        """Read splits from the folders in images/, or else from the lists beside it."""
        images, masks = root / "images", root / "masks"
        _check_split_names(images, masks)
        pixels = declared_pixels(root) or RGB
        found = read_classes(root)
        if found and found[0].multilabel:
            return self._read_multilabel(root, found[0], pixels)
        if not found and declares_multilabel(root):
            what = "has `kind: multilabel` without `classes`"
            raise DatasetError(root / "classes.yaml", what, "list the classes, by the names of their mask files")
        splits = {
            name: pair_folders(images / name, masks / name, pixels) for name in _SPLITS if (images / name).is_dir()
        }
        if not splits:
            for name in _SPLITS:
                split_list = root / f"{name}.txt"
                if os.path.lexists(split_list):
                    splits[name] = [_item(root, *split_pair(line, split_list)) for line in read_lines(split_list)]
        notes: tuple[str, ...] = ()
        if not splits:
            splits = {"train": pair_folders(images, masks, pixels)}
            notes = (f"{root}: has neither images/train nor train.txt: all images are split train",)
        has_lists = any(os.path.lexists(root / f"{name}.txt") for name in _SPLITS)
        if not has_lists and not any(map(_is_complete, chain(*splits.values()))) and (pairs := Pairs()).find_root(root):
            # The names differ by a word, or have unknown suffixes.
            return pairs.read(root)
        if not any(splits.values()):
            what = f"images/ and masks/ hold no images: {describe_folder(root)}"
            raise DatasetError(root, what, "fill them, or name another folder")
        seen: Mapping[Path, SeenMask] = {}
        if found:
            taxonomy, encoding = found
            faults: tuple[DatasetError, ...] = ()
        else:
            files = dict.fromkeys(item.mask for items in splits.values() for item in items if item.mask is not None)
            inferred = infer_classes(root, [path for path in files if file_kind(path) == "file"])
            taxonomy, encoding, seen = inferred.taxonomy, inferred.encoding, inferred.seen
            notes = (*notes, inferred.note) if inferred.note else notes
            faults = () if inferred.fault is None else (inferred.fault,)
            if faults and not any(_is_complete(item) for item in chain(*splits.values())):
                # Files of similar names are reported with the missing ones.
                what = f"has no masks for images/: {describe_folder(masks)}"
                fault = DatasetError(masks, what, "save the masks as PNG, with the names of the images")
                faults = () if near_misses(files) else (fault,)
        named = {name: Split(name, items, taxonomy, encoding) for name, items in splits.items()}
        return Dataset("folder", root, taxonomy, named, notes, faults, seen)

    def _read_multilabel(self, root: Path, taxonomy: Taxonomy, pixels: PixelFormat) -> Dataset:
        splits, notes = read_class_folders(root, taxonomy, _SPLITS, pixels), []
        if not splits:
            splits = {"train": read_class_folders(root, taxonomy, ("",), pixels)[""]}
            notes.append(f"{root}: has neither images/train nor train.txt: all images are split train")
        if note := absent_files_note(chain(*splits.values()), taxonomy):
            notes.append(f"{root}: {note}")
        named = {name: Split(name, items, taxonomy) for name, items in splits.items()}
        return Dataset("folder", root, taxonomy, named, tuple(notes))

    def write(self, target: str, conversion: Conversion) -> None:
        """Write images/SPLIT, masks/SPLIT and classes.yaml; of several labels per pixel, masks/SPLIT/KEY/CLASS.png."""
        taxonomy = conversion.taxonomy
        if target == "color":
            _check_distinct(conversion)
        for split, item, mask in conversion.samples():
            place = conversion.place_image(item, f"images/{split}")
            stem = conversion.out / "masks" / without_suffix(PurePosixPath(place)).relative_to("images")
            stem.parent.mkdir(parents=True, exist_ok=True)
            if taxonomy.multilabel:
                write_class_masks(stem, mask, taxonomy, as_array=target == "npy")
                continue
            path = stem.with_name(f"{stem.name}.{'npy' if target == 'npy' else 'png'}")
            values = taxonomy.decode(mask, free_value(taxonomy))
            if target == "color":
                write_image(path, taxonomy.palette()[mask])
            elif target == "npy":
                with atomic_write(path) as file:
                    np.save(file, values)
            else:
                write_mask(path, values, palette=taxonomy.palette("value"))
        conversion.write_classes(by_color=target == "color", ignored=target != "color")


def _check_split_names(images: Path, masks: Path) -> None:
    """Raise DatasetError for a split's folder under another name, which would be passed over in silence."""
    for folder in (images, masks):
        names = {path.name for path in folder.iterdir() if path.is_dir()}
        for name in sorted(names):
            split = _OTHER_NAMES.get(name.casefold(), name.casefold())
            if split in _SPLITS and name != split and split not in names:
                what = f"is not read: the split is named {split}"
                raise DatasetError(folder / name, what, f"rename it to {folder / split}")


def _is_complete(item: Item) -> bool:
    return os.path.isfile(item.image) and item.mask is not None and os.path.isfile(item.mask)


def _check_distinct(conversion: Conversion) -> None:
    """Raise ConfigError for a color of several classes, which masks in colors cannot tell apart."""
    taxonomy = conversion.taxonomy
    encoding = MaskEncoding(by_color=True, ignored=(taxonomy.ignore_color,))
    check_colors(taxonomy, encoding, conversion.dataset.root)


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
    return Item(stem, path, find_image(mask_stem, MASK_SUFFIXES) or Path(f"{mask_stem}.png"))
