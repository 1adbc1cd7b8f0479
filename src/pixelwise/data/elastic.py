"""Elastic deformation: random displacements on a coarse grid, spread over all pixels by bicubic interpolation.

Source: U-Net (https://arxiv.org/abs/1505.04597), section 3.1: a grid of 3 x 3, displacements normal with a deviation of 10 pixels.
Ours: the grid's outer points lie on the image's corners; the cubic is Keys' (a = -1/2), and beyond the grid its border is
repeated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = 3


def draw_displacement(size: tuple[int, int], deviation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(2, H, W) for an image of `size` (height, width): how far each pixel is moved along columns, then along rows."""
    return spread(rng.normal(0, deviation, (2, GRID, GRID)), size)


def spread(grid: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Values at grid points (C, n, m), the outer ones on the corner pixels -> values at all pixels (C, H, W)."""
    down, across = (cubic_weights(points, pixels) for points, pixels in zip(grid.shape[1:], size, strict=True))
    smooth: NDArray[np.float64] = down @ grid @ across.T
    return smooth


def cubic_weights(num_points: int, num_pixels: int) -> NDArray[np.float64]:
    """(num_pixels, num_points): what each point weighs in each pixel of one axis."""
    position = np.linspace(0, num_points - 1, num_pixels) if num_pixels > 1 else np.array([(num_points - 1) / 2])
    first = np.floor(position).astype(np.int64) - 1
    weights = np.zeros((num_pixels, num_points))
    for step in range(4):
        point = first + step
        np.add.at(weights, (np.arange(num_pixels), point.clip(0, num_points - 1)), _keys(np.abs(position - point)))
    return weights


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel, a = -1/2, at distances of 0 and more."""
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
