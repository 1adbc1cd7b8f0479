"""The classes of a dataset: names, colors, and the values of mask files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .colors import figure_colors, is_background, voc_color
from .errors import ConfigError, MaskError, listed, shown, size_text

# Mask files have at most 16 bits; the highest number is the ignore id.
MAX_CLASSES = 65535
# Masks of several labels per pixel are bytes, and 255 is the ignore id.
_MAX_MULTILABEL = 255
# The ignored values of a taxonomy that names none. Compared by identity: an explicit (255,) is a wish.
_DEFAULT_IGNORED = (255,)
# A border covers less of a mask. A value that covers more is an object, and never proposed as `ignore`.
MAX_BORDER_FRACTION = 0.05
# The file of this name, beside those of the classes, marks the pixels that count for no class.
IGNORE_FILE = "ignore"

Kind = Literal["exclusive", "multilabel"]
"""Whether a pixel has one class, or any number of them."""


@dataclass(frozen=True)
class Taxonomy:
    """The classes of a dataset: the one place that knows ids, names, colors, file values and ignored values.

    names     K class names; the position is the class id
    colors    K RGB triples, 0..255; the VOC palette if left out
    values    K numbers: mask files hold `values[k]` for class k; 0..K-1 if left out
    ignored   further file values, excluded from loss and scores (void, border, unlabeled); 255 if left out, unless a
              class has that value
    kind      "multilabel" if a pixel may have any number of classes. Each class then has mask files of its own, of 0
              and 1 or of 0 and 255; `ignored` are further values of these files, none if left out

    Raises ConfigError for repeated names or values, unequal counts, and numbers out of range.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    values: tuple[int, ...] = ()
    ignored: tuple[int, ...] = _DEFAULT_IGNORED
    kind: Kind = "exclusive"

    def __post_init__(self) -> None:
        count = len(self.names)
        names = tuple(str(name) for name in self.names)
        colors = tuple(_rgb(color) for color in self.colors) or tuple(voc_color(k) for k in range(count))
        values = tuple(index(value) for value in self.values) or tuple(range(count))
        ignored = tuple(index(value) for value in self.ignored)
        if self.ignored is _DEFAULT_IGNORED and (255 in values or self.kind == "multilabel"):
            # 255 is the value of a class, so it cannot be the default ignore value too.
            ignored = ()
        for name, value in {"names": names, "colors": colors, "values": values, "ignored": ignored}.items():
            object.__setattr__(self, name, value)

        if not 1 <= count <= MAX_CLASSES:
            fix = "name the classes in `classes`" if not count else "merge classes"
            raise ConfigError("classes", f"expected 1 to {MAX_CLASSES} classes, got {count}", fix)
        if blank := [k for k, name in enumerate(names) if not name.strip()]:
            raise ConfigError("classes", f"class {blank[0]} has the name {names[blank[0]]!r}", "write a word")
        for word, items in (("name", names), ("value", values)):
            if len(set(items)) < len(items):
                repeated = sorted({str(item) for item in items if items.count(item) > 1})
                raise ConfigError("classes", f"repeated {word}: {listed(repeated)}", f"give each class its own {word}")
        if len(colors) != count or len(values) != count:
            what = f"got {count} names, {len(colors)} colors, {len(values)} values"
            raise ConfigError("classes", what, "give one of each per class")
        if self.kind not in get_args(Kind):
            what = f"expected `kind: exclusive` or `kind: multilabel`, got {shown(self.kind)}"
            raise ConfigError("classes", what, "leave it out where a pixel has one class")
        if self.multilabel:
            self._check_multilabel(values, ignored)
        elif both := sorted(set(values) & set(ignored)):
            raise ConfigError(
                "classes", f"value {both[0]} is both a class and ignored", "remove it from one of the two"
            )
        if wrong := [value for value in (*values, *ignored) if not 0 <= value <= 65535]:
            what = f"values must be in 0..65535, the range of a 16-bit mask file, got {listed(wrong)}"
            raise ConfigError("classes", what, "number the classes from 0, in the masks and in `value` and `ignore`")

    def _check_multilabel(self, values: tuple[int, ...], ignored: tuple[int, ...]) -> None:
        """Raise ConfigError for what a taxonomy with several labels per pixel cannot have."""
        if values != tuple(range(len(values))):
            what = "with `kind: multilabel` a class has no value: its masks hold 0 and 1, or 0 and 255"
            raise ConfigError("classes", what, "leave out `value`")
        if len(values) > _MAX_MULTILABEL:
            what = f"expected at most {_MAX_MULTILABEL} classes with `kind: multilabel`, got {len(values)}"
            raise ConfigError("classes", what, "merge classes")
        if 0 in ignored or {1, 255} <= set(ignored):
            what = f"with `kind: multilabel` 0 is no label, and 1 or 255 is one, got `ignore` {listed(ignored)}"
            raise ConfigError("classes", what, "ignore another value, such as 128")
        if IGNORE_FILE in map(str.casefold, self.file_names):
            what = f"a class cannot have the name {IGNORE_FILE!r}: it is that of the file of ignored pixels"
            raise ConfigError("classes", what, "name the class differently")

    @property
    def multilabel(self) -> bool:
        """Whether a pixel may have several labels."""
        return self.kind == "multilabel"

    def require_one_label(self, subject: object) -> None:
        """Raise ConfigError naming `subject`, which works on one label per pixel, if a pixel may have several."""
        if self.multilabel:
            what = "works on one label per pixel, but the classes have `kind: multilabel`"
            raise ConfigError(subject, what, "leave it out")

    @property
    def file_names(self) -> tuple[str, ...]:
        """The name of each class as a part of a file name; the class id tells equal names apart."""
        stems = [safe_name(name) for name in self.names]
        count = Counter(map(str.casefold, stems))
        return tuple(f"{stem}_{k}" if count[stem.casefold()] > 1 else stem for k, stem in enumerate(stems))

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.names)

    @property
    def ignore_id(self) -> int:
        """The id of pixels that are neither trained on nor scored; never a class."""
        return 255 if self.num_classes <= 255 else 65535

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The integer type of masks of ids."""
        return np.uint8 if self.ignore_id == 255 else np.uint16

    @cached_property
    def _id_of_value(self) -> NDArray[np.int32]:
        """(65536,) class id of each file value; -1 where the value is unknown."""
        table = np.full(65536, -1, np.int32)
        table[list(self.ignored)] = self.ignore_id
        table[list(self.values)] = np.arange(self.num_classes)
        return table

    def encode(self, raw: NDArray[Any], source: object = "mask") -> NDArray[Any]:
        """Convert file values (H, W) uint8 or uint16 to class ids (H, W); ignored values become `ignore_id`.

        Raises MaskError naming `source` for an array of another type or shape, and for unknown values, with their pixel
        counts and the position of the first.
        """
        if self.multilabel:
            what = "is one mask of class values, but the classes have `kind: multilabel`"
            raise MaskError(source, what, "give a mask per class, such as KEY/CLASS.png")
        if raw.ndim != 2 or raw.dtype.kind != "u" or raw.dtype.itemsize > 2:
            what = f"expected a mask (height, width) of uint8 or uint16, got {size_text(raw.shape)} {raw.dtype}"
            raise MaskError(source, what, "give the values of one channel, as the file holds them")
        if raw.dtype == np.uint8 and self.num_classes < 255 and raw.size:
            # The same as below, ten times as fast: a lookup of bytes. Unknown values become an id that no class has.
            import cv2

            ids = self._id_of_value[:256]
            encoded: NDArray[Any] = cv2.LUT(raw, np.where(ids < 0, self.num_classes, ids).astype(np.uint8))
            if not (encoded == self.num_classes).any():
                return encoded
        mask: NDArray[np.int32] = self._id_of_value[raw]
        unknown = mask < 0
        if not unknown.any():
            return mask.astype(self.dtype)
        values, counts = np.unique(raw[unknown], return_counts=True)
        row, column = np.argwhere(raw == values[0])[0]
        found = listed(f"{value} ({count} px)" for value, count in zip(values, counts, strict=True))
        word = "value" if len(values) == 1 else "values"
        what = (
            f"unknown mask {word} {found}, first at row {row}, column {column}; known values: {listed(self.values, 12)}"
        )
        if set(values) == {255} and self.num_classes == 2:
            fix = "in a 0/255 mask 255 is a class: set `value: 255` for it in classes.yaml"
        elif counts.max() > MAX_BORDER_FRACTION * raw.size:
            fix = "give the value to a class in classes.yaml, or correct the mask"
        else:
            fix = "add the value to a class, or to `ignore`, in classes.yaml"
        raise MaskError(source, what, fix)

    def counts_of_ids(self, counts: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the pixels of each id, (ignore_id + 1,), of the pixels of each file value; None for an unknown value.

        counts  (N,), of the values 0 to N - 1
        """
        values = np.flatnonzero(counts)
        ids = self._id_of_value[values]
        if (ids < 0).any():
            return None
        return np.bincount(ids, counts[values], minlength=self.ignore_id + 1).astype(np.int64)

    def encode_class(self, raw: NDArray[Any], source: object = "mask") -> NDArray[np.uint8]:
        """Convert the mask file of one class, (H, W) or of several equal channels, to 1, 0 and `ignore_id`.

        It is for `kind: multilabel`. Raises MaskError naming `source` for other values than 0 and 1, or 0 and 255, and
        the ignored ones.
        """
        if raw.ndim == 3 and (raw == raw[..., :1]).all():
            raw = raw[..., 0]
        if raw.ndim != 2 or raw.dtype.kind not in "ub" or raw.dtype.itemsize > 2:
            what = f"expected a mask (height, width) of 0 and 1, or 0 and 255, got {size_text(raw.shape)} {raw.dtype}"
            raise MaskError(source, what, "save the mask of one class as a gray image")
        raw = raw.view(np.uint8) if raw.dtype.kind == "b" else raw
        highest = int(raw.max(initial=0))
        label: NDArray[np.bool_] = np.asarray(raw == max(highest, 1))
        if highest in {0, 1, 255} - {*self.ignored} and np.count_nonzero(raw) == np.count_nonzero(label):
            # Two values, as nearly always: no table is needed.
            return label.view(np.uint8)
        counts = np.bincount(raw.ravel())
        values = {int(value) for value in np.flatnonzero(counts)} - {0, *self.ignored}
        if len(values) > 1 or not values <= {1, 255}:
            found = listed(f"{value} ({counts[value]} px)" for value in sorted(values))
            what = f"expected a mask of 0 and 1, or of 0 and 255, got also {found}"
            fix = "save it without antialiasing, never as JPEG; a value of unknown pixels goes to `ignore`"
            raise MaskError(source, what, fix)
        table = np.zeros(len(counts), np.uint8)
        table[list(values)] = 1
        table[[value for value in self.ignored if value < len(table)]] = self.ignore_id
        encoded: NDArray[np.uint8] = table[raw]
        return encoded

    def decode(self, mask: NDArray[Any], ignore_value: int | None = None) -> NDArray[Any]:
        """Convert class ids (H, W) to file values; `ignore_id` becomes `ignore_value`, or the first ignored value.

        The result is uint8 if all values of the taxonomy fit, else uint16. Raises MaskError if the mask has ignored
        pixels and there is no file value for them.
        """
        if ignore_value is None and not self.ignored and (mask == self.ignore_id).any():
            what = "has ignored pixels, but the taxonomy has no file value for them"
            raise MaskError("mask", what, "add one to `ignore` in classes.yaml")
        fallback = (*self.ignored, self.ignore_id)[0] if ignore_value is None else ignore_value
        table = np.full(self.ignore_id + 1, fallback, np.uint16)
        table[: self.num_classes] = self.values
        raw: NDArray[np.uint16] = table[mask]
        return raw.astype(np.uint8) if max(*self.values, *self.ignored, ignore_value or 0) <= 255 else raw

    def palette(self, by: Literal["id", "value"] = "id") -> NDArray[np.uint8]:
        """Return the RGB colors (N, 3) indexed by class id, or by file value; unused rows are black.

        N is 256, or 65536 for ids or values that need 16 bits.
        """
        by_value = by == "value"
        classes = list(self.values) if by_value else list(range(self.num_classes))
        ignored = list(self.ignored) if by_value else [self.ignore_id]
        table = np.zeros((256 if max([*classes, *ignored]) <= 255 else 65536, 3), np.uint8)
        table[ignored] = self.ignore_color
        table[classes] = self.colors
        return table

    @property
    def ignore_color(self) -> tuple[int, int, int]:
        """RGB of ignored pixels: black; if a class is black, the VOC palette's color of the ignore id (255: cream)."""
        return voc_color(self.ignore_id) if (0, 0, 0) in self.colors else (0, 0, 0)

    @property
    def background(self) -> tuple[int, ...]:
        """The ids of classes that stand for the rest of the image, by their names; overlays leave them clear."""
        return tuple(k for k, name in enumerate(self.names) if is_background(name))

    def for_figures(self) -> Taxonomy:
        """Return the classes in colors that can be seen on a photo and distinguished, also by the color-blind."""
        return replace(self, colors=figure_colors(self.names, self.colors))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON and YAML form, which `from_dict` reads back."""
        rows = zip(self.names, self.colors, self.values, strict=True)
        return {
            "classes": [{"name": n, "color": list(c), "value": v} for n, c, v in rows],
            "ignore": list(self.ignored),
            # Left out where a pixel has one class, as before there was a choice.
            **({"kind": self.kind} if self.multilabel else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "classes") -> Taxonomy:
        """Read `{classes: [name | {name, color, value}], ignore: [value], kind: ...}`.

        Raises ConfigError naming `source`.
        """
        unknown = set(data) - {"classes", "ignore", "kind"}
        rows = data.get("classes")
        if unknown or not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            what = f"unknown key {shown(sorted(map(str, unknown))[0])}" if unknown else "has no list `classes`"
            example = "write `classes: [{name: road, color: [128, 64, 128], value: 0}, ...]` and `ignore: [255]`"
            raise ConfigError(source, what, example)
        names, colors, values = zip(*(_class_row(row, k, source) for k, row in enumerate(rows)), strict=True)
        ignore = data.get("ignore")
        ignored = ignore if isinstance(ignore, list | tuple) else [] if ignore is None else [ignore]
        try:
            explicit = tuple(_integer(value) for value in ignored)
            ignored_values = explicit if "ignore" in data else _DEFAULT_IGNORED
            return cls(names, colors, values, ignored_values, data.get("kind", "exclusive"))
        except TypeError:
            fix = "write a list of integers, `ignore: [255]`"
            raise ConfigError(source, f"`ignore` must be integers, got {shown(ignore)}", fix) from None
        except ConfigError as error:
            raise ConfigError(source, error.what, error.fix) from None


def safe_name(name: str) -> str:
    """Return a class name as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "class"


def _class_row(row: Any, k: int, source: object) -> tuple[str, tuple[int, int, int], int]:
    """Return name, color and file value of class k as written in classes.yaml."""
    entry = {"name": row} if isinstance(row, str) else row
    known = {"name", "color", "value"}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str) or set(entry) - known:
        fix = "write a name, or {name: ..., color: [r, g, b], value: ...}; put names that look like numbers in quotes"
        raise ConfigError(source, f"class {k}: expected a name, got {shown(row)}", fix)
    try:
        return entry["name"], _rgb(entry.get("color", voc_color(k))), _integer(entry.get("value", k))
    except (TypeError, ConfigError):
        what = f"class {k}: expected a color [r, g, b] of 0..255 and an integer value, got {shown(row)}"
        raise ConfigError(source, what, "write {name: road, color: [128, 64, 128], value: 0}") from None


def _integer(number: Any) -> int:
    """Return the number as an int; TypeError for 1.5, "5" and True, which would have to be converted."""
    if isinstance(number, bool | np.bool_):
        raise TypeError
    return index(number)


def _rgb(color: Any) -> tuple[int, int, int]:
    try:
        red, green, blue = (_integer(c) for c in color)
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= c <= 255 for c in (red, green, blue)):
        raise ConfigError(
            "classes", f"a color must be three integers of 0..255, got {shown(color)}", "write [128, 64, 128]"
        )
    return red, green, blue
