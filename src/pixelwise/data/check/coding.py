"""The classes that the masks of a broken dataset mean, and the class of each pixel of one of its mask files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...colors import voc_color
from ...core import Taxonomy
from ..dataset import Dataset
from ..inspection import Inspected
from ..mask_values import LOSSY_REACH, MaskValues, as_points, classes_and_mixtures, pack_colors, snap, thin_classes
from .finding import Look


@dataclass(frozen=True)
class Coding:
    """What the values, or colors, of mask files mean.

    taxonomy  the classes with the values that they are written with
    ids       class id, or ignore id, of each value (or color, 0xRRGGBB)
    new       values that became classes; no pixel of a lossy file is taken for one of them
    is_color  whether masks are drawn in colors
    thin      values of classes that fill no area in lossy gray masks
    aliases   masks in which other values count: {255: 1} where a 0/255 mask stands among 0/1 masks
    notes     what was decided, as lines
    """

    taxonomy: Taxonomy
    ids: dict[int, int]
    is_color: bool
    new: tuple[int, ...] = ()
    thin: tuple[int, ...] = ()
    aliases: dict[str, dict[int, int]] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def bears_loss(self) -> bool:
        """Whether the classes are far enough apart to be recognized in a lossy file."""
        points = as_points(np.array(sorted(self.ids.keys() - set(self.new))), is_color=self.is_color)
        return all(np.linalg.norm(one - other) > LOSSY_REACH for one, other in combinations(points, 2))

    def encode_drawn(self, colors: NDArray[Any]) -> NDArray[Any] | None:
        """Return the class ids (H, W) of a mask drawn in the colors of the classes, though classes are numbers.

        None if any other color occurs, or two classes share one.
        """
        taxonomy = self.taxonomy
        ids = {_code(color): k for k, color in enumerate(taxonomy.colors)}
        if len(ids) < taxonomy.num_classes:
            return None
        if taxonomy.ignored:
            ids.setdefault(_code(taxonomy.ignore_color), taxonomy.ignore_id)
        codes, inverse = np.unique(pack_colors(colors), return_inverse=True)
        if not ids.keys() >= set(codes.tolist()):
            return None
        table = np.array([ids[code] for code in codes.tolist()], taxonomy.dtype)
        return table[inverse.reshape(colors.shape[:2])]

    def classes_of(self, row: Inspected) -> set[int]:
        """Return the class ids that a mask shows, also if its values are no classes yet."""
        if row.values is None:
            return set(row.pixels)
        ids = self.ids | self.aliases.get(str(row.item.mask), {})
        # Around the edges of a lossy mask any value occurs.
        codes = row.values.flat if row.values.lossy else row.values.by_color() if self.is_color else row.values.pixels
        return {ids[code] for code in codes if code in ids}

    def encode(self, raw: NDArray[Any], key: str, *, lossy: bool = False) -> tuple[NDArray[Any], int, int]:
        """Return the class ids (H, W) of a mask file as read, the number of pixels that were no class, and of those the
        number that were far from all mixtures of the classes around them, in a lossy file.
        """
        ids = self.ids | self.aliases.get(key, {})
        if lossy:
            ids = {code: id_ for code, id_ in ids.items() if code not in self.new}
        if raw.ndim == 3 and not self.is_color:
            raw = raw[..., 0]
        if raw.ndim == 2 and self.is_color:
            raw = np.repeat(raw[..., None], 3, axis=2)
        codes = pack_colors(raw) if self.is_color else raw
        known = sorted(ids)
        num_wrong, num_far = int((~np.isin(codes, known)).sum()), 0
        if num_wrong:
            codes, num_far = snap(
                raw,
                known,
                is_color=self.is_color,
                lossy=lossy,
                thin=[code for code in self.thin if code in ids] if lossy else (),
            )
        table = np.array([ids[code] for code in known], self.taxonomy.dtype)
        return table[np.searchsorted(known, codes)], num_wrong, num_far


def find_coding(look: Look) -> Coding:
    """Return what the masks mean: as the classes of the dataset say, with what they leave out.

    A value that is no mixture of others, and that no class has, becomes a class of its own: nothing is ever ignored
    that classes.yaml does not ignore.
    """
    dataset = look.dataset
    taxonomy, encoding = dataset.taxonomy, _encoding(dataset)
    is_color = encoding.by_color
    rows = [row for _, row in look.inspected()]
    notes: list[str] = []
    if is_color:
        ids = {_code(color): k for k, color in enumerate(taxonomy.colors)}
        ids |= {_code(color): taxonomy.ignore_id for color in encoding.ignored}
        # The copy holds numbers, in the order of the classes.
        taxonomy = replace(taxonomy, values=(), ignored=(taxonomy.ignore_id,) if encoding.ignored else ())
    else:
        taxonomy, lines = _with_values_in_order(taxonomy, rows)
        notes += lines
        ids = {value: k for k, value in enumerate(taxonomy.values)}
        ids |= dict.fromkeys(taxonomy.ignored, taxonomy.ignore_id)
    coding = Coding(taxonomy, ids, is_color, notes=tuple(notes))
    if not is_color:
        coding = replace(coding, thin=tuple(thin_classes(lossy_values(rows), sorted(coding.ids))))
    coding = _with_new_classes(coding, rows)
    return coding if is_color else _with_aliases(coding, rows)


def lossy_values(rows: Sequence[Inspected]) -> MaskValues:
    """Return what all lossy masks hold together."""
    found = MaskValues()
    for row in rows:
        if row.values is not None and row.values.lossy:
            found.add(row.values)
    return found


def _encoding(dataset: Dataset) -> Any:
    return next(iter(dataset.splits.values())).encoding


def _code(color: Sequence[int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _with_values_in_order(taxonomy: Taxonomy, rows: Sequence[Inspected]) -> tuple[Taxonomy, list[str]]:
    """Return the taxonomy with the values that the masks hold, if they are as many as there are classes but others.

    Three classes without values, and masks of 0, 128 and 255: the values are those of the classes, in their order. 255
    would otherwise be ignored, as it is by default.
    """
    seen = {taxonomy.values[id_] for row in rows for id_ in row.pixels if id_ != taxonomy.ignore_id}
    if len(taxonomy.ignored) == 1 and any(taxonomy.ignore_id in row.pixels for row in rows):
        seen.add(taxonomy.ignored[0])
    exact = [row.values for row in rows if row.values is not None and not row.values.lossy]
    for values in exact:
        seen |= set(values.pixels)
    is_unknown = bool(seen - {*taxonomy.values, *taxonomy.ignored})
    is_pair = taxonomy.num_classes == 2 and 255 in seen and max(taxonomy.values) not in seen
    if len(seen) != taxonomy.num_classes or not (is_unknown or is_pair) or any(values.colors for values in exact):
        return taxonomy, []
    order = sorted(range(taxonomy.num_classes), key=lambda k: taxonomy.values[k])
    values_of = dict(zip(order, sorted(seen), strict=True))
    moved = tuple(values_of[k] for k in range(taxonomy.num_classes))
    pairs = ", ".join(f"{value} = {name}" for value, name in zip(moved, taxonomy.names, strict=True))
    ignored = tuple(value for value in taxonomy.ignored if value not in moved)
    return replace(taxonomy, values=moved, ignored=ignored), [f"as many values as classes, in their order: {pairs}"]


def _with_new_classes(coding: Coding, rows: Sequence[Inspected]) -> Coding:
    """Return the coding with a class for each value that exact masks hold, that is no mixture and no class."""
    found = MaskValues()
    for row in rows:
        if row.values is not None and not row.values.lossy and bool(row.values.colors) <= coding.is_color:
            found.add(row.values)
    counts = found.by_color() if coding.is_color else found.pixels
    classes, _ = classes_and_mixtures(found)
    new = [value for value in classes if value not in coding.ids and value in counts]
    if not new:
        return coding
    taxonomy = coding.taxonomy
    names = tuple(f"class{value:06x}" if coding.is_color else f"class{value}" for value in new)
    count = taxonomy.num_classes
    colors = tuple(
        (v >> 16, v >> 8 & 255, v & 255) if coding.is_color else voc_color(count + k) for k, v in enumerate(new)
    )
    values = tuple(range(count, count + len(new))) if coding.is_color else tuple(new)
    grown = Taxonomy(
        taxonomy.names + names, taxonomy.colors + colors, taxonomy.values + values, ignored=taxonomy.ignored
    )
    ids = {code: grown.ignore_id if id_ == taxonomy.ignore_id else id_ for code, id_ in coding.ids.items()}
    ids |= {value: count + k for k, value in enumerate(new)}
    line = f"values that classes.yaml does not name became classes: {', '.join(names)}"
    return replace(coding, taxonomy=grown, ids=ids, new=tuple(new), notes=(*coding.notes, line))


def _with_aliases(coding: Coding, rows: Sequence[Inspected]) -> Coding:
    """Return the coding with 255 as the object in 0/255 masks that stand among masks of 0 and 1."""
    taxonomy = coding.taxonomy
    if taxonomy.values == (0, 1, 255) and taxonomy.names == ("class0", "class1", "class255"):
        both = [row for row in rows if {1, 2} <= row.pixels.keys()]
        if not both:
            line = "no mask holds both 1 and 255: they are one class"
            merged = Taxonomy(("background", "foreground"), values=(0, 1), ignored=())
            return Coding(merged, {0: 0, 1: 1, 255: 1}, is_color=False, notes=(*coding.notes, line))
    if taxonomy.num_classes == 2 and 255 in taxonomy.ignored:
        object_id = 1 - taxonomy.values.index(min(taxonomy.values))
        odd = [row for row in rows if taxonomy.ignore_id in row.pixels and object_id not in row.pixels]
        if odd and any(object_id in row.pixels for row in rows):
            line = f"{len(odd)} masks of 0 and 255: 255 is {taxonomy.names[object_id]!r} there"
            aliases = {str(row.item.mask): {255: object_id} for row in odd}
            return replace(coding, aliases=aliases, notes=(*coding.notes, line))
    return coding
