"""What the numbers of an image mean: its channels, the bits in use or the range, and the files that hold them.

A pixel format belongs to a dataset (`images` in classes.yaml) and to the checkpoint of a network trained on it.
`RGB` is the format of all ordinary images. Images of other formats are (H, W, C) with the numbers of their files:
uint8 or uint16 where all channels are integers of that size, else float32. Nothing is scaled before the network, which
normalizes them (`nn/preprocessing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError, InputError, listed, shown

COLORS = ("red", "green", "blue")
MAX_CHANNELS = 512
_PART_KEYS = ("channels", "bits", "range", "folder", "suffix")
_EXAMPLE = "write such as `images: {channels: [red, green, blue, nir], bits: 12}`"


@dataclass(frozen=True)
class ImagePart:
    """One of the files that hold an image.

    channels  names, in the order of the file
    bits      bits in use, 1 to 16: unsigned integers of 0 to 2**bits - 1; 0 for real numbers
    range     lowest and highest of the real numbers, None for integers
    folder    the file has the name of the image, in this folder beside the image's own
    suffix    the file has the name of the image with this ending, such as `_nir`, in the same folder
    """

    channels: tuple[str, ...] = COLORS
    bits: int = 8
    range: tuple[float, float] | None = None
    folder: str = ""
    suffix: str = ""

    @property
    def is_rgb(self) -> bool:
        """Whether the file is an ordinary image, of any mode that `read_image` reads as RGB."""
        return self.channels == COLORS and self.bits == 8

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest number."""
        return self.range or (0, 2**self.bits - 1)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16] | type[np.float32]:
        """The type of its pixels in memory."""
        return np.float32 if self.range else np.uint8 if self.bits <= 8 else np.uint16

    def in_words(self) -> str:
        """Return channels and numbers as text: "nir in 12 bits"."""
        numbers = f"numbers of {self.range[0]:g} to {self.range[1]:g}" if self.range else f"{self.bits} bits"
        return f"{listed(self.channels, 8)} in {numbers}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON and YAML form."""
        numbers = {"range": list(self.range)} if self.range else {"bits": self.bits}
        place = {key: value for key, value in (("folder", self.folder), ("suffix", self.suffix)) if value}
        return {"channels": list(self.channels), **numbers, **place}

    @classmethod
    def from_dict(cls, data: object, source: object) -> ImagePart:
        """Read `{channels, bits or range, folder or suffix}`. Raises ConfigError naming `source`."""
        if not isinstance(data, Mapping) or not set(data) <= set(_PART_KEYS):
            what = f"`images`: expected {listed(_PART_KEYS, 5)}, got {shown(data)}"
            raise ConfigError(source, what, _EXAMPLE)
        channels, bits, limits = data.get("channels"), data.get("bits"), data.get("range")
        is_list = isinstance(channels, Sequence) and not isinstance(channels, str) and 0 < len(channels) <= MAX_CHANNELS
        if not is_list or not all(isinstance(name, str) and name.strip() for name in channels or ()):
            what = f"`images`: expected the names of 1 to {MAX_CHANNELS} channels, got {shown(channels)}"
            raise ConfigError(source, what, _EXAMPLE)
        if bits is not None and limits is not None:
            raise ConfigError(source, "`images`: has bits and a range", "give bits for integers, a range for others")
        if bits is not None and (type(bits) is not int or not 1 <= bits <= 16):
            raise ConfigError(source, f"`images`: expected bits of 1 to 16, got {shown(bits)}", _EXAMPLE)
        place = {key: data.get(key, "") for key in ("folder", "suffix")}
        if not all(isinstance(name, str) and name not in (".", "..") and "/" not in name for name in place.values()):
            what = f"`images`: expected the name of a folder or the ending of a name, got {shown(place)}"
            raise ConfigError(source, what, "write `folder: depth` or `suffix: _nir`")
        numbers: dict[str, Any] = {"bits": int(bits or 8)}
        if limits is not None:
            numbers = {"bits": 0, "range": _limits(limits, source)}
        return cls(tuple(channels or ()), **numbers, **place)


@dataclass(frozen=True)
class PixelFormat:
    """The channels of an image, in the order of its parts.

    parts  the first is the image that a user names; the others are files beside it
    show   names of the three channels (or of one) that figures and the CRF take for red, green and blue; if left out,
           figures take red, green and blue by name, or else the first three
    Raises ConfigError for repeated channels, a part without a place, and channels to show that it does not have.
    """

    parts: tuple[ImagePart, ...] = (ImagePart(),)
    show: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.channels
        if len(set(names)) < len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise ConfigError("images", f"repeated channel: {listed(repeated)}", "give each channel a name of its own")
        if len(names) > MAX_CHANNELS:
            raise ConfigError("images", f"expected at most {MAX_CHANNELS} channels, got {len(names)}", "leave some out")
        if self.parts[0].folder or self.parts[0].suffix or not all(p.folder or p.suffix for p in self.parts[1:]):
            what = "every part but the first needs a `folder` or a `suffix`, by which its file is found"
            raise ConfigError("images", what, "write such as {channels: [depth], bits: 16, folder: depth}")
        unknown = [name for name in self.show if name not in names]
        if unknown or len(self.show) not in (0, 1, 3):
            what = f"`show`: expected one or three of {listed(names, 12)}, got {listed(self.show, 12)}"
            raise ConfigError("images", what, "name three channels, to be drawn as red, green and blue")

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of all channels."""
        return tuple(name for part in self.parts for name in part.channels)

    @property
    def num_channels(self) -> int:
        """C."""
        return len(self.channels)

    @property
    def is_rgb(self) -> bool:
        """Whether images are ordinary ones, 8-bit RGB in one file."""
        return len(self.parts) == 1 and self.parts[0].is_rgb

    @property
    def has_rgb(self) -> bool:
        """Whether the first three channels are an ordinary image."""
        return self.parts[0].is_rgb

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an image in memory."""
        return np.result_type(*(part.dtype for part in self.parts))

    @property
    def limits(self) -> NDArray[np.float64]:
        """(C, 2) lowest and highest number of each channel."""
        return np.array([part.limits for part in self.parts for _ in part.channels], np.float64)

    @property
    def colors(self) -> tuple[int, ...]:
        """Indices of the channels named red, green and blue; empty if one of them is missing."""
        return tuple(map(self.channels.index, COLORS)) if set(COLORS) <= set(self.channels) else ()

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the one or three channels that figures show."""
        default = COLORS if self.colors else self.channels[:3] if self.num_channels > 2 else self.channels[:1]
        return self.show or default

    def to_rgb(self, pixels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the channels to show of an image (H, W, C) as (H, W, 3) uint8; their limits become 0 and 255."""
        if self.is_rgb:
            return pixels
        chosen = [self.channels.index(name) for name in self.shown]
        low, high = self.limits[chosen].T.astype(np.float32)
        scaled = (pixels[..., chosen].astype(np.float32) - low) * (255 / (high - low))
        drawn: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
        return np.repeat(drawn, 3, axis=2) if len(chosen) == 1 else drawn

    def check_crf(self) -> None:
        """Raise InputError unless the CRF, which compares colors, knows which channels to take for them."""
        if not self.show and not self.colors:
            what = f"compares colors, and none of the channels {listed(self.channels, 8)} is said to be one"
            raise InputError("CRF", what, "name three in `show` under `images` in classes.yaml, and train with it")

    def check(self, pixels: NDArray[Any], source: object) -> None:
        """Raise InputError naming `source` for an array that is no image (H, W, C) of this format."""
        if pixels.ndim != 3 or pixels.shape[2] != self.num_channels or 0 in pixels.shape or pixels.dtype != self.dtype:
            what = f"expected {self.dtype} of shape (height, width, {self.num_channels}), got {pixels.dtype}"
            raise InputError(source, f"{what} {pixels.shape}", f"the model takes {self.in_words()}")
        first = 0
        for part in self.parts:
            check_numbers(pixels[..., first : first + len(part.channels)], part, source)
            first += len(part.channels)

    def in_words(self) -> str:
        """Return the channels as text: "5 channels: red, green, blue in 8 bits; depth in 16 bits"."""
        words = "; ".join(part.in_words() for part in self.parts)
        return f"{self.num_channels} channel{'s' * (self.num_channels > 1)}: {words}"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON and YAML form, which `from_dict` reads back."""
        return {"parts": [part.to_dict() for part in self.parts], **({"show": list(self.show)} if self.show else {})}

    @classmethod
    def from_dict(cls, data: object, source: object = "images") -> PixelFormat:
        """Read `{channels, bits or range, show}` of one file, or `{parts: [{...}, ...], show}` of several.

        Raises ConfigError naming `source`.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(source, f"`images`: expected channels, got {shown(data)}", _EXAMPLE)
        rest = dict(data)
        show = rest.pop("show", [])
        parts = rest.pop("parts", None)
        is_text = isinstance(show, str) or not isinstance(show, Sequence)
        if is_text or (parts is not None and (rest or not isinstance(parts, Sequence) or not parts)):
            fix = "write `images: {parts: [{channels: [red, green, blue]}, {channels: [depth], folder: depth}]}`"
            raise ConfigError(source, f"`images`: expected parts or channels, got {shown(data)}", fix)
        read = [ImagePart.from_dict(part, source) for part in (parts or [rest])]
        try:
            return cls(tuple(read), tuple(map(str, show)))
        except ConfigError as error:
            raise ConfigError(source, f"`images`: {error.what}", error.fix) from None

    @classmethod
    def of_channels(cls, count: int) -> PixelFormat:
        """Return the format of 8-bit images of `count` channels whose names nobody has said."""
        names = (*COLORS, *(f"channel{k}" for k in range(4, count + 1))) if count > 2 else unnamed(count)
        return cls((ImagePart(names),))


RGB = PixelFormat()
"""Ordinary images, as `read_image` reads them."""


def unnamed(count: int) -> tuple[str, ...]:
    """Return names for channels that have none: gray, or channel1, channel2, ..."""
    return ("gray",) if count == 1 else tuple(f"channel{k}" for k in range(1, count + 1))


def same_numbers(one: PixelFormat, other: PixelFormat) -> bool:
    """Return whether the channels of two formats have equal names, bits and ranges, wherever their files lie."""
    return [(p.channels, p.bits, p.range) for p in one.parts] == [(p.channels, p.bits, p.range) for p in other.parts]


def check_numbers(pixels: NDArray[Any], part: ImagePart, source: object) -> None:
    """Raise ImageError naming `source` for numbers beyond the bits or the range of a part, NaN among them."""
    if part.range and not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise ImageError(source, f"holds {count} numbers that are NaN or infinite", "replace them")
    low, high = part.limits
    least, most = float(pixels.min()), float(pixels.max())
    # Of a range, the limits are rounded as the numbers were.
    if least >= np.float32(low) and most <= np.float32(high):
        return
    names = listed(part.channels, 4)
    if part.range:
        what = f"expected numbers of {low:g} to {high:g} in {names}, got {least:g} to {most:g}"
        raise ImageError(source, what, "clip or scale them, or declare another `range` in classes.yaml and train again")
    what = f"expected {part.bits} bits in {names}, 0 to {high:g}, got {least:g} to {most:g}"
    raise ImageError(source, what, "scale the image, or declare other `bits` in classes.yaml and train again")


def _limits(value: object, source: object) -> tuple[float, float]:
    """Return the lowest and the highest number of `range: [low, high]`. Raises ConfigError."""
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    is_number = all(type(n) in (int, float) and abs(n) < np.finfo(np.float32).max for n in numbers)
    if len(numbers) != 2 or not is_number or not np.float32(numbers[0]) < np.float32(numbers[1]):
        what = f"`images`: expected range: [lowest, highest], got {shown(value)}"
        raise ConfigError(source, what, "write such as `range: [0, 1]`")
    return float(numbers[0]), float(numbers[1])
