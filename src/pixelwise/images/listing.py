"""List the images at a path: a file, or a folder at any depth."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple, TypeVar

from ..errors import InputError, os_reason
from .decode import file_kind

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")
# Of fewer files in a folder, each is looked up.
_FEW = 20

P = TypeVar("P", bound=PurePath)


class Found(NamedTuple):
    """What lies below a folder, as text: paths of thousands of files take ten times as long.

    names      of the files, relative to the folder, with / between folders, in the order of paths
    irregular  those of them that are no regular file nor a link to one
    repeated   links to folders that were not taken, because their folder was
    """

    names: list[str]
    irregular: set[str]
    repeated: list[str]


class Listing(NamedTuple):
    """The images of a folder in sorted order, and the skipped entries: named like an image, but not a regular file.

    skipped  (path, kind) pairs, such as (photos/a.png, "a named pipe"), and links to folders that were listed before
    """

    images: list[Path]
    skipped: list[tuple[Path, str]]


def find_images(path: str | Path) -> list[Path]:
    """Return a file as it is, or the images of a folder at any depth, sorted, without hidden and irregular files.

    Links to folders are followed. Raises InputError when `path` does not exist, a folder cannot be opened, or no image
    is found.
    """
    return list_images(path).images


def list_images(path: str | Path, endings: Sequence[str] = IMAGE_SUFFIXES) -> Listing:
    """Return the images that `find_images` returns, and what it skips. Raises the same errors.

    endings  of the names, in lower case
    """
    path = Path(path)
    suffixes = " ".join(endings)
    if not path.exists():
        raise InputError(path, "does not exist", f"name an image ({suffixes}) or a folder of images")
    if not path.is_dir():
        return Listing([path], [])
    found = walk(path, endings)
    listing = Listing([], [(path / link, "a link to a folder that is listed already") for link in found.repeated])
    for name, file in zip(found.names, paths_below(path, found.names), strict=True):
        kind = file_kind(file) if name in found.irregular else "file"
        if kind == "file":
            listing.images.append(file)
        else:
            listing.skipped.append((file, kind))
    if not listing.images:
        raise InputError(path, "holds no images", f"expected files {suffixes}, at any depth")
    return listing


def without_suffix(path: P) -> P:
    """Return a path without its suffix; unchanged if only dots would be left of the name, as of `..png`."""
    return path.with_suffix("") if path.stem.strip(".") else path


def cut_suffix(name: str) -> str:
    """Return `without_suffix` of a path with / between folders, as text."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.rpartition(".")
    return f"{folder}{slash}{stem}" if dot and suffix and stem.strip(".") else name


def paths_below(folder: str | Path, names: Iterable[str]) -> list[Path]:
    """Return the paths of files of a folder; `names` as in `Found`."""
    # A folder is taken apart once, not once per file.
    folders = {"": Path(folder)}
    paths = []
    for name in names:
        inner, _, file = name.rpartition("/")
        if inner not in folders:
            folders[inner] = folders[""] / inner
        paths.append(folders[inner] / file)
    return paths


def names_below(folder: str | Path, paths: Iterable[Path]) -> list[str]:
    """Return the names of files of a folder, as in `Found`: the inverse of `paths_below`."""
    start = len(os.path.join(Path(folder), "")) if Path(folder) != Path() else 0
    return [str(path)[start:].replace(os.sep, "/") for path in paths]


def walk_files(path: str | Path) -> tuple[list[Path], list[Path]]:
    """Return the files that `walk` finds, and the links that it did not take, as paths."""
    found = walk(path)
    return paths_below(path, found.names), paths_below(path, found.repeated)


def walk(path: str | Path, endings: Sequence[str] = ("",)) -> Found:
    """Find everything below a folder that is not a folder and not hidden.

    endings  of the names, in lower case

    Links to folders are followed, after all folders that are not links; a link to a folder that was already visited is
    not taken, so cycles end. Raises InputError naming a folder that cannot be opened.
    """
    found, ends = Found([], set(), []), tuple(endings)
    start = os.path.join(Path(path), "")
    visited: set[str] = set()
    folders, links = [""], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        real = os.path.realpath(start + folder)
        if real in visited:
            found.repeated.append(folder)
            continue
        visited.add(real)
        before = f"{folder}/" if folder else ""
        inner: tuple[list[str], list[str]] = [], []
        try:
            with os.scandir(start + folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    is_regular = entry.is_file(follow_symlinks=False)
                    if not is_regular and _answers(entry.is_dir):
                        inner[entry.is_symlink()].append(before + entry.name)
                    elif entry.name.lower().endswith(ends):
                        found.names.append(before + entry.name)
                        if not is_regular and not _answers(entry.is_file):
                            found.irregular.add(before + entry.name)
        except OSError as error:
            fix = "give yourself the right to read it, or move it elsewhere"
            raise InputError(Path(start + folder), f"cannot be opened: {os_reason(error)}", fix) from error
        folders += sorted(inner[0])
        links += sorted(inner[1])
    # The order of paths: part by part, and on Windows without regard to case.
    found.names.sort(key=lambda name: os.path.normcase(name).replace(os.sep, "\0"))
    return found


def _answers(question: Callable[[], bool]) -> bool:
    """Return the answer of a directory entry, or False for a link to itself, of which there is none."""
    try:
        return question()
    except OSError:
        return False


def irregular_files(paths: Iterable[Path]) -> set[Path]:
    """Return those of the paths that are no regular file nor a link to one."""
    asked: Counter[str] = Counter()
    listed: dict[str, set[str]] = {}
    found = set()
    for path in paths:
        folder, _, name = str(path).rpartition(os.sep)
        if folder not in listed:
            # Listing a folder takes a tenth of the time per file, but a large one may hold many others.
            asked[folder] += 1
            listed |= {folder: _regular_names(folder)} if folder and asked[folder] == _FEW else {}
        if name not in listed.get(folder, ()) and file_kind(path) != "file":
            found.add(path)
    return found


def _regular_names(folder: str) -> set[str]:
    """Return the names of the regular files in a folder, links not followed; none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return set()
