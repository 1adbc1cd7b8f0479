"""Label files and print what came of it: the common part of `predict` and `demo`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core import Prediction
from ..inference.jobs import Job
from ..inference.predict_files import OutputOptions, predict_files
from ._progress import progress_bar

if TYPE_CHECKING:
    from ..inference.segmenter import Segmenter


def run_jobs(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    outputs: OutputOptions,
    out: Path,
    *,
    tile: int | None = None,
    on_prediction: Callable[[Job, Prediction], None] | None = None,
) -> int:
    """Label the images, print each failure as it happens, then a table.

    Returns the exit code: 0, 1 if some images failed, 2 if all failed.
    """
    results = []
    with progress_bar("labeling") as report:
        for result in predict_files(segmenter, jobs, outputs, tile=tile, on_prediction=on_prediction):
            results.append(result)
            if result.error is not None:
                print(f"error: {result.error}", file=sys.stderr, flush=True)
            report(len(results), len(jobs))
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
    console.print(Text(f"{len(results) - num_failed} labeled into {out}{failures}"), soft_wrap=True)
    return 0 if not num_failed else 1 if num_failed < len(results) else 2


def print_skipped(lines: Sequence[str]) -> None:
    """Print the first skipped files to standard error, and how many there are."""
    for line in lines[:2]:
        print(f"skipped: {line}", file=sys.stderr)
    if len(lines) > 2:
        print(f"skipped: {len(lines) - 2} more like these", file=sys.stderr)
