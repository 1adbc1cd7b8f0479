"""Findings about single files: unreadable images and masks, masks of another size."""

from __future__ import annotations

import re

from ...errors import InputError
from ..dataset import Item
from .finding import Finding, Look, from_errors
from .orientation import is_turned_by_90


def find_file_faults(look: Look) -> list[Finding]:
    """Return one finding for each kind of error of images, masks and their sizes.

    Sizes that a turn by 90 degrees explains are left to `orientation`.
    """
    groups: dict[tuple[str, str], list[tuple[Item, InputError]]] = {}
    missing = look.dataset.missing()
    for _, inspected in look.inspected():
        item = inspected.item
        for error, path in ((inspected.image_error, item.image), (inspected.mask_error, item.mask)):
            # Missing files are reported by name, and masks with wrong values by value.
            if error is None or path in missing or (path == item.mask and inspected.values is not None):
                continue
            is_size = path == item.mask and inspected.size is not None
            if is_size and is_turned_by_90(inspected):
                continue
            kind = "sizes" if is_size else "unreadable images" if path == item.image else "unreadable masks"
            # Errors of one kind differ in their numbers, and in the names of files.
            words = re.sub(r"\d+|of its image .*?, got", "", error.what)
            groups.setdefault((kind, words), []).append((item, error))
    return [from_errors(kind, errors) for (kind, _), errors in groups.items()]
