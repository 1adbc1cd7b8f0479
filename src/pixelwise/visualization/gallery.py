"""Labeled images on one page: a before/after slider, a legend with class toggles, and the area of each class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, Taxonomy
from ..files import read_regular, write_text
from .pages import data_uri, render_page

_GENERATOR = b'<meta name="generator" content="pixelwise demo">'

LONGEST_SIDE = 1280
"""Pixels; larger images are shrunk for the page."""


@dataclass(frozen=True)
class GalleryImage:
    """The data of one image on the page, so that the image itself need not stay in memory.

    width, height    size of the image on the page in pixels
    image            a JPEG as data URI
    runs             the label map row by row: class id, number of pixels, class id, number of pixels, ...
    class_fractions  class id and share of the pixels, largest first
    """

    name: str
    width: int
    height: int
    image: str
    runs: list[int]
    class_fractions: list[tuple[int, float]]


def gallery_image(name: str, prediction: Prediction) -> GalleryImage:
    """Shrink a prediction to the page's size (labels by nearest neighbor, which creates no new ones) and pack it."""
    height, width = prediction.mask.shape
    factor = min(1, LONGEST_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    file = io.BytesIO()
    Image.fromarray(prediction.image).resize(size, Image.Resampling.BOX).save(file, "JPEG", quality=88)
    rows, columns = (np.arange(new) * old // new for new, old in ((size[1], height), (size[0], width)))
    ids = {class_name: k for k, class_name in enumerate(prediction.taxonomy.names)}
    fractions = [(ids[class_name], share) for class_name, share in prediction.class_fractions().items()]
    runs = pack_runs(prediction.mask[np.ix_(rows, columns)])
    return GalleryImage(name, *size, data_uri(file.getvalue()), runs, fractions)


def pack_runs(mask: NDArray[Any]) -> list[int]:
    """Return class id and length of each run of equal pixels in the flattened label map (H, W)."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    lengths = np.diff(np.r_[starts, flat.size])
    packed: list[int] = np.stack([flat[starts].astype(np.int64), lengths], 1).ravel().tolist()
    return packed


def is_gallery(path: str | Path) -> bool:
    """Return whether `write_gallery` wrote the file."""
    try:
        return _GENERATOR in read_regular(path)
    except OSError:
        return False


def write_gallery(path: str | Path, images: Sequence[GalleryImage], *, taxonomy: Taxonomy, title: str) -> Path:
    """Write the page; its legend lists the classes that occur. The background is hidden at first."""
    occurring = sorted({k for image in images for k, _ in image.class_fractions})
    taxonomy = taxonomy.for_figures()
    classes = [
        {"id": k, "name": taxonomy.names[k], "color": taxonomy.colors[k], "hidden": k in taxonomy.background}
        for k in occurring
    ]
    context = {"title": title, "images": images, "taxonomy": taxonomy, "classes": classes}
    write_text(path, render_page("gallery.html.j2", context))
    return Path(path)
