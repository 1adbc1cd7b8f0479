"""Labelled photos on one self-contained page: before/after slider, legend with class toggles and area shares."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from .core import Prediction
from .files import write_text


def write_gallery(path: str | Path, predictions: Sequence[tuple[str, Prediction]], title: str) -> Path:
    """Write the page for (name, prediction) pairs of one taxonomy; nothing on it is loaded from elsewhere."""
    path = Path(path)
    templates = jinja2.Environment(loader=jinja2.PackageLoader("pixelwise"), autoescape=True)
    taxonomy = predictions[0][1].taxonomy
    classes = [{"name": name, "color": color} for name, color in zip(taxonomy.names, taxonomy.colors, strict=True)]
    photos = [_photo(name, prediction) for name, prediction in predictions]
    page = templates.get_template("gallery.html.j2").render(title=title, photos=photos, data=json.dumps({"classes": classes}))
    write_text(path, page)
    return path


def _photo(name: str, prediction: Prediction) -> dict[str, object]:
    """What the page needs of one photo: the JPEG, and class ids in the grey values of a PNG that the browser reads back."""
    height, width = prediction.mask.shape
    ids = Image.fromarray(prediction.mask.astype(np.uint8))
    return {
        "name": name,
        "width": width,
        "height": height,
        "image": _data_uri(Image.fromarray(prediction.image), "jpeg", quality=88),
        "ids": _data_uri(ids, "png", optimize=True),
        "shares": [(class_name, share) for class_name, share in prediction.shares().items()],
    }


def _data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
