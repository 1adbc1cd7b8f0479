"""A writer of `.caffemodel` files for the tests: the smallest part of protobuf's wire format, both generations of
layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

V1_TYPES = {"Convolution": 4, "InnerProduct": 14, "Deconvolution": 39, "ReLU": 18}
Layer = tuple[str, str, Sequence[NDArray[np.floating]]]


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first, the top bit set on all but the last."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3) + varint(value)


def block(field: int, body: bytes) -> bytes:
    """A length-delimited field."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def blob(values: NDArray[np.floating], *, legacy: bool = False, packed: bool = True) -> bytes:
    """BlobProto; float64 arrays go to double_data. `legacy` writes num, channels, height, width instead of a shape."""
    if legacy:
        axes = (1,) * (4 - values.ndim) + values.shape
        head = b"".join(number(field, axis) for field, axis in enumerate(axes, 1))
    else:
        head = block(7, block(1, b"".join(varint(axis) for axis in values.shape)))
    double = values.dtype == np.float64
    field, kind, tag = (8, "<f8", 1) if double else (5, "<f4", 5)
    if packed:
        return head + block(field, values.astype(kind).tobytes())
    return head + b"".join(varint(field << 3 | tag) + np.asarray(v, kind).tobytes() for v in values.ravel())


def net(layers: Iterable[Layer], *, v1: bool = False) -> bytes:
    """NetParameter with `layers` (V1, legacy blob sizes) or `layer` (V2, shapes)."""
    out = block(1, b"made by a test")
    for name, kind, blobs in layers:
        if v1:
            body = block(2, b"data") + block(4, name.encode()) + number(5, V1_TYPES[kind])
            out += block(2, body + b"".join(block(6, blob(b, legacy=True)) for b in blobs))
        else:
            body = block(1, name.encode()) + block(2, kind.encode()) + block(3, b"data") + number(10, 0)
            out += block(100, body + b"".join(block(7, blob(b)) for b in blobs))
    return out


def write(path: Path, layers: Iterable[Layer], *, v1: bool = False) -> Path:
    """Write the net and return its path."""
    path.write_bytes(net(layers, v1=v1))
    return path
