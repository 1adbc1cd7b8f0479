"""The interface of a dataset format, the registry of formats, and helpers for split lists and pairs of files."""

from __future__ import annotations

import csv
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...core import Taxonomy
from ...errors import ConfigError, DatasetError, os_reason, shown
from ...files import read_regular
from ...images import ARRAY_SUFFIX, IMAGE_SUFFIXES, RGB, PixelFormat, cut_suffix, is_further_part, paths_below, walk
from ...strict_yaml import read_yaml
from ..dataset import Dataset, Item, MaskEncoding, Split, check_colors
from .class_json import NAMES as JSON_NAMES
from .class_json import read_class_json

if TYPE_CHECKING:
    from .conversion import Conversion


class DatasetFormat(ABC):
    """One way to arrange a dataset in folders.

    needs        one line that says which files it is recognized by
    targets      what `pixelwise convert --to` writes in this format: names, and a line about each
    one_label    those of the targets that cannot hold several labels per pixel
    is_fallback  True if the format is tried only on folders that no other format recognizes
    """

    needs: str
    targets: Mapping[str, str] = MappingProxyType({})
    one_label: frozenset[str] = frozenset()
    is_fallback: bool = False

    @abstractmethod
    def find_root(self, folder: Path) -> Path | None:
        """Return the folder, at or just below `folder`, that has this format, or None."""

    @abstractmethod
    def read(self, root: Path) -> Dataset:
        """Read the dataset below `root` without looking at its images and masks.

        Masks may be files, or drawn from annotations: see `Item.drawing`. Raises DatasetError if lists or class names
        are missing.
        """

    def write(self, target: str, conversion: Conversion) -> None:
        """Write a dataset as one of `targets` into the empty folder `conversion.out`.

        What the format cannot hold becomes a line of `conversion.notes`.
        """
        raise NotImplementedError(f"{target} is not among the targets of this format")


MASK_SUFFIXES = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
"""Suffixes of files of masks."""
COLOR_TABLE = "class_dict.csv"


def make_dataset(name: str, root: Path, default: Taxonomy, splits: Mapping[str, list[Item]]) -> Dataset:
    """Return the dataset of a format that has classes of its own, or those of a file in its folder (`read_classes`)."""
    taxonomy, encoding = read_classes(root, default) or (default, MaskEncoding())
    named = {split: Split(split, items, taxonomy, encoding) for split, items in splits.items()}
    return Dataset(name, root, taxonomy, named)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a split list that are not blank. Raises DatasetError if it is not UTF-8 text."""
    try:
        # Not by `splitlines`: names may hold what Unicode counts as ends of lines.
        lines = re.split(r"\r\n|\r|\n", read_regular(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"is not UTF-8 text (byte {error.start})", "save the list as plain text") from None
    except OSError as error:
        raise DatasetError(path, f"cannot be read: {os_reason(error)}", "check the file") from None
    return [line.strip() for line in lines if line.strip()]


def split_pair(line: str, source: Path) -> tuple[str, str | None]:
    """Split a line `image mask` or `image` into the two names.

    Names may contain blanks if they are separated by a tab, or if both have equally many.
    Raises DatasetError naming the list `source` and the line.
    """
    words = line.split("\t") if "\t" in line else line.split()
    if len(words) == 1:
        return words[0], None
    if len(words) % 2:
        raise DatasetError(
            source, f"expected `image mask`, got line {shown(line)}", "separate the two names by one tab"
        )
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def name_inside(root: Path, name: str) -> str:
    """Return `name`, a path below `root` or an absolute one into it, relative to `root` with forward slashes.

    Raises DatasetError for a name that leads out of the dataset.
    """
    path = Path(name)
    if path.is_absolute():
        for folder in (root, root.absolute(), root.resolve()):
            if path.is_relative_to(folder):
                path = path.relative_to(folder)
                break
    if path.is_absolute() or ".." in path.parts:
        what = f"a list names {shown(name)}, which is outside of the dataset"
        raise DatasetError(root, what, "name files relative to the dataset's folder")
    return path.as_posix()


def resolve_inside(root: Path, name: str) -> Path:
    """Return the path of `name` below `root`. Raises DatasetError for a name that leads out of it."""
    return root / name_inside(root, name)


def find_image(stem: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Path | None:
    """Return the existing file that is `stem` with the suffix of an image, in lower or upper case.

    Raises DatasetError if there are several.
    """
    names = [stem.name + spelled for suffix in suffixes for spelled in (suffix, suffix.upper())]
    # os.path, because Path raises OSError for a name that is too long.
    found = [path for name in names if os.path.isfile(path := stem.with_name(name))]
    # A file system that does not tell case apart finds one file by two names.
    found = [path for k, path in enumerate(found) if not any(path.samefile(other) for other in found[:k])]
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise DatasetError(stem.parent, f"has {both}, and a list names {stem.name}", "keep one, or list full names")
    return found[0] if found else None


def read_classes(root: Path, default: Taxonomy | None = None) -> tuple[Taxonomy, MaskEncoding] | None:
    """Return classes and mask encoding as a file in the dataset's folder says, or None if there is no such file.

    classes.yaml   `classes`, `ignore`, `masks` and `ignore_colors`; without `classes`, those of `default`
    labelmap.txt   one `name:r,g,b:parts:actions` per line, as CVAT and Datumaro write it: masks are colors
    class_dict.csv the columns name, r, g, b, as Kaggle's copies of CamVid and others have: masks are colors
    classes.txt    one name per line, as is class_names.txt of labelme2voc: masks are numbers from 0
    classes.json   names, with the numbers of masks or without; categories.json and labels.json too: see `class_json`
    Raises ConfigError or DatasetError naming the file.
    """
    # A pipe or a link to nothing of that name is an error, not a missing file.
    for name in ("classes.yaml", "classes.yml"):
        if os.path.lexists(root / name):
            if default is None and set(read_yaml(root / name)) in ({"images"}, {"kind"}, {"images", "kind"}):
                return None
            return _read_classes_yaml(root / name, default)
    if os.path.lexists(root / "labelmap.txt"):
        return _read_labelmap(root / "labelmap.txt")
    if os.path.lexists(root / COLOR_TABLE):
        return _read_color_table(root / COLOR_TABLE)
    for name in ("classes.txt", "class_names.txt"):
        if os.path.lexists(root / name):
            return Taxonomy(tuple(read_lines(root / name))), MaskEncoding()
    for name in JSON_NAMES:
        if os.path.lexists(root / name):
            return read_class_json(root / name), MaskEncoding()
    return None


def declares_multilabel(root: Path) -> bool:
    """Return whether classes.yaml says that a pixel may have several labels, with or without naming the classes."""
    paths = (root / name for name in ("classes.yaml", "classes.yml"))
    return any(path.is_file() and read_yaml(path).get("kind") == "multilabel" for path in paths)


def has_class_names(root: Path) -> bool:
    """Return whether the folder has a file that `read_classes` reads."""
    names = ("classes.yaml", "classes.yml", "labelmap.txt", COLOR_TABLE, "classes.txt", "class_names.txt", *JSON_NAMES)
    return any(os.path.lexists(root / name) for name in names)


def _read_classes_yaml(path: Path, default: Taxonomy | None) -> tuple[Taxonomy, MaskEncoding]:
    rest = read_yaml(path)
    # Read by `declared_pixels` and `with_second_labels`.
    rest.pop("images", None)
    rest.pop("second", None)
    kind, colors = rest.pop("masks", "value"), rest.pop("ignore_colors", [])
    if kind not in ("value", "color"):
        what = f"expected masks: `value` or `color`, got {shown(kind)}"
        raise ConfigError(path, what, "remove it if masks contain numbers")
    if colors and kind == "value":
        fix = "write `masks: color`, or list numbers in `ignore`"
        raise ConfigError(path, "has ignore_colors, but its masks contain numbers", fix)
    try:
        triples = tuple((int(red), int(green), int(blue)) for red, green, blue in colors)
    except (TypeError, ValueError, OverflowError):
        triples = ((-1, -1, -1),)
    if not all(0 <= channel <= 255 for color in triples for channel in color):
        what = f"expected ignore_colors as a list of [r, g, b] of 0..255, got {shown(colors)}"
        raise ConfigError(path, what, "write such as `ignore_colors: [[0, 0, 0]]`")
    if default and "classes" not in rest:
        rest = default.to_dict() | rest
    taxonomy, encoding = Taxonomy.from_dict(rest, path), MaskEncoding(by_color=kind == "color", ignored=triples)
    if taxonomy.multilabel and encoding.by_color:
        what = "has `masks: color`, but with `kind: multilabel` each class has a mask of 0 and 1, or 0 and 255"
        raise ConfigError(path, what, "remove one of the two")
    check_colors(taxonomy, encoding, path)
    return taxonomy, encoding


def _read_labelmap(path: Path) -> tuple[Taxonomy, MaskEncoding]:
    """Read CVAT's labelmap.txt. Source: Datumaro, VOC format, `parse_label_map`; its label `ignored` is no class."""
    rows: list[dict[str, Any]] = []
    ignored: list[tuple[int, ...]] = []
    for line in read_lines(path):
        if line.startswith("#"):
            continue
        name, *rest = line.rsplit(":", 3) if line.count(":") >= 3 else line.split(":")
        try:
            color = tuple(int(channel) for channel in rest[0].split(","))
        except (ValueError, IndexError):
            what = f"expected `name:red,green,blue:parts:actions`, got {shown(line)}"
            raise ConfigError(path, what, "export the labels with their colors") from None
        if name == "ignored":
            ignored.append(color)
        else:
            rows.append({"name": name, "color": list(color)})
    taxonomy = Taxonomy.from_dict({"classes": rows}, path)
    encoding = MaskEncoding(by_color=True, ignored=tuple((c[0], c[1], c[2]) for c in ignored if len(c) == 3))
    check_colors(taxonomy, encoding, path)
    return taxonomy, encoding


def _read_color_table(path: Path) -> tuple[Taxonomy, MaskEncoding]:
    """Read a CSV of the columns name, r, g, b, in any order and in small or capital letters."""
    rows = csv.reader(read_lines(path))
    columns = [column.strip().casefold() for column in next(rows, [])]
    if not {"name", "r", "g", "b"} <= set(columns):
        raise ConfigError(path, f"expected the columns name, r, g, b, got {shown(columns)}", "write a classes.yaml")
    classes = []
    for row in rows:
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        color = [cells.get(channel, "") for channel in "rgb"]
        if not all(channel.isdecimal() and len(channel) < 4 for channel in color) or not cells["name"]:
            raise ConfigError(path, f"expected a name and three numbers of 0..255, got {shown(row)}", "correct the row")
        classes.append({"name": cells["name"], "color": [int(channel) for channel in color]})
    taxonomy, encoding = Taxonomy.from_dict({"classes": classes}, path), MaskEncoding(by_color=True)
    check_colors(taxonomy, encoding, path)
    return taxonomy, encoding


def pair_folders(images: Path, masks: Path, pixels: PixelFormat = RGB) -> list[Item]:
    """Pair every image with the mask of the same name, at any depth; return unlabeled images without a `masks` folder.

    Images may be npy files; files that hold further channels of an image, as `pixels` says, are no images.

    A mask without an image becomes an item too, and two files of one name become two items, so that `Dataset.problems`
    reports them.
    """
    image_paths = files_by_stem(images, (*IMAGE_SUFFIXES, ARRAY_SUFFIX), pixels)
    if not masks.is_dir():
        return [Item(stem, image) for stem, paths in image_paths.items() for image in paths]
    mask_paths = files_by_stem(masks, MASK_SUFFIXES)
    items = []
    for stem in sorted({*image_paths, *mask_paths}):
        for image in image_paths.get(stem) or [images / f"{stem}.*"]:
            items += [Item(stem, image, mask) for mask in mask_paths.get(stem) or [masks / f"{stem}.png"]]
    return items


def files_by_stem(
    folder: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES, pixels: PixelFormat = RGB
) -> dict[str, list[Path]]:
    """Return the image files below a folder, links to folders followed, by their relative path without suffix."""
    stems: dict[str, list[Path]] = {}
    names = walk(folder, suffixes).names
    for name, path in zip(names, paths_below(folder, names), strict=True):
        if not is_further_part(name, pixels):
            stems.setdefault(cut_suffix(name), []).append(path)
    return stems
