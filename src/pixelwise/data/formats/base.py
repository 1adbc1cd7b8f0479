"""The interface of a dataset format, the registry of formats, and helpers for split lists and pairs of files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from ...errors import DatasetError, os_reason
from ...images import IMAGE_SUFFIXES
from ...registry import Registry
from ..dataset import Dataset, Item


class DatasetFormat(ABC):
    """One way to arrange a dataset in folders.

    needs  one line that says which files it is recognized by
    """

    needs: str

    @abstractmethod
    def find_root(self, folder: Path) -> Path | None:
        """Return the folder, at or just below `folder`, that has this format, or None."""

    @abstractmethod
    def read(self, root: Path) -> Dataset:
        """Read the dataset below `root` without looking at its images and masks.

        Raises DatasetError if lists or class names are missing.
        """


DATASETS: Registry[DatasetFormat] = Registry("dataset format", "pixelwise datasets")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a split list that are not blank. Raises DatasetError if it is not UTF-8 text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
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
        raise DatasetError(source, f"expected `image mask`, got line {line!r}", "separate the two names by one tab")
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def resolve_inside(root: Path, name: str) -> Path:
    """Return the path of `name` below `root`. Raises DatasetError for a name that leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        what = f"a list names {name!r}, which is outside of the dataset"
        raise DatasetError(root, what, "name files relative to the dataset's folder")
    return root / name


def find_image(stem: Path) -> Path | None:
    """Return the first existing file that is `stem` with the suffix of an image, in lower or upper case."""
    for suffix in IMAGE_SUFFIXES:
        for spelled in (suffix, suffix.upper()):
            path = stem.with_name(stem.name + spelled)
            if path.is_file():
                return path
    return None


def pair_folders(images: Path, masks: Path) -> list[Item]:
    """Pair every image with the mask of the same name, at any depth; return unlabeled images without a `masks` folder.

    A mask without an image becomes an item too, and two files of one name become two items, so that `Dataset.problems`
    reports them.
    """
    image_paths = _by_stem(images)
    if not masks.is_dir():
        return [Item(stem, image) for stem, paths in image_paths.items() for image in paths]
    mask_paths = _by_stem(masks)
    items = []
    for stem in sorted({*image_paths, *mask_paths}):
        for image in image_paths.get(stem, [images / f"{stem}.*"]):
            items += [Item(stem, image, mask) for mask in mask_paths.get(stem, [masks / f"{stem}.png"])]
    return items


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the image files below a folder by their relative path without suffix."""
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            stems.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    return stems
