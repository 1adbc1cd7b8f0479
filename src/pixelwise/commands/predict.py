"""`pixelwise predict`: label files and folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..errors import InputError
from ..inference.jobs import plan, unfinished
from ..inference.predict_files import OutputOptions
from ._labelling import print_skipped, run_jobs
from ._options import parse_options

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
    outputs = OutputOptions(overlay=overlay, color=color, probs=probs, opacity=opacity)
    jobs, skipped = plan(inputs, out, outputs.endings)
    print_skipped(skipped)
    jobs = unfinished(jobs, resume=resume, overwrite=overwrite)
    # Importing torch takes seconds: a mistake in the arguments is reported before it.
    from ..inference.crf_settings import find_crf
    from ..inference.segmenter import load
    from ._crf import with_crf

    parameters = find_crf(crf, model)
    segmenter = load(model, device=device, precision=precision, options=wanted)
    if parameters is not None:
        segmenter = with_crf(segmenter, parameters)
    return run_jobs(segmenter, jobs, outputs, out)
