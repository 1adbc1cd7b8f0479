"""Files that stand where a missing one was sought, under a similar name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from ..errors import shown
from ..images import IMAGE_SUFFIXES, describe_content


class NearMiss(NamedTuple):
    """A file, or folder, that stands beside the place of a missing one, and how its name differs."""

    path: Path
    why: str


def near_misses(missing: Iterable[Path]) -> dict[Path, NearMiss]:
    """Return the near miss of each missing file that has one; several may have the same."""
    near: dict[Path, NearMiss] = {}
    names: dict[Path, list[Path]] = {}
    for path in missing:
        sought, folder = path, path.parent
        while folder != folder.parent and not folder.is_dir():
            # A folder of the path is missing: look for that one.
            sought, folder = folder, folder.parent
        if folder not in names:
            names[folder] = sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
        for candidate in names[folder]:
            why = _similarity(sought.name, candidate.name)
            if why:
                if candidate.suffix.lower() not in IMAGE_SUFFIXES and candidate.is_file():
                    why += f", {describe_content(candidate)}"
                near[path] = NearMiss(candidate, why)
                break
    return near


def _similarity(name: str, other: str) -> str:
    """Return how a file's name differs from the expected one, or "" if it is another name."""
    normal, other_normal = unicodedata.normalize("NFC", name), unicodedata.normalize("NFC", other)
    stem, other_stem = PurePath(normal).stem, PurePath(other_normal).stem
    if name == other:
        return "not a file"
    if name != normal or other != other_normal:
        if stem == other_stem:
            return "another Unicode normalization"
    elif stem == other_stem:
        return "another ending"
    if stem.casefold() == other_stem.casefold():
        return "upper and lower case"
    if _plain_numbers(stem) == _plain_numbers(other_stem):
        return "other zeros in its number"
    for long, short in ((other_stem, stem), (stem, other_stem)):
        if long.casefold().startswith(short.casefold()) and not long[len(short)].isalnum():
            return f"{shown(long[len(short) :])} more in its name" if long == other_stem else "a shorter name"
    return ""


def _plain_numbers(name: str) -> str:
    """Return a name with its numbers without leading zeros."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)
