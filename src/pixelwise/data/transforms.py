"""Augmentation: one warp, affine and maybe elastic, and one tone change, the same geometry for image and mask.

A transform is any callable `transform(image, mask, rng) -> (image, mask)`; the arrays are (H, W, C) uint8 and (H, W)
class ids. What the warp takes from outside the image is the training mean in the image and the ignore id in the mask.
Masks are sampled at exact pixel centres (nearest-exact): an id that comes out was there before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config import AugmentConfig
from .elastic import draw_displacement

BORDER_COLOR = (124, 116, 104)
"""ImageNet's mean, rounded: what a normalised network sees as (nearly) zero."""


Place = tuple[float, float]
"""(column, row) of an image, counted from its corner: the middle of its first pixel is (0.5, 0.5)."""


class Transform(Protocol):
    """What the loader asks of an augmentation."""

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[Any], rng: np.random.Generator, center: Place | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """image (H, W, C) uint8 and mask (H, W) -> new ones of equal size; all chance comes from `rng`.

        center  where the crop shall lie, if it is not drawn
        """
        ...


@dataclass(frozen=True)
class Augment:
    """Zoom, stretch, rotate, mirror, bend, crop in one warp; then tone and colour. `ignore_id` fills masks."""

    config: AugmentConfig
    ignore_id: int

    def __call__(
        self, image: NDArray[np.uint8], mask: NDArray[Any], rng: np.random.Generator, center: Place | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """image (H, W, C) uint8, mask (H, W) -> the same of the crop's size, or of their own where the crop is [0, 0].

        With `context` both are larger by that on each side, where the mask is ignored.
        """
        height, width = mask.shape if self.config.crop == [0, 0] else self.config.crop
        context = self.config.context_px
        to_source = self._draw(mask, (height, width), rng, center)
        to_source[:, 2] -= to_source[:, :2] @ [context, context]
        size = height + 2 * context, width + 2 * context
        moved = draw_displacement(size, self.config.elastic, rng) if self.config.elastic else None
        image, mask = warp(image, mask, to_source, size, self.ignore_id, moved, reflect=context > 0)
        if context:
            inside = np.zeros(size, np.bool_)
            inside[context:-context, context:-context] = True
            mask = np.where(inside, mask, np.asarray(self.ignore_id, mask.dtype))
        return self._tone(image, rng), mask

    def _draw(
        self, mask: NDArray[Any], size: tuple[int, int], rng: np.random.Generator, center: Place | None
    ) -> NDArray[np.float64]:
        """(2, 3): where a pixel of the crop lies in the source, in (column, row) of pixel corners."""
        config = self.config
        zoom = np.exp(rng.uniform(*np.log(config.scale)))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(config.aspect) / 2)
        angle = np.deg2rad(rng.uniform(-1, 1) * config.rotate)
        mirror = -1.0 if rng.random() < config.flip else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = turn @ np.diag([mirror / (zoom * stretch), stretch / zoom])
        drawn = self._middle(mask, np.abs(linear) @ np.array(size[::-1], float), rng)
        middle = drawn if center is None else np.array(center)
        return np.column_stack([linear, middle - linear @ (np.array(size[::-1]) / 2)])

    def _middle(self, mask: NDArray[Any], extent: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """(column, row) of the source that the crop is centred on; `extent` is what the crop covers there."""
        source = np.array(mask.shape[::-1], float)
        low = np.minimum(extent, source) / 2
        high = source - low
        anywhere: NDArray[np.float64] = low + rng.random(2) * (high - low)
        if rng.random() >= self.config.class_balanced_prob:
            return anywhere
        classes = np.unique(mask)
        classes = classes[classes != self.ignore_id]
        if not len(classes):
            return anywhere
        places = np.flatnonzero(mask == rng.choice(classes))
        row, column = divmod(int(rng.choice(places)), mask.shape[1])
        wished = np.array([column, row]) + (rng.random(2) - 0.5) * extent / 2
        clipped: NDArray[np.float64] = np.clip(wished, low, high)
        return clipped

    def _tone(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        config = self.config
        brightness, contrast, saturation, hue, gamma = rng.uniform(-1, 1, 5)
        curve = (np.arange(256) / 255) ** (2.0 ** (gamma * config.gamma))
        curve = ((curve - 0.5) * (1 + contrast * config.contrast) + 0.5) * (1 + brightness * config.brightness)
        table = np.rint(np.clip(curve, 0, 1) * 255).astype(np.uint8)
        # A look-up drops the axis of a single channel.
        toned: NDArray[np.uint8] = np.asarray(cv2.LUT(image, table), np.uint8).reshape(image.shape)
        if image.shape[2] == 3 and (config.saturation or config.hue):
            return _shift_color(toned, 1 + saturation * config.saturation, hue * config.hue)
        return toned


def warp(
    image: NDArray[np.uint8],
    mask: NDArray[Any],
    to_source: NDArray[np.float64],
    size: tuple[int, int],
    ignore_id: int,
    moved: NDArray[np.float64] | None = None,
    reflect: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Sample image (bilinear) and mask (nearest-exact) over a crop of `size` (height, width).

    to_source (2, 3) maps (column, row) of pixel corners in the crop to those in the source.
    moved (2, height, width): by how many pixels of the crop (columns, rows) each of its pixels is displaced before that.
    reflect: beyond the source the image is mirrored (U-Net's context), in place of one colour; the mask is ignored there.
    """
    height, width = size
    columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    if moved is not None:
        columns, rows = columns + moved[0], rows + moved[1]
    source = [a * columns + b * rows + c for a, b, c in to_source]
    border: dict[str, Any] = {"borderMode": cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT}
    border["borderValue"] = _border(image.shape[2])
    if moved is None:
        # OpenCV counts from pixel centres, the matrix from corners: half a pixel in, half a pixel out.
        shift = to_source[:, 2] + to_source[:, :2] @ [0.5, 0.5] - 0.5
        centers = np.column_stack([to_source[:, :2], shift])
        sampled = cv2.warpAffine(
            image, centers, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, **border
        )
    else:
        places = [(place - 0.5).astype(np.float32) for place in source]
        sampled = cv2.remap(image, places[0], places[1], cv2.INTER_LINEAR, **border)
    warped: NDArray[np.uint8] = np.asarray(sampled, np.uint8).reshape(height, width, -1)
    cells = [np.floor(place).astype(np.int64) for place in source]
    inside = (cells[0] >= 0) & (cells[0] < mask.shape[1]) & (cells[1] >= 0) & (cells[1] < mask.shape[0])
    source_columns, source_rows = (s.clip(0, n - 1) for s, n in zip(cells, mask.shape[::-1], strict=True))
    return warped, np.where(inside, mask[source_rows, source_columns], np.asarray(ignore_id, mask.dtype))


def _border(num_channels: int) -> Sequence[float]:
    return (*BORDER_COLOR, BORDER_COLOR[-1]) if num_channels >= 3 else (BORDER_COLOR[1],) * 4


def _shift_color(image: NDArray[np.uint8], saturation: float, hue: float) -> NDArray[np.uint8]:
    """Scale saturation and turn hue by degrees, in OpenCV's HSV (hue of 0..179 in steps of two degrees)."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    levels = np.arange(256)
    tables = np.stack(
        [(levels + round(hue / 2)) % 180, np.clip(np.rint(levels * saturation), 0, 255), levels], 1
    ).astype(np.uint8)
    shifted = cv2.LUT(hsv, tables[None])
    return np.asarray(cv2.cvtColor(shifted, cv2.COLOR_HSV2RGB), np.uint8)
