"""Plan the labeling of many images: which images, and the names of the files that are written for each."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from ..data.formats.mask_words import may_hold_pairs
from ..errors import InputError, listed
from ..files import check_outputs
from ..images import (
    ARRAY_SUFFIX,
    IMAGE_SUFFIXES,
    RGB,
    PixelFormat,
    cut_suffix,
    is_further_part,
    list_images,
    names_below,
    paths_below,
)

LONGEST_NAME = 255
"""Bytes of the longest file name of the usual file systems."""
LONGEST_ENDING = "_confidence.png"
"""The longest ending of an output's name. Names leave room for it whether it is asked for or not, so that a
later run with other outputs finds the same names."""


@dataclass(frozen=True)
class Job:
    """One image to label.

    source   its file
    name     the name of its outputs: relative to the output folder, without ending, with / between folders
    outputs  the files to write, one per ending, in the order of writing; the mask is the last
    """

    source: Path
    name: str
    outputs: tuple[Path, ...]

    @property
    def mask(self) -> Path:
        """The mask's file. It is written last: where it exists, the job is done."""
        return self.outputs[-1]


def plan(
    inputs: Sequence[str | Path], out: Path, endings: Sequence[str], pixels: PixelFormat = RGB
) -> tuple[list[Job], list[str]]:
    """Return one job per image of files and folders, each with output names of its own, and one line per skipped file.

    endings  of the files that are written per image, the mask's last
    pixels   of the images: with other than ordinary ones, a folder's npy files are images, and files that hold further
             channels are none
    A folder's images keep their subfolders; files below `out` are not among them. Images that differ only in their
    suffix keep it in the name, and names too long for their endings are cut and numbered. Masks that lie in a folder
    with their images are skipped, in one line.
    Raises InputError for inputs without an image, for two images with the same output, and for outputs over an input.
    """
    found: dict[tuple[Path, str], None] = {}
    skipped: list[str] = []
    written = Path(os.path.realpath(out))
    for given in map(Path, inputs):
        if given.is_dir() and Path(os.path.realpath(given)) == written:
            what = "is the folder of the images; masks written there would be taken for images"
            raise InputError(out, what, "choose another --out")
        listing = list_images(given, IMAGE_SUFFIXES if pixels.is_rgb else (*IMAGE_SUFFIXES, ARRAY_SUFFIX))
        skipped += [f"{path}: {kind}" for path, kind in listing.skipped]
        inside = given.is_dir() and written.is_relative_to(os.path.realpath(given))
        images = [p for p in listing.images if not (inside and Path(_real_folder(p.parent)).is_relative_to(written))]
        pairs = list(zip(images, names_below(given if given.is_dir() else given.parent, images), strict=True))
        if given.is_dir():
            pairs = [pair for pair in pairs if not (_is_output(pair[1]) or is_further_part(pair[1], pixels))]
        if given.is_dir() and (masks := _masks_among(pairs, given)):
            first = listed(name for path, name in pairs if path in masks)
            pairs = [pair for pair in pairs if pair[0] not in masks]
            what = f"{len(masks)} masks of other images: {first}"
            skipped.insert(0, f"{given}: {what}; to label them as well, name the files, or a folder of masks alone")
        if not pairs:
            raise InputError(given, f"holds no images except those in {out}", "name the folder of the photos")
        found |= dict.fromkeys(pairs)
    names = _unique_names([name for _, name in found])
    outputs = iter(paths_below(out, (name + ending for name in names for ending in endings)))
    jobs = [
        Job(source, name, tuple(islice(outputs, len(endings)))) for (source, _), name in zip(found, names, strict=True)
    ]
    _check_outputs(jobs, is_new=not os.path.lexists(written))
    return jobs, skipped


def _masks_among(images: Sequence[tuple[Path, str]], folder: Path) -> set[Path]:
    """Return those of the images of a folder, with their names, that are the masks of others, by names and pixels."""
    if not may_hold_pairs([name for _, name in images]):
        return set()
    # Reads a few files of each word.
    from ..data.formats.pairs import find_mask_files

    return find_mask_files(folder, [path for path, _ in images])


def _is_output(name: str) -> bool:
    """Return whether a npy file is named like the probabilities that `predict` writes."""
    return name.endswith("_probs" + ARRAY_SUFFIX)


def jobs_to_do(jobs: Sequence[Job], *, resume: bool, overwrite: bool) -> list[Job]:
    """Return the jobs to do: with `resume` only those that lack an output, otherwise all.

    Raises InputError for existing outputs, unless `resume` or `overwrite` is set.
    """
    if resume:
        return [job for job in jobs if not all(path.exists() for path in job.outputs)]
    existing = [] if overwrite else [path for job in jobs for path in job.outputs if path.exists()]
    if existing:
        what = f"exists already ({len(existing)} such files)"
        raise InputError(existing[0], what, "add --resume to do the others, or --overwrite")
    return list(jobs)


def _unique_names(names: Sequence[str]) -> list[str]:
    """Drop the suffix of each name unless two would become equal (also for file systems that ignore case)."""
    chosen = [_shorten(cut_suffix(name)) for name in names]
    while True:
        counts = Counter(map(str.casefold, chosen))
        changed = [
            _shorten(full) if counts[short.casefold()] > 1 else short for short, full in zip(chosen, names, strict=True)
        ]
        # A name that got its suffix back may equal another one ("b.png" of b.png.jpg), so until nothing changes.
        if changed == chosen:
            return chosen
        chosen = changed


def cut_name(stem: str, ending: str) -> str:
    """Return `stem`, cut if `stem + ending` is longer than file systems allow; a number keeps cut names apart."""
    room = LONGEST_NAME - len(os.fsencode(ending))
    # A character has at most four bytes.
    if 4 * len(stem) <= room or len(os.fsencode(stem)) <= room:
        return stem
    number = "-" + hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    kept = stem
    while len(os.fsencode(kept)) > room - len(number):
        kept = kept[:-1]
    return kept + number


def _shorten(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + cut_name(file, LONGEST_ENDING)


def _check_outputs(jobs: Sequence[Job], *, is_new: bool) -> None:
    """Raise InputError where an output would replace an input or another job's output.

    is_new  whether the output folder does not exist: then no output is an input, nor a link
    """
    if not is_new:
        outputs = [path for job in jobs for path in job.outputs]
        check_outputs(outputs, inputs=[job.source for job in jobs], overwrite=True)
    writer: dict[str, Job] = {}
    for job in jobs:
        for path in job.outputs:
            # Links are followed when they are written to, so two of them may be one file.
            real = str(path)
            if not is_new:
                folder, name = os.path.split(real)
                real = os.path.realpath(real) if os.path.islink(real) else os.path.join(_real_folder(folder), name)
            other = writer.setdefault(real.casefold(), job)
            if other is not job:
                what = f"and {other.source} would both be written to {path}"
                raise InputError(job.source, what, "label them into different --out folders")


@cache
def _real_folder(folder: str | Path) -> str:
    return os.path.realpath(folder)
