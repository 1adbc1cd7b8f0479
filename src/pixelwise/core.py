"""The whole vocabulary. Every other file speaks in these types.

Shape letters, used in all docstrings:
    B batch   C image channels   K classes   H, W height and width of the image   h, w of a coarse map
Sizes are always (height, width). Images are RGB uint8, masks are class ids or the taxonomy's `ignore_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, InputError, MaskError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MAX_CLASSES = 65535


def voc_color(label: int) -> tuple[int, int, int]:
    """RGB of a label: its bits dealt out to red, green and blue in turn, the lowest bits to the highest places.

    Source: VOC devkit, VOClabelcolormap.
    """
    red = green = blue = 0
    for place in range(7, -1, -1):
        red |= (label & 1) << place
        green |= (label >> 1 & 1) << place
        blue |= (label >> 2 & 1) << place
        label >>= 3
    return red, green, blue


class Window(NamedTuple):
    """A rectangle of pixels, half open: rows top..bottom-1, columns left..right-1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Taxonomy:
    """What the numbers of a mask mean: the one place that knows ids, names, colours and what is left out.

    names     K class names; the position is the class id
    colors    K RGB triples, 0..255
    values    K numbers: `values[k]` is what class k is written as in mask files
    ignored   further file values, left out of loss and score (void, border, unlabelled)
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    values: tuple[int, ...] = ()
    ignored: tuple[int, ...] = (255,)

    def __post_init__(self) -> None:
        count = len(self.names)
        set_field = object.__setattr__
        set_field(self, "names", tuple(str(name) for name in self.names))
        set_field(self, "colors", tuple(_triple(c) for c in self.colors) or tuple(voc_color(k) for k in range(count)))
        set_field(self, "values", tuple(index(v) for v in self.values) or tuple(range(count)))
        # A class that is written as 255 takes the number away from the default ignore value.
        ignored = tuple(index(v) for v in self.ignored)
        if ignored == (255,) and 255 in self.values:
            ignored = ()
        set_field(self, "ignored", ignored)
        self._refuse_what_cannot_be_right(count)

    def _refuse_what_cannot_be_right(self, count: int) -> None:
        if not 1 <= count <= MAX_CLASSES:
            raise ConfigError("classes", f"got {count}, allowed are 1 to {MAX_CLASSES}")
        for word, items in (("name", self.names), ("value", self.values)):
            twice = (
                sorted({str(item) for item in items if items.count(item) > 1}) if len(set(items)) != len(items) else []
            )
            if twice:
                raise ConfigError(
                    "classes", f"{word} {', '.join(twice[:5])} is used twice", f"give each class its own {word}"
                )
        if len(self.colors) != count or len(self.values) != count:
            raise ConfigError(
                "classes", f"{count} names, {len(self.colors)} colors, {len(self.values)} values", "give one each"
            )
        both = sorted(set(self.values) & set(self.ignored))
        if both:
            raise ConfigError(
                "classes", f"value {both[0]} is a class and ignored at once", "remove it from one of the two"
            )
        if min((*self.values, *self.ignored), default=0) < 0 or max((*self.values, *self.ignored), default=0) > 65535:
            raise ConfigError("classes", "values must lie in 0..65535, as mask files hold no others")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.names)

    @property
    def ignore_id(self) -> int:
        """The id that stands in masks for "not to be learned, not to be scored"; never a class."""
        return 255 if self.num_classes <= 255 else 65535

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The integer type of masks."""
        return np.uint8 if self.ignore_id == 255 else np.uint16

    @cached_property
    def _lookup(self) -> NDArray[np.int32]:
        table = np.full(65536, -1, np.int32)
        table[list(self.ignored)] = self.ignore_id
        table[list(self.values)] = np.arange(self.num_classes)
        return table

    def encode(self, raw: NDArray[Any], source: object = "mask") -> NDArray[Any]:
        """File values (H, W) uint8 or uint16 -> class ids (H, W); ignored values become `ignore_id`.

        Raises MaskError that names `source`, the unknown value, how many pixels have it and the first of them; also when
        the array is not two-dimensional or of another type.
        """
        if raw.ndim != 2 or raw.dtype.kind != "u" or raw.dtype.itemsize > 2:
            shape = "x".join(map(str, raw.shape))
            raise MaskError(
                source, f"an array of {shape} {raw.dtype}", "a mask is height x width numbers, uint8 or uint16"
            )
        mask: NDArray[np.int32] = self._lookup[raw]
        if (mask < 0).any():
            raise self._unknown(raw, mask, source)
        return mask.astype(self.dtype)

    def _unknown(self, raw: NDArray[Any], mask: NDArray[np.int32], source: object) -> MaskError:
        values, counts = np.unique(raw[mask < 0], return_counts=True)
        row, column = np.argwhere(raw == values[0])[0]
        listed = ", ".join(f"{v} ({n} px)" for v, n in zip(values[:5], counts[:5], strict=True))
        known = ", ".join(str(v) for v in self.values[:12]) + (", ..." if self.num_classes > 12 else "")
        what = f"value {listed}, first at row {row}, column {column}, is none of the classes' values {known}"
        if set(values) == {255} and self.num_classes == 2:
            fix = "in a 0/255 mask 255 is a class: set `value: 255` for it in classes.yaml"
        else:
            fix = "add the value to a class, or to `ignore`, in classes.yaml"
        return MaskError(source, what, fix)

    def decode(self, mask: NDArray[Any], ignore_value: int | None = None) -> NDArray[Any]:
        """Class ids (H, W) -> the values that mask files hold; `ignore_id` becomes `ignore_value` or the first ignored one.

        The type is uint8 where no value of the taxonomy is above 255, else uint16. Raises MaskError when pixels are to be
        ignored and no file value stands for that.
        """
        if ignore_value is None and not self.ignored and (mask == self.ignore_id).any():
            what = "holds pixels of no class, and no file value stands for them"
            raise MaskError("mask", what, "add one to `ignore` in classes.yaml")
        fallback = (*self.ignored, self.ignore_id)[0] if ignore_value is None else ignore_value
        table = np.full(self.ignore_id + 1, fallback, np.uint16)
        table[: self.num_classes] = self.values
        raw: NDArray[np.uint16] = table[mask]
        return raw.astype(np.uint8) if max(*self.values, *self.ignored, ignore_value or 0) <= 255 else raw

    def palette(self, by: Literal["id", "value"] = "id") -> NDArray[np.uint8]:
        """Return the class colours as a table (n, 3) RGB, indexed by class id or by the values of mask files.

        by="id"     n = ignore_id + 1, so that `palette()[mask]` colours a mask; the ignore id gets `ignore_color`
        by="value"  n = 256, the palette of a mask file; values above 255 do not fit a palette and are left out
        Rows of unused numbers are black.
        """
        if by == "value":
            table = np.zeros((256, 3), np.uint8)
            for value, color in zip(self.values, self.colors, strict=True):
                if value < 256:
                    table[value] = color
            return table
        table = np.zeros((self.ignore_id + 1, 3), np.uint8)
        table[: self.num_classes] = self.colors
        table[self.ignore_id] = self.ignore_color
        return table

    @property
    def ignore_color(self) -> tuple[int, int, int]:
        """RGB of what is not scored: black, or where a class is black the ignore id's in the VOC devkit's palette, a cream."""
        return voc_color(self.ignore_id) if (0, 0, 0) in self.colors else (0, 0, 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON and YAML form; `from_dict` reads it back."""
        rows = zip(self.names, self.colors, self.values, strict=True)
        return {
            "classes": [{"name": n, "color": list(c), "value": v} for n, c, v in rows],
            "ignore": list(self.ignored),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "classes") -> Taxonomy:
        """Read `{classes: [name | {name, color, value}], ignore: [value]}`. Raises ConfigError naming `source`."""
        unknown = set(data) - {"classes", "ignore"}
        rows = data.get("classes")
        if unknown or not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            what = f"unknown key {sorted(map(str, unknown))[0]!r}" if unknown else "holds no list `classes`"
            example = "write `classes: [{name: road, color: [128, 64, 128], value: 0}, ...]` and `ignore: [255]`"
            raise ConfigError(source, what, example)
        names, colors, values = zip(*(_class_row(row, k, source) for k, row in enumerate(rows)), strict=True)
        try:
            return cls(names, colors, values, _ignored_values(data.get("ignore", [255])))
        except ConfigError as error:
            raise ConfigError(source, error.what, error.fix) from None


def _class_row(row: Any, k: int, source: object) -> tuple[str, tuple[int, int, int], int]:
    entry = {"name": row} if isinstance(row, str) else row
    if (
        not isinstance(entry, Mapping)
        or not isinstance(entry.get("name"), str)
        or set(entry) - {"name", "color", "value"}
    ):
        fix = "write a name, or {name: ..., color: [r, g, b], value: ...}; quote a name that YAML takes for a number or a yes/no"
        raise ConfigError(source, f"class {k} is {row!r}", fix)
    try:
        return entry["name"], _triple(entry.get("color", voc_color(k))), _whole(entry.get("value", k))
    except (TypeError, ConfigError):
        raise ConfigError(
            source, f"class {k} is {row!r}", "color is [r, g, b] of 0..255 and value a whole number"
        ) from None


def _ignored_values(ignore: Any) -> tuple[int, ...]:
    """One number, a list of them, or nothing."""
    listed = ignore if isinstance(ignore, list | tuple) else [] if ignore is None else [ignore]
    try:
        return tuple(_whole(value) for value in listed)
    except TypeError:
        raise ConfigError(
            "classes", f"ignore is {ignore!r}", "write a list of whole numbers, `ignore: [255]`"
        ) from None


def _whole(number: Any) -> int:
    """The number as an int; TypeError for what would have to be cut or read: 1.5, "5", yes."""
    if isinstance(number, bool | np.bool_):
        raise TypeError
    return index(number)


def _triple(color: Any) -> tuple[int, int, int]:
    try:
        red, green, blue = (_whole(c) for c in color)
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= c <= 255 for c in (red, green, blue)):
        raise ConfigError("classes", f"color {color!r} is not three whole numbers of 0..255")
    return red, green, blue


@dataclass
class Sample:
    """One labelled image: key (unique in its split), image (H, W, C) uint8 RGB, mask (H, W) class ids or None."""

    key: str
    image: NDArray[np.uint8]
    mask: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.shape != self.image.shape[:2]:
            image, mask = ("x".join(map(str, size)) for size in (self.image.shape[:2], self.mask.shape))
            got = f"image is {image}, mask {mask} (height x width)"
            raise MaskError(self.key, got, "export both at one size; masks are never resized silently")


class Batch(NamedTuple):
    """images (B, C, H, W) uint8, masks (B, H, W) int64 class ids with the taxonomy's ignore id, keys of the samples."""

    images: Tensor
    masks: Tensor
    keys: tuple[str, ...]


class Output(NamedTuple):
    """logits (B, K, H, W) at input size; aux: further logits for the loss, empty in eval. One type in both modes."""

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


class Upsample(Protocol):
    """A fixed separable interpolation; each output pixel depends on at most two inputs per axis."""

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits (B, K, h, w) to (B, K, H, W), where size is (H, W)."""
        ...

    def interpolation_table(self, in_size: int, out_size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return, for one axis, the two source indices (out_size, 2) of each output pixel and their weights (out_size, 2)."""
        ...


class LowResLogits(NamedTuple):
    """Low-resolution logits and the operator that upsamples them to the image size.

    logits    (B, K, h, w), before the network's last upsampling
    upsample  the last upsampling
    aux       further logits for the training loss, (B, K, h', w') each; empty in eval mode
    """

    logits: Tensor
    upsample: Upsample
    aux: tuple[Tensor, ...] = ()

    def upsample_to(self, size: tuple[int, int]) -> Output:
        """Return logits and auxiliary logits at the image size (H, W)."""
        return Output(self.upsample(self.logits, size), tuple(self.upsample(aux, size) for aux in self.aux))


@dataclass
class Prediction:
    """The labels of one image.

    mask (H, W) class ids; taxonomy; image (H, W, 3) uint8 RGB that was labelled; probs (K, H, W) float32 or None.
    """

    mask: NDArray[Any]
    taxonomy: Taxonomy
    image: NDArray[np.uint8]
    probs: NDArray[np.float32] | None = field(default=None, repr=False)

    def class_fractions(self) -> dict[str, float]:
        """Class name -> share of the image's pixels, of the classes that occur, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=self.taxonomy.num_classes)[: self.taxonomy.num_classes]
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        return {self.taxonomy.names[k]: float(counts[k]) / self.mask.size for k in order}

    def colorize(self) -> Image:
        """The mask in the classes' colours, an RGB image."""
        from PIL import Image

        return Image.fromarray(self.taxonomy.palette()[self.mask])

    def overlay(self, opacity: float = 0.5) -> Image:
        """The image with the colours laid over it; opacity 0 is the image, 1 the colours."""
        from PIL import Image

        if not 0 <= opacity <= 1:
            raise InputError("opacity", f"got {opacity}, allowed are 0 to 1")
        colors = self.taxonomy.palette()[self.mask].astype(np.float32)
        mixed = self.image.astype(np.float32) * (1 - opacity) + colors * opacity
        return Image.fromarray(np.rint(mixed).astype(np.uint8))
