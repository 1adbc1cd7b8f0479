"""Read images of any pixel format: the numbers of the file, of any number of channels and from several files.

PNG, JPEG, WebP, BMP    gray, gray and alpha, RGB, or RGBA as four channels; no palettes
TIFF                    gray by Pillow; several samples or pages (one per channel) by the package tifffile
npy                     (H, W), (H, W, C) or (C, H, W) of integers or floats
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, ResourceError, listed
from .arrays import ARRAY_SUFFIX, NPY, read_npy
from .decode import MAX_BYTES, MAX_PIXELS, Decoded, decode_bytes, read_bytes
from .facts import file_facts
from .headers import (
    BITS_PER_SAMPLE,
    DECODE_ERRORS,
    ORIENTATION,
    SAMPLE_FORMAT,
    SAMPLES_PER_PIXEL,
    first,
    num_further_samples,
    tiff_tags,
    without_warnings,
)
from .listing import IMAGE_SUFFIXES, cut_suffix, without_suffix
from .pixel_format import ImagePart, PixelFormat, check_numbers
from .read import read_image, turn, upright

# Float32 holds all integers up to this one.
_LARGEST_EXACT = 2**24
_EXPORT = "save it as PNG, TIFF or npy with unsigned integers or floats"
# PhotometricInterpretation of channels whose numbers mean what they are: black is zero, and RGB.
_PLAIN_PHOTOMETRIC = (1, 2)


def read_pixels(path: str | Path, pixels: PixelFormat) -> NDArray[Any]:
    """Read an image as (H, W, C) with the numbers of its files, upright; an ordinary one as `read_image` does.

    path  of the first part; the files of the others are found beside it
    Raises ImageError for a file that is missing or cannot be read, and for another number of channels, other bits or
    numbers beyond the range.
    """
    if pixels.is_rgb and Path(path).suffix.lower() != ARRAY_SUFFIX:
        return read_image(path)
    files = part_files(path, pixels)
    parts = [_read_part(file, part) for file, part in zip(files, pixels.parts, strict=True)]
    for file, part in zip(files[1:], parts[1:], strict=True):
        if part.shape[:2] != parts[0].shape[:2]:
            (height, width), (own_height, own_width) = parts[0].shape[:2], part.shape[:2]
            what = f"expected {height}x{width}, the size of {path}, got {own_height}x{own_width} (height x width)"
            raise ImageError(file, what, "resize or crop it to the image")
    return np.ascontiguousarray(np.concatenate(parts, axis=2), pixels.dtype)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) of an image, upright; PNG and JPEG are not decoded for it. Raises ImageError."""
    data = read_bytes(path)
    try:
        with without_warnings(), Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            width, height = image.size
            is_turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            return (width, height) if is_turned else (height, width)
    except DECODE_ERRORS:
        # Another format, or a header that cannot be read.
        pass
    try:
        return file_facts(decode_bytes(path, data)).size
    except ImageError:
        height, width = read_numbers(path).shape[:2]
        return height, width


def part_files(path: str | Path, pixels: PixelFormat) -> list[Path]:
    """Return the files that hold an image, one per part. Raises ImageError for one that is missing or not unique."""
    return [Path(path), *(_find_part(Path(path), part) for part in pixels.parts[1:])]


def is_further_part(name: str, pixels: PixelFormat) -> bool:
    """Return whether a file holds further channels of another image, by the ending of its name or by its folders.

    name  relative to the folder of the images, with / between folders
    """
    if len(pixels.parts) == 1:
        return False
    *above, stem = cut_suffix(name).split("/")
    endings = [part.suffix for part in pixels.parts[1:] if part.suffix and not part.folder]
    folders = {part.folder for part in pixels.parts[1:] if part.folder}
    return any(stem.endswith(e) and stem != e for e in endings) or bool(folders & set(above))


def _find_part(path: Path, part: ImagePart) -> Path:
    """Return the file of a part beside the image: in the same folder, or in the nearest folder of the part's name."""
    stem = without_suffix(Path(path.name)).name + part.suffix
    folders = [path.parent]
    if part.folder:
        # images/train/a.png has its depth in depth/train/a.png; photos/a.png in depth/a.png, beside photos/.
        absolute = path.parent.absolute()
        above = [(absolute, *absolute.parents)[depth] for depth in range(min(3, len(absolute.parents)))]
        folders = [folder.parent / part.folder / absolute.relative_to(folder) for folder in above]
    endings = [ending for suffix in (*IMAGE_SUFFIXES, ARRAY_SUFFIX) for ending in (suffix, suffix.upper())]
    for folder in folders:
        found = [file for ending in endings if (file := folder / f"{stem}{ending}").is_file()]
        found = [file for k, file in enumerate(found) if not any(file.samefile(other) for other in found[:k])]
        if len(found) > 1:
            names = listed(file.name for file in found)
            raise ImageError(path, f"has several files with {listed(part.channels)}: {names}", "keep one of them")
        if found:
            return found[0]
    place = f"in a folder {part.folder} beside its own" if part.folder else "beside it"
    what = f"has no file with {listed(part.channels)}: expected {stem}.png, .tif or .npy {place}"
    raise ImageError(path, what, "add the file, or name an image that has one")


def _read_part(path: Path, part: ImagePart) -> NDArray[Any]:
    if part.is_rgb and path.suffix.lower() != ARRAY_SUFFIX:
        return read_image(path)
    count = len(part.channels)
    numbers = read_numbers(path, count)
    if numbers.shape[2] != count:
        what = f"expected {count} channels ({listed(part.channels, 6)}), got {numbers.shape[2]}"
        raise ImageError(path, what, "choose a model or write `images` in classes.yaml for such images")
    if part.range:
        if numbers.dtype.kind != "f" and int(np.abs(numbers.astype(np.int64)).max()) > _LARGEST_EXACT:
            raise ImageError(path, f"holds integers beyond {_LARGEST_EXACT}, which are not exact as float32", _EXPORT)
        with np.errstate(over="ignore"):
            numbers = numbers.astype(np.float32)
    elif numbers.dtype.kind not in "bui":
        what = f"expected integers of {part.bits} bits, got {numbers.dtype}"
        raise ImageError(path, what, "declare a `range` in place of `bits` in classes.yaml, and train with it")
    elif part.bits > 8 and numbers.dtype.itemsize == 1:
        raise ImageError(path, f"expected {part.bits} bits per channel, got 8", "export it with all bits")
    check_numbers(numbers, part, path)
    return numbers.astype(part.dtype)


def read_numbers(path: str | Path, num_channels: int = 0) -> NDArray[Any]:
    """Read the numbers of one image file as (H, W, C), upright, of the type that the file holds.

    num_channels  tells a npy array of (C, H, W) from one of (H, W, C); 0 if it is not known
    Raises ImageError, and ResourceError if a TIFF needs the package tifffile, which is not installed.
    """
    data = read_bytes(path)
    if data.startswith(NPY):
        numbers = read_npy(path, data)
        if numbers.ndim == 3 and numbers.shape[2] != num_channels and numbers.shape[0] == num_channels:
            numbers = np.moveaxis(numbers, 0, 2)
    elif (tags := tiff_tags(data)) and (first(tags, SAMPLES_PER_PIXEL, 1) > 1 or _num_pages(data) > 1):
        numbers = turn(_read_tiff(path, data, num_channels), first(tags, ORIENTATION, 1))
    else:
        numbers = _read_pillow(path, decode_bytes(path, data))
    return numbers if numbers.ndim == 3 else numbers[..., None]


def is_plain_file(path: str | Path) -> bool:
    """Return whether the header of a file is that of an ordinary image: 8 bits, and no channels beside its colors.

    Files that are damaged, or no images, count as ordinary: `read_image` says what is wrong with them.
    """
    if Path(path).suffix.lower() == ARRAY_SUFFIX:
        return False
    with open(path, "rb") as file:
        head = file.read(32)
        data = head + file.read() if head[:2] in (b"II", b"MM") else head
    if data.startswith(b"\x89PNG"):
        return data[24:25] != b"\x10"
    tags = tiff_tags(data)
    is_integer = first(tags, SAMPLE_FORMAT, 1) == 1
    return not tags or (first(tags, BITS_PER_SAMPLE, 1) <= 8 and is_integer and num_further_samples(tags) == 0)


def _num_pages(data: bytes) -> int:
    # What it logs is raised by `decode_bytes`, or does not matter to tifffile.
    logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
    try:
        with without_warnings(), Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return int(getattr(image, "n_frames", 1))
    except DECODE_ERRORS:
        # Not for Pillow; `decode_bytes` says what is wrong.
        return 1


def _read_tiff(path: str | Path, data: bytes, num_channels: int) -> NDArray[Any]:
    """Decode all samples of a TIFF as (H, W, C); each page of several is one channel."""
    try:
        import tifffile
    except ImportError:
        what = "TIFF of several channels needs the package tifffile, which is not installed"
        raise ResourceError(path, what, "pip install 'pixelwise[tiff]', or save the image as npy") from None
    # What it logs of odd tags is either raised by what follows or does not change the numbers.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [page.aspage() for page in file.pages]
            _check_pages(path, pages, len(data))
            if file.is_shaped and len(pages) > 1 and file.series[0].shape[2:] == (num_channels,):
                # tifffile itself writes an array (H, W, C) as H pages, and says so.
                return np.asarray(file.series[0].asarray())
            planes = [np.asarray(page.asarray()) for page in pages]
            if any(plane.shape != page.shape for plane, page in zip(planes, pages, strict=True)):
                raise ImageError(path, "holds other numbers of pixels than its size says", _EXPORT)
    except ImageError:
        raise
    except (*DECODE_ERRORS, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ImageError(path, f"is damaged, or stored in an unsupported way: {reason}", _EXPORT) from None
    if len(planes) > 1:
        return np.stack(planes, axis=2)
    # Samples that follow each other as planes come first.
    return np.moveaxis(planes[0], 0, 2) if pages[0].axes == "SYX" else planes[0]


def _check_pages(path: str | Path, pages: list[Any], num_bytes: int) -> None:
    """Raise ImageError for pages that are not the channels of one image, or whose pixels are not all there."""
    page = pages[0]
    if any(other.shape != page.shape or other.dtype != page.dtype for other in pages) or (
        len(pages) > 1 and page.axes != "YX"
    ):
        raise ImageError(path, f"holds {len(pages)} pages that are not one channel each", _EXPORT)
    if 0 in page.shape or len(page.shape) != len(page.axes):
        raise ImageError(path, f"has a shape of {page.shape} pixels", _EXPORT)
    if page.axes not in ("YX", "YXS", "SYX") or page.dtype is None or page.dtype.kind not in "uif":
        raise ImageError(path, f"holds an array of axes {page.axes} and type {page.dtype}", _EXPORT)
    if page.imagelength * page.imagewidth > MAX_PIXELS or page.nbytes * len(pages) > MAX_BYTES:
        what = f"is too large: {page.imagelength}x{page.imagewidth} (height x width), {page.nbytes * len(pages)} bytes"
        raise ImageError(path, what, "cut it into tiles")
    for each in pages:
        if each.photometric not in _PLAIN_PHOTOMETRIC:
            what = f"expected plain numbers, got PhotometricInterpretation {int(each.photometric)}"
            raise ImageError(path, what, _EXPORT)
        # tifffile fills missing strips and tiles with zeros.
        expected = int(np.prod(each.chunked))
        spans = list(zip(each.dataoffsets, each.databytecounts, strict=True))
        if len(spans) != expected or any(not start or not size or start + size > num_bytes for start, size in spans):
            raise ImageError(path, "is cut, or leaves out strips of its pixels", "copy or export it again")


def _read_pillow(path: str | Path, decoded: Decoded) -> NDArray[Any]:
    """Return the numbers of an image that Pillow has decoded, (H, W) or (H, W, C), upright."""
    mode = decoded.image.mode
    is_stretched = mode in ("L", "LA") and decoded.bits < 8
    if is_stretched or decoded.white_is_zero or mode not in ("1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B"):
        what = f"expected plain numbers, got a file of mode {mode} with {decoded.bits} bits"
        raise ImageError(path, what, _EXPORT)
    if decoded.bits == 16 and mode in ("RGB", "RGBA", "LA"):
        import cv2

        # Pillow keeps only the high byte.
        pixels = cv2.imdecode(np.frombuffer(decoded.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if mode == "LA" or pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
            raise ImageError(path, "has 16-bit channels in an unsupported layout", _EXPORT)
        turned = turn(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]], 1 if decoded.turned else decoded.orientation)
        return np.ascontiguousarray(turned)
    numbers = np.require(upright(decoded), requirements="W")
    if mode == "1":
        return numbers.astype(np.uint8)
    return numbers.view(np.int8) if decoded.signed and mode == "L" else numbers
