"""List the images at a path: a file, or a folder at any depth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple, TypeVar

from ..errors import InputError, os_reason
from .decode import file_kind

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")


P = TypeVar("P", bound=PurePath)


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
    found, repeated = walk_files(path)
    listing = Listing([], [(link, "a link to a folder that is listed already") for link in repeated])
    for candidate in sorted(file for file in found if file.name.lower().endswith(tuple(endings))):
        kind = file_kind(candidate)
        if kind == "file":
            listing.images.append(candidate)
        else:
            listing.skipped.append((candidate, kind))
    if not listing.images:
        raise InputError(path, "holds no images", f"expected files {suffixes}, at any depth")
    return listing


def without_suffix(path: P) -> P:
    """Return a path without its suffix; unchanged if only dots would be left of the name, as of `..png`."""
    return path.with_suffix("") if path.stem.strip(".") else path


def walk_files(path: str | Path) -> tuple[list[Path], list[Path]]:
    """Return everything below a folder that is not a folder and not hidden, sorted, and the links that were not taken.

    Links to folders are followed, after all folders that are not links; a link to a folder that was already visited is
    not taken, so cycles end. Raises InputError naming a folder that cannot be opened.
    """
    found: list[Path] = []
    repeated: list[Path] = []
    visited: set[str] = set()
    folders: list[Path] = [Path(path)]
    links: list[Path] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(folder)
        if real in visited:
            repeated.append(folder)
            continue
        visited.add(real)
        try:
            with os.scandir(folder) as entries:
                listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
            for entry in listed:
                try:
                    is_folder = entry.is_dir()
                except OSError:
                    # A link to itself.
                    is_folder = False
                if not is_folder:
                    found.append(folder / entry.name)
                elif entry.is_symlink():
                    links.append(folder / entry.name)
                else:
                    folders.append(folder / entry.name)
        except OSError as error:
            fix = "give yourself the right to read it, or move it elsewhere"
            raise InputError(folder, f"cannot be opened: {os_reason(error)}", fix) from error
    return sorted(found), repeated
