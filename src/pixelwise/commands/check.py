"""`pixelwise check`: tell everything that is wrong with a dataset before a training, and write a fixed copy of it."""

from __future__ import annotations

import json as json_format

from ..errors import printable
from ..files import check_outputs, new_folder
from ._console import progress_bar
from ._options import InPath, OutPath, Switch


def check(
    data: InPath,
    /,
    *,
    fix: OutPath | None = None,
    out: OutPath | None = None,
    format: str | None = None,
    overwrite: Switch = False,
    json: Switch = False,
) -> int:
    """Tell everything that is wrong with a dataset, in one pass over its files.

    Every image and mask of every split is read once, on all cores. Each kind of problem is one line, with the number of
    files and the first of their names: an error if a training would be wrong, a warning if it or its score would be
    worse, a note for a figure to know. The exit code is 2 if there is an error.

    Parameters
    ----------
    data
        Folder of the dataset.
    fix
        Write a fixed copy of the dataset into this new folder: readable pairs in images/ and masks/, masks as PNG with
        each pixel in a class, a val split, classes.yaml. DATA is never changed. What was done is printed, and is
        written to fixes.txt. The exit code is then that of the copy.
    out
        Also write an HTML page to this file, with thumbnails of each kind of problem and a sheet of overlays.
    format
        Format of the dataset, as `pixelwise datasets` lists it; detected by default.
    overwrite
        Replace the file of --out if it exists.
    json
        Print JSON instead of lines.
    """
    from ..data import diagnose, open_dataset

    if out is not None:
        check_outputs([out], data=data, overwrite=overwrite)
    dataset = open_dataset(data, format, check=False)
    report = diagnose(dataset)
    if out is not None:
        from ..visualization.check_page import write_check_page

        with new_folder(out.parent):
            write_check_page(out, report)
    result = report.to_dict()
    if not json:
        for line in report.lines():
            print(printable(line))
    if fix is not None:
        from ..data.check.fix import write_fixed
        from ..data.check.orientation import find_unclear

        with progress_bar("writing") as done:
            fixes = write_fixed(report, fix, report=done)
        copy = diagnose(open_dataset(fix, check=False))
        # The copy has no tags, so that its own check cannot see what they left unclear.
        copy = copy.with_findings(find_unclear(report.look, copy.dataset))
        result["fixed"] = {"folder": str(fix), "done": fixes, **copy.to_dict()}
        if not json:
            for line in [*fixes, *copy.lines()]:
                print(printable(line))
        report = copy
    if json:
        print(json_format.dumps(result, indent=1, allow_nan=False))
    return 2 if report.has_errors else 0
