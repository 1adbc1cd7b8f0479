"""Export a network: trace it, write it aside, read it back, compare it with its source, put it in its place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import __version__
from ..errors import InputError
from ..files import atomic_write
from ..inference.export_info import ExportedOutput, ExportInfo, Weights
from ..inference.exported import load_exported
from ..inference.segmenter import Segmenter
from .formats import SUFFIXES, GraphFile
from .graphs import find_upsample, make_graph
from .proof import ParityRow, check_parity, compare, make_images, parity_dict


@dataclass(frozen=True)
class Exported:
    """What was written: the files, the last one to be named by `--model`, and the comparison."""

    files: list[Path]
    rows: list[ParityRow]
    runtime: str


def output_files(out: Path, format: str) -> list[Path]:
    """Return the files of an export. Raises InputError for a name with another ending than the format's."""
    suffix = SUFFIXES[format]
    if out.suffix.lower() != suffix:
        raise InputError(
            out, f"expected a name that ends in {suffix} for --format {format}", f"write {out.stem}{suffix}"
        )
    return [out.with_suffix(".bin"), out] if format == "openvino" else [out]


def export_segmenter(
    segmenter: Segmenter,
    out: Path,
    *,
    format: str,
    output: ExportedOutput = "scores",
    weights: Weights = "float32",
    checkpoint: str = "",
    photos: Sequence[NDArray[Any]] = (),
) -> Exported:
    """Write a segmenter's network to a file for other runtimes, if its answers are the same there.

    checkpoint  sha256 of the weights that the segmenter was loaded from, kept in the file
    photos      images to compare on, cut and resized to five odd sizes; a photo of the package if there are none
    Raises InputError for a network that cannot be traced and for answers that differ, ResourceError for a missing
    package.
    """
    upsample = find_upsample(segmenter.model)
    spec = segmenter.model.spec
    info = ExportInfo(
        name=spec.name,
        source=Path(segmenter.name).name,
        version=__version__,
        output=output,
        in_channels=segmenter.in_channels,
        # Other programs send float32.
        input=segmenter.pixels.dtype.name if output == "scores" else "float32",
        taxonomy=segmenter.taxonomy,
        pixels=segmenter.pixels,
        upsample=(type(upsample).__name__, dict(vars(upsample))),
        thresholds=segmenter.thresholds,
        temperature=segmenter.temperature,
        checkpoint=checkpoint,
    )
    files = output_files(out, format)
    file = GraphFile(make_graph(segmenter, output), info, format, weights)
    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / f"model{SUFFIXES[format]}"
        file.write(aside, info)
        exported = load_exported(aside)
        rows = compare(segmenter, exported, make_images(segmenter.pixels, photos))
        check_parity(rows, f"{info.name} by {exported.runtime.name}")
        runtime = exported.runtime.name
        del exported
        written = file.write(aside, replace(info, parity=parity_dict(rows, runtime)))
        # A `.bin` alone is no model: an interruption never leaves new weights under an old graph.
        if len(files) > 1:
            files[-1].unlink(missing_ok=True)
        for source, target in zip(written, files, strict=True):
            with open(source, "rb") as data, atomic_write(target) as destination:
                shutil.copyfileobj(data, destination)
    return Exported(files, rows, runtime)
