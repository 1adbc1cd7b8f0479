"""Label files and print what came of it: the common part of `predict` and `demo`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ..errors import Interrupted, error_lines, printable
from ..files import WRITTEN
from ._console import progress_bar, text

if TYPE_CHECKING:
    from ..core import Prediction
    from ..inference.base import BaseSegmenter
    from ..inference.jobs import Job
    from ..inference.predict_files import OutputOptions


def run_jobs(
    segmenter: BaseSegmenter,
    jobs: Sequence[Job],
    outputs: OutputOptions,
    out: Path,
    *,
    tile: int | None = None,
    on_prediction: Callable[[Job, Prediction], None] | None = None,
    resumed_by: str,
) -> int:
    """Label the images, then print a line per kind of failure, and a table.

    resumed_by  what to do after a Ctrl-C

    Returns the exit code: 0, 1 if some images failed, 2 if all failed.
    """
    from ..inference.predict_files import predict_files

    results = []
    try:
        with progress_bar("labeling") as report:
            for result in predict_files(segmenter, jobs, outputs, tile=tile, on_prediction=on_prediction):
                results.append(result)
                report(len(results), len(jobs))
    except KeyboardInterrupt:
        # The last image may have been written after the interruption, and its result was not returned.
        masks = set(WRITTEN)
        done = sum(job.mask in masks for job in jobs)
        what = f"interrupted: {done} of {len(jobs)} images are labeled"
        raise Interrupted(out, f"{what}, no file is half written", resumed_by) from None
    failures = [result.error for result in results if result.error is not None]
    for line in error_lines(failures):
        print(f"error: {line}", file=sys.stderr, flush=True)
    table = Table("file", "classes found", box=None, pad_edge=False)
    table.add_column("ms", justify="right")
    for result in results:
        if result.error is None:
            shown = [f"{name} {share:.0%}" for name, share in result.class_fractions.items() if share >= 0.005]
            # Text, because rich would read brackets in a plain string as markup.
            table.add_row(text(result.job.name), text(", ".join(shown)), f"{result.milliseconds:.0f}")
    console = Console()
    if table.row_count:
        console.print(table)
    failed = f", {len(failures)} failed" if failures else ""
    console.print(text(f"{len(results) - len(failures)} labeled into {out}{failed}"), soft_wrap=True)
    return 0 if not failures else 1 if len(failures) < len(results) else 2


def print_skipped(lines: Sequence[str]) -> None:
    """Print the first skipped files to standard error, and how many there are."""
    for line in lines[:2]:
        print(f"skipped: {printable(line)}", file=sys.stderr)
    if len(lines) > 2:
        print(f"skipped: {len(lines) - 2} more like these", file=sys.stderr)
