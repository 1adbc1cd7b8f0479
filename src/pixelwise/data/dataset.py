"""A dataset is a set of named splits; a split is a sequence of items; an item names an image and usually its mask."""

from __future__ import annotations

import filecmp
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ..core import MAX_BORDER_FRACTION, Sample, Taxonomy, size_text
from ..errors import ConfigError, DatasetError, MaskError, listed, shown
from ..images import RGB, PixelFormat, exif_orientation, file_kind, irregular_files, read_mask, read_pixels
from ..registry import suggest
from .class_masks import read_class_masks
from .mask_values import MaskValues, pack_colors
from .near_misses import near_misses
from .seen_masks import SeenMask
from .shapes.drawing import Drawing


@dataclass(frozen=True)
class Item:
    """One image of a split: key (unique in the split), image file, mask file or None if it is not labeled.

    group        what the image has in common with others (drive, patient), if the format says so; see `groups.py`
    drawing      draws the mask where `mask` is no image but the annotation file, which many items may share
    class_files  of several labels per pixel, (class id or ignore id, mask file) of each class that has one, else None;
                 `mask` is then the first of them, or their empty folder
    """

    key: str
    image: Path
    mask: Path | None = None
    group: str = ""
    drawing: Drawing | None = field(default=None, compare=False, repr=False)
    class_files: tuple[tuple[int, Path], ...] | None = None

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Every file that labels are read from."""
        if self.class_files is not None:
            return tuple(path for _, path in self.class_files)
        return () if self.mask is None else (self.mask,)


@dataclass(frozen=True, kw_only=True)
class MaskEncoding:
    """How mask files encode classes: by numbers (`Taxonomy.values`) or by colors (`Taxonomy.colors`).

    by_color  True if masks are images in the classes' colors
    ignored   further RGB colors that count neither in the loss nor in the score; only with `by_color`
    """

    by_color: bool = False
    ignored: tuple[tuple[int, int, int], ...] = ()

    def encode(self, raw: NDArray[Any], taxonomy: Taxonomy, source: object) -> NDArray[Any]:
        """Convert file values (H, W) or colors (H, W, 3) to class ids (H, W) and `ignore_id`.

        Raises MaskError naming `source`, the unknown value or color, its number of pixels and the position of the
        first.
        """
        if self.by_color:
            return self._encode_colors(raw, taxonomy, source)
        if raw.ndim == 3:
            # Gray that was saved as RGB has three equal channels.
            if (raw != raw[..., :1]).any():
                what = "expected class numbers, got a color image"
                raise MaskError(source, what, "write `masks: color` in classes.yaml")
            raw = raw[..., 0]
        return taxonomy.encode(raw, source)

    def count_ids(self, values: MaskValues, taxonomy: Taxonomy) -> NDArray[np.int64] | None:
        """Return the pixels of each id, (ignore_id + 1,), of a mask with counted values; None if one is unknown."""
        if not self.by_color:
            counts = np.bincount(list(values.pixels), list(values.pixels.values())).astype(np.int64)
            return None if values.colors else taxonomy.counts_of_ids(counts)
        codes = pack_colors(np.array([*taxonomy.colors, *self.ignored], np.int64)).tolist()
        ids = dict(zip(codes, [*range(taxonomy.num_classes), *[taxonomy.ignore_id] * len(self.ignored)], strict=True))
        # Of a file without colors, the palette was not looked at.
        if not values.colors or not values.colors.keys() <= ids.keys():
            return None
        totals = np.zeros(taxonomy.ignore_id + 1, np.int64)
        for code, count in values.colors.items():
            totals[ids[code]] += count
        return totals

    def _encode_colors(self, raw: NDArray[Any], taxonomy: Taxonomy, source: object) -> NDArray[Any]:
        if raw.ndim == 2:
            if raw.dtype != np.uint8:
                what = "expected colors, got 16-bit numbers"
                raise MaskError(source, what, "remove `masks: color` from classes.yaml")
            raw = np.repeat(raw[..., None], 3, axis=2)
        # Colors as integers, sorted, so that each pixel can be searched for.
        known = pack_colors(np.array([*taxonomy.colors, *self.ignored], np.int64))
        ids = np.array([*range(taxonomy.num_classes), *[taxonomy.ignore_id] * len(self.ignored)], taxonomy.dtype)
        known, order = np.unique(known, return_index=True)
        pixels = pack_colors(raw)
        index = np.minimum(np.searchsorted(known, pixels), len(known) - 1)
        is_unknown = known[index] != pixels
        if not is_unknown.any():
            encoded: NDArray[Any] = ids[order][index]
            return encoded
        codes, counts = np.unique(pixels[is_unknown], return_counts=True)
        most = int(counts.argmax())
        code = int(codes[most])
        row, column = np.argwhere(pixels == code)[0]
        others = f" and {len(codes) - 1} more" if len(codes) > 1 else ""
        what = (
            f"unknown color {[code >> 16, code >> 8 & 255, code & 255]} ({counts[most]} px){others}, "
            f"first at row {row}, column {column}; expected the colors of the {taxonomy.num_classes} classes"
        )
        if len(codes) > 50:
            # Many colors come from antialiasing or JPEG.
            fix = "draw the mask without antialiasing and never save it as JPEG"
        elif counts[most] > MAX_BORDER_FRACTION * pixels.size:
            fix = "give the color to a class in classes.yaml, or correct the mask"
        else:
            fix = "add the color to a class, or to `ignore_colors`, in classes.yaml"
        raise MaskError(source, what, fix)


def check_colors(taxonomy: Taxonomy, encoding: MaskEncoding, source: object) -> None:
    """Raise ConfigError if masks encode classes by color, and one color stands for two classes."""
    if encoding.by_color:
        for k, color in enumerate((*taxonomy.colors, *encoding.ignored)):
            first = taxonomy.colors.index(color) if color in taxonomy.colors else k
            if first < k:
                names = taxonomy.names
                other = repr(names[k]) if k < len(names) else "ignore_colors"
                what = (
                    f"masks are read by color, but {shown(names[first])} and {other} have the same color {list(color)}"
                )
                raise ConfigError(source, what, "give each class a color of its own")


@dataclass(frozen=True)
class SecondLabels:
    """Where the masks of a second label map lie, and what they mean: `folder` below `root`; see `second_labels.py`."""

    root: Path
    folder: str
    taxonomy: Taxonomy


class Split(Sequence[Sample]):
    """A named part of a dataset: `split[i]` reads image and mask number i; nothing is kept in memory.

    name      such as "train"
    items     one per image
    taxonomy  the classes
    encoding  how mask files encode them; by numbers if None
    pixels    what the numbers of the images mean
    second    where a second label map lies, for networks with two heads
    """

    def __init__(
        self,
        name: str,
        items: Iterable[Item],
        taxonomy: Taxonomy,
        encoding: MaskEncoding | None = None,
        *,
        pixels: PixelFormat = RGB,
        second: SecondLabels | None = None,
    ) -> None:
        self.name = name
        self.items = tuple(items)
        self.taxonomy = taxonomy
        self.encoding = encoding or MaskEncoding()
        self.pixels = pixels
        self.second = second
        check_colors(taxonomy, self.encoding, f"split {name}")

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Split: ...
    def __getitem__(self, index: int | slice) -> Sample | Split:
        """Read sample i, its mask as class ids; or return a shorter split for a slice.

        Raises ImageError or MaskError naming the file.
        """
        if isinstance(index, slice):
            return self.with_items(self.items[index])
        item = self.items[index]
        image = read_pixels(item.image, self.pixels)
        mask = self.read_labels(item)
        if mask is not None and mask.shape[-2:] != image.shape[:2]:
            raise size_error(item, image.shape[:2], mask.shape[-2:])
        return Sample(item.key, image, mask)

    def read_labels(self, item: Item) -> NDArray[Any] | None:
        """Read the mask (H, W) of an item as class ids, without the image; None if it has no mask.

        Of several labels per pixel, it is (K, H, W) uint8. Raises ImageError or MaskError naming the file.
        """
        if item.mask is None or item.drawing is not None:
            return item.drawing.draw(self.taxonomy) if item.drawing is not None else None
        if self.taxonomy.multilabel:
            return read_class_masks(item.mask, item.class_files, self.taxonomy, item.image)
        raw = read_mask(item.mask, by_color=self.encoding.by_color)
        return self.encoding.encode(raw, self.taxonomy, item.mask)

    def with_items(self, items: Iterable[Item], name: str = "") -> Split:
        """Return a split of other items, read in the same way."""
        name = name or self.name
        return Split(name, items, self.taxonomy, self.encoding, pixels=self.pixels, second=self.second)

    def with_pixels(self, pixels: PixelFormat) -> Split:
        """Return the split with images that are read in another format."""
        return Split(self.name, self.items, self.taxonomy, self.encoding, pixels=pixels, second=self.second)

    def with_second(self, second: SecondLabels) -> Split:
        """Return the split with a second label map."""
        return Split(self.name, self.items, self.taxonomy, self.encoding, pixels=self.pixels, second=second)

    @property
    def ignore_id(self) -> int:
        """The id of ignored pixels in the masks of its samples."""
        return self.taxonomy.ignore_id

    @property
    def has_masks(self) -> bool:
        """Whether every image is labeled."""
        return all(item.mask is not None for item in self.items)


@dataclass(frozen=True)
class Dataset:
    """Named splits with one taxonomy. It is not a torch Dataset: its splits are the sequences to index.

    name    of its format
    root    the folder that it was found in
    splits  by name
    notes   lines that a user should read: what was inferred and is written nowhere
    faults  errors that the format found while reading it; the splits are what could be read in spite of them
    seen    masks that were read to infer the classes
    """

    name: str
    root: Path
    taxonomy: Taxonomy
    splits: Mapping[str, Split] = field(repr=False)
    notes: tuple[str, ...] = ()
    faults: tuple[DatasetError, ...] = ()
    seen: Mapping[Path, SeenMask] = field(default_factory=dict, repr=False, compare=False)

    def split(self, name: str, *, option: str = "") -> Split:
        """Return the split of that name. Raises DatasetError listing the existing ones.

        option  the command-line option that named it, for the message
        """
        if name not in self.splits:
            what = f"unknown split {shown(name)}; existing splits: {', '.join(self.splits)}"
            fix = suggest(name, self.splits)
            if option and fix.startswith("choose"):
                fix = f"add images to a split {shown(name)}, or set {option} to one of {', '.join(self.splits)}"
            raise DatasetError(self.root, what, fix)
        return self.splits[name]

    def check(self) -> Dataset:
        """Return the dataset itself. Raises one DatasetError that lists all problems."""
        problems = self.problems()
        if len(problems) == 1:
            raise problems[0]
        if problems:
            what = "; ".join(f"({n}) {problem.what}" for n, problem in enumerate(problems, 1))
            raise DatasetError(self.root, f"{len(problems)} problems: {what}", problems[0].fix)
        return self

    def problems(self) -> list[DatasetError]:
        """Return all errors in the names and places of the files, one per kind, and those that the format found."""
        return [error for _, error in self.named_problems()]

    def named_problems(self) -> list[tuple[str, DatasetError]]:
        """Return the errors of `problems` with the name of their kind. No file is opened."""
        found = [("classes", fault) for fault in self.faults]
        empty = [name for name, split in self.splits.items() if not split.items]
        if not self.splits:
            found.append(("splits", DatasetError(self.root, "has no splits", "make a `train` and a `val` part")))
        elif empty:
            what = f"split {', '.join(empty)} is empty"
            found.append(("splits", DatasetError(self.root, what, "fill it or remove it")))
        for split in self.splits.values():
            repeated = [key for key, count in Counter(item.key for item in split.items).items() if count > 1]
            if repeated:
                same = [item for item in split.items if item.key == repeated[0]]
                files = dict.fromkeys(path for item in same for path in (item.image, *item.label_files))
                what = f"split {split.name} names {listed(repeated)} twice ({listed(map(self._place, files))})"
                found.append(("repeated names", DatasetError(self.root, what, "keep one of each")))
        missing = self.missing()
        if missing:
            pairs = {(item.image, *item.label_files) for split in self.splits.values() for item in split.items}
            names = (f"{self._place(path)} ({kind})" for path, kind in missing.items())
            what = f"{len(missing)} of the files of {len(pairs)} pairs are missing: {listed(names)}"
            fix = "add the files, or take their partners out of the split"
            near = dict.fromkeys(near_misses(missing).values())
            if near:
                what += "; similar names exist: " + listed((f"{self._place(p)} ({why})" for p, why in near), limit=2)
                fix = "rename or convert them: image and mask have one name"
            found.append(("missing files", DatasetError(self.root, what, fix)))
        leaks = []
        for first, second in combinations(self.splits.values(), 2):
            if must_be_disjoint(first.name, second.name) or must_be_disjoint(second.name, first.name):
                images = {item.key: item.image for item in second.items}
                shared = [i.key for i in first.items if i.key in images and is_same_file(i.image, images[i.key])]
                if shared:
                    leaks.append(f"{first.name} and {second.name} share {listed(sorted(shared))}")
        if leaks:
            found.append(("shared images", DatasetError(self.root, "; ".join(leaks), "keep each image in one split")))
        return found

    def missing(self) -> dict[Path, str]:
        """Return the files that no item finds, each with "image" or "mask"."""
        # Two splits may name one file. A named pipe or a folder in place of a file counts as missing.
        files: list[tuple[Path, str]] = []
        for split in self.splits.values():
            for item in split.items:
                files.append((item.image, "image"))
                files += [(path, "mask") for path in item.label_files]
        irregular = irregular_files(path for path, _ in files)
        return {path: kind for path, kind in files if path in irregular} if irregular else {}

    def _place(self, path: Path) -> str:
        """Return a path relative to the root, where it is below it, with the characters of an NFD name made visible."""
        text = str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)
        return text if unicodedata.is_normalized("NFC", text) else ascii(text)[1:-1]


def size_error(item: Item, image: tuple[int, ...], mask: tuple[int, ...]) -> MaskError:
    """Return the error for a mask of another size, which says so if a tag that turns one of the two explains it."""
    what = f"expected {size_text(image)}, the size of its image {item.image}, got {size_text(mask)} (height x width)"
    assert item.mask is not None, "a size is compared with a mask's"
    turned = [p for p in (item.image, item.mask)[: 1 if item.drawing else 2] if exif_orientation(p) > 4]
    if len(turned) == 1 and mask == image[::-1]:
        what += f"; the EXIF orientation {exif_orientation(turned[0])} of {turned[0].name} turns it by 90 degrees"
        return MaskError(item.mask, what, "label the image as viewers show it, or remove the tag from it")
    return MaskError(item.mask, what, "export both at one size; masks are never resized silently")


def must_be_disjoint(name: str, other: str) -> bool:
    """Return whether `other` is scored with what was learned or chosen on `name`: a shared image would spoil the score.

    Other lists may contain each other: `trainaug` extends `train`, `trainval` contains `val`, `seg11valid` is a part of
    it.
    """
    if name.startswith(("trainval", "hold-out")) or name == "val":
        return other == "test"
    return name.startswith("train") and not other.startswith("train")


def is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths name one file, or files with equal bytes; False if one is missing."""
    if file_kind(one) != "file" or file_kind(other) != "file":
        return False
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
