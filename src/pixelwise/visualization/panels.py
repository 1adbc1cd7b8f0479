"""Figures of labeled panels: images in a grid, a title under each, and a legend or a color scale at the foot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..core import Taxonomy, Window

# All lengths in pixels.
MARGIN = 20
GAP = 14
HEADING_SIZE, TITLE_SIZE, NOTE_SIZE = 20, 15, 13
HEADING_HEIGHT, TITLE_HEIGHT, NOTE_HEIGHT = 30, 22, 18
SWATCH = 14

BACKGROUND = (255, 255, 255)
TEXT = (30, 32, 36)
MUTED = (98, 102, 110)
OUTLINE = (205, 208, 213)

VIRIDIS = cv2.COLORMAP_VIRIDIS
INFERNO = cv2.COLORMAP_INFERNO

NOT_SCORED = "not scored"

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """One image of a figure, drawn at its own size, with a title and a muted note below it; both may be empty."""

    image: Image.Image
    title: str = ""
    note: str = ""


def contact_sheet(
    panels: Sequence[Panel], columns: int, *, heading: str = "", note: str = "", footer: Image.Image | None = None
) -> Image.Image:
    """Draw the panels row by row, `columns` per row, on white; heading and note above, `footer` below them."""
    header = (HEADING_HEIGHT if heading else 0) + (NOTE_HEIGHT + 6 if note else 0)
    has_notes = any(panel.note for panel in panels)
    has_titles = has_notes or any(panel.title for panel in panels)
    caption = (4 + TITLE_HEIGHT if has_titles else 0) + (NOTE_HEIGHT if has_notes else 0)
    sizes = [(panel.image.height, panel.image.width) for panel in panels]
    boxes = grid(sizes, columns, top=MARGIN + header, caption=caption)
    right = max(box.right for box in boxes)
    bottom = max(box.bottom for box in boxes) + caption
    if footer is not None:
        right = max(right, MARGIN + footer.width)
        bottom += GAP + footer.height
    sheet = Image.new("RGB", (right + MARGIN, bottom + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    width = right - MARGIN
    if heading:
        draw_text(draw, (MARGIN, MARGIN), heading, size=HEADING_SIZE, color=TEXT, width=width)
    if note:
        top = MARGIN + header - NOTE_HEIGHT - 6
        draw_text(draw, (MARGIN, top), note, size=NOTE_SIZE, color=MUTED, width=width)
    for panel, box in zip(panels, boxes, strict=True):
        sheet.paste(panel.image, (box.left, box.top))
        top, width = box.bottom + 4, box.size[1]
        draw_text(draw, (box.left, top), panel.title, size=TITLE_SIZE, color=TEXT, width=width)
        draw_text(draw, (box.left, top + TITLE_HEIGHT), panel.note, size=NOTE_SIZE, color=MUTED, width=width)
    if footer is not None:
        sheet.paste(footer, (MARGIN, bottom - footer.height))
    return sheet


def grid(sizes: Sequence[tuple[int, int]], columns: int, *, top: int, caption: int) -> list[Window]:
    """Return the places of images of these (height, width): rows from `top` on, `caption` pixels free below each image.

    A column is as wide as its widest image, a row as high as its highest; a smaller one lies at the upper left.
    """
    widths = [max(width for _, width in sizes[column::columns]) for column in range(min(columns, len(sizes)))]
    boxes = []
    for start in range(0, len(sizes), columns):
        row = sizes[start : start + columns]
        left = MARGIN
        for (height, width), column_width in zip(row, widths, strict=False):
            boxes.append(Window(top, left, top + height, left + width))
            left += column_width + GAP
        top += max(height for height, _ in row) + caption + GAP
    return boxes


def fit(pixels: NDArray[np.uint8], side: int, *, labels: bool = False) -> Image.Image:
    """Resize (H, W, 3) uint8 RGB to at most `side` pixels on its longer side; small images grow by an integer factor.

    labels  the colors stand for classes and must not be mixed
    """
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest > side:
        size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
        interpolation = cv2.INTER_NEAREST_EXACT if labels else cv2.INTER_AREA
        return Image.fromarray(cv2.resize(pixels, size, interpolation=interpolation))
    factor = side // longest
    return Image.fromarray(np.repeat(np.repeat(pixels, factor, 0), factor, 1))


def heat(values: NDArray[Any], *, low: float, high: float, colormap: int = VIRIDIS) -> NDArray[np.uint8]:
    """Map numbers (H, W) to colors (H, W, 3) uint8 RGB, `low` to the first of the map and `high` to its last."""
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    levels = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, colormap)[..., ::-1])


def gray(image: NDArray[np.uint8], strength: float = 1.0) -> NDArray[np.uint8]:
    """Convert an image (H, W, 3) RGB to gray, as (H, W, 3); a strength below 1 fades it to white."""
    luminance = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded = 255 - (255 - luminance) * strength
    return np.repeat(np.rint(faded).astype(np.uint8)[..., None], 3, 2)


def legend_entries(masks: Sequence[NDArray[Any]], taxonomy: Taxonomy) -> list[tuple[str, Color]]:
    """Return name and color of the classes in any of the masks (H, W), in the order of ids, the ignore id last."""
    ids = sorted({int(k) for mask in masks for k in np.unique(mask)})
    known = [(taxonomy.names[k], taxonomy.colors[k]) for k in ids if k != taxonomy.ignore_id]
    return known + ([(NOT_SCORED, taxonomy.ignore_color)] if taxonomy.ignore_id in ids else [])


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


def color_scale(low: str, high: str, *, width: int, colormap: int = VIRIDIS, label: str = "") -> Image.Image:
    """Draw a bar of all colors, labeled `low` and `high` at its ends, and with its quantity in between."""
    bar = heat(np.tile(np.linspace(0, 1, width), (10, 1)), low=0, high=1, colormap=colormap)
    image = Image.new("RGB", (width, 10 + 4 + NOTE_HEIGHT), BACKGROUND)
    image.paste(Image.fromarray(bar), (0, 0))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(NOTE_SIZE)
    for text, anchor, x in ((low, "la", 0), (label, "ma", width // 2), (high, "ra", width - 1)):
        draw.text((x, 14), text, MUTED, font, anchor=anchor)
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
