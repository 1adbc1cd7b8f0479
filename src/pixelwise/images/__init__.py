"""Read and write images and masks: all pixels enter and leave through this package.

Every image becomes (H, W, 3) uint8 RGB, upright according to its EXIF orientation:
    8-bit gray, 1-bit    the gray value three times; 1-bit is black 0 and white 255
    palette              the palette's colors
    alpha                dropped; the colors of transparent pixels stay as stored
    CMYK, YCbCr          Pillow's plain conversion; color profiles are not applied
    16-bit gray, color   divided by 257 and rounded: 0..65535 fills 0..255
    float TIFF           0..1 times 255 and rounded; other ranges and NaN are refused
A mask keeps the numbers of its file: palette indices, 1-, 2- and 4-bit ids, 16-bit ids. Its EXIF orientation turns it.
Refused: folders, pipes, empty, cut or damaged files, several pages or frames, more than MAX_PIXELS, and every format
outside the list (PDF, EPS, PSD and similar formats have a history of harmful files). Refused too, because the pixels
would not be what the file's author meant: signed integers, 16-bit files that use less than a quarter of their range
(12-bit data), bands beyond color and alpha, palette indices without a color, and TIFF without all of its strips or
whose tags the decoders would ignore.

Images of other channels or numbers (five channels, 12 bits, depth in a second file) have a `PixelFormat`, and are read
by `read_pixels` with the numbers of their files.

Reading order: `headers` (what Pillow does not check), `decode` (file to Pillow image), `read` (Pillow image to array),
`pixel_format` and `read_numbers` (any other pixels), `facts`, `write`, `listing` (the images of a folder).
"""

from __future__ import annotations

from .arrays import ARRAY_SUFFIX
from .decode import MAX_PIXELS, describe_content, file_kind, image_suffix
from .facts import FileFacts
from .listing import (
    IMAGE_SUFFIXES,
    Listing,
    cut_suffix,
    find_images,
    irregular_files,
    list_images,
    names_below,
    paths_below,
    walk,
    walk_files,
    without_suffix,
)
from .pixel_format import COLORS, RGB, ImagePart, PixelFormat, same_numbers, unnamed
from .read import (
    exif_orientation,
    from_pil,
    odd_palettes,
    read_image,
    read_image_file,
    read_mask,
    read_mask_file,
    turn,
)
from .read_numbers import image_size, is_further_part, is_plain_file, part_files, read_numbers, read_pixels
from .write import encode_mask, write_binary_mask, write_image, write_mask

__all__ = [
    "ARRAY_SUFFIX",
    "COLORS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "RGB",
    "FileFacts",
    "ImagePart",
    "Listing",
    "PixelFormat",
    "cut_suffix",
    "describe_content",
    "encode_mask",
    "exif_orientation",
    "file_kind",
    "find_images",
    "from_pil",
    "image_size",
    "image_suffix",
    "irregular_files",
    "is_further_part",
    "is_plain_file",
    "list_images",
    "names_below",
    "odd_palettes",
    "part_files",
    "paths_below",
    "read_image",
    "read_image_file",
    "read_mask",
    "read_mask_file",
    "read_numbers",
    "read_pixels",
    "same_numbers",
    "turn",
    "unnamed",
    "walk",
    "walk_files",
    "without_suffix",
    "write_binary_mask",
    "write_image",
    "write_mask",
]
