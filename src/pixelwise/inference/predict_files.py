"""Label many images: every output whole, every failure a line, no output over an input."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core import Prediction
from ..errors import InputError, PixelwiseError
from ..files import atomic_write, make_folder, sweep_temporaries
from ..images import list_images, write_image, write_mask

if TYPE_CHECKING:
    from .segmenter import Segmenter

_MASK, _OVERLAY, _COLOR, _PROBS = ".png", "_overlay.jpg", "_color.png", "_probs.npy"
_LONGEST_NAME = 255 - len(_OVERLAY)
"""Bytes that file systems allow, less the longest ending."""


@dataclass(frozen=True)
class Job:
    """One image to label: its file, and the name (with folders, without suffix) of what is written for it."""

    source: Path
    name: Path


@dataclass(frozen=True)
class OutputOptions:
    """What is written beside the mask, all below one folder.

    overlay  <name>_overlay.jpg, the colours laid over the image; opacity 0..1 of the colours
    color    <name>_color.png, the mask in the classes' colours as RGB
    probs    <name>_probs.npy, (K, H, W) float16 probabilities
    """

    overlay: bool = False
    color: bool = False
    probs: bool = False
    opacity: float = 0.5

    def paths(self, out: Path, job: Job) -> list[Path]:
        """Every file that is written for the job; the mask is the last one, as it is when writing."""
        endings = [e for e, wanted in ((_OVERLAY, self.overlay), (_COLOR, self.color), (_PROBS, self.probs)) if wanted]
        return [out / job.name.with_name(job.name.name + ending) for ending in (*endings, _MASK)]


@dataclass(frozen=True)
class PredictionResult:
    """What became of a job: the classes' shares (largest first) and the milliseconds, or the error."""

    job: Job
    shares: dict[str, float]
    milliseconds: float = 0.0
    error: PixelwiseError | None = None


def plan(inputs: Sequence[str | Path], out: Path, products: OutputOptions) -> tuple[list[Job], list[str]]:
    """The jobs of files and folders, each with an output name of its own; and a line for each file that is passed over.

    A folder's images keep their sub-folders; what lies below `out` is none of them. Images that differ in their suffix
    alone keep it in the name, and names too long for their endings are cut and get a number.
    Raises InputError for inputs without images, or when something would be written over an image or twice.
    """
    found: dict[tuple[Path, Path], None] = {}
    skipped: list[str] = []
    written = Path(os.path.realpath(out))
    for given in map(Path, inputs):
        if given.is_dir() and Path(os.path.realpath(given)) == written:
            what = "is the folder of the images; masks among them would be taken for images"
            raise InputError(out, what, "choose another --out")
        listing = list_images(given)
        skipped += [f"{path}: {kind}" for path, kind in listing.skipped]
        inside = given.is_dir() and written.is_relative_to(os.path.realpath(given))
        root = given if given.is_dir() else given.parent
        images = [p for p in listing.images if not (inside and _real_place(p).is_relative_to(written))]
        if not images:
            raise InputError(given, f"holds no images but those in {out}", "name the folder of the photos")
        found |= dict.fromkeys((path, path.relative_to(root)) for path in images)
    jobs = [Job(path, name) for (path, _), name in zip(found, _output_names([name for _, name in found]), strict=True)]
    _refuse_clashes(jobs, out, products)
    return jobs, skipped


def _output_names(names: Sequence[Path]) -> list[Path]:
    """Names without suffix where that leaves them different (also to a file system that takes `A` for `a`), else with it."""
    chosen = [_shortened(name.with_suffix("")) for name in names]
    while True:
        counts = Counter(str(name).casefold() for name in chosen)
        changed = [
            _shortened(full) if counts[str(short).casefold()] > 1 else short
            for short, full in zip(chosen, names, strict=True)
        ]
        if changed == chosen:
            return chosen
        chosen = changed


def _shortened(name: Path) -> Path:
    """The name, or as much of it as leaves room for the endings, and a number that tells it from its like."""
    if len(os.fsencode(name.name)) <= _LONGEST_NAME:
        return name
    number = "-" + hashlib.sha256(os.fsencode(name.name)).hexdigest()[:8]
    kept = name.name
    while len(os.fsencode(kept)) > _LONGEST_NAME - len(number):
        kept = kept[:-1]
    return name.with_name(kept + number)


def _refuse_clashes(jobs: Sequence[Job], out: Path, products: OutputOptions) -> None:
    sources = {_real_place(job.source) for job in jobs}
    sources |= {Path(os.path.realpath(job.source)) for job in jobs if job.source.is_symlink()}
    writer: dict[str, Job] = {}
    for job in jobs:
        for path in products.paths(out, job):
            place = _real_place(path)
            if place in sources:
                raise InputError(path, "would be written over an image that is to be labelled", "choose another --out")
            other = writer.setdefault(str(place).casefold(), job)
            if other is not job:
                what = f"and {other.source} would both be written to {path}"
                raise InputError(job.source, what, "label them into different --out folders")


def _real_place(path: Path) -> Path:
    """Where a file of that name lies, links of folders followed: what replacing the file would change."""
    return _real_folder(path.parent) / path.name


@cache
def _real_folder(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def mask_path(out: Path, job: Job) -> Path:
    """Where the job's mask goes."""
    return OutputOptions().paths(out, job)[-1]


def predict_files(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    out: Path,
    products: OutputOptions,
    keep: Callable[[Job, Prediction], None] | None = None,
) -> Iterator[PredictionResult]:
    """Label each image and write its products, the mask last: where there is a mask, the job is done.

    keep is handed each prediction; nothing else holds on to it, so that thousands of images do not pile up in memory.
    An image that cannot be read gives an PredictionResult with its error, and the rest goes on; a full disk ends it.
    """
    swept: set[Path] = set()
    for job in jobs:
        target = mask_path(out, job)
        try:
            if target.parent not in swept:
                sweep_temporaries(make_folder(target.parent))
                swept.add(target.parent)
            started = time.perf_counter()
            prediction = segmenter.predict(job.source, probs=products.probs)
            elapsed = (time.perf_counter() - started) * 1000
        except InputError as error:
            yield PredictionResult(job, {}, error=error)
            continue
        write_products(prediction, out, job, products)
        if keep:
            keep(job, prediction)
        yield PredictionResult(job, prediction.class_fractions(), elapsed)


def write_products(prediction: Prediction, out: Path, job: Job, products: OutputOptions) -> None:
    """Write what is asked for, then the mask itself."""
    for path in products.paths(out, job)[:-1]:
        if path.name.endswith(_OVERLAY):
            write_image(path, np.asarray(prediction.overlay(products.opacity)))
        elif path.name.endswith(_COLOR):
            write_image(path, np.asarray(prediction.colorize()))
        else:
            assert prediction.probs is not None, "probabilities were not asked of the model"
            with atomic_write(path) as file:
                np.save(file, prediction.probs.astype(np.float16))
    taxonomy = prediction.taxonomy
    write_mask(mask_path(out, job), taxonomy.decode(prediction.mask), taxonomy.palette("value"))
