"""A dataset is named splits of items; an item is an image and, mostly, its mask; a sample is both, read and checked."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ..core import Sample, Taxonomy
from ..errors import DatasetError, MaskError
from ..images import read_image, read_mask
from ..registry import suggest

_SHOWN = 5


@dataclass(frozen=True)
class Item:
    """One image of a split: key (unique in the split), image file, mask file or None where there is no truth."""

    key: str
    image: Path
    mask: Path | None = None


@dataclass(frozen=True)
class MaskEncoding:
    """How mask files write classes: as numbers (`Taxonomy.values`), or as colours (`Taxonomy.colors`).

    by_color  True where a mask is an image in the classes' colours
    ignored   with by_color: further RGB colours, left out of loss and score
    """

    by_color: bool = False
    ignored: tuple[tuple[int, int, int], ...] = ()

    def encode(self, raw: NDArray[Any], taxonomy: Taxonomy, source: object) -> NDArray[Any]:
        """File values (H, W) or colours (H, W, 3) -> class ids (H, W) and `ignore_id`.

        Raises MaskError naming `source`, the unknown value or colour, its number of pixels and the first of them.
        """
        if self.by_color:
            return self._encode_colors(raw, taxonomy, source)
        if raw.ndim == 3:
            # Grey that was saved as RGB loses nothing when one channel is taken.
            if (raw != raw[..., :1]).any():
                raise MaskError(
                    source, "is a colour image, class numbers were expected", "write `masks: color` in classes.yaml"
                )
            raw = raw[..., 0]
        return taxonomy.encode(raw, source)

    def _encode_colors(self, raw: NDArray[Any], taxonomy: Taxonomy, source: object) -> NDArray[Any]:
        if raw.ndim == 2:
            if raw.dtype != np.uint8:
                raise MaskError(
                    source, "holds 16-bit numbers, colours were expected", "remove `masks: color` from classes.yaml"
                )
            raw = np.repeat(raw[..., None], 3, axis=2)
        colors = np.array([*taxonomy.colors, *self.ignored], np.int64)
        ids = np.array([*range(taxonomy.num_classes), *[taxonomy.ignore_id] * len(self.ignored)], taxonomy.dtype)
        codes, order = np.unique(pack_colors(colors), return_index=True)
        pixels = pack_colors(raw)
        place = np.minimum(np.searchsorted(codes, pixels), len(codes) - 1)
        unknown = codes[place] != pixels
        if unknown.any():
            raise _unknown_color(pixels, unknown, taxonomy, source)
        encoded: NDArray[Any] = ids[order][place]
        return encoded


def pack_colors(colors: NDArray[Any]) -> NDArray[np.int32]:
    """RGB (..., 3) -> one number a colour, which can be searched."""
    red, green, blue = (colors[..., k].astype(np.int32) for k in range(3))
    return red << 16 | green << 8 | blue


def _unknown_color(
    pixels: NDArray[np.int32], unknown: NDArray[np.bool_], taxonomy: Taxonomy, source: object
) -> MaskError:
    codes, counts = np.unique(pixels[unknown], return_counts=True)
    most = int(counts.argmax())
    row, column = np.argwhere(pixels == codes[most])[0]
    code = int(codes[most])
    color = [code >> 16, code >> 8 & 255, code & 255]
    others = f" and {len(codes) - 1} more colours" if len(codes) > 1 else ""
    known = f"is none of the {taxonomy.num_classes} classes' colours"
    what = f"colour {color} ({counts[most]} px){others}, first at row {row}, column {column}, {known}"
    if len(codes) > 50:
        return MaskError(source, what, "draw the mask without smoothing and never save it as JPEG")
    return MaskError(source, what, "add the colour to a class, or to `ignore_colors`, in classes.yaml")


class Split(Sequence[Sample]):
    """A named part of a dataset: `split[i]` reads image and mask i; nothing is kept in memory.

    name, items, taxonomy as given; code says how mask files write classes.
    """

    def __init__(self, name: str, items: Iterable[Item], taxonomy: Taxonomy, code: MaskEncoding | None = None) -> None:
        self.name = name
        self.items = tuple(items)
        self.taxonomy = taxonomy
        self.code = code or MaskEncoding()

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Split: ...
    def __getitem__(self, index: int | slice) -> Sample | Split:
        """Sample i, its mask as class ids, or a shorter split for a slice.

        Raises ImageError or MaskError that names the file.
        """
        if isinstance(index, slice):
            return Split(self.name, self.items[index], self.taxonomy, self.code)
        item = self.items[index]
        image = read_image(item.image)
        mask = self.read_labels(item)
        if mask is not None and mask.shape != image.shape[:2]:
            what = f"is {_size(mask)}, its image {item.image} is {_size(image)} (height x width)"
            raise MaskError(item.mask, what, "export both at one size; masks are never resized silently")
        return Sample(item.key, image, mask)

    def read_labels(self, item: Item) -> NDArray[Any] | None:
        """The item's mask (H, W) as class ids without reading the image; None where there is no mask.

        Raises ImageError or MaskError that names the file.
        """
        return None if item.mask is None else self.code.encode(read_mask(item.mask), self.taxonomy, item.mask)

    @property
    def has_masks(self) -> bool:
        """True when every image has its truth."""
        return all(item.mask is not None for item in self.items)


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"


@dataclass(frozen=True)
class Dataset:
    """Named splits over one taxonomy; name is that of the format, root the folder it was found in."""

    name: str
    root: Path
    taxonomy: Taxonomy
    splits: Mapping[str, Split] = field(repr=False)

    def split(self, name: str) -> Split:
        """The split of that name. Raises DatasetError listing the splits there are."""
        if name not in self.splits:
            raise DatasetError(
                self.root, f"has no split {name!r}, only {', '.join(self.splits)}", suggest(name, self.splits)
            )
        return self.splits[name]

    def problems(self) -> list[DatasetError]:
        """All that is wrong with the files' names and places, without opening any: one error a kind."""
        found = [
            self._without_splits(),
            *map(self._duplicate_keys, self.splits.values()),
            self._missing(),
            self._in_two_splits(),
        ]
        return [problem for problem in found if problem is not None]

    def check(self) -> Dataset:
        """The dataset itself. Raises one DatasetError that holds all problems."""
        problems = self.problems()
        if len(problems) == 1:
            raise problems[0]
        if problems:
            what = "; ".join(f"({n}) {problem.what}" for n, problem in enumerate(problems, 1))
            raise DatasetError(self.root, f"{len(problems)} problems: {what}", problems[0].fix)
        return self

    def _without_splits(self) -> DatasetError | None:
        empty = [name for name, split in self.splits.items() if not split.items]
        if not self.splits:
            return DatasetError(self.root, "has no splits", "make a `train` and a `val` part")
        return DatasetError(self.root, f"split {', '.join(empty)} is empty", "fill it or remove it") if empty else None

    def _duplicate_keys(self, split: Split) -> DatasetError | None:
        counts: dict[str, int] = {}
        for item in split.items:
            counts[item.key] = counts.get(item.key, 0) + 1
        twice = [key for key, count in counts.items() if count > 1]
        return (
            DatasetError(self.root, f"split {split.name} names {_some(twice)} twice", "keep one of each")
            if twice
            else None
        )

    def _missing(self) -> DatasetError | None:
        """Every file that a pair lacks; a named pipe or folder under a file's name counts as missing."""
        wanted: dict[Path, str] = {}
        pairs = {(item.image, item.mask): item for split in self.splits.values() for item in split.items}
        for item in pairs.values():
            for path, word in ((item.image, "image"), (item.mask, "mask")):
                if path is not None and not path.is_file():
                    wanted[path] = word
        if not wanted:
            return None
        words = [f"{_inside(path, self.root)} ({word})" for path, word in wanted.items()]
        what = f"{len(wanted)} of the files of {len(pairs)} pairs are missing: {_some(words)}"
        return DatasetError(self.root, what, "add the files, or take their partners out of the split")

    def _in_two_splits(self) -> DatasetError | None:
        """An image that is learned and scored makes every score a lie; an equal name of another image is harmless."""
        leaks = []
        for first, second in self._foreign_pairs():
            named = {item.key: item.image for item in second.items}
            both = sorted(
                item.key for item in first.items if item.key in named and _same_file(item.image, named[item.key])
            )
            if both:
                leaks.append(f"{first.name} and {second.name} share {_some(both)}")
        if not leaks:
            return None
        return DatasetError(self.root, "; ".join(leaks), "keep each image in one split")

    def _foreign_pairs(self) -> Iterator[tuple[Split, Split]]:
        """Pairs of splits that must not share images."""
        pairs = combinations(self.splits.values(), 2)
        return ((a, b) for a, b in pairs if _must_be_disjoint(a.name, b.name) or _must_be_disjoint(b.name, a.name))


def _must_be_disjoint(name: str, other: str) -> bool:
    """Whether `other` scores what `name` learns, or what `name` chooses.

    Lists may lie in one another: `trainaug` extends `train`, `trainval` and its kind hold `val`, `seg11valid` is a part of it.
    """
    if name.startswith("trainval") or name == "val":
        return other == "test"
    return name.startswith("train") and not other.startswith("train")


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, or two with the same bytes; a missing one is told elsewhere."""
    if not (one.is_file() and other.is_file()):
        return False
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)


def _inside(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _some(words: Sequence[str]) -> str:
    """The first few words, and how many there are."""
    if len(words) <= _SHOWN:
        return ", ".join(words)
    return ", ".join(words[:_SHOWN]) + f", ... ({len(words)} in all)"
