"""Run-length encodings of a region (H, W) of bool: COCO's, CVAT's, Label Studio's, and that of submission files.

Every decoder checks what it reads: runs that do not fill the image exactly, negative or huge numbers and wrong types
raise MaskError. Sources: cocoapi, common/maskApi.c; CVAT, "XML annotation format"; label_studio_sdk.converter.brush.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MaskError, shown
from ...images import MAX_PIXELS
from .fill import Region, crop

_EXPORT_FIX = "export the annotations again"
# Six characters of COCO's text hold 30 bits, more than any image has pixels.
_MAX_CHARACTERS = 7
# Label Studio stores RGBA with 8 bits per channel, and run lengths with 3, 4, 8 or 16 bits.
_WORD_BITS, _LENGTH_BITS = 8, (3, 4, 8, 16)


def encode_runs(region: NDArray[Any]) -> list[int]:
    """Return the lengths of the runs of a flat array of bool; the first run counts False and may be 0."""
    flat = np.asarray(region, bool).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff([0, *changes.tolist(), flat.size]).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def decode_runs(runs: Any, length: int, source: object) -> NDArray[np.bool_]:
    """Return the flat array of bool of `length` whose runs are given. Raises MaskError if they do not fill it."""
    lengths = _check_runs(runs, length, source)
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths)


def _check_runs(runs: Any, length: int, source: object) -> NDArray[np.int64]:
    try:
        lengths = np.asarray(runs)
    except (ValueError, OverflowError):
        lengths = np.zeros(1)
    if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu"):
        raise MaskError(source, f"expected run lengths as integers, got {shown(runs)}", _EXPORT_FIX)
    if lengths.size and (int(lengths.min()) < 0 or int(lengths.max()) > length):
        what = f"has a run of {int(lengths.min() if lengths.min() < 0 else lengths.max())} pixels in {length} pixels"
        raise MaskError(source, what, _EXPORT_FIX)
    lengths = lengths.astype(np.int64)
    if int(lengths.sum()) != length:
        raise MaskError(source, f"has runs of {int(lengths.sum())} pixels in all, expected {length}", _EXPORT_FIX)
    return lengths


def check_size(height: Any, width: Any, source: object) -> tuple[int, int]:
    """Return (height, width) as an annotation file gives them. Raises MaskError unless they are those of an image."""
    for number in (height, width):
        if type(number) is not int or not 1 <= number <= MAX_PIXELS:
            what = f"expected height and width as positive integers, got {shown(height)} and {shown(width)}"
            raise MaskError(source, what, _EXPORT_FIX)
    if height * width > MAX_PIXELS:
        what = f"is of {height}x{width} (height x width), at most {MAX_PIXELS} pixels are allowed"
        raise MaskError(source, what, "cut the image into tiles")
    return height, width


def encode_coco(region: NDArray[Any]) -> dict[str, Any]:
    """Return `{"size": [height, width], "counts": text}`, COCO's compressed form; pycocotools writes the same text."""
    height, width = region.shape
    runs = encode_runs(np.asarray(region).T)
    characters = bytearray()
    for k, run in enumerate(runs):
        # From the fourth run on, the text holds the difference to the run two before.
        value = run - runs[k - 2] if k > 2 else run
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(bits + 32 * more + 48)
            if not more:
                break
    return {"size": [height, width], "counts": characters.decode("ascii")}


def decode_coco(rle: Any, source: object) -> tuple[Region, tuple[int, int]]:
    """Return the region and image size (H, W) of COCO's `{"size": [height, width], "counts": text or list}`.

    Only the columns of the region are decoded. Raises MaskError.
    """
    size = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(size, list) or len(size) != 2:
        raise MaskError(source, f"expected a run-length encoding with a size, got {shown(rle)}", _EXPORT_FIX)
    height, width = check_size(size[0], size[1], source)
    counts = rle.get("counts")
    runs = _coco_runs(counts, source) if isinstance(counts, str) else counts
    lengths = _check_runs(runs, height * width, source)
    # Every second run belongs to the region, some of no pixel.
    own = 1 + 2 * np.flatnonzero(lengths[1::2])
    if not own.size:
        return Region(0, 0, np.zeros((0, 0), bool)), (height, width)
    ends = np.cumsum(lengths)
    start, end = int(ends[own[0]] - lengths[own[0]]), int(ends[own[-1]])
    left, right = start // height, (end - 1) // height + 1
    inner = np.array([start - left * height, *lengths[own[0] : own[-1] + 1], right * height - end])
    columns = np.repeat(np.arange(inner.size) % 2 == 1, inner).reshape(right - left, height)
    region = crop(columns.T)
    return region._replace(left=left), (height, width)


def _coco_runs(text: str, source: object) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift >= 5 * _MAX_CHARACTERS:
            raise MaskError(source, f"expected COCO's run-length text, got {shown(text)}", _EXPORT_FIX)
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise MaskError(source, "has a run-length text that is cut", _EXPORT_FIX)
    return runs


def encode_submission(region: NDArray[Any]) -> str:
    """Return "start length start length ...": pixels from 1, down each column, as Kaggle's competitions count them."""
    runs = encode_runs(np.asarray(region).T)
    starts = np.cumsum([1, *runs])
    return " ".join(f"{starts[k]} {runs[k]}" for k in range(1, len(runs), 2))


def encode_cvat(region: NDArray[Any]) -> str:
    """Return "n, n, ...": runs along the rows of the box of a CVAT mask, the first of them outside."""
    return ", ".join(map(str, encode_runs(region)))


def decode_cvat(text: str, height: int, width: int, source: object) -> NDArray[np.bool_]:
    """Return the region (height, width) of CVAT's text. Raises MaskError."""
    words = text.split(",")
    # Ten digits are more than any image has pixels; `int` of a long text would take minutes.
    if not all(word.strip().isdecimal() and len(word.strip()) < 11 for word in words):
        raise MaskError(source, f"expected run lengths `n, n, ...`, got {shown(text)}", _EXPORT_FIX)
    return decode_runs([int(word) for word in words], height * width, source).reshape(height, width)


def encode_label_studio(region: NDArray[Any]) -> list[int]:
    """Return the bytes of Label Studio's brush: RGBA of 0 or 255, in packed runs of the four equal channels."""
    runs = [4 * run for run in encode_runs(region)]
    bits = [f"{4 * region.size:032b}{_WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for k, run in enumerate(runs):
        value = "11111111" if k % 2 else "00000000"
        while run:
            part = min(run, 2**16)
            code = next(n for n, size in enumerate(_LENGTH_BITS) if part <= 2**size)
            bits.append(f"1{code:02b}{part - 1:0{_LENGTH_BITS[code]}b}{value}")
            run -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_label_studio(rle: Any, height: int, width: int, source: object) -> NDArray[np.bool_]:
    """Return the region (height, width) of Label Studio's brush: where alpha is not 0. Raises MaskError."""
    if not isinstance(rle, Sequence) or isinstance(rle, str):
        raise MaskError(source, f"expected a brush as a list of bytes, got {shown(rle)}", _EXPORT_FIX)
    try:
        bits = np.unpackbits(np.frombuffer(bytes(rle), np.uint8))
    except (TypeError, ValueError):
        raise MaskError(source, f"expected a brush as a list of bytes, got {shown(rle)}", _EXPORT_FIX) from None
    text = bits.astype("S1").tobytes()
    position = 0

    def read(size: int) -> int:
        nonlocal position
        position += size
        if position > len(text):
            raise MaskError(source, "has a brush that is cut", _EXPORT_FIX)
        return int(text[position - size : position], 2)

    num, word = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    if num != 4 * height * width or word != _WORD_BITS:
        what = f"has a brush of {num} values of {word} bits, expected {4 * height * width} of {_WORD_BITS}"
        raise MaskError(source, what, _EXPORT_FIX)
    values, i = np.zeros(num, np.uint8), 0
    while i < num:
        is_run = read(1)
        j = i + 1 + read(lengths[read(2)])
        if j > num:
            raise MaskError(source, f"has a brush of {j} values or more, expected {num}", _EXPORT_FIX)
        if is_run:
            values[i:j] = read(word)
        else:
            for k in range(i, j):
                values[k] = read(word)
        i = j
    alpha: NDArray[np.bool_] = values.reshape(height, width, 4)[..., 3] > 0
    return alpha
