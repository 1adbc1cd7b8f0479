"""Read Caffe's `.caffemodel`: protobuf's wire format, parsed in place over a memory map, without protobuf.

A file is one `NetParameter`. Its layers stand in field 100 (`layer`, type is a word) or, in older files, in field 2
(`layers`, type is a number); each layer holds blobs, each blob a shape and packed little-endian numbers.

Source: BVLC/caffe, `src/caffe/proto/caffe.proto`; the protobuf encoding specification.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError, cut, shown
from .safe_open import map_file

# Far beyond any real net: limits that refuse malicious files before time and memory run out.
MAX_FIELDS = 100_000
MAX_AXES = 32
MAX_NAME = 1024

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}


@dataclass(frozen=True)
class CaffeLayer:
    """One layer of the file: name, type ("Convolution", ...), blobs (float32, read-only views of the file)."""

    name: str
    type: str
    blobs: tuple[NDArray[np.float32], ...]


def read_caffemodel(path: str | Path) -> list[CaffeLayer]:
    """Return all layers of the net in the file's order, also those without weights.

    Raises CheckpointError with the file and the byte when the file is truncated, damaged, or not a net.
    """
    source = _File(Path(path), map_file(path))
    layers: list[CaffeLayer] = []
    for field in source.whole().fields():
        if field.number == 100:
            layers.append(_layer(field.message("layer"), name=1, kind=2, blobs=7))
        elif field.number == 2:
            layers.append(_layer(field.message("layers"), name=4, kind=5, blobs=6))
    if not any(layer.blobs for layer in layers):
        raise CheckpointError(
            path,
            f"expected layers with weights, got {len(layers)} layers and no weights",
            "pass the .caffemodel of a trained net",
        )
    counts = Counter(layer.name for layer in layers if layer.blobs)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise CheckpointError(
            path, f"layer {shown(twice[0])} has weights twice", "merge the nets under different names"
        )
    return layers


class _File:
    """The mapped file, and the number of fields that may still be read from it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.fields_left = MAX_FIELDS

    def whole(self) -> _Message:
        return _Message(self, 0, len(self.data))

    def damaged(self, offset: int, what: str) -> CheckpointError:
        fix = "download it again, and check that it is a binary .caffemodel"
        return CheckpointError(self.path, f"damaged at byte {offset} of {len(self.data)}: {what}", fix)

    def varint(self, offset: int, end: int) -> tuple[int, int]:
        """Return the number at `offset` (seven bits per byte, lowest first) and the offset after it."""
        value = 0
        for place in range(10):
            if offset + place >= end:
                raise self.damaged(offset, "a number is cut off")
            byte = self.data[offset + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value, offset + place + 1
        raise self.damaged(offset, "a number is longer than 10 bytes")


class _Field(NamedTuple):
    """One field of a message: its number, wire type, and value (varints) or the bytes of its value (other types)."""

    number: int
    wire: int
    value: int
    body: _Message

    def message(self, what: str) -> _Message:
        """Return the bytes of a field that must be length-delimited."""
        if self.wire != _BYTES:
            raise self.body.file.damaged(
                self.body.start, f"{what}: expected wire type {_BYTES}, got wire type {self.wire}"
            )
        return self.body

    def number_of(self, what: str) -> int:
        """Return the value of a field that must be an integer, as int64."""
        if self.wire != _VARINT:
            raise self.body.file.damaged(
                self.body.start, f"{what}: expected wire type {_VARINT}, got wire type {self.wire}"
            )
        return self.value

    def row(self, dtype: str) -> NDArray[Any]:
        """Return the values of a repeated number: packed into one field, or one value per field."""
        if self.wire == _VARINT:
            raise self.body.file.damaged(
                self.body.start, "a blob's values: expected wire type 1, 2 or 5, got wire type 0"
            )
        return self.body.row(dtype)


@dataclass(frozen=True)
class _Message:
    """Bytes start..end-1 of the file: one message, string or row of numbers."""

    file: _File
    start: int
    end: int

    def fields(self) -> Iterator[_Field]:
        """Yield the fields in order. Every length is checked against the end of this message."""
        offset = self.start
        while offset < self.end:
            self.file.fields_left -= 1
            if self.file.fields_left < 0:
                raise self.file.damaged(offset, f"more than {MAX_FIELDS} fields, far beyond any net")
            tag, body = self.file.varint(offset, self.end)
            number, wire, value, length = tag >> 3, tag & 7, 0, 0
            if wire == _VARINT:
                value, after = self.file.varint(body, self.end)
                length = after - body
            elif wire == _BYTES:
                length, body = self.file.varint(body, self.end)
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            if number == 0 or wire not in (_VARINT, _BYTES, _FIXED32, _FIXED64):
                raise self.file.damaged(offset, f"field {number} of wire type {wire} does not occur in a Caffe net")
            if body + length > self.end:
                raise self.file.damaged(
                    offset, f"field {number} is {length} bytes long, {self.end - body} are left: the file is cut"
                )
            yield _Field(number, wire, value, _Message(self.file, body, body + length))
            offset = body + length

    def text(self) -> str:
        """Return the bytes as a name."""
        if self.end - self.start > MAX_NAME:
            raise self.file.damaged(
                self.start, f"a name must have at most {MAX_NAME} bytes, got {self.end - self.start} bytes"
            )
        try:
            return self.file.data[self.start : self.end].decode("utf-8")
        except UnicodeDecodeError:
            raise self.file.damaged(self.start, "a name is not UTF-8 text") from None

    def row(self, dtype: str) -> NDArray[Any]:
        """Return the bytes as a row of numbers, without a copy."""
        size = np.dtype(dtype).itemsize
        count, rest = divmod(self.end - self.start, size)
        if rest:
            raise self.file.damaged(
                self.start, f"{self.end - self.start} bytes are not a multiple of {size}-byte values"
            )
        return np.frombuffer(self.file.data, dtype, count, self.start) if count else np.zeros(0, dtype)

    def varints(self) -> list[int]:
        """Return the bytes as packed varints."""
        values, offset = [], self.start
        while offset < self.end:
            value, offset = self.file.varint(offset, self.end)
            values.append(value)
            if len(values) > MAX_AXES:
                raise self.file.damaged(self.start, f"a blob of more than {MAX_AXES} axes")
        return values


def _layer(message: _Message, name: int, kind: int, blobs: int) -> CaffeLayer:
    """Return one layer; name, kind and blobs are its field numbers, which differ between the two formats of layers."""
    found_name, found_kind, found_blobs = "", "", []
    for field in message.fields():
        if field.number == name:
            found_name = field.message("a layer's name").text()
        elif field.number == kind:
            found_kind = (
                field.body.text() if field.wire == _BYTES else _V1_TYPES.get(field.value, f"type {field.value}")
            )
        elif field.number == blobs:
            found_blobs.append(_blob(field.message("a blob")))
        elif field.number == 1 and name == 4:
            what = "holds a layer of Caffe's first format (V0)"
            raise CheckpointError(message.file.path, what, "convert it with Caffe's tools/upgrade_net_proto_binary")
    if found_blobs and not found_name:
        raise message.file.damaged(message.start, "a layer has weights and no name")
    return CaffeLayer(found_name, found_kind, tuple(found_blobs))


def _blob(message: _Message) -> NDArray[np.float32]:
    """Return a BlobProto: `data` (field 5) or `double_data` (8); `shape` (7) or num, channels, height, width (1-4)."""
    rows: list[NDArray[Any]] = []
    legacy: dict[int, int] = {}
    shape: tuple[int, ...] | None = None
    for field in message.fields():
        if field.number in (1, 2, 3, 4):
            legacy[field.number] = field.number_of("a blob's size")
        elif field.number == 7:
            shape = _shape(field.message("a blob's shape"))
        elif field.number == 5:
            rows.append(field.row("<f4"))
        elif field.number == 8:
            rows.append(field.row("<f8"))
    if shape is None:
        shape = tuple(legacy.get(axis, 0) for axis in (1, 2, 3, 4))
    # NumPy's arrays have a limit also where an axis of 0 makes them empty.
    if prod(max(axis, 1) for axis in shape) >= 2**60:
        raise message.file.damaged(message.start, f"a blob of shape {_times(shape)}")
    count = sum(len(row) for row in rows)
    if count != prod(shape):
        raise message.file.damaged(
            message.start, f"a blob of shape {_times(shape)} has {count} values, not {prod(shape)}"
        )
    # A row in one piece stays a view of the file.
    values = rows[0] if len(rows) == 1 else np.concatenate([np.zeros(0, np.float32), *rows])
    # Doubles beyond float32 become infinite without a word, and are refused where the array is used.
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False).reshape(shape)


def _shape(message: _Message) -> tuple[int, ...]:
    axes: list[int] = []
    for field in message.fields():
        if field.number == 1:
            axes += [field.value] if field.wire == _VARINT else field.message("a blob's shape").varints()
            if len(axes) > MAX_AXES:
                raise message.file.damaged(message.start, f"a blob of more than {MAX_AXES} axes")
    return tuple(axes)


def _times(shape: tuple[int, ...] | list[int]) -> str:
    return cut("x".join(str(axis) for axis in shape) or "scalar")
