"""`pixelwise predict`: label files and folders of images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..core import Prediction
from ..errors import InputError
from ..inference.predict_files import Job, OutputOptions, PredictionResult, plan, predict_files
from ._options import parse_options

if TYPE_CHECKING:
    from ..inference.segmenter import Segmenter

Switch = Annotated[bool, Parameter(negative="", show_default=False)]


def predict(
    *inputs: Path,
    out: Path,
    model: str | None = None,
    options: str | None = None,
    overlay: Switch = False,
    color: Switch = False,
    probs: Switch = False,
    opacity: float = 0.5,
    resume: Switch = False,
    overwrite: Switch = False,
    crf: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
) -> int:
    """Label images: masks, overlays, probabilities.

    Each image gives a mask of its own size: a palette PNG that holds the classes' file values.
    Images that cannot be read are listed, the rest is done, and the exit code is 1.

    Parameters
    ----------
    inputs
        Images and folders of images.
    out
        Folder of the masks.
    model
        A run, a checkpoint folder or a hub id; left out, it is the model that ships with pixelwise.
    options
        Options of the network in place of those of its training, such as "{output_stride: 8}"; its weights must fit.
    overlay
        Also write NAME_overlay.jpg, the colours laid over the image.
    color
        Also write NAME_color.png, the mask in the classes' colours.
    probs
        Also write NAME_probs.npy, probabilities (classes, height, width) as float16.
    opacity
        Of the colours in overlays, 0 to 1.
    resume
        Leave out images whose files are all there.
    overwrite
        Write over files that are there.
    crf
        Refine the labels by the fully connected CRF: deeplabv1, deeplabv2, deconvnet, pydensecrf, or run for what
        `pixelwise crf-search` found.
    precision
        The arithmetic of the model.
    device
        auto, cpu, cuda or cuda:N.
    """
    if not inputs:
        raise InputError("predict", "no input", "name images or folders of images")
    if not 0 <= opacity <= 1:
        raise InputError("--opacity", f"got {opacity}, allowed are 0 to 1", "write a number like 0.5")
    wanted = parse_options(options)
    products = OutputOptions(overlay, color, probs, opacity)
    jobs, skipped = plan(inputs, out, products)
    print_skipped(skipped)
    jobs = _without_finished(jobs, out, products, resume, overwrite)
    # Only now, so that a slip of the pen is told at once and not after seconds of imports.
    from ..inference.crf_settings import find_crf
    from ..inference.segmenter import load
    from ._crf import with_crf

    parameters = find_crf(crf, model)
    segmenter = load(model, device=device, precision=precision, options=wanted)
    return run_jobs(segmenter if parameters is None else with_crf(segmenter, parameters), jobs, out, products)


def print_skipped(lines: list[str]) -> None:
    """The first of what has an image's name and is none, and how many there are."""
    for line in lines[:2]:
        print(f"skipped: {line}", file=sys.stderr)
    if len(lines) > 2:
        print(f"skipped: {len(lines) - 2} more like these", file=sys.stderr)


def _without_finished(jobs: list[Job], out: Path, products: OutputOptions, resume: bool, overwrite: bool) -> list[Job]:
    """What is to be done: everything, or with `resume` the jobs that lack a file."""
    if resume:
        return [job for job in jobs if not all(path.exists() for path in products.paths(out, job))]
    there = [] if overwrite else [path for job in jobs for path in products.paths(out, job) if path.exists()]
    if there:
        raise InputError(
            there[0], f"is there already ({len(there)} such files)", "add --resume to do the others, or --overwrite"
        )
    return jobs


def run_jobs(
    segmenter: Segmenter,
    jobs: list[Job],
    out: Path,
    products: OutputOptions,
    keep: Callable[[Job, Prediction], None] | None = None,
) -> int:
    """Label, report each failure as it happens, print the table; returns the exit code: 0, 1 some failed, 2 all failed."""
    outcomes = []
    with _progress(len(jobs)) as advance:
        for outcome in predict_files(segmenter, jobs, out, products, keep):
            outcomes.append(outcome)
            if outcome.error is not None:
                print(f"error: {outcome.error}", file=sys.stderr, flush=True)
            advance()
    failed = sum(outcome.error is not None for outcome in outcomes)
    _print_table(outcomes, out, failed)
    return 0 if not failed else 1 if failed < len(outcomes) else 2


@contextmanager
def _progress(num_jobs: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, so that standard output holds the table alone; gone when done."""
    columns = TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("labelling", total=num_jobs)
        yield lambda: bar.advance(task)


def _print_table(outcomes: list[PredictionResult], out: Path, num_failed: int) -> None:
    """Files, classes found (largest first) and milliseconds, and the counts. Names are text: brackets in them are no markup."""
    table = Table("file", "classes found", box=None, pad_edge=False)
    table.add_column("ms", justify="right")
    for outcome in outcomes:
        if outcome.error is None:
            listed = ", ".join(f"{name} {share:.0%}" for name, share in outcome.shares.items() if share >= 0.005)
            table.add_row(Text(str(outcome.job.name)), Text(listed), f"{outcome.milliseconds:.0f}")
    console = Console()
    if table.row_count:
        console.print(table)
    failures = f", {num_failed} failed" if num_failed else ""
    console.print(Text(f"{len(outcomes) - num_failed} labelled into {out}{failures}"), soft_wrap=True)
