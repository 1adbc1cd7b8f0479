"""A writer of TIFF files tag by tag, for files that no library writes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence


def tiff(
    strips: Sequence[bytes],
    size: tuple[int, int],
    tags: Mapping[int, Sequence[int] | None],
    *,
    big_endian: bool = False,
    deflate: bool = False,
) -> bytes:
    """A TIFF of one page (height, width); 8-bit gray with black as zero, unless the tags say otherwise.

    tags  by number (TIFF 6.0), each a list of integers, stored as LONG; None leaves a tag out
    """
    order = ">" if big_endian else "<"
    bodies = [zlib.compress(strip) if deflate else strip for strip in strips]
    every: dict[int, Sequence[int] | None] = {
        256: [size[1]],
        257: [size[0]],
        258: [8],
        259: [8 if deflate else 1],
        262: [1],
        273: [0] * len(strips),
        277: [1],
        278: [-(-size[0] // len(strips))],
        279: [len(body) for body in bodies],
    } | dict(tags)
    kept = {tag: values for tag, values in sorted(every.items()) if values is not None}
    first = 8 + 2 + 12 * len(kept) + 4
    if 273 not in tags:
        kept[273] = [first + sum(map(len, bodies[:k])) for k in range(len(bodies))]
    body = b"".join(bodies)
    entries, after = b"", b""
    for tag, values in kept.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place = first + len(body) + len(after)
            after += packed
            packed = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "IH", 8, len(kept))
    return head + entries + bytes(4) + body + after
