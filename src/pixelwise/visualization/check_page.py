"""The page of `pixelwise check`: each kind of problem with thumbnails that show it, and a sheet of overlays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, Taxonomy
from ..data.check import Diagnosis
from ..data.dataset import Item, Split
from ..data.inspection import Inspected
from ..errors import InputError, printable
from ..files import write_text
from ..images import read_image, read_mask_file, read_pixels
from .pages import data_uri, render_page
from .panels import fit

THUMBNAIL = 240
"""Longest side in pixels."""
# Thumbnails per finding, and images on the sheet of overlays per split.
_MAX_EXAMPLES, _MAX_SHEET = 6, 8
_WHITE = 255


@dataclass(frozen=True)
class Thumbnail:
    """One image of the page: data URI, and the name below it."""

    image: str
    name: str


def write_check_page(path: str | Path, diagnosis: Diagnosis) -> Path:
    """Write the page, one file that opens offline, and return its path."""
    write_text(path, render_check_page(diagnosis))
    return Path(path)


def render_check_page(diagnosis: Diagnosis) -> str:
    """Return the page of a diagnosis."""
    dataset = diagnosis.dataset
    taxonomy = dataset.taxonomy.for_figures()
    splits = {item: split for split in dataset.splits.values() for item in split.items}
    sheets = []
    with ThreadPoolExecutor() as executor:
        rows = []
        for finding in diagnosis.findings:
            shown = executor.map(
                lambda item: _thumbnails(splits.get(item), item, taxonomy), finding.items[:_MAX_EXAMPLES]
            )
            rows.append((finding, [thumbnail for thumbnails in shown for thumbnail in thumbnails]))
        for name, found in diagnosis.look.found.items():
            split = dataset.splits[name]
            overlays = executor.map(partial(_overlay, split, taxonomy=taxonomy), _readable(found))
            sheets.append((name, [thumbnail for thumbnail in overlays if thumbnail is not None]))
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in taxonomy.colors]
    context: dict[str, Any] = {
        "name": dataset.root.resolve().name,
        "heading": diagnosis.heading(),
        "summary": diagnosis.summary(),
        "has_errors": diagnosis.has_errors,
        "notes": [printable(note) for note in dataset.notes],
        "findings": rows,
        "sheets": sheets,
        "classes": list(zip(dataset.taxonomy.names, colors, strict=True))[:64],
        "shares": _shares(diagnosis),
    }
    return render_page("check.html.j2", context)


def _readable(found: Sequence[Inspected]) -> list[Item]:
    """Return some items with usable masks, evenly spread."""
    usable = [row.item for row in found if row.error is None and row.pixels]
    return usable[:: max(1, len(usable) // _MAX_SHEET)][:_MAX_SHEET]


def _shares(diagnosis: Diagnosis) -> list[tuple[str, list[float | None]]]:
    """Return, per class, its share of the labeled pixels of each split, None for a split without masks."""
    columns = []
    for found in diagnosis.look.found.values():
        total = np.zeros(diagnosis.dataset.taxonomy.ignore_id + 1)
        for row in found:
            for id_, count in row.pixels.items():
                total[id_] += count
        labeled = total[: diagnosis.dataset.taxonomy.num_classes]
        columns.append(labeled / labeled.sum() if labeled.sum() else None)
    return [
        (name, [None if column is None else float(column[k]) for column in columns])
        for k, name in enumerate(diagnosis.dataset.taxonomy.names)
    ]


def _thumbnails(split: Split | None, item: Item, taxonomy: Taxonomy) -> list[Thumbnail]:
    """Return the image and the mask of an item, as far as they can be read: side by side, the mask as it is stored."""
    shown = []
    image = _try_image(split, item)
    if image is not None:
        shown.append(Thumbnail(_jpeg(image), printable(item.image.name)))
    if item.mask is not None and split is not None:
        mask = _try_mask(split, item, taxonomy)
        if mask is not None:
            shown.append(Thumbnail(_png(mask), printable(item.mask.name)))
    return shown


def _try_image(split: Split | None, item: Item) -> NDArray[np.uint8] | None:
    try:
        if split is None or split.pixels.is_rgb:
            return read_image(item.image)
        return split.pixels.to_rgb(read_pixels(item.image, split.pixels))
    except InputError:
        return None


def _try_mask(split: Split, item: Item, taxonomy: Taxonomy) -> NDArray[np.uint8] | None:
    """Return a mask in the colors of its classes, values that are no class in gray, stretched to be seen."""
    try:
        if item.drawing is not None or split.taxonomy.multilabel:
            labels = split.read_labels(item)
            return None if labels is None or labels.ndim == 3 else taxonomy.palette()[labels]
        raw, _ = read_mask_file(item.mask or "", lossy=True)
    except InputError:
        return None
    if raw.ndim == 3:
        return np.ascontiguousarray(raw)
    table = np.repeat(np.arange(65536)[:, None], 3, 1).clip(0, _WHITE).astype(np.uint8)
    if not split.encoding.by_color:
        for k, value in enumerate(taxonomy.values):
            table[value] = taxonomy.colors[k]
    drawn: NDArray[np.uint8] = table[raw]
    return drawn


def _overlay(split: Split, item: Item, *, taxonomy: Taxonomy) -> Thumbnail | None:
    """Return the image with its labels in colors, None if one of them cannot be read any more."""
    image = _try_image(split, item)
    try:
        labels = split.read_labels(item)
    except InputError:
        return None
    if image is None or labels is None:
        return None
    drawn = np.asarray(Prediction(labels, taxonomy, image).overlay())
    return Thumbnail(_jpeg(drawn), printable(item.key))


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    return _encoded(fit(pixels, THUMBNAIL), "JPEG", quality=85)


def _png(pixels: NDArray[np.uint8]) -> str:
    return _encoded(fit(pixels, THUMBNAIL, labels=True), "PNG")


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return data_uri(file.getvalue())
