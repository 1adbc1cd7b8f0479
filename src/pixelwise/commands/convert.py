"""`pixelwise convert`: write a dataset in another format."""

from __future__ import annotations

import sys

from ..errors import UnknownNameError
from ..registry import suggest
from ._console import progress_bar
from ._options import InPath, OutPath, Switch


def convert(
    data: InPath,
    *,
    to: str,
    out: OutPath,
    format: str | None = None,
    link: Switch = False,
) -> int:
    """Write a dataset in another format: masks exactly, images byte for byte.

    What the other format cannot hold is printed. The classes are written as classes.yaml, which every format reads.

    Parameters
    ----------
    data
        Folder of the dataset, in any format of `pixelwise datasets`.
    to
        folder, color, npy (images and masks), voc, coco (polygons), coco-rle, labelme, cvat, label-studio,
        label-studio-min, supervisely, yolo (polygons), objects (a mask per object).
    out
        New or empty folder.
    format
        Format of the dataset; found by looking at the folder by default.
    link
        Link to the images instead of copying them.
    """
    from ..data import open_dataset
    from ..data.conversion import TARGETS, convert_dataset

    if to not in TARGETS:
        raise UnknownNameError("--to", f"unknown format {to!r}; known: {', '.join(TARGETS)}", suggest(to, TARGETS))
    dataset = open_dataset(data, format)
    for note in dataset.notes:
        print(note, file=sys.stderr)
    with progress_bar("converting") as report:
        done = convert_dataset(dataset, to, out, link=link, report=report)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    parts = ", ".join(f"{count} of split {name}" for name, count in done.counts.items())
    print(f"{out}: {to}, {dataset.taxonomy.num_classes} classes; images: {parts}")
    return 0
