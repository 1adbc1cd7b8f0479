"""`pixelwise report`: write the page that shows a run."""

from __future__ import annotations

from pathlib import Path

from ..errors import printable


def report(run: Path, /) -> int:
    """Write the report.html of a run again, a single file that opens offline.

    Parameters
    ----------
    run
        Folder of the run; it may still be training.
    """
    from ..visualization.report import write_report

    print(printable(write_report(run)))
    return 0
