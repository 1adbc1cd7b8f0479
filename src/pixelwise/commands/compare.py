"""`pixelwise compare`: several models side by side on one image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..errors import InputError, printable, size_text
from ..files import check_outputs, new_folder
from ._crf import with_crf
from ._options import InPath, OutPath, Switch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core import Taxonomy
    from ..inference.base import BaseSegmenter

SUFFIXES = (".png", ".jpg", ".jpeg")


def compare(
    image: InPath,
    /,
    *,
    model: Annotated[list[str] | None, Parameter(negative="")] = None,
    truth: InPath | None = None,
    crf: str | None = None,
    out: OutPath,
    overwrite: Switch = False,
) -> int:
    """Draw several models side by side on one image: image, models, truth.

    Parameters
    ----------
    image
        The image to label.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; repeat it for several models, in the order of the panels.
        The shipped street-scene model by default.
    truth
        The true mask of the image, in file values or class colors; adds the mean IoU of each model. Of several labels
        per pixel, the folder with a mask per class, or an .npy file; adds the mean Dice.
    crf
        Add a panel with the fully connected CRF after each model: a preset such as deeplabv2, or "run" for the
        parameters that `pixelwise crf-search` found for this run.
    out
        The image file to write, .png or .jpg.
    overwrite
        Replace the file of --out if it exists.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(
            out, f"images cannot be written as {out.suffix or 'a file without suffix'}", "name it .png or .jpg"
        )
    check_outputs([out], inputs=[image, truth, *(model or [])], overwrite=overwrite)
    # Importing torch takes seconds: a mistake in the options is reported before it.
    import numpy as np

    from ..images import read_pixels, write_image
    from ..inference.crf_settings import find_crf
    from ..inference.load_any import load_any
    from ..visualization.compare import draw_comparison

    segmenters: list[BaseSegmenter] = []
    names: list[str | None] = [*model] if model else [None]
    for name in names:
        parameters = find_crf(crf, name)
        segmenters.append(load_any(name))
        if parameters is not None:
            segmenters.append(with_crf(segmenters[-1], parameters))
    pixels = read_pixels(image, segmenters[0].pixels)
    labels = None if truth is None else read_truth(truth, segmenters[0].taxonomy, pixels)
    sheet = draw_comparison(pixels, segmenters, truth=labels)
    with new_folder(out.parent):
        write_image(out, np.asarray(sheet))
    print(printable(out))
    return 0


def read_truth(path: Path, taxonomy: Taxonomy, image: NDArray[Any]) -> NDArray[Any]:
    """Read a mask file, in file values or class colors, as class ids (H, W). Raises MaskError naming the file.

    Of several labels per pixel, `path` is a folder of masks or an .npy file, and the result (K, H, W).
    """
    from ..data import MaskEncoding
    from ..data.class_masks import read_class_masks, truth_files
    from ..images import read_mask

    if taxonomy.multilabel:
        masks = read_class_masks(path, truth_files(path, taxonomy), taxonomy, path)
        if masks.shape[1:] != image.shape[:2]:
            what = f"has masks of {size_text(masks.shape[1:])}, the image is {size_text(image.shape[:2])}"
            raise InputError(path, what, "give the masks of this image; masks are never resized")
        return masks
    raw = read_mask(path)
    if raw.shape[:2] != image.shape[:2]:
        what = f"is {size_text(raw.shape[:2])}, the image {size_text(image.shape[:2])} (height x width)"
        raise InputError(path, what, "give the mask of this image; masks are never resized")
    by_color = raw.ndim == 3 and bool((raw != raw[..., :1]).any())
    return MaskEncoding(by_color=by_color).encode(raw, taxonomy, path)
