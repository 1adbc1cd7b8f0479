"""Builders of broken files, each with the words that its error must hold; for tests of readers and of commands."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 40


def photo() -> np.ndarray:
    """(24, 40, 3) uint8: smooth, so that JPEG stays near, and unlike itself under every turn."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([rows * 10, columns * 6, (rows + columns) * 2], axis=2).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """Pixels as the bytes of a file of that kind."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, bits: int, color: int, rows: bytes, *, palette: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG byte by byte; rows are packed scan lines, each after its filter byte 0.

    color is 0 for gray, 2 RGB, 3 palette, 4 gray and alpha.
    """
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    colors = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + header + colors + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def packed_rows(values: np.ndarray, bits: int) -> bytes:
    """(H, W) values as PNG scan lines of 1, 2, 4, 8 or 16 bits a value, highest bits first."""
    lines = []
    for row in values.tolist():
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines.append(b"\0" + int(text, 2).to_bytes(len(text) // 8, "big"))
    return b"".join(lines)


def write_bomb(path: Path) -> None:
    """A PNG of a few hundred bytes that says it is 60000 x 60000."""
    path.write_bytes(png(60000, 60000, 8, 2, b"\0" * 100))


def write_two_pages(path: Path) -> None:
    """A TIFF stack, as microscopes write."""
    page = Image.fromarray(photo())
    page.save(path, format="TIFF", save_all=True, append_images=[page])


def _bytes(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def _float(value: float) -> Callable[[Path], None]:
    return _bytes(encoded(np.full((4, 5), value, np.float32), "TIFF"))


_NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
_JPEG, _PNG = encoded(_NOISE, "JPEG", quality=95), encoded(photo(), "PNG")
_ROTTED = bytearray(_PNG)
_ROTTED[len(_PNG) // 2] ^= 0x10

# name of the file -> how to make it, words of the error
BAD_IMAGES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "empty.png": (_bytes(b""), ("is empty (0 bytes)", "copy or download it again")),
    "cut.jpg": (_bytes(_JPEG[: len(_JPEG) // 2]), ("damaged or cut", "truncated", "copy or download it again")),
    "cut.png": (_bytes(_PNG[: len(_PNG) // 2]), ("damaged or cut", "copy or download it again")),
    "head_only.jpg": (_bytes(_JPEG[:20]), ("begins as JPEG, but is damaged", "export")),
    "rotted.png": (_bytes(bytes(_ROTTED)), ("is damaged", "checksum")),
    "cut.webp": (_bytes(encoded(_NOISE, "WEBP", lossless=True)[:9000]), ("damaged",)),
    "cut.tif": (_bytes(encoded(photo(), "TIFF")[:900]), ("damaged or cut",)),
    "cut.bmp": (_bytes(encoded(photo(), "BMP")[:900]), ("damaged or cut", "truncated")),
    "bomb.png": (write_bomb, ("is too large", "cut it into tiles")),
    "stack.tif": (write_two_pages, ("holds 2 pages", "save each as a file of its own")),
    "lfs.png": (
        _bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        ("Git LFS pointer", "git lfs pull"),
    ),
    "page.jpg": (_bytes(b"\n <!DOCTYPE html><html><body>404</body></html>"), ("an HTML page", "download")),
    "drawing.png": (_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), ("an SVG drawing", "export it as PNG")),
    "xml.png": (_bytes(b'<?xml version="1.0"?><svg/>'), ("XML or SVG", "export it as PNG")),
    "animation.gif": (
        _bytes(encoded(photo()[..., 0], "GIF", save_all=True, append_images=[Image.fromarray(255 - photo()[..., 0])])),
        ("holds 2 pages", "save each as a file of its own"),
    ),
    "document.jpg": (_bytes(b"%PDF-1.7\n"), ("is a PDF", "export")),
    "drawing.jpg": (_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n"), ("PostScript", "export")),
    "layers.png": (_bytes(b"8BPS\0\1"), ("Photoshop", "export")),
    "phone.jpg": (_bytes(b"\0\0\0\x18ftypheic\0\0\0\0"), ("heic", "export")),
    "text.png": (
        _bytes(b"hello world, no image\n" * 9),
        ("not an image of a known format", "PNG, JPEG, TIFF, WebP, BMP"),
    ),
    "nan.tif": (_float(float("nan")), ("20 pixels that are NaN", "replace them")),
    "wide.tif": (_float(7.5), ("expected float pixels of 0 to 1, got 7.5 to 7.5", "scale them")),
    "int32.tif": (_bytes(encoded(np.full((4, 5), 7, np.int32), "TIFF")), ("32-bit integers", "8 or 16 bits")),
}


def make_bad_images(folder: Path) -> dict[str, tuple[str, ...]]:
    """Write every bad image, a broken link, a folder and (where there are such) a named pipe; file name -> words."""
    for name, (write, _) in BAD_IMAGES.items():
        write(folder / name)
    words = {name: expected for name, (_, expected) in BAD_IMAGES.items()}
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to("nowhere.png")
    words |= {
        "folder.png": ("is a folder",),
        "link.png": ("a link to nothing",),
        "gone.png": ("does not exist", "check the path"),
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.png")
        words["pipe.png"] = ("is a named pipe", "regular image file")
    return words
