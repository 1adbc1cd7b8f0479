"""One's own images: images/ and masks/ with the same names, and classes.yaml, which says what the masks' numbers mean.

    images/train/a.jpg  masks/train/a.png        parts as folders, or
    images/a.jpg        masks/a.png  train.txt   parts as lists: a stem, or `image mask`, on each line

classes.yaml holds `classes` (a name, or {name, color, value}, each), optionally `ignore` (file values), and for masks
drawn in colours `masks: color` and `ignore_colors` (RGB triples); classes.txt holds one name a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...core import Taxonomy
from ...errors import ConfigError, DatasetError, InputError
from ...files import read_yaml
from ...images import IMAGE_SUFFIXES, read_mask
from ..dataset import Dataset, Item, MaskEncoding, Split, pack_colors
from .base import DATASETS, DatasetFormat, existing, inner, pair_folders, read_lines, split_pair

_PARTS = ("train", "val", "test")
_LOOKED_AT = 24
_MANY = 64


@DATASETS.register("folder", tiny={})
class Folder(DatasetFormat):
    """Your own images: images/, masks/ and classes.yaml."""

    needs = "images/{train,val,test}/ and masks/{train,val,test}/ with the same names (or train.txt beside them), and classes.yaml"

    def find_root(self, folder: Path) -> Path | None:
        """`folder` itself."""
        return folder if (folder / "images").is_dir() and (folder / "masks").is_dir() else None

    def read(self, root: Path) -> Dataset:
        """Splits by folders below images/, otherwise by lists beside it."""
        images, masks = root / "images", root / "masks"
        parts = {name: pair_folders(images / name, masks / name) for name in _PARTS if (images / name).is_dir()}
        if not parts:
            lists = {name: root / f"{name}.txt" for name in _PARTS}
            parts = {name: _listed(root, path) for name, path in lists.items() if path.is_file()}
        if not parts:
            raise DatasetError(
                root, "has neither images/train nor train.txt", "sort the images into train and val, or list them"
            )
        taxonomy, code = _read_classes(root, parts)
        return Dataset(
            "folder", root, taxonomy, {name: Split(name, items, taxonomy, code) for name, items in parts.items()}
        )


def _listed(root: Path, path: Path) -> list[Item]:
    return [_listed_item(root, *split_pair(line, path)) for line in read_lines(path)]


def _listed_item(root: Path, image: str, mask: str | None) -> Item:
    """`image mask` below the root, or one name below images/ and masks/, with or without its suffix."""
    if mask is not None:
        return Item(
            str(PurePosixPath(image.removeprefix("images/")).with_suffix("")), inner(root, image), inner(root, mask)
        )
    name = image.removeprefix("images/")
    stem = str(Path(name).with_suffix("")) if name.lower().endswith(IMAGE_SUFFIXES) else name
    place, masks = inner(root / "images", stem), inner(root / "masks", stem)
    path = root / "images" / name if stem != name else existing(place) or place.with_name(place.name + ".*")
    return Item(stem, path, existing(masks) or masks.with_name(masks.name + ".png"))


def _read_classes(root: Path, parts: Mapping[str, list[Item]]) -> tuple[Taxonomy, MaskEncoding]:
    for name in ("classes.yaml", "classes.yml"):
        if (root / name).is_file():
            return _from_yaml(root / name)
    if (root / "classes.txt").is_file():
        return Taxonomy(tuple(read_lines(root / "classes.txt"))), MaskEncoding()
    masks = [item.mask for items in parts.values() for item in items if item.mask is not None and item.mask.is_file()]
    looked_at, values = _seen(masks)
    raise DatasetError(root, f"holds no classes.yaml; {_found(looked_at, values)}", _proposal(values))


def _from_yaml(path: Path) -> tuple[Taxonomy, MaskEncoding]:
    rest = read_yaml(path)
    kind, colors = rest.pop("masks", "value"), rest.pop("ignore_colors", [])
    if kind not in ("value", "color"):
        raise ConfigError(
            path, f"masks is {kind!r}, allowed are `value` and `color`", "remove it where masks hold numbers"
        )
    if colors and kind == "value":
        fix = "write `masks: color`, or list numbers in `ignore`"
        raise ConfigError(path, "has ignore_colors, but its masks hold numbers", fix)
    return Taxonomy.from_dict(rest, path), MaskEncoding(kind == "color", _triples(path, colors))


def _triples(path: Path, colors: Any) -> tuple[tuple[int, int, int], ...]:
    try:
        table = [(int(red), int(green), int(blue)) for red, green, blue in colors]
    except (TypeError, ValueError):
        table = [(-1, -1, -1)]
    if not all(0 <= channel <= 255 for color in table for channel in color):
        raise ConfigError(path, f"ignore_colors is {colors!r}", "write a list of [r, g, b] of 0..255") from None
    return tuple(table)


def _seen(masks: list[Path]) -> tuple[int, list[list[int]]]:
    """How many masks were looked at, spread over all, and their values [v] or colours [r, g, b], sorted.

    Masks that cannot be read are the check's business, and so are colours among numbers.
    """
    chosen = masks[:: max(1, len(masks) // _LOOKED_AT)][:_LOOKED_AT]
    codes: dict[int, set[int]] = {1: set(), 3: set()}
    for path in chosen:
        try:
            raw = read_mask(path)
        except InputError:
            continue
        gray = raw if raw.ndim == 2 else raw[..., 0]
        if raw.ndim == 2 or (raw == raw[..., :1]).all():
            codes[1] |= set(np.unique(gray).tolist())
        else:
            codes[3] |= set(np.unique(pack_colors(raw)).tolist())
    if codes[3]:
        return len(chosen), [[code >> 16, code >> 8 & 255, code & 255] for code in sorted(codes[3])]
    return len(chosen), [[value] for value in sorted(codes[1])]


def _found(looked_at: int, values: list[list[int]]) -> str:
    if not values:
        return "and no mask could be read"
    word = "values" if len(values[0]) == 1 else "colours"
    listed = ", ".join(str(value[0] if len(value) == 1 else value) for value in values[:_MANY])
    return f"{looked_at} of its masks hold the {word} {listed}{', ...' if len(values) > _MANY else ''}"


def _proposal(values: list[list[int]]) -> str:
    """A classes.yaml in one line, ready but for the names; 255 is a class only where it is one of two values."""
    if not values or len(values) > _MANY:
        return "write classes.yaml as {classes: [background, name, ...]}; masks must hold a class per pixel, without smoothing"
    if len(values[0]) == 3:
        rows = ", ".join(f"{{name: class{k}, color: {color}}}" for k, color in enumerate(values))
        return f"write classes.yaml as {{masks: color, classes: [{rows}]}}"
    numbers = [value for (value,) in values]
    ignored = [255] if 255 in numbers and len(numbers) > 2 else []
    rows = ", ".join(f"{{name: class{value}, value: {value}}}" for value in numbers if value not in ignored)
    return f"write classes.yaml as {{classes: [{rows}], ignore: {ignored}}}"
