"""Figures of labeled panels: images in a grid, a title under each, and a legend or a color scale at the foot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..core import Window
from ..images.legend import BACKGROUND, GAP, NOTE_HEIGHT, NOTE_SIZE, TEXT, draw_text

# All lengths in pixels.
MARGIN = 20
HEADING_SIZE, TITLE_SIZE = 20, 15
HEADING_HEIGHT, TITLE_HEIGHT = 30, 22

MUTED = (98, 102, 110)

VIRIDIS = cv2.COLORMAP_VIRIDIS
INFERNO = cv2.COLORMAP_INFERNO


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
