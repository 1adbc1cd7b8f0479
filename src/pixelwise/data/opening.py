"""Open a folder as a dataset: exactly one format has to recognize it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import DatasetError
from .dataset import Dataset
from .formats import DATASETS, DatasetFormat
from .formats.annotations import split_of
from .formats.base import has_class_names
from .formats.pairs import describe_folder
from .pixel_formats import with_pixel_format
from .second_labels import with_second_labels

# What other systems put beside the files of an archive.
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
_MAX_DEPTH = 4

# The names of the formats are left out of an error that would be longer.
_MAX_ERROR = 390


def open_dataset(path: str | Path, format: str | None = None, *, check: bool = True) -> Dataset:
    """Open a dataset folder and check that every image has its mask.

    format  name of a dataset format; found by looking at the folder if None
    check   False opens it without looking for the files; `Dataset.problems` then lists all errors
    Raises DatasetError for a folder that no format (or not the named one) recognizes, or that two do, for missing files
    (all of them in one error), and for an image in two splits; UnknownNameError for an unknown format.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DatasetError(folder, what, "name the folder of a dataset")
    formats = {name: DATASETS.create(name) for name in ([format] if format else sorted(DATASETS))}
    found: dict[str, Path] = {}
    for place in (places := _unpacked(folder)):
        found = found or {n: root for n, reader in formats.items() if (root := _root(reader, place, bool(format)))}
    if not found:
        # The names of the classes lie beside the images.
        place = next(filter(has_class_names, places), folder)
        found = {n: root for n, reader in formats.items() if reader.is_fallback and (root := reader.find_root(place))}
    if len(found) > 1:
        what = f"may be read as {' or as '.join(found)}"
        names = " or ".join(f"{name} ({formats[name].needs})" for name in found)
        raise DatasetError(folder, what, f"name the format, or take the files of one of them away: {names}")
    if not found:
        what = f"unrecognized dataset layout; {describe_folder(folder)}"
        fix = "put images/ and masks/ with equal names into the folder"
        if format:
            raise DatasetError(folder, what, f"{fix}; expected {format}: {formats[format].needs}")
        fix += ", or a form of `pixelwise datasets`"
        forms = f": {', '.join(sorted(DATASETS))}"
        raise DatasetError(folder, what, fix + (forms if len(what + fix + forms) < _MAX_ERROR else ""))
    ((name, root),) = found.items()
    dataset = formats[name].read(root)
    if check:
        return with_second_labels(with_pixel_format(dataset.check()))
    try:
        return with_second_labels(with_pixel_format(dataset))
    except DatasetError as error:
        return replace(dataset, faults=(*dataset.faults, error))


def _unpacked(folder: Path) -> list[Path]:
    """Return the folder, and the only one that it holds, and so on, as an unpacked archive has them."""
    places = [folder]
    while len(places) < _MAX_DEPTH and os.access(places[-1], os.R_OK | os.X_OK):
        inner = [path for path in places[-1].iterdir() if not path.name.startswith(".") and path.name not in _JUNK]
        if len(inner) != 1 or not inner[0].is_dir() or split_of(inner[0].name):
            break
        places.append(inner[0])
    return places


def _root(reader: DatasetFormat, folder: Path, is_named: bool) -> Path | None:
    return None if reader.is_fallback and not is_named else reader.find_root(folder)
