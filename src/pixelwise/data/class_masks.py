"""Several labels per pixel: the mask files of an image, one per class, and how they are read.

    masks/train/a/femur.png        a folder per image and a file per class, or
    masks/train/a_femur.png        the class after the name of the image, or
    masks/train/a.npy              one array (K, H, W) or (H, W, K), classes in the order of the taxonomy

A class without a file is absent from the image. A file named `ignore` beside those of the classes marks pixels that
count for no class. In memory all of it is one array (K, H, W): see `core`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core import Taxonomy, size_text
from ..errors import MaskError, listed
from ..files import atomic_write
from ..images import (
    ARRAY_SUFFIX,
    IMAGE_SUFFIXES,
    read_mask,
    read_numbers,
    walk_files,
    without_suffix,
    write_binary_mask,
    write_mask,
)
from ..images.arrays import NPY, read_npy
from ..images.decode import read_bytes
from ..taxonomy import IGNORE_FILE


@dataclass(frozen=True)
class ClassFiles:
    """The mask files below a folder, by the key of their image.

    files     key -> (class id, or the ignore id, and file), in the order of ids
    problems  one line per kind of file that cannot be assigned
    """

    files: Mapping[str, tuple[tuple[int, Path], ...]]
    problems: tuple[str, ...]


def find_class_files(masks: Path, keys: Iterable[str], taxonomy: Taxonomy) -> ClassFiles:
    """Assign every mask file below a folder to an image and a class, by its name.

    keys  of the images: their paths without suffix, relative to their folder
    """
    known = set(keys)
    ids = {name: k for k, name in enumerate(taxonomy.file_names)} | {name: k for k, name in enumerate(taxonomy.names)}
    ids[IGNORE_FILE] = taxonomy.ignore_id
    found: dict[str, list[tuple[int, Path]]] = {}
    foreign: list[str] = []
    ambiguous: list[str] = []
    for path in walk_files(masks)[0] if masks.is_dir() else ():
        suffix = path.suffix.lower()
        if suffix not in (*IMAGE_SUFFIXES, ARRAY_SUFFIX):
            continue
        stem = without_suffix(path.relative_to(masks)).as_posix()
        if stem in known and (suffix == ARRAY_SUFFIX or taxonomy.num_classes == 1):
            # One file for all classes: it stands at class 0.
            fits = [(stem, 0)]
        else:
            ends = [match.start() for match in re.finditer("[/_]", stem)] if suffix != ARRAY_SUFFIX else []
            words = [(stem[:end], ids.get(stem[end + 1 :])) for end in ends]
            fits = [(key, k) for key, k in words if k is not None and key in known]
        if len(fits) == 1:
            found.setdefault(fits[0][0], []).append((fits[0][1], path))
        else:
            (ambiguous if fits else foreign).append(path.relative_to(masks).as_posix())
    problems = []
    if foreign:
        problems.append(f"{len(foreign)} files belong to no image and class: {listed(foreign)}")
    if ambiguous:
        problems.append(f"{len(ambiguous)} files fit several images and classes: {listed(ambiguous)}")
    twice = [key for key, files in found.items() if _repeats(files)]
    if twice:
        problems.append(f"several files hold one class of {listed(twice)}")
    return ClassFiles({key: tuple(sorted(files)) for key, files in found.items()}, tuple(problems))


def _repeats(files: Sequence[tuple[int, Path]]) -> bool:
    """Return whether a class has two files, or an array has other files beside it."""
    has_array = any(path.suffix.lower() == ARRAY_SUFFIX for _, path in files)
    return len({k for k, _ in files}) < len(files) or (has_array and len(files) > 1)


def truth_files(path: Path, taxonomy: Taxonomy) -> list[tuple[int, Path]]:
    """Return (class id, file) of the masks in the folder of one image, or the array itself.

    A class without a file is absent. Raises MaskError for a folder without any, and for other files.
    """
    if path.suffix.lower() == ARRAY_SUFFIX:
        return [(0, path)]
    names = [*taxonomy.file_names, IGNORE_FILE]
    ids = [*range(taxonomy.num_classes), taxonomy.ignore_id]
    found = [(k, path / f"{name}.png") for k, name in zip(ids, names, strict=True) if (path / f"{name}.png").is_file()]
    if not found:
        what = f"expected a folder with {names[0]}.png and the like, or an .npy file"
        raise MaskError(path, what, "name the folder of the masks of this image")
    return found


def read_class_masks(
    mask: Path, class_files: Sequence[tuple[int, Path]] | None, taxonomy: Taxonomy, image: Path
) -> NDArray[np.uint8]:
    """Read the masks of one image as (K, H, W) uint8: 1, 0, and the ignore id where labels are unknown.

    mask         of the item, for the message that it has no files per class
    class_files  of the item
    image        has the size of the masks where there is no mask file
    Raises ImageError or MaskError naming the file.
    """
    if class_files is None:
        what = "is one mask file, but the classes have `kind: multilabel`"
        raise MaskError(mask, what, "give a mask per class in the folder format, such as masks/train/KEY/CLASS.png")
    masks: NDArray[np.uint8] | None = None
    for class_id, path in class_files:
        if path.suffix.lower() == ARRAY_SUFFIX:
            return _read_array(path, taxonomy)
        encoded = taxonomy.encode_class(read_mask(path), path)
        if masks is None:
            masks = np.zeros((taxonomy.num_classes, *encoded.shape), np.uint8)
        if encoded.shape != masks.shape[1:]:
            sizes = size_text(masks.shape[1:]), size_text(encoded.shape)
            what = f"expected {sizes[0]}, the size of {class_files[0][1].name}, got {sizes[1]} (height x width)"
            raise MaskError(path, what, "export all masks at one size; masks are never resized silently")
        if class_id == taxonomy.ignore_id:
            masks[:, encoded == 1] = taxonomy.ignore_id
        else:
            masks[class_id] = encoded
    if masks is None:
        height, width = read_numbers(image).shape[:2]
        return np.zeros((taxonomy.num_classes, height, width), np.uint8)
    return masks


def _read_array(path: Path, taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Read an array (K, H, W) or (H, W, K) of 0 and 1, or 0 and 255. Raises ImageError or MaskError."""
    num_classes = taxonomy.num_classes
    data = read_bytes(path)
    if not data.startswith(NPY):
        raise MaskError(path, "is no npy file", "save it with numpy.save")
    raw = read_npy(path, data)
    fits = [axis for axis in (0, 2) if raw.ndim == 3 and raw.shape[axis] == num_classes]
    if len(fits) != 1 or not raw.size:
        what = f"expected an array ({num_classes}, height, width), got {size_text(raw.shape)}"
        raise MaskError(path, what, "save one plane per class, in the order of classes.yaml")
    planes = np.moveaxis(raw, fits[0], 0)
    if planes.dtype.kind == "i" and planes.min() >= 0 and planes.max() <= 65535:
        planes = planes.astype(np.uint16)
    # Together, as one plane may hold 0 alone.
    return taxonomy.encode_class(planes.reshape(num_classes, -1), path).reshape(planes.shape)


def write_class_masks(stem: Path, masks: NDArray[np.uint8], taxonomy: Taxonomy, *, as_array: bool) -> None:
    """Write masks (K, H, W) of 1, 0 and the ignore id to `stem`/CLASS.png, 0 and 255, or as one array to `stem`.npy.

    Unknown pixels get the ignored value of the taxonomy, or, where it has none, a file of their own. Raises MaskError
    for those of some classes alone if there is no such value, and for an array that could be read in two ways.
    """
    is_unknown = masks == taxonomy.ignore_id
    unknown = taxonomy.ignored[0] if taxonomy.ignored else 0
    # 255 is a value of unknown pixels in some datasets, and 1 in others.
    label = 1 if 255 in taxonomy.ignored else 255
    values = np.where(is_unknown, unknown, np.where(masks == 1, label, 0)).astype(
        np.uint16 if unknown > 255 else np.uint8
    )
    everywhere = is_unknown.all(0)
    if not taxonomy.ignored and (is_unknown & (as_array | ~everywhere)).any():
        what = "has unknown pixels, for which the classes have no value"
        raise MaskError(stem, what, "add a line such as `ignore: [128]` to a copy of classes.yaml")
    if as_array:
        if masks.shape[0] == masks.shape[2]:
            what = f"is an array of {size_text(masks.shape)}, whose planes may be the first or the last axis"
            raise MaskError(stem, what, "convert to `folder`")
        with atomic_write(stem.with_name(f"{stem.name}.npy")) as file:
            np.save(file, values)
        return
    stem.mkdir(exist_ok=True)
    grays = np.arange(256)[:, None].repeat(3, 1)
    for name, plane in zip(taxonomy.file_names, values, strict=True):
        write_mask(stem / f"{name}.png", plane, palette=grays)
    if not taxonomy.ignored and everywhere.any():
        write_binary_mask(stem / f"{IGNORE_FILE}.png", everywhere)


def label_counts(mask: NDArray[Any], taxonomy: Taxonomy) -> NDArray[np.int64]:
    """Return the number of pixels of each class id up to the ignore id, (ignore_id + 1,) int64.

    Of several labels per pixel, the pixels that count for no class are those of the ignore id.
    """
    if not taxonomy.multilabel:
        from .mask_loops import count_values

        return count_values(mask)
    counts = np.zeros(taxonomy.ignore_id + 1, np.int64)
    counts[: taxonomy.num_classes] = (mask == 1).sum((1, 2))
    counts[taxonomy.ignore_id] = (mask == taxonomy.ignore_id).all(0).sum()
    return counts
