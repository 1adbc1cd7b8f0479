"""Label many images: every output whole, one line per failure, no output over an input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..core import Prediction
from ..errors import InputError, PixelwiseError
from ..files import atomic_write, make_folder, sweep_temporaries
from ..images import read_image, write_image, write_mask
from .jobs import Job

if TYPE_CHECKING:
    from .segmenter import Segmenter


def write_labels(path: Path, prediction: Prediction) -> None:
    """Write the mask in the file values of its classes, as a palette PNG."""
    taxonomy = prediction.taxonomy
    write_mask(path, taxonomy.decode(prediction.mask), taxonomy.palette("value"))


def write_overlay(path: Path, prediction: Prediction, opacity: float) -> None:
    """Write the colours of the classes laid over the image."""
    write_image(path, np.asarray(prediction.overlay(opacity)))


def write_colors(path: Path, prediction: Prediction) -> None:
    """Write the mask in the colours of the classes, as RGB."""
    write_image(path, np.asarray(prediction.colorize()))


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
    """The files that are written beside the mask.

    overlay  NAME_overlay.jpg, the colours laid over the image; opacity 0..1 of the colours
    color    NAME_color.png, the mask in the colours of the classes as RGB
    probs    NAME_probs.npy, (K, H, W) float16 probabilities
    """

    overlay: bool = False
    color: bool = False
    probs: bool = False
    opacity: float = 0.5

    @property
    def files(self) -> list[FileOutput]:
        """The files per image, the mask last: where there is a mask, the image is done."""
        choices = [
            (self.overlay, FileOutput("_overlay.jpg", partial(write_overlay, opacity=self.opacity))),
            (self.color, FileOutput("_color.png", write_colors)),
            (self.probs, FileOutput("_probs.npy", write_probs)),
            (True, FileOutput(".png", write_labels)),
        ]
        return [file for chosen, file in choices if chosen]

    @property
    def endings(self) -> list[str]:
        """The endings of those files."""
        return [file.ending for file in self.files]


@dataclass(frozen=True)
class PredictionResult:
    """The outcome of a job: the area fraction of each class (largest first) and the milliseconds, or the error."""

    job: Job
    class_fractions: dict[str, float]
    milliseconds: float = 0.0
    error: PixelwiseError | None = None


def predict_files(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    outputs: OutputOptions,
    *,
    on_prediction: Callable[[Job, Prediction], None] | None = None,
) -> Iterator[PredictionResult]:
    """Read, label and write each image; the mask is written last.

    on_prediction is called with each prediction. Nothing else keeps predictions, so thousands of images fit in memory.
    An image that cannot be read gives a PredictionResult with its error, and the others are done; a full disk ends all.
    """
    swept: set[Path] = set()
    for job in jobs:
        try:
            folder = job.mask.parent
            if folder not in swept:
                sweep_temporaries(make_folder(folder))
                swept.add(folder)
            started = time.perf_counter()
            image = read_image(job.source)
            prediction = segmenter.predict(image, probs=outputs.probs, source=job.source)
            milliseconds = (time.perf_counter() - started) * 1000
        except InputError as error:
            yield PredictionResult(job, {}, error=error)
            continue
        for path, file in zip(job.outputs, outputs.files, strict=True):
            file.write(path, prediction)
        if on_prediction:
            on_prediction(job, prediction)
        yield PredictionResult(job, prediction.class_fractions(), milliseconds)


def run_jobs(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    outputs: OutputOptions,
    out: Path,
    *,
    on_prediction: Callable[[Job, Prediction], None] | None = None,
) -> int:
    """Label the images, print each failure as it happens, then a table; return the exit code: 0, 1 some failed, 2 all failed."""
    results = []
    with _progress(len(jobs)) as advance:
        for result in predict_files(segmenter, jobs, outputs, on_prediction=on_prediction):
            results.append(result)
            if result.error is not None:
                print(f"error: {result.error}", file=sys.stderr, flush=True)
            advance()
    num_failed = sum(result.error is not None for result in results)
    table = Table("file", "classes found", box=None, pad_edge=False)
    table.add_column("ms", justify="right")
    for result in results:
        if result.error is None:
            shown = [f"{name} {share:.0%}" for name, share in result.class_fractions.items() if share >= 0.005]
            # Text, because rich would read brackets in a plain string as markup.
            table.add_row(Text(str(result.job.name)), Text(", ".join(shown)), f"{result.milliseconds:.0f}")
    console = Console()
    if table.row_count:
        console.print(table)
    failures = f", {num_failed} failed" if num_failed else ""
    console.print(Text(f"{len(results) - num_failed} labelled into {out}{failures}"), soft_wrap=True)
    return 0 if not num_failed else 1 if num_failed < len(results) else 2


def print_skipped(lines: Sequence[str]) -> None:
    """Print the first skipped files to standard error, and how many there are."""
    for line in lines[:2]:
        print(f"skipped: {line}", file=sys.stderr)
    if len(lines) > 2:
        print(f"skipped: {len(lines) - 2} more like these", file=sys.stderr)


@contextmanager
def _progress(num_jobs: int) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error, so that standard output holds only the table."""
    columns = TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("labelling", total=num_jobs)
        yield lambda: bar.advance(task)
