"""Labelled photos on one self-contained page: before/after slider, legend with class toggles and area shares."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, Taxonomy
from ..files import write_text

LONGEST_SIDE = 1280
"""Pixels of an image on the page; larger ones are shrunk for it."""


@dataclass(frozen=True)
class Photo:
    """What the page needs of one photo, so that the photo itself need not stay in memory.

    width, height  of both images on the page
    image          the photo, a JPEG as data URI
    runs           its label map row by row: class id, number of pixels, class id, ...
    shares         class id and share of the pixels, largest first
    """

    name: str
    width: int
    height: int
    image: str
    runs: list[int]
    shares: list[tuple[int, float]]


def make_photo(name: str, prediction: Prediction) -> Photo:
    """Shrink where needed (labels by nearest, so that none is invented) and pack."""
    height, width = prediction.mask.shape
    factor = min(1, LONGEST_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = Image.fromarray(prediction.image).resize(size, Image.Resampling.BOX)
    rows, columns = (np.arange(new) * old // new for new, old in ((size[1], height), (size[0], width)))
    ids = {class_name: k for k, class_name in enumerate(prediction.taxonomy.names)}
    shares = [(ids[class_name], share) for class_name, share in prediction.class_fractions().items()]
    return Photo(name, *size, _jpeg(image), pack_runs(prediction.mask[np.ix_(rows, columns)]), shares)


def pack_runs(mask: NDArray[Any]) -> list[int]:
    """Label map (H, W) -> class id and length of each run of equal pixels, row by row, runs going on over row ends."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    lengths = np.diff(np.r_[starts, flat.size])
    packed: list[int] = np.stack([flat[starts].astype(np.int64), lengths], 1).ravel().tolist()
    return packed


def write_gallery(path: str | Path, photos: Sequence[Photo], taxonomy: Taxonomy, title: str) -> Path:
    """Write the page; nothing on it is loaded from elsewhere, and its legend holds the classes that occur."""
    path = Path(path)
    templates = jinja2.Environment(loader=jinja2.PackageLoader("pixelwise.visualization"), autoescape=True)
    occurring = sorted({k for photo in photos for k, _ in photo.shares})
    classes = [{"id": k, "name": taxonomy.names[k], "color": taxonomy.colors[k]} for k in occurring]
    page = templates.get_template("gallery.html.j2").render(
        title=title, photos=photos, taxonomy=taxonomy, classes=classes
    )
    write_text(path, page)
    return path


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
