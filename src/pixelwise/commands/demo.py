"""`pixelwise demo`: label a folder of photos and show them on one page."""

from __future__ import annotations

from pathlib import Path

from ..core import Prediction
from ..errors import InputError
from ..inference.jobs import Job, plan
from ..inference.predict_files import OutputOptions
from ..visualization.gallery import GalleryImage, gallery_image, write_gallery
from ._labeling import print_skipped, run_jobs


def demo(photos: Path = Path("samples"), /, *, out: Path = Path("demo"), model: str | None = None) -> int:
    """Label a folder of photos and show them on one HTML page.

    Writes masks, overlays and index.html, a single file with a before/after slider, a legend to switch classes on and
    off, and the area fraction of each class. It opens in any browser, offline.

    Parameters
    ----------
    photos
        A folder of photos, or one photo.
    out
        Folder for masks, overlays and the page; existing files are overwritten.
    model
        A run, a checkpoint folder or a Hugging Face Hub id; the shipped street-scene model by default.
    """
    outputs = OutputOptions(overlay=True, color=True)
    jobs, skipped = plan([photos], out, outputs.endings)
    print_skipped(skipped)
    from ..inference.segmenter import load

    segmenter = load(model)
    labeled: list[GalleryImage] = []

    def add_image(job: Job, prediction: Prediction) -> None:
        labeled.append(gallery_image(str(job.name), prediction))

    code = run_jobs(segmenter, jobs, outputs, out, on_prediction=add_image)
    if not labeled:
        raise InputError(photos, "none of the photos could be labeled", "fix or remove them, see the lines above")
    title = f"{photos.stem or 'Photos'}: a label for every pixel"
    page = write_gallery(out / "index.html", labeled, taxonomy=segmenter.taxonomy, title=title)
    print(f"open {page}")
    return code
