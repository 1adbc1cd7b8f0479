"""Findings about single files: unreadable images and masks, masks of another size, EXIF orientation."""

from __future__ import annotations

import re

from ...errors import InputError, listed
from ..dataset import Item
from .finding import Finding, Look, from_errors, items_of

_BY_FIX = "leave these files out, or let `pixelwise check DATA --fix OUT` write a copy without them"


def find_file_faults(look: Look) -> list[Finding]:
    """Return one finding for each kind of error of images, masks and their sizes, and for orientations that differ."""
    groups: dict[tuple[str, str], list[tuple[Item, InputError]]] = {}
    missing = look.dataset.missing()
    for _, inspected in look.inspected():
        item = inspected.item
        for error, path in ((inspected.image_error, item.image), (inspected.mask_error, item.mask)):
            # Missing files are reported by name, and masks with wrong values by value.
            if error is None or path in missing or (path == item.mask and inspected.values is not None):
                continue
            is_size = path == item.mask and inspected.size is not None
            kind = "sizes" if is_size else "unreadable images" if path == item.image else "unreadable masks"
            # Errors of one kind differ in their numbers, and in the names of files.
            words = re.sub(r"\d+|of its image .*?, got", "", error.what)
            groups.setdefault((kind, words), []).append((item, error))
    findings = [from_errors(kind, errors) for (kind, _), errors in groups.items()]
    return findings + _find_turned(look)


def _find_turned(look: Look) -> list[Finding]:
    """Return a warning for images that EXIF turns or mirrors while their masks stay as they are, at equal size.

    A turn by 90 degrees is an error of sizes. Of the others, it is unknown whether the labels were drawn on the turned
    image, as a viewer shows it, or on the stored one.
    """
    turned = [
        inspected.item
        for _, inspected in look.inspected()
        if inspected.image_file is not None
        and inspected.mask_file is not None
        and inspected.mask_error is None
        and inspected.image_file.orientation != inspected.mask_file.orientation
    ]
    if not turned:
        return []
    names = tuple(item.image.name for item in turned)
    what = f"EXIF turns or mirrors {len(turned)} images, but not their masks: {listed(names)}"
    fix = "check in the overlays that the labels lie on the objects; if not, remove the tag from the images"
    pairs = items_of((item, item) for item in turned)
    return [Finding("EXIF orientation", "warning", str(look.dataset.root), what, fix, len(turned), names, pairs)]
