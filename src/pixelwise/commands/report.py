"""`pixelwise report`: one page that shows a run."""

from __future__ import annotations

from pathlib import Path

from ..visualization.report import write_report


def report(run: Path, /) -> int:
    """Write RUN/report.html anew from what the run folder holds: one file, readable offline.

    Parameters
    ----------
    run
        The run's folder; a run that is not finished yet gives a page of what there is.
    """
    print(write_report(run))
    return 0
