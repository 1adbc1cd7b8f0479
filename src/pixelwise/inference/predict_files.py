"""Label many images: every output whole, one line per failure, no output over an input."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core import Prediction, Taxonomy, drawn_labels
from ..errors import InputError, PixelwiseError
from ..files import atomic_write, make_folder, sweep_temporaries
from ..images import read_pixels, write_binary_mask, write_image, write_mask
from ..images.legend import with_legend
from ..jit.threads import ahead
from .exports import write_geojson
from .jobs import Job

if TYPE_CHECKING:
    from .base import BaseSegmenter


def write_labels(path: Path, prediction: Prediction) -> None:
    """Write the mask in the file values of its classes, as a palette PNG."""
    taxonomy = prediction.taxonomy
    write_mask(path, taxonomy.decode(prediction.mask), palette=taxonomy.palette("value"))


def write_class_mask(path: Path, prediction: Prediction, class_id: int) -> None:
    """Write the mask of one class, black and white, as PNG with one bit per pixel."""
    write_binary_mask(path, prediction.masks[class_id])


def write_overlay(path: Path, prediction: Prediction, opacity: float) -> None:
    """Write the colors of the classes laid over the image, and their names below it."""
    image = np.asarray(prediction.overlay(opacity))
    drawn = drawn_labels(prediction.mask, prediction.taxonomy)
    write_image(path, with_legend(image, drawn, prediction.taxonomy.for_figures()))


def write_colors(path: Path, prediction: Prediction) -> None:
    """Write the mask in the colors of the classes, as RGB."""
    write_image(path, np.asarray(prediction.colorize()))


def write_confidence(path: Path, prediction: Prediction) -> None:
    """Write the probabilities of the labels as a gray image, 255 for 1."""
    assert prediction.confidence is not None, "predict(certainty=True) keeps it"
    write_image(path, np.rint(prediction.confidence * 255).astype(np.uint8))


def write_probs(path: Path, prediction: Prediction) -> None:
    """Write the probabilities (K, H, W) as float16."""
    assert prediction.probs is not None, "predict(probs=True) keeps them"
    with atomic_write(path) as file:
        np.save(file, prediction.probs.astype(np.float16))


class FileOutput(NamedTuple):
    """One of the files that are written per image: the ending of its name, and the function that writes it."""

    ending: str
    write: Callable[[Path, Prediction], None]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The files that are written beside the mask, or beside NAME/CLASS.png of several labels per pixel.

    overlay     NAME_overlay.jpg, the colors laid over the image, with a legend below; opacity 0..1 of the colors
    color       NAME_color.png, the mask in the colors of the classes as RGB
    confidence  NAME_confidence.png, the probability of each label, 255 for 1; for one label per pixel
    probs       NAME_probs.npy, (K, H, W) float16 probabilities
    geojson     NAME.geojson, the classes as polygons
    taxonomy    the classes, if a pixel may have several of them; None for one
    """

    overlay: bool = False
    color: bool = False
    confidence: bool = False
    probs: bool = False
    geojson: bool = False
    opacity: float = 0.5
    taxonomy: Taxonomy | None = None

    @property
    def files(self) -> list[FileOutput]:
        """The files per image, the mask last: where there is a mask, the image is done."""
        masks = [FileOutput(".png", write_labels)]
        if self.taxonomy is not None and self.taxonomy.multilabel:
            names = enumerate(self.taxonomy.file_names)
            masks = [FileOutput(f"/{name}.png", partial(write_class_mask, class_id=k)) for k, name in names]
        choices = [
            (self.overlay, FileOutput("_overlay.jpg", partial(write_overlay, opacity=self.opacity))),
            (self.color, FileOutput("_color.png", write_colors)),
            (self.confidence, FileOutput("_confidence.png", write_confidence)),
            (self.probs, FileOutput("_probs.npy", write_probs)),
            (self.geojson, FileOutput(".geojson", write_geojson)),
        ]
        return [file for chosen, file in choices if chosen] + masks

    @property
    def endings(self) -> list[str]:
        """The endings of those files."""
        return [file.ending for file in self.files]


@dataclass(frozen=True)
class PredictionResult:
    """The outcome of a job: the fraction of each class (largest first) and milliseconds to compute, or the error."""

    job: Job
    class_fractions: dict[str, float]
    milliseconds: float = 0.0
    error: PixelwiseError | None = None


def predict_files(
    segmenter: BaseSegmenter,
    jobs: Sequence[Job],
    outputs: OutputOptions,
    *,
    tile: int | None = None,
    on_prediction: Callable[[Job, Prediction], None] | None = None,
) -> Iterator[PredictionResult]:
    """Read, label and write each image; the mask is written last.

    Reading, computing and writing overlap: the next images are read and the last one is written in threads.
    tile labels in tiles of that many pixels per side, as `Segmenter.predict` does.
    on_prediction is called with each prediction. Nothing else keeps predictions, so thousands of images fit in memory.
    An image that cannot be read gives a PredictionResult with its error, and the others are done; a full disk ends all.
    """
    swept: set[Path] = set()
    # The results of the image before, whose files are being written.
    writing: Future[None] | None = None
    written: list[PredictionResult] = []
    images = ahead(lambda job: read_pixels(job.source, segmenter.pixels), jobs)
    with ThreadPoolExecutor(1) as writer:
        for job, reading in zip(jobs, images, strict=True):
            prediction, error = None, None
            started = time.perf_counter()
            try:
                image = reading.result()
                started = time.perf_counter()
                prediction = segmenter.predict(
                    image, probs=outputs.probs, certainty=outputs.confidence, source=job.source, tile=tile
                )
            except InputError as raised:
                error = raised
            milliseconds = (time.perf_counter() - started) * 1000
            if writing is not None:
                writing.result()
                writing = None
            yield from written
            written = [PredictionResult(job, {}, error=error)]
            if prediction is not None:
                folder = job.mask.parent
                if folder not in swept:
                    sweep_temporaries(make_folder(folder))
                    swept.add(folder)
                writing = writer.submit(_write_outputs, job, outputs, prediction)
                if on_prediction:
                    on_prediction(job, prediction)
                written = [PredictionResult(job, prediction.class_fractions(), milliseconds)]
        if writing is not None:
            writing.result()
        yield from written


def _write_outputs(job: Job, outputs: OutputOptions, prediction: Prediction) -> None:
    """Write the files of an image. Where the mask cannot be written, the overlay does not stay either."""
    files = zip(job.outputs, outputs.files, strict=True)
    write_together((path, partial(file.write, path, prediction)) for path, file in files)


def write_together(writers: Iterable[tuple[Path, Callable[[], object]]]) -> None:
    """Call the functions that write the paths, in order. If one fails, the files of those before it are removed."""
    written: list[Path] = []
    try:
        for path, write in writers:
            write()
            written.append(path)
    except BaseException:
        for path in written:
            if path.is_file():
                with suppress(OSError):
                    Path(os.path.realpath(path)).unlink()
        raise
