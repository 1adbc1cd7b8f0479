"""Which images a path means; pipes, sockets and broken links are recognised before anything opens them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")


class Listing(NamedTuple):
    """What a folder holds: images in order, and what has an image's name but is not a regular file, with the reason."""

    images: list[Path]
    skipped: list[tuple[Path, str]]


def find_images(path: str | Path) -> list[Path]:
    """A file gives itself, a folder its images at any depth in sorted order; hidden and irregular files are left out.

    Raises InputError when there is nothing at `path`, or no image in the folder.
    """
    return list_images(path).images


def list_images(path: str | Path) -> Listing:
    """As `find_images`, and tells what was skipped."""
    path = Path(path)
    sought = " ".join(IMAGE_SUFFIXES)
    if not path.exists():
        raise InputError(path, "does not exist", f"name an image ({sought}) or a folder of images")
    if not path.is_dir():
        return Listing([path], [])
    listing = Listing([], [])
    for candidate in sorted(_visible_files(path)):
        kind = kind_of(candidate)
        if kind == "file":
            listing.images.append(candidate)
        else:
            listing.skipped.append((candidate, kind))
    if not listing.images:
        raise InputError(path, "holds no images", f"sought are {sought}, at any depth")
    return listing


def _visible_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(place, name)


def kind_of(path: str | Path) -> str:
    """ "file" for a regular one (or a link to it), otherwise the words for what it is."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to nothing" if os.path.islink(path) else "does not exist"
    except (OSError, ValueError) as error:
        return f"cannot be looked at: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode):
        return "file"
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
    return next((words for test, words in kinds if test(mode)), "a device")
