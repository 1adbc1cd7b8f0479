"""A second reader of TIFF, for files of plain tags, by the words of the TIFF 6.0 specification.

`read_tiff` returns None for everything that it does not know, so that no answer is compared with a guess. It raises
AssertionError for a file that lacks pixels, which no reader may invent.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuzz.damage import png_chunks

_SIZES = {1: "B", 3: "H", 4: "I"}
# Tags that change no pixel, or that are read below.
_READ = {256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 320, 338, 339}
_HARMLESS = {254, 282, 283, 296, 305, 306}


class Tiff(NamedTuple):
    """The page of a TIFF: values (H, W, S), as stored, and the tags that give them a meaning."""

    values: NDArray[Any]
    bits: int
    kind: int
    photometric: int
    palette: tuple[int, ...]
    extra: int | None
    orientation: int


def read_tiff(data: bytes) -> Tiff | None:
    """Return the only page of a TIFF; None for tags, types or compressions outside of the plain ones."""
    try:
        return _read(data)
    except (struct.error, IndexError, KeyError, ValueError, zlib.error, OverflowError, MemoryError):
        return None


def _read(data: bytes) -> Tiff | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
    tags = _tags(data, order)
    if tags is None or not set(tags) <= _READ | _HARMLESS or not {256, 257, 262, 273, 279} <= set(tags):
        return None
    first = {tag: values[0] for tag, values in tags.items()}
    width, height, samples = first[256], first[257], first.get(277, 1)
    bits, kind = first.get(258, 1), first.get(339, 1)
    planar, rows = first.get(284, 1), min(first.get(278, height), height)
    known = (
        0 < width * height * samples < 10**6
        and len(set(tags.get(258, (1,)))) == len(set(tags.get(339, (1,)))) == 1
        and len(tags.get(258, (1,))) in (1, samples)
        and (bits, kind) in ((1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 2), (16, 2), (32, 2), (32, 3))
        and planar in (1, 2)
        # The order of bits is plain where nothing else is packed.
        and (first.get(266, 1) == 1 or (first.get(266) == 2 and first.get(259, 1) == 1 and bits <= 8))
        and first.get(259, 1) in (1, 8, 32946)
        and (bits >= 8 or samples == 1)
        and first.get(274, 1) in range(1, 9)
        and all(len(tags.get(tag, (1,))) == 1 for tag in (256, 257, 259, 262, 274, 277, 278, 284))
    )
    if not known or rows < 1:
        return None
    planes = samples if planar == 2 else 1
    per_strip = samples // planes
    strips = []
    if len(tags[273]) != planes * -(-height // rows) or len(tags[279]) != len(tags[273]):
        return None
    for k, (offset, count) in enumerate(zip(tags[273], tags[279], strict=True)):
        num_rows = min(rows, height - k % -(-height // rows) * rows)
        body = data[offset : offset + count]
        if first.get(259, 1) != 1:
            body = zlib.decompress(body)
        needed = num_rows * -(-width * per_strip * bits // 8)
        if offset < 8:
            return None
        assert len(body) >= needed, "pixels are missing in the file"
        if first.get(266, 1) == 2:
            body = bytes(int(f"{byte:08b}"[::-1], 2) for byte in body)
        strips.append(_unpack(body[:needed], bits, kind, order).reshape(num_rows, -1)[:, : width * per_strip])
    table = np.concatenate(strips)
    values = (
        table.reshape(height, width, samples)
        if planar == 1
        else table.reshape(samples, height, width).transpose(1, 2, 0)
    )
    extra = tags[338][0] if 338 in tags else None
    return Tiff(values, bits, kind, first[262], tags.get(320, ()), extra, first.get(274, 1))


def _tags(data: bytes, order: str) -> dict[int, tuple[int, ...]] | None:
    """Return the integer tags of a file with one page; None for tags of other types, in disorder or doubled."""
    place = struct.unpack_from(order + "I", data, 4)[0]
    (count,) = struct.unpack_from(order + "H", data, place)
    tags: dict[int, tuple[int, ...]] = {}
    for k in range(count):
        at = place + 2 + 12 * k
        tag, kind, length = struct.unpack_from(order + "HHI", data, at)
        if tags and tag <= max(tags):
            return None
        if tag in _HARMLESS:
            continue
        letter = _SIZES[kind]
        start = at + 8 if length * struct.calcsize(letter) <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if not 0 < length < 5000:
            return None
        tags[tag] = struct.unpack_from(f"{order}{length}{letter}", data, start)
    (following,) = struct.unpack_from(order + "I", data, place + 2 + 12 * count)
    return tags if following == 0 else None


def _unpack(body: bytes, bits: int, kind: int, order: str) -> NDArray[Any]:
    if bits < 8:
        ones = np.unpackbits(np.frombuffer(body, np.uint8)).reshape(-1, bits)
        return ones @ (1 << np.arange(bits)[::-1])
    letter = {1: "u", 2: "i", 3: "f"}[kind]
    return np.frombuffer(body, np.dtype(f"{order}{letter}{bits // 8}"))


def image_of(page: Tiff) -> NDArray[Any] | None:
    """Return the RGB that the page shows, upright, as `read_image` promises; None where it may be refused."""
    top = 2**page.bits - 1
    values, samples = page.values.astype(np.float64), page.values.shape[2]
    colors = 3 if page.photometric == 2 else 1
    if page.photometric not in (0, 1, 2, 3) or samples - colors not in (0, 1) or page.kind == 2:
        return None
    if samples > colors and page.extra not in (2, None):
        return None
    values = values[..., :colors]
    if page.photometric == 3:
        if page.bits > 8 or len(page.palette) != 3 * 2**page.bits or max(page.palette) < 256 or samples > 1:
            return None
        table = np.array(page.palette).reshape(3, -1).T >> 8
        return upright(table[page.values[..., 0].astype(int)].astype(np.uint8), page.orientation)
    if page.kind == 3:
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1) or samples > 1:
            return None
        scaled = values * 255
        if np.abs(scaled % 1 - 0.5).min() < 1e-3:
            return None
        values = np.rint(scaled)
    else:
        if page.bits == 16 and 0 < page.values[..., :colors].max() < 2**14:
            return None
        values = np.floor(values * 255 / top + 0.5)
    if page.photometric == 0:
        values = 255 - values
    return upright(
        np.repeat(values, 3, 2)[..., :3].astype(np.uint8) if colors == 1 else values.astype(np.uint8), page.orientation
    )


def labels_of(page: Tiff) -> NDArray[Any] | None:
    """Return the values that the page stores, upright, as `read_mask` promises; None where it may be refused."""
    samples = page.values.shape[2]
    if samples != 1 or page.photometric not in (0, 1, 3) or page.kind == 3:
        return None
    if page.values.min() < 0 or page.values.max() > 65535:
        return None
    return upright(page.values[..., 0], page.orientation)


def check_png(data: bytes) -> None:
    """Raise AssertionError if a PNG without interlacing has fewer bytes of pixels than its header says."""
    width, height, bits, color, interlace = struct.unpack_from(">IIBB2xB", data, 16)
    if interlace == 0:
        packed = b"".join(body for kind, body in png_chunks(data) if kind == b"IDAT")
        needed = height * (1 + -(-width * bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] // 8))
        inflater, found = zlib.decompressobj(), 0
        try:
            for place in range(len(packed)):
                found += len(inflater.decompress(packed[place : place + 1]))
        except zlib.error:
            # Decoders stop at the last pixel, before data that only tools with faults write after it.
            pass
        assert found >= needed, f"{found} of {needed} bytes of pixels are in the file"


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn pixels as EXIF says: the place of the first row and the first column on the shown image."""
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels[::-1].swapaxes(0, 1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: pixels.swapaxes(0, 1)[::-1],
    }
    return turned[orientation]
