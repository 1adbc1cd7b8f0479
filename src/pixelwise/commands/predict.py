"""`pixelwise predict`: label files and folders of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from ..files import check_outputs
from ._labeling import print_skipped, run_jobs
from ._options import InPath, OutPath, Scales, Switch, parse_options

if TYPE_CHECKING:
    from ..core import Taxonomy
    from ..crf.features import Parameters
    from ..inference.segmenter import Segmenter


def predict(
    *inputs: InPath,
    out: OutPath,
    model: str | None = None,
    options: str | None = None,
    overlay: Switch = False,
    color: Switch = False,
    probs: Switch = False,
    geojson: Switch = False,
    coco: Switch = False,
    shares: Switch = False,
    submission: Switch = False,
    submission_order: Literal["columns", "rows"] = "columns",
    opacity: float = 0.5,
    resume: Switch = False,
    overwrite: Switch = False,
    tile: int | None = None,
    head: str | None = None,
    flip: Switch = False,
    scales: Scales = (1.0,),
    crf: str | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str = "auto",
) -> int:
    """Label images: write masks, overlays, probabilities.

    Each mask has the size of its image and is a palette PNG with the file values of the classes. A model that gives
    several labels per pixel writes a black and white NAME/CLASS.png per class, also of classes that are absent.
    Images that cannot be read are reported, the others are labeled, and the exit code is 1.

    Parameters
    ----------
    inputs
        Images and folders of images.
    out
        Folder for the masks.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; the shipped street-scene model by default.
    options
        Network options that replace those of training, such as "{output_stride: 8}"; the weights must fit.
    overlay
        Also write NAME_overlay.jpg, the image blended with colors of the classes, and their names below it.
    color
        Also write NAME_color.png, the mask in class colors.
    probs
        Also write NAME_probs.npy, the probabilities (classes, height, width) as float16.
    geojson
        Also write NAME.geojson, the classes as polygons along the edges of pixels, holes included.
    coco
        Also write predictions.coco.json, the classes of all images as COCO's run lengths.
    shares
        Also write class_shares.csv, the share of each class in each image.
    submission
        Also write submission.csv, the run lengths of each class in each image: ImageId, ClassId, EncodedPixels.
    submission_order
        Whether its run lengths count pixels down the columns, as Kaggle defines, or along the rows, as some
        competitions do; both from 1.
    opacity
        Opacity of the colors in overlays, 0 to 1.
    resume
        Skip images whose output files all exist.
    overwrite
        Overwrite existing files.
    tile
        Label in tiles of that many pixels per side, with the labels of the whole image. For images that do not fit in
        memory; only for networks of valid convolutions (unet: 20 + a multiple of 16).
    head
        Of a network with two heads, the name of the second label map, to write that one; the first by default.
    flip
        Average the probabilities of the image and of its mirror image: twice the time.
    scales
        Average over the image at these scales, such as `--scales 0.75 1 1.25`; name the images before this option.
    crf
        Refine the labels with the fully connected CRF: a preset (deeplabv1, deeplabv2, deconvnet, pydensecrf), or "run"
        for the parameters that `pixelwise crf-search` found for this run.
    precision
        Floating-point precision of the network.
    device
        auto, cpu, cuda or cuda:N.
    """
    if not inputs:
        raise InputError("predict", "no input", "give images or folders of images")
    if not 0 <= opacity <= 1:
        raise InputError("--opacity", f"must be between 0 and 1, got {opacity}", "write --opacity 0.5")
    from ..inference.exports import Exports, export_files
    from ..inference.jobs import jobs_to_do, plan, stored_pixels, stored_taxonomy
    from ..inference.predict_files import OutputOptions

    wanted = parse_options(options)
    classes = stored_taxonomy(model)
    outputs = OutputOptions(
        overlay=overlay, color=color, probs=probs, geojson=geojson, opacity=opacity, taxonomy=classes
    )
    planned, skipped = plan(inputs, out, outputs.endings, stored_pixels(model))
    print_skipped(skipped)
    jobs = jobs_to_do(planned, resume=resume, overwrite=overwrite)
    files = export_files(out, coco=coco, shares=shares, submission=submission)
    check_outputs(files, inputs=inputs, overwrite=overwrite or resume)
    # Importing torch takes seconds: a mistake in the arguments is reported before it.
    from ..inference.crf_settings import find_crf

    parameters = find_crf(crf, model)
    segmenter = _load(model, head=head, classes=classes, device=device, precision=precision, options=wanted)
    segmenter = _prepared(segmenter.with_augmentation(flip=flip, scales=scales), tile, parameters)
    # --resume would take the masks of an earlier run for done.
    exports = Exports(segmenter.taxonomy, files, submission_order=submission_order)
    again = "run the same command again" + (", which labels all of them" if overwrite else " with --resume")
    code = run_jobs(segmenter, jobs, outputs, out, tile=tile, on_prediction=exports.add, resumed_by=again)
    if files and code < 2:
        exports.write(planned, jobs)
    return code


def _load(
    model: str | None,
    *,
    head: str | None,
    classes: Taxonomy | None,
    device: str,
    precision: Literal["float32", "bfloat16"],
    options: Mapping[str, Any] | None,
) -> Segmenter:
    """Load a model; `classes` are those by which the names of its files were planned."""
    from ..inference.segmenter import load

    segmenter = load(model, device=device, precision=precision, options=options)
    if segmenter.taxonomy.multilabel and (classes is None or classes.file_names != segmenter.taxonomy.file_names):
        # A model of the Hub, whose classes were not known before it was there.
        what = "has several labels per pixel, and is not a local folder"
        raise InputError(model or "model", what, "download it first, and name its folder with --model")
    return segmenter if head is None else segmenter.with_head(head)


def _prepared(segmenter: Segmenter, tile: int | None, parameters: Parameters | None) -> Segmenter:
    """Return the segmenter with the CRF, if there is one. Raises ConfigError for tiles that the network cannot take."""
    from ..inference.tiles import check_tile
    from ._crf import with_crf

    if tile is not None:
        check_tile(segmenter.model, tile)
    return segmenter if parameters is None else with_crf(segmenter, parameters)
