"""Find the images of a path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .decode import file_kind

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")


class Listing(NamedTuple):
    """The images of a folder in sorted order, and the skipped entries: named like an image, but not a regular file.

    skipped  (path, kind) pairs, such as (photos/a.png, "a named pipe")
    """

    images: list[Path]
    skipped: list[tuple[Path, str]]


def find_images(path: str | Path) -> list[Path]:
    """Return a file as it is, or the images of a folder at any depth, sorted, without hidden and irregular files.

    Raises InputError when `path` does not exist or the folder holds no image.
    """
    return list_images(path).images


def list_images(path: str | Path) -> Listing:
    """Return the images that `find_images` returns, and what it skips. Raises the same errors."""
    path = Path(path)
    suffixes = " ".join(IMAGE_SUFFIXES)
    if not path.exists():
        raise InputError(path, "does not exist", f"name an image ({suffixes}) or a folder of images")
    if not path.is_dir():
        return Listing([path], [])
    found = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    listing = Listing([], [])
    for candidate in sorted(file for file in found if file.name.lower().endswith(IMAGE_SUFFIXES)):
        kind = file_kind(candidate)
        if kind == "file":
            listing.images.append(candidate)
        else:
            listing.skipped.append((candidate, kind))
    if not listing.images:
        raise InputError(path, "holds no images", f"expected files {suffixes}, at any depth")
    return listing
