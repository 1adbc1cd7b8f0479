"""Names of classes beside their colors, as an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..core import Taxonomy

# All lengths in pixels.
GAP = 14
NOTE_SIZE, NOTE_HEIGHT = 13, 18
SWATCH = 14
# A legend is at least so wide, however small the image is that it belongs to.
MIN_WIDTH = 200

BACKGROUND = (255, 255, 255)
TEXT = (30, 32, 36)
OUTLINE = (205, 208, 213)
NOT_SCORED = "not scored"

Color = tuple[int, int, int]


def with_legend(image: NDArray[np.uint8], mask: NDArray[Any], taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """Return an RGB image (H, W, 3) with the names and colors of the classes in its mask (H, W) below it, on white.

    An image narrower than the legend gets white to its right.
    """
    height, width = image.shape[:2]
    foot = np.asarray(legend(legend_entries([mask], taxonomy), max(width, MIN_WIDTH)))
    sheet = np.full((height + GAP + len(foot), foot.shape[1], 3), 255, np.uint8)
    sheet[:height, :width] = image
    sheet[height + GAP :] = foot
    return sheet


def legend_entries(masks: Sequence[NDArray[Any]], taxonomy: Taxonomy) -> list[tuple[str, Color]]:
    """Return name and color of the classes in any of the masks (H, W), in the order of ids, the ignore id last."""
    ids = sorted({int(k) for mask in masks for k in np.unique(mask)})
    known = [(taxonomy.names[k], taxonomy.colors[k]) for k in ids if k != taxonomy.ignore_id]
    # Of several labels per pixel, it stands for pixels without a label.
    has_ignored = taxonomy.ignore_id in ids and not taxonomy.multilabel
    return known + ([(NOT_SCORED, taxonomy.ignore_color)] if has_ignored else [])


def legend(entries: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Draw color swatches with names, broken into lines of `width` pixels."""
    font = ImageFont.load_default(NOTE_SIZE)
    left, line = 0, 0
    positions = []
    for name, _ in entries:
        length = SWATCH + 6 + round(font.getlength(name)) + 18
        if left and left + length > width:
            left, line = 0, line + 1
        positions.append((left, line * (NOTE_HEIGHT + 6)))
        left += length
    image = Image.new("RGB", (width, (line + 1) * (NOTE_HEIGHT + 6)), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for (name, color), (x, y) in zip(entries, positions, strict=True):
        draw.rectangle((x, y + 2, x + SWATCH - 1, y + 1 + SWATCH), fill=color, outline=OUTLINE)
        text_left = x + SWATCH + 6
        draw_text(draw, (text_left, y), name, size=NOTE_SIZE, color=TEXT, width=width - text_left)
    return image


def draw_text(
    draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, *, size: int, color: Color, width: int
) -> None:
    """Draw text of at most `width` pixels, its upper left corner at `position` (x, y)."""
    draw.text(position, elide(text, size, width), color, ImageFont.load_default(size))


def elide(text: str, size: int, width: int) -> str:
    """Return the text, without its middle if it is longer than `width` pixels in letters of that size."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return ""
