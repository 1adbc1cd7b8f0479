"""Images that an EXIF tag turns or mirrors while their masks stay as they are: which of two readings the masks fit.

Labels are drawn on the image as viewers show it, or on the pixels as they are stored, by a program that ignores the
tag. At a turn by 90 degrees the sizes tell; at the others, the edges of the image do: along the borders of the right
reading they are stronger. One program draws the masks of a dataset, so that all are read alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...core import Taxonomy
from ...errors import InputError, MaskError, listed
from ...images import ARRAY_SUFFIX, exif_orientation, image_size, read_image, read_mask_file, turn
from ..class_masks import read_class_masks
from ..dataset import Dataset, Item
from ..inspection import Inspected
from .finding import Finding, Look, items_of, short_names

# Images whose edges are looked at, and the mean of the logarithms of their ratios in standard errors that decides. In
# seven of eight real sets the right reading has 1.3 to 5 times the edges, in the median. Few images decide if all are
# clear.
_LOOKED_AT, _MIN_T, _MIN_COUNT, _CLEAR = 48, 3.0, 5, 0.3
_BLUR = 1.5


@dataclass(frozen=True)
class Turned:
    """The images that EXIF turns while their masks are not, and what the masks were drawn on.

    stored   images whose masks fit the pixels as stored
    shown    images whose masks fit the image as viewers show it
    unclear  images whose masks may fit either; they are read as shown
    why      what shows it, in words, by "stored" and "shown"
    """

    stored: tuple[Item, ...] = ()
    shown: tuple[Item, ...] = ()
    unclear: tuple[Item, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)


def is_turned_by_90(row: Inspected) -> bool:
    """Return whether the mask has the size of its image as stored, which EXIF turns by 90 degrees."""
    file, size = row.image_file, _mask_size(row)
    return _is_turned(row) and file is not None and size == file.size[::-1] != file.size and file.orientation > 4


def find_turned(look: Look) -> Turned:
    """Return what the masks of turned images fit."""
    rows = [row for _, row in look.inspected() if _is_turned(row)]
    by_size = {row.item: reading for row in rows if (reading := _by_size(row))}
    readings = set(by_size.values())
    counts = Counter(by_size.values())
    why = {name: [f"the sizes of {count} that are turned by 90 degrees"] for name, count in counts.items()}
    reading = next(iter(readings)) if len(readings) == 1 else ""
    rest = [row for row in rows if row.item not in by_size]
    if rest and len(readings) < 2:
        ratios = _edge_ratios(rest, look.dataset.taxonomy)
        by_edges = _decide(ratios)
        if by_edges and reading and by_edges != reading:
            # Sizes and edges contradict one another.
            reading = ""
        elif by_edges:
            reading = by_edges
            edges = f"the edges of {len(ratios)}, {np.exp(abs(np.mean(ratios))):.1f} times as strong along them"
            why.setdefault(reading, []).append(edges)
    groups: dict[str, list[Item]] = {"stored": [], "shown": [], "": []}
    for row in rows:
        groups[by_size.get(row.item, reading)].append(row.item)
    return Turned(
        tuple(groups["stored"]), tuple(groups["shown"]), tuple(groups[""]), {k: " and ".join(v) for k, v in why.items()}
    )


def find_orientation_faults(look: Look) -> list[Finding]:
    """Return an error for masks that were drawn on the pixels as stored, a warning where it is unclear, else a note."""
    turned = find_turned(look)
    found, root = [], str(look.dataset.root)
    if turned.stored:
        fix = "remove the tag from the images, or let `pixelwise check DATA --fix OUT` turn the masks"
        names = short_names(item.image for item in turned.stored)
        words = f"EXIF turns or mirrors {len(names)} images, but not their masks: {listed(names)}; "
        words += f"the masks fit the pixels as stored, as {turned.why['stored']} show"
        pairs = items_of((item, item) for item in turned.stored)
        found.append(Finding("EXIF orientation", "error", root, words, fix, len(names), names, pairs))
    if turned.unclear:
        fix = "check in the overlays that the labels lie on the objects; if not, remove the tag from the images"
        names = short_names(item.image for item in turned.unclear)
        words = (
            f"EXIF turns or mirrors {len(names)} images, and it is unclear whether their masks fit the turned images "
        )
        words += f"or the pixels as stored: {listed(names)}; they are read as drawn on the turned image"
        pairs = items_of((item, item) for item in turned.unclear)
        found.append(Finding("EXIF orientation", "warning", root, words, fix, len(names), names, pairs))
    if turned.shown:
        names = short_names(item.image for item in turned.shown)
        words = f"EXIF turns or mirrors {len(names)} images, and their masks fit the turned images, "
        words += f"as {turned.why['shown']} show"
        found.append(Finding("EXIF orientation", "note", root, words, "", len(names), names))
    return found


def find_unclear(look: Look, copy: Dataset) -> list[Finding]:
    """Return a warning for the images of a fixed copy whose tag is gone, while it is unclear what their masks fit."""
    keys = {item.key for split in copy.splits.values() for item in split.items}
    items = tuple(item for item in find_turned(look).unclear if item.key in keys)
    if not items:
        return []
    names = short_names(item.image for item in items)
    what = f"EXIF turned or mirrored {len(names)} images in {look.dataset.root}, and it is unclear whether their masks "
    what += f"fit the turned images, as which the copy has them: {listed(names)}"
    fix = "check in the overlays that the labels lie on the objects"
    return [Finding("EXIF orientation", "warning", str(copy.root), what, fix, len(names), names, items)]


def _is_turned(row: Inspected) -> bool:
    if row.image_file is None or _mask_size(row) is None:
        return False
    # Shapes of an annotation file have no orientation.
    of_mask = 1 if row.item.drawing is not None else None if row.mask_file is None else row.mask_file.orientation
    if row.item.class_files and row.item.drawing is None:
        # Only where it matters, as it is not known from the first look.
        of_mask = exif_orientation(row.item.class_files[0][1]) if row.image_file.orientation > 1 else 1
    return of_mask is not None and row.image_file.orientation != of_mask


def _mask_size(row: Inspected) -> tuple[int, int] | None:
    """Return the size of the mask; of the first of several, also where what they hold cannot be used."""
    first = row.item.class_files[0][1] if row.item.class_files else None
    is_turned = row.image_file is not None and row.image_file.orientation > 1
    if row.size is not None or not is_turned or first is None or first.suffix.lower() == ARRAY_SUFFIX:
        return row.size
    try:
        return image_size(first)
    except InputError:
        return None


def _by_size(row: Inspected) -> str:
    """Return the reading that the size of the mask shows, in any scale; "" if it shows none."""
    assert row.image_file is not None, "the caller asks for it"
    size = _mask_size(row)
    assert size is not None, "the caller asks for it"
    turns_by_90 = row.image_file.orientation > 4
    height, width = row.image_file.size
    if not turns_by_90 or abs(np.log(height / width)) < 0.02:
        return ""
    off = abs(np.log(size[0] / size[1] / (height / width)))
    off_stored = abs(np.log(size[0] / size[1] / (width / height)))
    return "" if min(off, off_stored) > 0.01 else "shown" if off < off_stored else "stored"


def _edge_ratios(rows: Sequence[Inspected], taxonomy: Taxonomy) -> list[float]:
    """Return, per image, the logarithm of the edges along the borders as shown, divided by those as stored."""
    ratios = []
    for row in rows[:: max(1, len(rows) // _LOOKED_AT)][:_LOOKED_AT]:
        assert row.image_file is not None, "the caller asks for it"
        try:
            image, mask = read_image(row.item.image), _read_mask(row.item, taxonomy)
        except InputError:
            continue
        if mask.ndim == 3:
            # Colors, or several labels per pixel.
            mask = np.asarray(mask[..., :7].astype(np.int64) @ 256 ** np.arange(min(mask.shape[2], 7)))
        stored = turn(mask, row.image_file.orientation)
        if mask.shape != image.shape[:2] or stored.shape != image.shape[:2]:
            continue
        gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), _BLUR)
        edges = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
        along = [float(edges[border].mean()) for border in map(_borders, (mask, stored)) if border.any()]
        if len(along) == 2 and min(along) > 0:
            ratios.append(float(np.log(along[0] / along[1])))
    return ratios


def _read_mask(item: Item, taxonomy: Taxonomy) -> NDArray[Any]:
    """Return the mask (H, W), or colors or labels (H, W, K), of an item; of lossy files about. Raises InputError."""
    if item.drawing is not None:
        mask = item.drawing.draw(taxonomy)
        return np.moveaxis(mask, 0, 2) if mask.ndim == 3 else mask
    assert item.mask is not None, "it was seen"
    if not item.class_files:
        return np.asarray(read_mask_file(item.mask, lossy=True)[0])
    try:
        return np.moveaxis(read_class_masks(item.mask, item.class_files, taxonomy, item.image), 0, 2)
    except MaskError:
        raws = [read_mask_file(path, lossy=True)[0] for _, path in item.class_files]
    planes = [raw.max(2) if raw.ndim == 3 else raw for raw in raws]
    if len({plane.shape for plane in planes}) > 1:
        raise MaskError(item.mask, "masks of one image have several sizes", "export all masks at one size")
    return np.stack([plane > plane.max() // 2 for plane in planes], 2).astype(np.uint8)


def _borders(mask: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Return where a pixel differs from its left or upper neighbor."""
    border = np.zeros(mask.shape, bool)
    border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    border[1:] |= mask[1:] != mask[:-1]
    return border


def _decide(ratios: Sequence[float]) -> str:
    """Return the reading that most ratios show, or "" if chance would show it as well."""
    if not ratios:
        return ""
    mean = float(np.mean(ratios))
    is_one_sided = all(ratio * mean > 0 and abs(ratio) > _CLEAR for ratio in ratios)
    if len(ratios) < _MIN_COUNT:
        return "" if not is_one_sided else "shown" if mean > 0 else "stored"
    error = float(np.std(ratios, ddof=1)) / len(ratios) ** 0.5
    is_sure = abs(mean) > _MIN_T * max(error, 1e-9) and abs(mean) > _CLEAR / 3
    return "" if not is_sure else "shown" if mean > 0 else "stored"
