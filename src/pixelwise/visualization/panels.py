"""Labelled sheets of images: panels in a grid, a title under each, a legend or a colour scale at the foot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..core import Window

MARGIN = 20
GAP = 14
HEADING_SIZE, TITLE_SIZE, NOTE_SIZE = 20, 15, 13
HEADING_HEIGHT, TITLE_HEIGHT, NOTE_HEIGHT = 30, 22, 18
SWATCH = 14

PAPER = (255, 255, 255)
INK = (30, 32, 36)
MUTED = (98, 102, 110)
OUTLINE = (205, 208, 213)

VIRIDIS = cv2.COLORMAP_VIRIDIS
INFERNO = cv2.COLORMAP_INFERNO

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Panel:
    """One image of a sheet, drawn at its own size, with a title and a quieter note below it; both may be empty."""

    image: Image.Image
    title: str = ""
    note: str = ""


def contact_sheet(
    panels: Sequence[Panel], columns: int, heading: str = "", note: str = "", footer: Image.Image | None = None
) -> Image.Image:
    """The panels row by row, `columns` a row, as one RGB image on white; heading and note above, `footer` below them."""
    header = (HEADING_HEIGHT if heading else 0) + (NOTE_HEIGHT + 6 if note else 0)
    caption = _caption_height(panels)
    boxes = grid([(panel.image.height, panel.image.width) for panel in panels], columns, MARGIN + header, caption)
    right = max(box.right for box in boxes)
    bottom = max(box.bottom for box in boxes) + caption
    if footer is not None:
        right = max(right, MARGIN + footer.width)
        bottom += GAP + footer.height
    sheet = Image.new("RGB", (right + MARGIN, bottom + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    room = right - MARGIN
    if heading:
        _write(draw, (MARGIN, MARGIN), heading, HEADING_SIZE, INK, room)
    if note:
        _write(draw, (MARGIN, MARGIN + header - NOTE_HEIGHT - 6), note, NOTE_SIZE, MUTED, room)
    for panel, box in zip(panels, boxes, strict=True):
        sheet.paste(panel.image, (box.left, box.top))
        _write(draw, (box.left, box.bottom + 4), panel.title, TITLE_SIZE, INK, box.size[1])
        _write(draw, (box.left, box.bottom + 4 + TITLE_HEIGHT), panel.note, NOTE_SIZE, MUTED, box.size[1])
    if footer is not None:
        sheet.paste(footer, (MARGIN, bottom - footer.height))
    return sheet


def grid(sizes: Sequence[tuple[int, int]], columns: int, top: int, caption: int) -> list[Window]:
    """Where images of these (height, width) lie: rows from `top` on, `caption` pixels free below each image.

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
    """(H, W, 3) uint8 RGB with its longer side at `side` pixels at most; small images grow by a whole factor.

    labels  colours that stand for classes, which must not be mixed
    """
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest > side:
        size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
        return Image.fromarray(
            cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST_EXACT if labels else cv2.INTER_AREA)
        )
    factor = side // longest
    return Image.fromarray(np.repeat(np.repeat(pixels, factor, 0), factor, 1))


def heat(values: NDArray[Any], low: float, high: float, colormap: int = VIRIDIS) -> NDArray[np.uint8]:
    """Numbers (H, W) as colours (H, W, 3) uint8 RGB: `low` and below the map's first colour, `high` and above its last."""
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    levels = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, colormap)[..., ::-1])


def gray(image: NDArray[np.uint8], strength: float = 1.0) -> NDArray[np.uint8]:
    """An image (H, W, 3) RGB without its colours, as (H, W, 3); below strength 1 it fades into white."""
    luminance = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    faded = 255 - (255 - luminance) * strength
    return np.repeat(np.rint(faded).astype(np.uint8)[..., None], 3, 2)


def legend(entries: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Colour swatches with names, broken into lines of `width` pixels."""
    font = ImageFont.load_default(NOTE_SIZE)
    left, line = 0, 0
    places = []
    for name, _ in entries:
        length = SWATCH + 6 + round(font.getlength(name)) + 18
        if left and left + length > width:
            left, line = 0, line + 1
        places.append((left, line * (NOTE_HEIGHT + 6)))
        left += length
    image = Image.new("RGB", (width, (line + 1) * (NOTE_HEIGHT + 6)), PAPER)
    draw = ImageDraw.Draw(image)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, y + 2, x + SWATCH - 1, y + 1 + SWATCH), fill=color, outline=OUTLINE)
        _write(draw, (x + SWATCH + 6, y), name, NOTE_SIZE, INK, width - x - SWATCH - 6)
    return image


def color_scale(low: str, high: str, width: int, colormap: int = VIRIDIS, word: str = "") -> Image.Image:
    """A bar of all colours from `low` to `high`, labelled at both ends, with what it measures in between."""
    bar = heat(np.tile(np.linspace(0, 1, width), (10, 1)), 0, 1, colormap)
    image = Image.new("RGB", (width, 10 + 4 + NOTE_HEIGHT), PAPER)
    image.paste(Image.fromarray(bar), (0, 0))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(NOTE_SIZE)
    for text, anchor, x in ((low, "la", 0), (word, "ma", width // 2), (high, "ra", width - 1)):
        draw.text((x, 14), text, MUTED, font, anchor=anchor)
    return image


def elide(text: str, size: int, width: int) -> str:
    """The text, its middle left out where it is longer than `width` pixels in letters of that size."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return ""


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, color: Color, width: int) -> None:
    draw.text(place, elide(text, size, width), color, ImageFont.load_default(size))


def _caption_height(panels: Sequence[Panel]) -> int:
    title, note = any(panel.title for panel in panels), any(panel.note for panel in panels)
    return (4 if title or note else 0) + (TITLE_HEIGHT if title or note else 0) + (NOTE_HEIGHT if note else 0)
