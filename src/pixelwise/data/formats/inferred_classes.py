"""Classes of a folder without classes.yaml, read from all of its masks.

Masks say which values or colors occur, not what they mean: classes are named by their value, in its order. What a
guess would spoil is a fault, with a classes.yaml to start from: values in between that antialiasing, JPEG or resizing
make, and more values than an annotator draws. A value is ignored in one case only: 255 that is the border between two
other classes wherever it occurs, as in VOC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ...core import Taxonomy
from ...errors import DatasetError, listed
from ..dataset import MaskEncoding
from ..mask_values import BORDER_SHARE, MAX_VALUES, MaskValues, classes_and_mixtures
from ..seen_masks import SeenMask, look_at_masks

_MIXED_FIX = (
    "export the masks without antialiasing, write a classes.yaml, or let `pixelwise check DATA --fix OUT` give each "
    "pixel the nearest class around it"
)


class InferredClasses(NamedTuple):
    """Classes and encoding that the masks of a dataset show, a line that says so, and why they may be wrong.

    fault  None if every value is a class; otherwise the error of a dataset that is opened with these classes
    seen   what was read, for `Dataset.seen`
    """

    taxonomy: Taxonomy
    encoding: MaskEncoding
    note: str
    fault: DatasetError | None = None
    seen: Mapping[Path, SeenMask] = MappingProxyType({})


def infer_classes(root: Path, masks: Sequence[Path]) -> InferredClasses:
    """Return the classes that the masks of a dataset show; every mask is read."""
    found, read = look_at_masks(masks)
    is_color = bool(found.colors)
    classes, mixed = classes_and_mixtures(found)
    values = sorted(found.counts())
    shown = listed(map(str, map(_rgb, values) if is_color else values), 16)
    seen = f"its {found.masks} masks contain the {'colors' if is_color else 'values'} {shown}"
    fault: DatasetError | None = None
    if not classes:
        fault = _refusal(root, f"{seen}, of which none is a class" if values else "and no mask could be read")
        return InferredClasses(Taxonomy(("background", "foreground")), MaskEncoding(), "", fault, read)
    if found.lossy and len(classes) > 1:
        # Each lossy mask is an error itself, and so are exact ones that hold anything else.
        fault = None
    elif len(values) > MAX_VALUES:
        what = f"{seen}: {len(values)} in all, which drawn classes do not have"
        fault = (
            _refusal(root, what) if len(classes) < 2 else DatasetError(root, f"has no classes.yaml; {what}", _MIXED_FIX)
        )
    elif mixed:
        some = listed(map(str, map(_rgb, mixed) if is_color else mixed), 2)
        what = f"{seen}; {some} occur only along edges, as antialiasing and resizing mix values"
        fault = DatasetError(root, f"has no classes.yaml; {what}", _MIXED_FIX)
    elif len(classes) < 2 and not is_color:
        fault = _refusal(root, f"{seen}: a single class")
    if is_color:
        names = tuple(f"class{k}" for k in range(len(classes)))
        taxonomy = Taxonomy(names, tuple(map(_rgb, classes)), ignored=())
        note = _note(root, found, taxonomy, map(list, taxonomy.colors))
        return InferredClasses(taxonomy, MaskEncoding(by_color=True), note, fault, read)
    is_border = classes == [*range(len(classes) - 1), 255] and found.in_border >= BORDER_SHARE * found.pixels[255]
    kept = classes[:-1] if is_border and len(classes) > 2 else classes
    is_pair = len(kept) == 2 and kept[0] == 0
    names = ("background", "foreground") if is_pair else tuple(f"class{value}" for value in kept)
    taxonomy = Taxonomy(names, values=tuple(kept), ignored=tuple(classes[len(kept) :]))
    note = _note(root, found, taxonomy, taxonomy.values)
    return InferredClasses(taxonomy, MaskEncoding(), note, fault, read)


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def _note(root: Path, found: MaskValues, taxonomy: Taxonomy, values: Iterable[object]) -> str:
    classes = ", ".join(f"{value} = {name}" for value, name in zip(values, taxonomy.names, strict=True))
    ignored = f"; {taxonomy.ignored[0]}, the border between them, is ignored" if taxonomy.ignored else ""
    inferred = f"classes inferred from {found.masks} masks: {classes}{ignored}"
    return f"{root}: has no classes.yaml; {inferred}; write classes.yaml to name them"


def _refusal(root: Path, what: str) -> DatasetError:
    proposal = "{classes: [background, name, ...]}; masks must contain one class per pixel, drawn without antialiasing"
    return DatasetError(root, f"has no classes.yaml; {what}", f"write classes.yaml as {proposal}")
