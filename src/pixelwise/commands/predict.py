"""`pixelwise predict`: label files and folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, InputError
from ..files import check_outputs
from ._labeling import print_skipped, run_jobs
from ._options import InPath, OutPath, Scales, Switch, parse_options

if TYPE_CHECKING:
    from ..core import Taxonomy
    from ..crf import Parameters
    from ..inference.base import BaseSegmenter
    from ..inference.predict_files import OutputOptions


def predict(
    *inputs: InPath,
    out: OutPath,
    model: str | None = None,
    options: str | None = None,
    overlay: Switch = False,
    color: Switch = False,
    confidence: Switch = False,
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
    runtime: Literal["auto", "onnxruntime", "openvino", "torch"] = "auto",
) -> int:
    """Label images: write masks, overlays, probabilities.

    Each mask has the size of its image and is a palette PNG with the file values of the classes. A model that gives
    several labels per pixel writes a black and white NAME/CLASS.png per class, also of classes that are absent.
    Images that cannot be read are reported, the others are labeled, and the exit code is 1.

    Parameters
    ----------
    inputs
        Images and folders of images. Masks that lie in a folder with their images are left out, unless they are named.
    out
        Folder for the masks.
    model
        A run, a checkpoint folder, a Hugging Face Hub id, or a file of `pixelwise export`; the shipped street-scene
        model by default.
    options
        Network options that replace those of training, such as "{output_stride: 8}"; the weights must fit.
    overlay
        Also write NAME_overlay.jpg, the image blended with colors of the classes, and their names below it.
    color
        Also write NAME_color.png, the mask in class colors.
    confidence
        Also write NAME_confidence.png, the probability of each label as gray, 255 for 1; for one label per pixel.
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
    runtime
        Library that computes the network: onnxruntime or openvino for an .onnx file; by default the usual one of its
        kind. A checkpoint with its own model.onnx, which `pixelwise export` writes without --out, is computed by ONNX
        Runtime where no other option needs torch; with torch it is not used.
    """
    if not inputs:
        raise InputError("predict", "no input", "give images or folders of images")
    if not 0 <= opacity <= 1:
        raise InputError("--opacity", f"must be between 0 and 1, got {opacity}", "write --opacity 0.5")
    from ..inference.crf_settings import find_crf
    from ..inference.exports import Exports, export_files
    from ..inference.jobs import jobs_to_do, plan
    from ..inference.load_any import load_any, load_without_torch
    from ..inference.predict_files import OutputOptions
    from ..inference.stored_config import stored_pixels, stored_taxonomy

    # Importing torch takes seconds: a mistake in the arguments is reported before it. An exported file needs none.
    network: dict[str, Any] = {"device": device, "precision": precision, "options": parse_options(options)}
    is_plain = not (tile or head or flip) and tuple(scales) == (1.0,)
    opened = load_without_torch(model, is_plain=is_plain, runtime=runtime, **network)
    classes = stored_taxonomy(model) if opened is None else opened.taxonomy
    pixels = stored_pixels(model) if opened is None else opened.pixels
    kinds = {"overlay": overlay, "color": color, "confidence": confidence, "probs": probs, "geojson": geojson}
    outputs = OutputOptions(**kinds, opacity=opacity, taxonomy=classes)
    planned, skipped = plan(inputs, out, outputs.endings, pixels)
    print_skipped(skipped)
    jobs = jobs_to_do(planned, resume=resume, overwrite=overwrite)
    files = export_files(out, coco=coco, shares=shares, submission=submission)
    check_outputs(files, inputs=inputs, overwrite=overwrite or resume)
    parameters = find_crf(crf, model)
    segmenter = opened or load_any(model, runtime=runtime, **network)
    segmenter = _prepared(segmenter, outputs, head=head, flip=flip, scales=scales, tile=tile, crf=parameters)
    # --resume would take the masks of an earlier run for done.
    exports = Exports(segmenter.taxonomy, files, submission_order=submission_order)
    again = "run the same command again" + (", which labels all of them" if overwrite else " with --resume")
    code = run_jobs(segmenter, jobs, outputs, out, tile=tile, on_prediction=exports.add, resumed_by=again)
    if files and code < 2:
        exports.write(planned, jobs)
    return code


def _check_file_names(segmenter: BaseSegmenter, classes: Taxonomy | None) -> None:
    """Raise InputError if files were planned by other classes: of a model of the Hub they were not known before."""
    if segmenter.taxonomy.multilabel and (classes is None or classes.file_names != segmenter.taxonomy.file_names):
        what = "has several labels per pixel, and is not a local folder"
        raise InputError(segmenter.name, what, "download it first, and name its folder with --model")


def _prepared(
    segmenter: BaseSegmenter,
    outputs: OutputOptions,
    *,
    head: str | None,
    flip: bool,
    scales: Sequence[float],
    tile: int | None,
    crf: Parameters | None,
) -> BaseSegmenter:
    """Return the segmenter with another head, views and CRF. Raises ConfigError for what the model cannot do."""
    from ._crf import with_crf

    _check_file_names(segmenter, outputs.taxonomy)
    if outputs.confidence:
        segmenter.taxonomy.require_one_label("--confidence")
    if (outputs.probs or outputs.confidence or crf) and not segmenter.has_probabilities:
        what = f"{segmenter.name} computes labels and no probabilities"
        raise ConfigError(
            "--probs, --confidence and --crf", what, "export the network with --output scores, the default"
        )
    if head is not None:
        segmenter = segmenter.with_head(head)
    segmenter = segmenter.with_augmentation(flip=flip, scales=scales)
    if tile is not None:
        segmenter.check_tile(tile)
    return segmenter if crf is None else with_crf(segmenter, crf)
