"""Damage bytes as disks, networks and attackers do: flips, cuts, splices, moved parts, extreme sizes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from random import Random

# Numbers at which counters and sizes overflow.
EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def damaged(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Return the bytes with one to four changes; `others` are files to splice with."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        # Headers are short, so half of the changes are near the front.
        span = len(out) if rng.random() < 0.5 else min(len(out), 128)
        place, length = rng.randrange(span + 1), rng.choice((1, 2, 4, 16, 200))
        match rng.randrange(9):
            case 0 | 1:
                out[place : place + 1] = bytes([rng.randrange(256)])
            case 2:
                out[place : place + 1] = bytes(byte ^ 1 << rng.randrange(8) for byte in out[place : place + 1])
            case 3:
                del out[rng.randrange(len(out) + 1) :]
            case 4:
                del out[place : place + length]
            case 5:
                out[place:place] = out[place : place + length]
            case 6:
                out[place : place + length] = bytes(len(out[place : place + length]))
            case 7:
                kind = rng.choice(("<H", ">H", "<I", ">I", "<Q"))
                number = rng.choice(EXTREMES) % 2 ** (8 * struct.calcsize(kind))
                out[place : place + struct.calcsize(kind)] = struct.pack(kind, number)
            case 8 if others:
                other = rng.choice(others)
                out[place:] = other[rng.randrange(len(other) + 1) :]
    return bytes(out)


def damaged_png(data: bytes, rng: Random, others: Sequence[bytes] = ()) -> bytes:
    """Return a PNG with changed, moved, doubled, missing or foreign chunks, whose checksums are right."""
    chunks = png_chunks(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        k = rng.randrange(len(chunks))
        kind, body = chunks[k]
        match rng.randrange(5):
            case 0:
                other = rng.randrange(len(chunks))
                chunks[k], chunks[other] = chunks[other], chunks[k]
            case 1:
                chunks.insert(rng.randrange(len(chunks) + 1), chunks[k])
            case 2 if len(chunks) > 1:
                del chunks[k]
            case 3 if others:
                chunks.insert(k, rng.choice(png_chunks(rng.choice(others))))
            case _:
                chunks[k] = (kind, damaged(body, rng))
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of each chunk of a whole PNG."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = struct.unpack_from(">I", data, place)[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks
