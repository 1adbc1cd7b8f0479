"""`pixelwise predict`: label files and folders of pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from ..core import Prediction
from ..errors import InputError
from ..inference.batch import Job, Outcome, Products, label_all, mask_path, plan
from ..inference.segmenter import Segmenter, load


def predict(
    *inputs: Path,
    out: Path,
    model: str | None = None,
    overlay: bool = False,
    color: bool = False,
    probs: bool = False,
    opacity: float = 0.5,
    resume: bool = False,
    overwrite: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
) -> int:
    """Label pictures: masks, overlays, probabilities.

    Each picture gives a mask of its own size: a palette PNG that holds the classes' file values.
    Pictures that cannot be read are listed, the rest is done, and the exit code is 1.

    Parameters
    ----------
    inputs
        Pictures and folders of pictures.
    out
        Folder of the masks.
    model
        A run, a checkpoint folder or a hub id; left out, it is the model that ships with pixelwise.
    overlay
        Also write NAME_overlay.jpg, the colours laid over the picture.
    color
        Also write NAME_color.png, the mask in the classes' colours.
    probs
        Also write NAME_probs.npy, probabilities (classes, height, width) as float16.
    opacity
        Of the colours in overlays, 0 to 1.
    resume
        Leave out pictures whose mask is there.
    overwrite
        Write over masks that are there.
    precision
        The arithmetic of the model.
    device
        auto, cpu or cuda.
    """
    if not inputs:
        raise InputError("predict", "no input", "name pictures or folders of pictures")
    if not 0 <= opacity <= 1:
        raise InputError("--opacity", f"got {opacity}, allowed are 0 to 1")
    jobs, passed_over = plan(inputs, out)
    for line in passed_over:
        print(f"skipped: {line}", file=sys.stderr)
    jobs = _without_finished(jobs, out, resume, overwrite)
    segmenter = load(model, device=device, precision=precision)
    return run_jobs(segmenter, jobs, out, Products(overlay, color, probs, opacity))


def _without_finished(jobs: list[Job], out: Path, resume: bool, overwrite: bool) -> list[Job]:
    finished = {job for job in jobs if mask_path(out, job).exists()}
    if resume:
        return [job for job in jobs if job not in finished]
    if finished and not overwrite:
        first = min(mask_path(out, job) for job in finished)
        raise InputError(first, f"is there already ({len(finished)} such masks)", "add --resume to do the others, or --overwrite")
    return jobs


def run_jobs(
    segmenter: Segmenter, jobs: list[Job], out: Path, products: Products, keep: Callable[[Job, Prediction], None] | None = None
) -> int:
    """Label, report each failure as it happens, print the table; returns the exit code: 0, 1 some failed, 2 all failed."""
    outcomes = []
    for outcome in label_all(segmenter, jobs, out, products, keep):
        outcomes.append(outcome)
        if outcome.error is not None:
            print(f"error: {outcome.error}", file=sys.stderr, flush=True)
    _print_table(outcomes, out)
    failed = sum(outcome.error is not None for outcome in outcomes)
    return 0 if not failed else 1 if failed < len(outcomes) else 2


def _print_table(outcomes: list[Outcome], out: Path) -> None:
    """Files, classes found (largest first) and milliseconds, and the counts."""
    table = Table("file", "classes found", box=None, pad_edge=False)
    table.add_column("ms", justify="right")
    done = [outcome for outcome in outcomes if outcome.error is None]
    for outcome in done:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in outcome.shares.items() if share >= 0.005)
        table.add_row(str(outcome.job.name), listed, f"{outcome.milliseconds:.0f}")
    console = Console()
    if done:
        console.print(table)
    failed = len(outcomes) - len(done)
    console.print(f"{len(done)} labelled into {out}" + (f", {failed} failed" if failed else ""), soft_wrap=True)
