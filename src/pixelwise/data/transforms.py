"""Augmentation: one warp (affine, optionally elastic) for image and mask, then one color jitter of the image.

A transform is a callable `transform(image, mask, rng, center) -> (image, mask)` on arrays (H, W, C) uint8 and (H, W)
class ids, or (K, H, W) for several labels per pixel. Outside the source the warp fills the image with the training mean
and the mask with the ignore id. Masks are sampled at pixel centers (nearest-exact), so that only ids of the source come
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config import AugmentConfig
from .elastic import draw_displacement

BORDER_COLOR = (124, 116, 104)
"""ImageNet's mean, rounded: about zero after normalization."""
_LEVELS = np.arange(256)

XY = tuple[float, float]
"""(x, y), that is (column, row), in an image, measured from its corner: the center of the first pixel is (0.5, 0.5).
OpenCV's order; elsewhere a point is (row, column)."""


class Transform(Protocol):
    """The interface of an augmentation."""

    def __call__(
        self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator, center: XY | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return an augmented pair of image (H, W, C) uint8 and mask (H, W); all randomness comes from `rng`.

        center  where the crop is centered; drawn at random if None
        """
        ...


@dataclass(frozen=True)
class Augment:
    """Zoom, stretch, rotate, flip, bend and crop in one warp, then jitter the colors.

    ignore_id  fills the mask
    fill       number of each channel that fills the image, None for `BORDER_COLOR`; with it, images may have any
               number of channels of any type, and the colors of the first three change if they are 8-bit RGB
    """

    config: AugmentConfig
    ignore_id: int
    fill: tuple[float, ...] | None = None

    def __call__(
        self, image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator, center: XY | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return a crop of image (H, W, C) uint8 and mask (H, W), of their own size if the crop is [0, 0].

        With `context_px` the image, but not the mask, has that many extra pixels on each side.
        """
        height, width = mask.shape[-2:] if self.config.crop == [0, 0] else self.config.crop
        context = self.config.context_px
        inverse_matrix = self._draw_inverse_matrix(mask, (height, width), rng, center)
        # The warped area starts `context` pixels above and to the left of the crop.
        inverse_matrix[:, 2] -= inverse_matrix[:, :2] @ [context, context]
        size = height + 2 * context, width + 2 * context
        displacement = draw_displacement(size, self.config.elastic, rng) if self.config.elastic else None
        image, mask = warp(
            image,
            mask,
            inverse_matrix,
            size,
            ignore_id=self.ignore_id,
            displacement=displacement,
            reflect=context > 0,
            fill=self.fill,
        )
        mask = mask[..., context : context + height, context : context + width]
        if self.fill is None:
            return self._color_jitter(image, rng), mask
        # Other channels are no light: a depth has no brightness. `training_transform` refuses what nothing takes.
        changed = self._color_jitter(image[..., :3].astype(np.uint8), rng) if self._changes_colors else image[..., :3]
        return np.concatenate([changed.astype(image.dtype), image[..., 3:]], axis=2), mask

    @property
    def _changes_colors(self) -> bool:
        config = self.config
        return any((config.brightness, config.contrast, config.saturation, config.hue, config.gamma))

    def _draw_inverse_matrix(
        self, mask: NDArray[Any], size: tuple[int, int], rng: np.random.Generator, center: XY | None
    ) -> NDArray[np.float64]:
        """Draw the (2, 3) matrix from (column, row, 1) of the crop to (column, row) of the source, at pixel corners."""
        config = self.config
        zoom = np.exp(rng.uniform(*np.log(config.scale)))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(config.aspect) / 2)
        angle = np.deg2rad(rng.uniform(-1, 1) * config.rotate)
        flip = -1.0 if rng.random() < config.flip else 1.0
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = rotation @ np.diag([flip / (zoom * stretch), stretch / zoom])
        crop = np.array(size[::-1], float)
        # Drawn even where `center` is given, so that a draw uses the same random numbers either way.
        drawn = self._draw_center(mask, np.abs(linear) @ crop, rng)
        middle = drawn if center is None else np.array(center)
        return np.column_stack([linear, middle - linear @ (crop / 2)])

    def _draw_center(
        self, mask: NDArray[Any], extent: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw the (column, row) of the source that the crop is centered on; `extent` is what the crop covers there.

        With probability `class_balanced_prob` it lies near a pixel of a class that is drawn evenly from those in the
        mask.
        """
        from .mask_loops import ids_in

        source = np.array(mask.shape[:-3:-1], float)
        low = np.minimum(extent, source) / 2
        high = source - low
        anywhere: NDArray[np.float64] = low + rng.random(2) * (high - low)
        if rng.random() >= self.config.class_balanced_prob:
            return anywhere
        classes = np.flatnonzero((mask == 1).any((1, 2))) if mask.ndim == 3 else ids_in(mask, self.ignore_id)
        if not len(classes):
            return anywhere
        k = int(rng.choice(classes))
        pixels = np.flatnonzero(mask[k] == 1 if mask.ndim == 3 else mask == k)
        row, column = divmod(int(rng.choice(pixels)), mask.shape[-1])
        near_pixel = np.array([column, row]) + (rng.random(2) - 0.5) * extent / 2
        inside: NDArray[np.float64] = np.clip(near_pixel, low, high)
        return inside

    def _color_jitter(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        config = self.config
        brightness, contrast, saturation, hue, gamma = rng.uniform(-1, 1, 5)
        curve = (_LEVELS / 255) ** (2.0 ** (gamma * config.gamma))
        curve = ((curve - 0.5) * (1 + contrast * config.contrast) + 0.5) * (1 + brightness * config.brightness)
        table = np.rint(curve.clip(0, 1) * 255).astype(np.uint8)
        # cv2.LUT drops the axis of a single channel.
        jittered: NDArray[np.uint8] = np.asarray(cv2.LUT(image, table), np.uint8).reshape(image.shape)
        if image.shape[2] != 3 or not (config.saturation or config.hue):
            return jittered
        from .augment_loops import change_hues

        # OpenCV's HSV of 8 bits holds hue as 0..179, in steps of two degrees.
        hues = (_LEVELS + round(hue * config.hue / 2)) % 180
        saturations = np.rint(_LEVELS * (1 + saturation * config.saturation)).clip(0, 255)
        hsv = np.asarray(cv2.cvtColor(jittered, cv2.COLOR_RGB2HSV), np.uint8)
        change_hues(hsv, hues.astype(np.uint8), saturations.astype(np.uint8))
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def warp(
    image: NDArray[Any],
    mask: NDArray[Any],
    inverse_matrix: NDArray[np.float64],
    size: tuple[int, int],
    *,
    ignore_id: int,
    displacement: NDArray[np.float64] | None = None,
    reflect: bool = False,
    fill: Sequence[float] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sample image (bilinear) and mask (nearest-exact) over a crop of `size` (height, width).

    inverse_matrix  (2, 3), maps (column, row, 1) of the crop to (column, row) of the source, both from pixel corners
    displacement    (2, height, width), by how many pixels of the crop (columns, rows) each pixel moves before that
    reflect         fill the image outside the source by reflection (U-Net's context) instead of `BORDER_COLOR`; the
                    mask is ignored there either way
    fill            number of each channel there; None is `BORDER_COLOR`
    """
    from .augment_loops import sample_labels

    height, width = size
    # One value per channel; OpenCV wants four.
    color = (*BORDER_COLOR, BORDER_COLOR[-1]) if image.shape[2] >= 3 else (BORDER_COLOR[1],) * 4
    border_mode = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    options: dict[str, Any] = {"borderMode": border_mode}
    if displacement is None:
        # OpenCV counts from pixel centers, the matrix from corners: half a pixel in, half a pixel out.
        shift = inverse_matrix[:, 2] + inverse_matrix[:, :2] @ [0.5, 0.5] - 0.5
        centers = np.column_stack([inverse_matrix[:, :2], shift])
        options["flags"] = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        sample = partial(cv2.warpAffine, M=centers, dsize=(width, height), **options)
    else:
        columns = np.arange(width) + 0.5 + displacement[0]
        rows = np.arange(height)[:, None] + 0.5 + displacement[1]
        maps = [(a * columns + b * rows + c - 0.5).astype(np.float32) for a, b, c in inverse_matrix]
        sample = partial(cv2.remap, map1=maps[0], map2=maps[1], interpolation=cv2.INTER_LINEAR, **options)
    if fill is None:
        sampled = sample(image, borderValue=color)
    else:
        # OpenCV samples at most four channels at once, and two with positions rounded to 1/32 of a pixel.
        channels = image.shape[2]
        cuts = [*range(0, channels, 4), *([channels - 1] if channels % 4 == 2 else []), channels]
        sampled = np.dstack(
            [
                sample(np.ascontiguousarray(image[..., start:stop]), borderValue=[*fill[start:stop], 0, 0, 0][:4])
                for start, stop in pairwise(cuts)
            ]
        )
    warped: NDArray[Any] = np.asarray(sampled, image.dtype).reshape(height, width, -1)
    labels = sample_labels(mask, inverse_matrix, size, ignore_id=ignore_id, displacement=displacement)
    return warped, labels
