"""The contract of a dataset format, the table of formats, and what they share: reading split lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from ...errors import DatasetError
from ...images import IMAGE_SUFFIXES
from ...registry import Registry
from ..dataset import Dataset, Item


class DatasetFormat(ABC):
    """One way to lay a dataset out in folders. `needs` tells in a line what it is recognised by."""

    needs: str

    @abstractmethod
    def find_root(self, folder: Path) -> Path | None:
        """The folder, at or just below `folder`, that is laid out this way, or None."""

    @abstractmethod
    def read(self, root: Path) -> Dataset:
        """The dataset below `root`, its files not yet looked at. Raises DatasetError when lists or class names are missing."""


DATASETS: Registry[DatasetFormat] = Registry("dataset format")


def read_lines(path: Path) -> list[str]:
    """The lines of a split list without blanks. Raises DatasetError when it is no UTF-8 text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(path, f"is not UTF-8 text (byte {error.start})", "save the list as plain text") from None
    except OSError as error:
        raise DatasetError(path, f"cannot be read: {error.strerror or error}", "check the file") from None
    return [line.strip() for line in lines if line.strip()]


def split_pair(line: str, source: Path) -> tuple[str, str | None]:
    """A line `image mask` or `image` -> the two names; names with blanks work where both have as many, or with a tab.

    Raises DatasetError naming the list and the line.
    """
    words = line.split("\t") if "\t" in line else line.split()
    if len(words) == 1:
        return words[0], None
    if len(words) % 2:
        raise DatasetError(source, f"line {line!r} is not `image mask`", "separate the two names by one tab")
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def inner(root: Path, name: str) -> Path:
    """`name` below `root`. Raises DatasetError for a name that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(
            root, f"a list names {name!r}, which lies outside", "name files relative to the dataset's folder"
        )
    return root / name


def existing(stem: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Path | None:
    """The first file that is `stem` with one of the suffixes, in either case."""
    for suffix in suffixes:
        for spelled in (suffix, suffix.upper()):
            path = stem.with_name(stem.name + spelled)
            if path.is_file():
                return path
    return None


def pair_folders(images: Path, masks: Path) -> list[Item]:
    """Every image with the mask of its name, at any depth; without the folder `masks`, images alone.

    A mask without an image becomes an item too, and two files of one name two items, so that `Dataset.check` tells of them.
    """
    if not masks.is_dir():
        return [Item(stem, image) for stem, paths in _by_stem(images).items() for image in paths]
    image_paths, labels = _by_stem(images), _by_stem(masks)
    items = []
    for stem in sorted({*image_paths, *labels}):
        for image in image_paths.get(stem, [images / f"{stem}.*"]):
            items += [Item(stem, image, mask) for mask in labels.get(stem, [masks / f"{stem}.png"])]
    return items


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Images by their name below `folder` without suffix."""
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            stems.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return stems
