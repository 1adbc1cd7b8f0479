"""The colors of classes: VOC's palette for files, and one for figures that people look at.

The second one, for figures, was chosen greedily: after vermilion and sky blue of Okabe and Ito
(https://jfly.uni-koeln.de/color/), each color is the one that lies farthest in CIELAB from those before it, where the
distance of two colors is the least of those for normal, protanopic and deuteranopic vision, as simulated by Machado et
al. 2009 (https://doi.org/10.1109/TVCG.2009.113). Lightness is 38 to 93 and chroma at least 28, so that each is seen on
a photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import dist

RGB = tuple[int, int, int]

FIGURE_COLORS: tuple[RGB, ...] = tuple(
    (number >> 16, number >> 8 & 255, number & 255)
    for number in (
        *(0xD55E00, 0x56B4E9, 0x5522FF, 0x99FFCC, 0x994455, 0xFFEE00, 0x2255BB, 0xAAFF88, 0xCC8866, 0x00FFFF),
        *(0x555588, 0x44AAAA, 0x994422, 0x4499FF, 0xFFAA33, 0x5566FF, 0xEE9955, 0x66CCAA, 0x88EE99, 0x0077BB),
        *(0xBB7777, 0x33CCDD, 0x228899, 0xEEEE66, 0xBB6633, 0x995544, 0x885577, 0x44CC88),
    )
)
"""Red, green and blue of the colors for figures, the easiest to tell apart first."""

BACKGROUND_NAMES = frozenset(
    {"background", "_background_", "__background__", "bg", "unlabeled", "unlabelled", "unlabeled area", "void"}
)
"""Names of a class, in small letters, that stands for the rest of the image: an overlay leaves it clear."""

# A color is seen on a photo if one of its channels reaches this number.
_MIN_CHANNEL = 160
# Two are distinct from this distance on, in luma and in blue against yellow: what is left without red and green.
_MIN_DISTANCE = 40


def voc_color(label: int) -> RGB:
    """Return the RGB color of a label in the VOC palette.

    The bits of the label go to red, green and blue in turn, the lowest label bits to the highest color bits.
    Source: VOC devkit, VOClabelcolormap.
    """
    red = green = blue = 0
    for place in range(7, -1, -1):
        red |= (label & 1) << place
        green |= (label >> 1 & 1) << place
        blue |= (label >> 2 & 1) << place
        label >>= 3
    return red, green, blue


def is_background(name: str) -> bool:
    """Return whether the name of a class says that it is the rest of the image."""
    return name.strip().casefold() in BACKGROUND_NAMES


def figure_colors(names: Sequence[str], colors: Sequence[RGB]) -> tuple[RGB, ...]:
    """Return the colors of the classes in figures: their own if these are seen and distinct, or `FIGURE_COLORS`.

    Published palettes are made for files: VOC's has classes in dark red and dark blue, Cityscapes' six kinds of blue.
    The background keeps its color. More classes than there are colors keep theirs.
    """
    objects = [k for k, name in enumerate(names) if not is_background(name)]
    own = [colors[k] for k in objects]
    if len(own) > len(FIGURE_COLORS) or _can_be_seen(own):
        return tuple(colors)
    chosen = dict(zip(objects, FIGURE_COLORS, strict=False))
    return tuple(chosen.get(k, color) for k, color in enumerate(colors))


def _can_be_seen(colors: Sequence[RGB]) -> bool:
    axes = [(0.299 * red + 0.587 * green + 0.114 * blue, blue - (red + green) / 2) for red, green, blue in colors]
    is_bright = all(max(color) >= _MIN_CHANNEL for color in colors)
    return is_bright and all(dist(one, other) >= _MIN_DISTANCE for one, other in combinations(axes, 2))
