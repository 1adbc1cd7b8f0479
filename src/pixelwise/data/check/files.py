"""Findings about single files: unreadable images and masks, masks of another size."""

from __future__ import annotations

import re

from ...errors import InputError
from ..dataset import Item, size_error
from ..inspection import Inspected
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
        # Masks with wrong values are reported by value, and by their size.
        mask_error = inspected.mask_error if inspected.values is None else _size_error(inspected)
        for error, path in ((inspected.image_error, item.image), (mask_error, item.mask)):
            # Missing files are reported by name.
            if error is None or path in missing:
                continue
            is_size = path == item.mask and inspected.size is not None
            if is_size and is_turned_by_90(inspected):
                continue
            kind = "sizes" if is_size else "unreadable images" if path == item.image else "unreadable masks"
            # Errors of one kind differ in their numbers, and in the names of files.
            words = re.sub(r"\d+|of its image .*?, got", "", error.what)
            groups.setdefault((kind, words), []).append((item, error))
    return [from_errors(kind, errors) for (kind, _), errors in groups.items()]


def _size_error(inspected: Inspected) -> InputError | None:
    """Return the error of a mask of another size than its image, also if its values are wrong."""
    if inspected.image_file is None or inspected.size in (None, inspected.image_file.size):
        return None
    assert inspected.size is not None, "looked at above"
    return size_error(inspected.item, inspected.image_file.size, inspected.size)
