"""From the shapes of an annotation file to a mask of class ids.

A pixel without a shape is background if a class is called so, otherwise ignored. Where shapes overlap, the later one
covers the earlier: each format says in which order it passes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...colors import is_background
from ...core import Taxonomy
from ...errors import MaskError, listed, shown
from .fill import Region

IGNORED_LABELS = frozenset({"ignored", "ignore", "__ignore__"})
"""Labels of shapes that are excluded from loss and score, unless a class has that name."""


class Shape(NamedTuple):
    """A region of an image and the label that it has in its file."""

    label: str
    region: Region


class Drawing(ABC):
    """The annotation of one image, read from its file when the mask is needed. It is pickled with its item."""

    @abstractmethod
    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return (height, width) of the image and its shapes, the covered ones first.

        Raises DatasetError or MaskError naming the file.
        """

    @property
    @abstractmethod
    def source(self) -> str:
        """The annotation file and the image in it, for messages."""

    def draw(self, taxonomy: Taxonomy) -> NDArray[Any]:
        """Return the mask (H, W) of class ids, or (K, H, W) of 0 and 1 for several labels per pixel.

        Raises MaskError for a label that is no class, and as `read`.
        """
        size, shapes = self.read()
        return draw_shapes(size, shapes, taxonomy, self.source)


def draw_shapes(size: tuple[int, int], shapes: Iterable[Shape], taxonomy: Taxonomy, source: str) -> NDArray[Any]:
    """Return the mask of some shapes, the later over the earlier, or each in its class of several labels per pixel.

    Raises MaskError.
    """
    ids = {name: k for k, name in enumerate(taxonomy.names)}
    rest = taxonomy.background[0] if taxonomy.background else taxonomy.ignore_id
    mask = np.full(size, rest, taxonomy.dtype)
    by_class = np.zeros((taxonomy.num_classes, *size), np.uint8) if taxonomy.multilabel else None
    for label, (top, left, pixels) in shapes:
        id_ = ids.get(label)
        if id_ is None and label.casefold() in IGNORED_LABELS:
            id_ = taxonomy.ignore_id
        if id_ is None and is_background(label):
            if by_class is not None:
                # Where a pixel may have no label at all, this is none.
                continue
            id_ = rest
        if id_ is None:
            what = f"has the label {shown(label)}; the classes are {listed(map(shown, taxonomy.names), 12)}"
            raise MaskError(source, what, "add the label to the classes, or correct the annotation")
        height, width = pixels.shape
        if top < 0 or left < 0 or top + height > size[0] or left + width > size[1]:
            what = f"has a shape of rows {top}..{top + height} and columns {left}..{left + width}"
            what += f" in an image of {size[0]}x{size[1]} (height x width)"
            raise MaskError(source, what, "export the annotations again")
        place = slice(top, top + height), slice(left, left + width)
        if by_class is None:
            mask[place][pixels] = id_
        elif id_ == taxonomy.ignore_id:
            by_class[:, place[0], place[1]][:, pixels] = taxonomy.ignore_id
        else:
            part = by_class[id_][place]
            part[pixels & (part != taxonomy.ignore_id)] = 1
    return mask if by_class is None else by_class
