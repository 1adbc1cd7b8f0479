"""`pixelwise demo`: label a folder of photos and show them on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, printable
from ..files import check_outputs
from ._labeling import print_skipped, run_jobs
from ._options import OutPath, Switch

if TYPE_CHECKING:
    from ..core import Prediction
    from ..inference.jobs import Job
    from ..visualization.gallery import GalleryImage


def demo(
    photos: Path = Path("samples"),
    /,
    *,
    out: OutPath = Path("demo"),
    overwrite: Switch = False,
    model: str | None = None,
) -> int:
    """Label a folder of photos and show them on one HTML page.

    Writes masks, overlays and index.html, a single file with a before/after slider, a legend to switch classes on and
    off, and the area fraction of each class. It opens in any browser, offline.

    Parameters
    ----------
    photos
        A folder of photos, or one photo.
    out
        Folder for masks, overlays and the page. The files of an earlier demo are replaced.
    overwrite
        Replace other existing files, too.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; the shipped street-scene model by default.
    """
    from ..inference.jobs import plan
    from ..inference.load_any import load_any, load_without_torch
    from ..inference.predict_files import OutputOptions
    from ..inference.stored_config import stored_pixels
    from ..visualization.gallery import gallery_image, is_gallery, write_gallery

    outputs = OutputOptions(overlay=True, color=True)
    opened = load_without_torch(model)
    pixels = stored_pixels(model) if opened is None else opened.pixels
    jobs, skipped = plan([photos], out, outputs.endings, pixels)
    page = out / "index.html"
    if not is_gallery(page):
        check_outputs([page, *(path for job in jobs for path in job.outputs)], overwrite=overwrite)
    print_skipped(skipped)
    segmenter = opened or load_any(model)
    labeled: list[GalleryImage] = []

    def add_image(job: Job, prediction: Prediction) -> None:
        labeled.append(gallery_image(job.name, prediction))

    again = "run the same command again with --overwrite; index.html is not written yet"
    code = run_jobs(segmenter, jobs, outputs, out, on_prediction=add_image, resumed_by=again)
    if not labeled:
        raise InputError(photos, "none of the photos could be labeled", "fix or remove them, see the lines above")
    title = f"{photos.stem or 'Photos'}: a label for every pixel"
    write_gallery(page, labeled, taxonomy=segmenter.taxonomy, title=title)
    print(printable(f"open {page}"))
    return code
