"""Images and masks of every format and depth, whole and damaged, against the pixels that were saved."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fuzz.damage import EXTREMES, damaged, damaged_png
from fuzz.decoders import check_png, image_of, labels_of, read_tiff, upright
from fuzz.harness import Attempt
from helpers.bad_inputs import chunk, packed_rows, png
from helpers.tiff import tiff
from pixelwise.images import read_image, read_mask, write_image, write_mask

# The largest image that is allowed has 512 MiB as RGB; Pillow takes 4 bytes per pixel, and its array is copied.
IMAGE_MIB = 2560
Array = NDArray[Any]


@dataclass(frozen=True)
class Made:
    """A file in memory, and the arrays that it must be read as; None where it may be refused or is not exact."""

    data: bytes
    image: Array | None = None
    labels: Array | None = None
    is_whole: bool = False


def noise(rng: Random, *channels: int, top: int = 256) -> Array:
    """Return random values (H, W, ...) of 0..top-1 in some structure: all random, few values, or one."""
    shape = (rng.choice((1, 2, 3, 7, 8, 9, 31)), rng.choice((1, 2, 3, 7, 8, 9, 33)), *channels)
    numbers = np.random.default_rng(rng.getrandbits(64))
    used = numbers.integers(0, top, rng.choice((1, 2, 5, top)))
    return used[numbers.integers(0, len(used), shape)]


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of the file that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gray(values: Array) -> Array:
    """Return (H, W) as (H, W, 3)."""
    return np.repeat(values[..., None], 3, 2)


def oriented(rng: Random, made: Callable[[dict[str, Any]], bytes], image: Array | None, labels: Array | None) -> Made:
    """Save with or without an EXIF orientation, which turns image and mask."""
    if rng.random() < 0.6:
        return Made(made({}), image, labels)
    exif, orientation = Image.Exif(), rng.randrange(1, 9)
    exif[274] = orientation
    turned = (None if pixels is None else upright(pixels, orientation) for pixels in (image, labels))
    return Made(made({"exif": exif}), next(turned), next(turned))


def lossless(rng: Random) -> Made:
    """PNG, TIFF, WebP or BMP as Pillow writes them."""
    kind = rng.choice(("PNG", "PNG", "TIFF", "WEBP", "BMP"))
    modes = {
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "BMP": ("1", "L", "P", "RGB"),
    }
    mode = rng.choice(modes.get(kind, ("1", "L", "P", "RGB", "RGBA", "I;16", "F", "CMYK")))
    options: dict[str, Any] = {"WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    if kind == "TIFF":
        options["compression"] = rng.choice((None, "tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"))
    elif kind == "PNG":
        options |= {"optimize": rng.random() < 0.2, "compress_level": rng.randrange(10)}
    image: Array | None
    labels: Array | None
    match mode:
        case "1":
            labels = noise(rng, top=2)
            image_file, image = Image.fromarray(labels.astype(bool)), gray(labels * 255)
        case "P":
            colors, labels = np.frombuffer(rng.randbytes(768), np.uint8).reshape(-1, 3), noise(rng)
            image_file = Image.fromarray(labels.astype(np.uint8))
            image_file.putpalette(colors.tobytes())
            image = colors[labels]
        case "I;16":
            labels = noise(rng, top=rng.choice((5, 300, 65536)))
            image_file = Image.fromarray(labels.astype(np.uint16))
            image = gray((labels + 128) // 257) if labels.max() >= 2**14 or labels.max() == 0 else None
        case "F":
            values = noise(rng, top=257) / 256
            image_file, image, labels = Image.fromarray(values.astype(np.float32)), None, None
            if not (values * 255 % 1 == 0.5).any():
                image = gray(np.rint(values * 255))
        case "L":
            labels = noise(rng)
            image_file, image = Image.fromarray(labels.astype(np.uint8)), gray(labels)
        case _:
            values = noise(rng, len(Image.new(mode, (1, 1)).getbands()))
            image_file = Image.frombytes(mode, values.shape[1::-1], values.astype(np.uint8).tobytes())
            image = labels = None if mode == "CMYK" else values[..., :3]
            if mode == "LA":
                image, labels = gray(values[..., 0]), values[..., 0]
    if kind == "BMP" or (kind == "TIFF" and mode == "1"):
        return Made(saved(image_file, kind, **options), image, labels)
    return oriented(rng, lambda exif: saved(image_file, kind, **options, **exif), image, labels)


def lossy(rng: Random) -> Made:
    """JPEG or lossy WebP; the pixels are those of OpenCV's decoder."""
    mode = rng.choice(("L", "RGB", "RGB", "CMYK"))
    values = noise(rng, *((3,) if mode == "RGB" else (4,) if mode == "CMYK" else ()))
    image_file = Image.frombytes(mode, values.shape[1::-1], values.astype(np.uint8).tobytes())
    if mode == "RGB" and rng.random() < 0.3:
        return Made(saved(image_file, "WEBP", quality=rng.randrange(101)))
    options = {"quality": rng.randrange(1, 101), "progressive": rng.random() < 0.4, "subsampling": rng.randrange(3)}
    return oriented(rng, lambda exif: saved(image_file, "JPEG", **options, **exif), None, None)


def packed_png(rng: Random) -> Made:
    """PNG of 1, 2, 4, 8 or 16 bits, gray or palette, with chunks between and after."""
    bits = rng.choice((1, 2, 4, 8, 16))
    labels = noise(rng, top=2**bits)
    palette, color, image = b"", 0, None
    if bits < 16 and rng.random() < 0.5:
        color = 3
        colors = np.frombuffer(rng.randbytes(3 * rng.randrange(1, 2**bits + 1)), np.uint8).reshape(-1, 3)
        palette = colors.tobytes()
        image = colors[labels] if labels.max() < len(colors) else None
    elif bits < 16 or labels.max() >= 2**14 or not labels.max():
        image = gray((labels * 255 + (2**bits - 1) // 2) // (2**bits - 1))
    after = rng.choice(
        (b"", b"", chunk(b"tEXt", b"a\0b"), chunk(b"gAMA", b"\0\0\xb1\x8f"), chunk(b"zzZz", rng.randbytes(9)))
    )
    height, width = labels.shape
    return Made(png(width, height, bits, color, packed_rows(labels, bits), palette=palette, after=after), image, labels)


def tagged_tiff(rng: Random) -> Made:
    """TIFF with random tags that fit together more or less; what it shows is read by the second reader."""
    bits, kind = rng.choice(
        ((1, 1), (2, 1), (4, 1), (8, 1), (8, 1), (16, 1), (8, 2), (16, 2), (32, 2), (32, 3), (64, 3))
    )
    photometric = rng.choice((0, 1, 1, 2, 2, 3, 5, 6, 8))
    samples = {2: 3, 5: 4, 6: 3, 8: 3}.get(photometric, 1) + rng.choice((0, 0, 0, 1, 2))
    height, width = rng.choice((1, 2, 7, 16)), rng.choice((1, 3, 8, 17))
    planar, big = rng.choice((1, 1, 1, 2)), rng.random() < 0.4
    rows = rng.randrange(1, height + 1)
    per_strip = 1 if planar == 2 else samples
    strips = []
    for _ in range(samples // per_strip):
        for top in range(0, height, rows):
            count = min(rows, height - top) * -(-width * per_strip * bits // 8)
            if kind == 3 and bits == 32:
                numbers = np.random.default_rng(rng.getrandbits(32)).random(count // 4)
                strips.append(numbers.astype(">f4" if big else "<f4").tobytes())
            else:
                strips.append(rng.choice((rng.randbytes(count), bytes(count), b"\x01" * count)))
    tags: dict[int, list[int] | None] = {258: [bits] * samples, 262: [photometric], 277: [samples], 278: [rows]}
    tags |= {284: [planar]} if planar == 2 or rng.random() < 0.2 else {}
    tags |= {339: [kind] * samples} if kind > 1 or rng.random() < 0.2 else {}
    tags |= {274: [rng.randrange(1, 9)]} if rng.random() < 0.3 else {}
    tags |= {338: [rng.randrange(3)]} if rng.random() < 0.3 else {}
    if photometric == 3 or rng.random() < 0.05:
        tags[320] = [rng.randrange(65536) for _ in range(3 * 2 ** min(bits, 8))]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        tag = rng.choice((256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 338, 339, 530))
        value = rng.choice((rng.randrange(1, 9), rng.choice(EXTREMES)))
        tags[tag] = rng.choice((None, [value], [value] * rng.randrange(1, 5)))
    return Made(tiff(strips, (height, width), tags, big_endian=big, deflate=rng.random() < 0.3))


def foreign(rng: Random) -> Made:
    """Files that are no images of an allowed format, under the name of one."""
    image_file = Image.fromarray(noise(rng, 3).astype(np.uint8))
    heads = (
        b"version https://git-lfs",
        b"<html",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"BM",
        b"RIFF\0\0\0\0WEBP",
        b"\xff\xd8\xff",
    )
    kind = rng.choice(("PPM", "ICO", "TGA", "PCX", "SGI", "head", "pages", "noise"))
    if kind == "pages":
        return Made(saved(image_file, rng.choice(("TIFF", "WEBP", "PNG")), save_all=True, append_images=[image_file]))
    if kind in ("head", "noise"):
        return Made((rng.choice(heads) if kind == "head" else b"") + rng.randbytes(rng.randrange(1, 300)))
    return Made(saved(image_file, kind))


MAKERS = (lossless, lossless, lossy, packed_png, tagged_tiff, tagged_tiff, foreign)


def made_file(rng: Random) -> Made:
    """Return a file, whole or damaged, with what it must be read as."""
    make = rng.choice(MAKERS)
    made = make(rng)
    if rng.random() < 0.35:
        return replace(made, is_whole=True)
    others = [other(rng).data for other in (make, rng.choice(MAKERS))]
    is_png = made.data.startswith(b"\x89PNG")
    if is_png and rng.random() < 0.5:
        pngs = [data for data in others if data.startswith(b"\x89PNG")]
        return Made(damaged_png(made.data, rng, pngs))
    data = damaged(made.data, rng, others)
    # Whatever still passes the checksums of a PNG has its pixels; other formats have none.
    return (
        Made(data, made.image, made.labels)
        if is_png and not any(d.startswith(b"\x89PNG") for d in others)
        else Made(data)
    )


def image_case(rng: Random, folder: Path) -> Attempt:
    """Read one file as an image."""
    made = made_file(rng)
    path = folder / f"x.{rng.choice(('png', 'jpg', 'tif', 'bmp', 'webp'))}"
    path.write_bytes(made.data)

    def judge(pixels: Array) -> None:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.flags.c_contiguous
        assert min(pixels.strides) > 0
        if made.data.startswith(b"\x89PNG"):
            check_png(made.data)
        for other in (made.image, tiff_image(made.data), opencv_image(made.data)):
            if other is not None:
                np.testing.assert_array_equal(pixels, other)

    return Attempt(lambda: read_image(path), judge, IMAGE_MIB, is_good=made.is_whole and made.image is not None)


def mask_case(rng: Random, folder: Path) -> Attempt:
    """Read one file as a mask, by value or by color, or write one and read it by another decoder."""
    if rng.random() < 0.1:
        return written_case(rng, folder)
    made, by_color = made_file(rng), rng.random() < 0.2
    is_good = made.is_whole and made.labels is not None and made.labels.ndim == 2 and not by_color
    path = folder / "x.png"
    path.write_bytes(made.data)

    def judge(values: Array) -> None:
        assert values.dtype in (np.uint8, np.uint16)
        assert values.ndim == 2 or (values.ndim == 3 and values.shape[2] == 3)
        if made.data.startswith(b"\x89PNG"):
            check_png(made.data)
        if by_color:
            return
        page = read_tiff(made.data)
        for other in (made.labels, None if page is None else labels_of(page)):
            if other is not None:
                np.testing.assert_array_equal(values, other)

    return Attempt(lambda: read_mask(path, by_color=by_color), judge, IMAGE_MIB, is_good=is_good)


def written_case(rng: Random, folder: Path) -> Attempt:
    """Write a mask or an image; Pillow reads the values back."""
    path = folder / "out" / "x.png"
    path.parent.mkdir()
    if rng.random() < 0.5:
        values: Array = noise(rng, top=rng.choice((256, 65536))).astype(np.uint16)
        values = values.astype(np.uint8) if values.max() < 256 and rng.random() < 0.5 else values
    else:
        values = noise(rng, 3).astype(np.uint8)

    def act() -> None:
        (write_mask if values.ndim == 2 else write_image)(path, values)

    def judge(_: None) -> None:
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), values)

    return Attempt(act, judge, is_good=True)


def tiff_image(data: bytes) -> Array | None:
    """Return what the second reader of TIFF sees; None for what it does not know."""
    page = read_tiff(data)
    return None if page is None else image_of(page)


def opencv_image(data: bytes) -> Array | None:
    """Return what OpenCV decodes from BMP and from PNG of up to 8 bits without orientation; None for other files."""
    is_plain_png = (
        data.startswith(b"\x89PNG") and data[24:25] != b"\x10" and b"eXIf" not in data and b"acTL" not in data
    )
    # Where a BMP's pixels begin inside of its headers or its palette, each reader has its own guess.
    is_plain_bmp = False
    if data.startswith(b"BM") and len(data) >= 54:
        first, bits, colors = struct.unpack_from("<10xI14xH16xI", data)
        is_plain_bmp = first >= 54 + (4 * (colors or 2**bits) if bits <= 8 else 0)
    if not (is_plain_png or is_plain_bmp):
        return None
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if pixels is None else np.asarray(pixels)
