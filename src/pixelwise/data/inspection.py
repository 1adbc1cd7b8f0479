"""One look at the files of an item: everything that a check, a recipe or a training asks of them, from one decoding."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..images import FileFacts, read_image_file, read_mask, read_mask_file, read_pixels
from .class_masks import label_counts
from .dataset import Item, Split, size_error
from .mask_shapes import MaskShapes, mask_shapes
from .mask_values import MaskValues, look_at_values
from .perceptual_hash import perceptual_hash
from .seen_masks import SeenMask


@dataclass(frozen=True)
class Inspected:
    """What one look at the files of an item found.

    size             (height, width) of the mask, None without one that can be read
    pixels           class id (or `ignore_id`) -> number of its pixels; of several labels per pixel, pixels that count
                     for no class are ignored
    digest           of the decoded image; empty if it was not read
    perceptual_hash  of the decoded image; empty if it was not read, is plain or tiny
    image_error      of the image
    mask_error       of the mask, or that its size is not that of the image
    image_file       facts of the image file, None if it cannot be decoded
    mask_file        facts of the mask file, None if it cannot be decoded
    values           what the mask holds, if that cannot be read as classes
    shapes           shapes of the classes, if they were asked for
    is_gray          whether the image has no color; False if it was not read
    """

    item: Item
    size: tuple[int, int] | None = None
    pixels: dict[int, int] = field(default_factory=dict)
    digest: bytes = b""
    perceptual_hash: bytes = b""
    image_error: InputError | None = None
    mask_error: InputError | None = None
    image_file: FileFacts | None = None
    mask_file: FileFacts | None = None
    values: MaskValues | None = None
    shapes: MaskShapes | None = None
    is_gray: bool = False

    @property
    def error(self) -> InputError | None:
        """Why the item cannot be used: the error of its image, or else of its mask."""
        return self.image_error or self.mask_error


def inspect_item(
    split: Split, item: Item, *, image: bool = True, shapes: bool = False, seen: SeenMask | None = None
) -> Inspected:
    """Read an item once and return what a run has to know of it before the first step; errors are kept, not raised.

    image   False reads the mask alone
    shapes  also look at the shapes of the classes
    seen    the mask file, if it was read before
    """
    found = _inspect_mask(split, item, shapes=shapes, seen=seen) if item.mask is not None else Inspected(item)
    if not image:
        return found
    from .mask_loops import checksum

    try:
        if split.pixels.is_rgb:
            pixels, file = read_image_file(item.image)
            found = replace(found, image_file=file)
        else:
            pixels = read_pixels(item.image, split.pixels)
        pixels = np.ascontiguousarray(pixels)
    except InputError as error:
        return replace(found, image_error=error)
    if found.mask_error is None and found.size is not None and found.size != pixels.shape[:2]:
        found = replace(found, mask_error=size_error(item, pixels.shape[:2], found.size))
    # A look at some pixels first: most images have a color in each.
    is_gray = pixels.shape[2] == 3 and all((part == part[..., :1]).all() for part in (pixels[::16, ::16], pixels))
    sign = perceptual_hash(split.pixels.to_rgb(pixels))
    return replace(found, digest=checksum(pixels), perceptual_hash=sign, is_gray=is_gray)


def _inspect_mask(split: Split, item: Item, *, shapes: bool, seen: SeenMask | None = None) -> Inspected:
    """Read the mask of an item; look at its values if they are no classes."""
    from .mask_loops import count_values

    found, raw = Inspected(item), None
    taxonomy, encoding = split.taxonomy, split.encoding
    mask: NDArray[Any] | None = None
    counts: NDArray[np.int64] | None = None
    assert item.mask is not None, "the caller asks for it"
    if seen is not None and not shapes and not seen.file.lossy and seen.is_still(item.mask):
        counts = encoding.count_ids(seen.values, taxonomy)
        if counts is not None:
            return replace(found, size=seen.size, mask_file=seen.file, pixels=_pixels(counts))
    try:
        if item.drawing is not None or taxonomy.multilabel:
            mask = split.read_labels(item)
            assert mask is not None, "the item has a mask"
            found = replace(found, size=(mask.shape[-2], mask.shape[-1]))
        else:
            raw, file = read_mask_file(item.mask, by_color=encoding.by_color, lossy=True)
            found = replace(found, size=(raw.shape[0], raw.shape[1]), mask_file=file)
            if file.lossy:
                # Raises the error that a training would get.
                read_mask(item.mask, by_color=encoding.by_color)
            if not encoding.by_color and raw.ndim == 2:
                counts = taxonomy.counts_of_ids(count_values(raw))
            if counts is None or shapes:
                mask = encoding.encode(raw, taxonomy, item.mask)
    except InputError as error:
        values = None if raw is None else look_at_values(raw, lossy=file.lossy)
        return replace(found, mask_error=error, values=values)
    if counts is None:
        assert mask is not None, "it was read or encoded"
        counts = label_counts(mask, taxonomy)
    found = replace(found, pixels=_pixels(counts))
    if not shapes:
        return found
    assert mask is not None, "it was encoded for its shapes"
    return replace(found, shapes=mask_shapes(mask, taxonomy.ignore_id))


def _pixels(counts: NDArray[np.int64]) -> dict[int, int]:
    return {int(k): int(counts[k]) for k in np.flatnonzero(counts)}


def readable(split: Split) -> Split:
    """Return the split without the items that cannot be read."""
    items = [item for item in split.items if inspect_item(split, item).error is None]
    return split.with_items(items)
