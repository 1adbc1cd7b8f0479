"""`pixelwise export`: a trained network as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import InputError, size_text
from ..files import check_outputs, new_folder
from ._options import InPath, OutPath, Switch, parse_options


def export(
    *,
    out: OutPath | None = None,
    model: str | None = None,
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    output: Literal["scores", "logits", "labels"] = "scores",
    weights: Literal["float32", "float16"] = "float32",
    images: InPath | None = None,
    options: str | None = None,
    head: str | None = None,
    overwrite: Switch = False,
) -> int:
    """Write a network to a file that runs without pixelwise, and compare it with its source.

    The file takes batches of images of any size, (batch, channels, height, width) with values 0 to 255 in RGB order,
    and normalizes them itself. It holds the names and colors of the classes. Before it is written, its outputs are
    compared with those of the source on images of five sizes; if they differ, nothing is written.
    `predict`, `evaluate`, `demo` and `compare` take the file as --model.

    Parameters
    ----------
    out
        The file: .onnx; .xml for openvino, with a .bin beside it; .pt2 for torch. By default model.onnx in the
        checkpoint's folder, which `predict` and `demo` then compute with, without importing torch.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; the shipped street-scene model by default.
    format
        onnx for ONNX Runtime and most programs, openvino for OpenVINO, torch for torch without pixelwise.
    output
        What the file computes: scores before the last upsampling, which pixelwise does faster outside; logits at the
        size of the image; labels, class ids as uint8, for other programs.
    weights
        How the file stores the weights: float16 halves it; they are computed in float32 either way. The comparison
        shows what rounding changes.
    images
        Folder of images to compare on; a photo that comes with pixelwise by default.
    options
        Network options that replace those of training, such as "{output_stride: 8}"; the weights must fit.
    head
        Of a network with two heads, the name of the second label map, to export that one; the first by default.
    overwrite
        Overwrite existing files.
    """
    from ..export.run import export_segmenter, output_files
    from ..images import find_images, read_pixels
    from ..inference.segmenter import load

    wanted = parse_options(options)
    if out is None:
        is_usual = format == "onnx" and output == "scores" and head is None and not wanted
        out = _file_in_checkpoint(model) if is_usual else None
        if out is None:
            raise InputError("--out", "is missing", "name the file, such as --out model.onnx")
        check_outputs([out], inputs=[images], overwrite=overwrite)
    else:
        check_outputs(output_files(out, format), inputs=[model, images], overwrite=overwrite)
    segmenter = load(model, device="cpu", options=wanted)
    if head is not None:
        segmenter = segmenter.with_head(head)
    photos = []
    if images is not None:
        photos = [read_pixels(path, segmenter.pixels) for path in find_images(images)[:5]]
    with new_folder(out.parent):
        done = export_segmenter(
            segmenter,
            out,
            format=format,
            output=output,
            weights=weights,
            checkpoint="" if wanted or head else segmenter.digest,
            photos=photos,
        )
    print(f"{done.files[-1]}: {output} by {done.runtime}, compared with torch on {len(done.rows)} images:")
    for row in done.rows:
        size = f"{size_text(row.size)} px"
        probs = "" if row.difference is None else f", probabilities differ by {row.difference:.1e} at most"
        print(f"  {size:>12}: {row.agreement:.4%} equal labels{probs}")
    megabytes = sum(file.stat().st_size for file in done.files) / 1e6
    print(f"{megabytes:.1f} MB; `pixelwise predict --model {done.files[-1]} IMAGES --out FOLDER` runs it")
    return 0


def _file_in_checkpoint(model: str | None) -> Path | None:
    """Return `model.onnx` in the folder of a run or checkpoint; None for a hub id and for the shipped model."""
    from ..inference.load_any import EXPORTED
    from ..inference.stored_config import checkpoint_folder

    folder = None if model is None else checkpoint_folder(model)
    return None if folder is None else folder / EXPORTED
