"""What the formats of annotation programs share: JSON with checked types, images found by name, classes from labels.

A shape's label is the name of a class. Pixels without a shape are background, which is added as the first class where
no label is called so; a classes.yaml in the folder overrides the classes, also to have no background: pixels without a
shape are then ignored. Shapes labeled `ignored` or `__ignore__` are excluded from loss and score.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ...colors import RGB, is_background, voc_color
from ...core import Taxonomy
from ...errors import ConfigError, DatasetError, listed, os_reason, shown
from ...files import check_regular, open_without_waiting, read_json
from ...images import IMAGE_SUFFIXES, walk_files, without_suffix
from ..dataset import Dataset, Item, Split
from ..shapes.drawing import IGNORED_LABELS
from .base import declares_multilabel, name_inside, read_classes

# COCO's largest file has 450 MB.
_MAX_JSON = 2**30
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_FIX = "export the annotations again"
T = TypeVar("T")


def split_of(name: str) -> str | None:
    """Return the split that a name has as a word: "val" of instances_val2017 and valid; None if it has none, or two."""
    found = {_SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", name.casefold()) if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def contains_words(path: Path, *words: bytes) -> bool:
    """Return whether a regular file contains all the words, without reading it into memory."""
    try:
        check_regular(path)
        with open_without_waiting(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return all(data.find(word) >= 0 for word in words)
    except (OSError, ValueError):
        # An empty file cannot be mapped.
        return False


def read_annotations(path: Path, kind: type[T]) -> T:
    """Return the JSON of a file, which must be of the type `kind`. Raises DatasetError."""
    try:
        data = read_json(path, _MAX_JSON)
    except (OSError, ValueError) as error:
        raise DatasetError(path, f"cannot be read as JSON: {os_reason(error)}", _FIX) from None
    if not isinstance(data, kind):
        raise DatasetError(path, f"expected a {_KINDS[kind]}, got {shown(data)}", _FIX)
    return data


_KINDS = {dict: "JSON object", list: "JSON list", str: "text", int: "number"}


def entry(record: Any, key: str, kind: type[T], source: object) -> T:
    """Return `record[key]`, which must be of the type `kind`. Raises DatasetError naming `source`."""
    value = record.get(key) if isinstance(record, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        where = f"`{key}`" if isinstance(record, Mapping) else f"an object with `{key}`"
        got = shown(value) if isinstance(record, Mapping) else shown(record)
        raise DatasetError(source, f"expected {where} as a {_KINDS[kind]}, got {got}", _FIX)
    return value


def rows_of(record: Any, key: str, source: object) -> list[dict[str, Any]]:
    """Return the list `record[key]`, which must hold objects. Raises DatasetError naming `source`."""
    rows: list[Any] = entry(record, key, list, source)
    for row in rows:
        if not isinstance(row, dict):
            raise DatasetError(source, f"expected `{key}` as a list of objects, got {shown(row)} in it", _FIX)
    return rows


class ImageIndex:
    """The images below a folder, found by the names that annotation files give them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] = {}
        for path in walk_files(root)[0]:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._by_name.setdefault(path.name, []).append(path)

    def find(self, name: str, source: Path, *, split: str | None = None) -> Path:
        """Return the image that an annotation file calls `name`; where none exists, the place beside the file.

        Several images may end in the name: the one beside the file, or the one in the folder of the split, is meant.
        Raises DatasetError for a name that leads out of the folder, and for names that two images have.
        """
        name = name_inside(self.root, name.replace("\\", "/").removeprefix("./"))
        if not name or name == "." or "\0" in name:
            raise DatasetError(source, f"expected the name of an image, got {shown(name)}", _FIX)
        parts = PurePosixPath(name).parts
        found = [path for path in self._by_name.get(parts[-1], []) if path.parts[-len(parts) :] == parts]
        if len(found) > 1:
            beside = [path for path in found if path == source.parent / name]
            of_split = [
                path for path in found if split and split_of(self._below(path.parents[len(parts) - 1])) == split
            ]
            found = beside or of_split or found
        if len(found) > 1:
            both = listed(map(self._below, found), 3)
            raise DatasetError(source, f"names {shown(name)}, which may be {both}", "keep one of them in the folder")
        return found[0] if found else source.parent / name

    def __iter__(self) -> Iterator[Path]:
        return iter(sorted(path for paths in self._by_name.values() for path in paths))

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def key_of(name: str) -> str:
    """Return the key of an image from the name that its annotation file gives it, without images/ and its split."""
    parts = list(without_suffix(PurePosixPath(name.replace("\\", "/").removeprefix("./"))).parts)
    while len(parts) > 1 and (parts[0] == "images" or split_of(parts[0])):
        parts.pop(0)
    return "/".join(parts)


def annotated_dataset(
    name: str,
    root: Path,
    labels: Sequence[tuple[str, RGB | None]],
    splits: Mapping[str, Iterable[Item]],
    notes: Sequence[str] = (),
) -> Dataset:
    """Return the dataset of an annotation format with its labels as classes, or those of a file in its folder.

    Raises ConfigError for classes that are read by color, DatasetError if there are no labels.
    """
    found = read_classes(root)
    if found is not None:
        taxonomy, encoding = found
        if encoding.by_color and not (root / "labelmap.txt").exists():
            raise ConfigError(root, "has `masks: color`, but annotations give the classes by name", "remove the line")
    else:
        taxonomy = _taxonomy_of(root, labels)
        if declares_multilabel(root):
            # A pixel without a label needs no class.
            objects = [k for k in range(taxonomy.num_classes) if k not in taxonomy.background]
            names = tuple(taxonomy.names[k] for k in objects)
            colors = tuple(taxonomy.colors[k] for k in objects)
            taxonomy = Taxonomy(names, colors, kind="multilabel")
        notes = (*notes, f"{root}: classes from the {name} labels: {listed(taxonomy.names, 12)}")
    named = {split: Split(split, items, taxonomy) for split, items in splits.items()}
    return Dataset(name, root, taxonomy, named, tuple(notes))


def _taxonomy_of(root: Path, labels: Sequence[tuple[str, RGB | None]]) -> Taxonomy:
    colors: dict[str, RGB | None] = {}
    for label, color in labels:
        if label.casefold() not in IGNORED_LABELS:
            colors[label] = colors.get(label) or color
    if not colors:
        raise DatasetError(root, "has annotations without a single label", _FIX)
    rest = next((label for label in colors if is_background(label)), "background")
    names = (rest, *(label for label in colors if label != rest))
    own = [colors.get(label) for label in names]
    # Colors that repeat say nothing; a background without a color is black.
    are_distinct = len({color for color in own[1:] if color}) == len(own) - 1
    chosen = [color or (0, 0, 0) if are_distinct else voc_color(k) for k, color in enumerate(own)]
    return Taxonomy(names, tuple(chosen), ignored=(255,) if len(names) <= 255 else (65535,))
