"""The types that every other file speaks in: taxonomy, sample, batch, logits, prediction.

Shape letters, used in all docstrings:

    B       images per batch
    C       channels of the input image; feature maps say `channels`
    K       classes
    H, W    height and width of the image, in pixels
    h, w    height and width of a feature map or of low-resolution logits
    N       anything else that is counted; the docstring says what

Conventions, unless a docstring says otherwise:

    sizes   (height, width); a point is (row, column), except for `transforms.XY`
    images  uint8 RGB, (H, W, C) in NumPy and (B, C, H, W) in torch
    masks   class ids 0..K-1, or the taxonomy's `ignore_id` for pixels that are neither trained on nor scored;
            mask *files* hold file values, which `Taxonomy.encode` turns into ids
    logits  (B, K, H, W), before the softmax
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .colors import figure_colors, is_background, voc_color
from .errors import ConfigError, InputError, MaskError, listed, shown

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# Mask files have at most 16 bits; the highest number is the ignore id.
MAX_CLASSES = 65535
# The ignored values of a taxonomy that names none. Compared by identity: an explicit (255,) is a wish.
_DEFAULT_IGNORED = (255,)
# A border covers less of a mask. A value that covers more is an object, and never proposed as `ignore`.
MAX_BORDER_FRACTION = 0.05


def size_text(size: Iterable[int]) -> str:
    """Return a size or shape as text: (480, 640) -> "480x640", height before width."""
    return "x".join(map(str, size))


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
    """The classes of a dataset: the one place that knows ids, names, colors, file values and ignored values.

    names     K class names; the position is the class id
    colors    K RGB triples, 0..255; the VOC palette if left out
    values    K numbers: mask files hold `values[k]` for class k; 0..K-1 if left out
    ignored   further file values, excluded from loss and scores (void, border, unlabeled); 255 if left out, unless a
              class has that value

    Raises ConfigError for repeated names or values, unequal counts, and numbers out of range.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] = ()
    values: tuple[int, ...] = ()
    ignored: tuple[int, ...] = _DEFAULT_IGNORED

    def __post_init__(self) -> None:
        count = len(self.names)
        names = tuple(str(name) for name in self.names)
        colors = tuple(_rgb(color) for color in self.colors) or tuple(voc_color(k) for k in range(count))
        values = tuple(index(value) for value in self.values) or tuple(range(count))
        ignored = tuple(index(value) for value in self.ignored)
        if self.ignored is _DEFAULT_IGNORED and 255 in values:
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
        if both := sorted(set(values) & set(ignored)):
            raise ConfigError(
                "classes", f"value {both[0]} is both a class and ignored", "remove it from one of the two"
            )
        if wrong := [value for value in (*values, *ignored) if not 0 <= value <= 65535]:
            what = f"values must be in 0..65535, the range of a 16-bit mask file, got {listed(wrong)}"
            raise ConfigError("classes", what, "number the classes from 0, in the masks and in `value` and `ignore`")

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
        if raw.ndim != 2 or raw.dtype.kind != "u" or raw.dtype.itemsize > 2:
            what = f"expected a mask (height, width) of uint8 or uint16, got {size_text(raw.shape)} {raw.dtype}"
            raise MaskError(source, what, "give the values of one channel, as the file holds them")
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
        table = np.zeros((256 if max(*classes, *ignored) <= 255 else 65536, 3), np.uint8)
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
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: object = "classes") -> Taxonomy:
        """Read `{classes: [name | {name, color, value}], ignore: [value]}`. Raises ConfigError naming `source`."""
        unknown = set(data) - {"classes", "ignore"}
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
            return cls(names, colors, values, explicit if "ignore" in data else _DEFAULT_IGNORED)
        except TypeError:
            fix = "write a list of integers, `ignore: [255]`"
            raise ConfigError(source, f"`ignore` must be integers, got {shown(ignore)}", fix) from None
        except ConfigError as error:
            raise ConfigError(source, error.what, error.fix) from None


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


@dataclass
class Sample:
    """One labeled image.

    key     its name, unique within the split
    image   (H, W, C) uint8 RGB
    mask    (H, W) class ids, or None for an image without labels
    """

    key: str
    image: NDArray[np.uint8]
    mask: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.shape != self.image.shape[:2]:
            what = f"image is {size_text(self.image.shape[:2])}, mask {size_text(self.mask.shape)} (height x width)"
            raise MaskError(self.key, what, "export both at one size; masks are never resized silently")


class Batch(NamedTuple):
    """One batch of training data, as the loader makes it.

    images         (B, C, H, W) uint8; for a network with `context_px`, with as many extra pixels on each side
    masks          (B, H, W) int64 class ids with the taxonomy's ignore id
    keys           names of the B samples
    pixel_weights  (B, H, W) float32, added to each pixel's weight in the loss (U-Net's border weights), or None
    num_skipped    images that could not be read; the next one was taken in their place
    step_labels    masks and pixel weights of all batches of an optimizer step, on the first of several; else empty
    """

    images: Tensor
    masks: Tensor
    keys: tuple[str, ...]
    pixel_weights: Tensor | None = None
    num_skipped: int = 0
    step_labels: tuple[tuple[Tensor, Tensor | None], ...] = ()


class Output(NamedTuple):
    """What a network returns, in training and in eval mode alike.

    logits   (B, K, H, W) at the size of the input
    aux      further logits (B, K, H, W) for the training loss; empty in eval mode
    """

    logits: Tensor
    aux: tuple[Tensor, ...] = ()


class Upsample(Protocol):
    """A fixed separable interpolation; each output pixel depends on at most two inputs per axis."""

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Resize logits (B, K, h, w) to (B, K, H, W), where size is (H, W)."""
        ...

    def interpolation_table(self, in_size: int, out_size: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return, for one axis, each output pixel's two source indices and their weights, both (out_size, 2)."""
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

    mask       (H, W) class ids
    taxonomy   what the ids mean
    image      (H, W, 3) uint8 RGB, the image that was labeled
    probs      (K, H, W) float32 softmax probabilities, or None if they were not asked for
    """

    mask: NDArray[Any]
    taxonomy: Taxonomy
    image: NDArray[np.uint8]
    probs: NDArray[np.float32] | None = field(default=None, repr=False)

    def class_fractions(self) -> dict[str, float]:
        """Return the fraction of the image's pixels per class that occurs, by class name, largest first."""
        counts = np.bincount(self.mask.ravel(), minlength=self.taxonomy.num_classes)[: self.taxonomy.num_classes]
        order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
        return {self.taxonomy.names[k]: float(counts[k]) / self.mask.size for k in order}

    def colorize(self) -> Image:
        """Return the mask in the colors of the classes, an RGB image."""
        from PIL import Image

        return Image.fromarray(self.taxonomy.palette()[self.mask])

    def overlay(self, opacity: float = 0.5) -> Image:
        """Return the image blended with the colors that the classes have in figures; background and ignored stay clear.

        opacity  0 is the image, 1 the colors
        """
        from PIL import Image

        if not 0 <= opacity <= 1:
            raise InputError("opacity", f"must be between 0 and 1, got {opacity}", "give 0.5, the default")
        colors = self.taxonomy.for_figures().palette()[self.mask].astype(np.float32)
        clear = np.isin(self.mask, [*self.taxonomy.background, self.taxonomy.ignore_id])
        share = np.where(clear, 0, opacity)[..., None].astype(np.float32)
        mixed = self.image.astype(np.float32) * (1 - share) + colors * share
        return Image.fromarray(np.rint(mixed).astype(np.uint8))
