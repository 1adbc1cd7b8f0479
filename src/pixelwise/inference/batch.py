"""Label many pictures: every output whole, every failure a line, no output over an input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core import Prediction, Taxonomy
from ..errors import InputError, PixelwiseError
from ..files import atomic_write, make_folder, sweep_temporaries
from ..images import list_images, write_image, write_mask
from .segmenter import Segmenter


@dataclass(frozen=True)
class Job:
    """One picture to label: its file, and the name (with folders, without suffix) of what is written for it."""

    source: Path
    name: Path


@dataclass(frozen=True)
class Products:
    """What is written beside the mask, all below one folder.

    overlay  <name>_overlay.jpg, the colours laid over the picture; opacity 0..1 of the colours
    color    <name>_color.png, the mask in the classes' colours as RGB
    probs    <name>_probs.npy, (K, H, W) float16 probabilities
    """

    overlay: bool = False
    color: bool = False
    probs: bool = False
    opacity: float = 0.5


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the classes' shares (largest first) and the milliseconds, or the error."""

    job: Job
    shares: dict[str, float]
    milliseconds: float = 0.0
    error: PixelwiseError | None = None


def plan(inputs: Sequence[str | Path], out: Path) -> tuple[list[Job], list[str]]:
    """The jobs of files and folders, each with an output name of its own; and a line for each file that is passed over.

    A folder's pictures keep their sub-folders. Pictures that differ in their suffix alone keep it in the name.
    Raises InputError for inputs without pictures, or when a mask would be written over a picture.
    """
    found: list[tuple[Path, Path]] = []
    passed_over: list[str] = []
    for given in map(Path, inputs):
        listing = list_images(given)
        passed_over += [f"{path}: {kind}" for path, kind in listing.skipped]
        root = given if given.is_dir() else given.parent
        found += [(path, path.relative_to(root)) for path in listing.images]
    stems = [name.with_suffix("") for _, name in found]
    jobs = [Job(path, name if stems.count(stem) > 1 else stem) for (path, name), stem in zip(found, stems, strict=True)]
    sources = {path.resolve() for path, _ in found}
    for job in jobs:
        if mask_path(out, job).resolve() in sources:
            raise InputError(mask_path(out, job), "would be written over a picture that is to be labelled", "choose another --out")
    names = [job.name for job in jobs]
    twice = next((job for job in jobs if names.count(job.name) > 1), None)
    if twice:
        raise InputError(twice.source, f"and another input would both become {twice.name}.png", "label them into different --out folders")
    return jobs, passed_over


def mask_path(out: Path, job: Job) -> Path:
    """Where the job's mask goes."""
    return out / job.name.with_name(job.name.name + ".png")


def label_all(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    out: Path,
    products: Products,
    keep: Callable[[Job, Prediction], None] | None = None,
) -> Iterator[Outcome]:
    """Label each picture and write its products, the mask last: where there is a mask, the job is done.

    keep is handed each prediction; nothing else holds on to it, so that thousands of pictures do not pile up in memory.
    A picture that cannot be read gives an Outcome with its error, and the rest goes on; a full disk ends it.
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
            yield Outcome(job, {}, error=error)
            continue
        write_products(prediction, target, products)
        if keep:
            keep(job, prediction)
        yield Outcome(job, prediction.shares(), elapsed)


def write_products(prediction: Prediction, target: Path, products: Products) -> None:
    """Write what is asked for beside `target` (a .png), then the mask itself."""
    if products.overlay:
        write_image(target.with_name(target.stem + "_overlay.jpg"), np.asarray(prediction.overlay(products.opacity)))
    if products.color:
        write_image(target.with_name(target.stem + "_color.png"), np.asarray(prediction.colorize()))
    if products.probs:
        with atomic_write(target.with_name(target.stem + "_probs.npy")) as file:
            np.save(file, prediction.probs.astype(np.float16))  # type: ignore[union-attr]
    taxonomy = prediction.taxonomy
    write_mask(target, taxonomy.decode(prediction.mask), value_palette(taxonomy))


def value_palette(taxonomy: Taxonomy) -> NDArray[np.uint8] | None:
    """(256, 3) RGB by file value, or None where values do not fit a palette."""
    if max(taxonomy.values) > 255:
        return None
    palette = np.zeros((256, 3), np.uint8)
    palette[list(taxonomy.values)] = taxonomy.colors
    return palette
