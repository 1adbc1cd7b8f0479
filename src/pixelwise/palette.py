"""The colour of class k where nobody chose one: the VOC devkit's palette."""

from __future__ import annotations


def voc_color(label: int) -> tuple[int, int, int]:
    """RGB of a label: its bits dealt out to red, green and blue in turn, the lowest bits to the highest places.

    Source: VOC devkit, VOClabelcolormap.
    """
    red = green = blue = 0
    for place in range(7, -1, -1):
        red |= (label & 1) << place
        green |= (label >> 1 & 1) << place
        blue |= (label >> 2 & 1) << place
        label >>= 3
    return red, green, blue
