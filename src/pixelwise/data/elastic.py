"""Elastic deformation: random displacements of a coarse grid, interpolated to every pixel by a bicubic spline.

Source: U-Net (https://arxiv.org/abs/1505.04597), section 3.1: a 3 x 3 grid, displacements drawn from a normal
distribution with a standard deviation of 10 pixels. Ours, where the paper is silent: the outer grid points lie on the
corners of the image; the cubic is Keys' (a = -1/2), and the grid is extended by repeating its border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = 3


def draw_displacement(size: tuple[int, int], std: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw each pixel's displacement (2, H, W), along columns, then along rows; `size` is (height, width)."""
    return interpolate_grid(rng.normal(0, std, (2, GRID, GRID)), size)


def interpolate_grid(grid: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Interpolate values at grid points (C, n, m), the outer ones on the corner pixels, to all pixels (C, H, W)."""
    along_rows, along_columns = (cubic_weights(n, pixels) for n, pixels in zip(grid.shape[1:], size, strict=True))
    interpolated: NDArray[np.float64] = along_rows @ grid @ along_columns.T
    return interpolated


def cubic_weights(num_points: int, num_pixels: int) -> NDArray[np.float64]:
    """Return (num_pixels, num_points): the weight of each grid point in each pixel along one axis."""
    position = np.linspace(0, num_points - 1, num_pixels) if num_pixels > 1 else np.array([(num_points - 1) / 2])
    first = np.floor(position).astype(np.int64) - 1
    weights = np.zeros((num_pixels, num_points))
    for step in range(4):
        point = first + step
        t = np.abs(position - point)
        # Keys 1981, equation 15, with a = -1/2; the four nearest points have distances t in 0..2.
        near = 1.5 * t**3 - 2.5 * t**2 + 1
        far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        kernel = np.where(t <= 1, near, np.where(t < 2, far, 0))
        np.add.at(weights, (np.arange(num_pixels), point.clip(0, num_points - 1)), kernel)
    return weights
