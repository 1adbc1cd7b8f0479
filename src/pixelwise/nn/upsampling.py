"""From coarse scores to full size: fixed, separable, linear maps with two taps an axis.

A model calls the map as a layer (`F.interpolate` or a transposed convolution, on any device, with gradients).
Inference asks for the same map as a table of taps, so that upsampling and argmax can be one pass and the full
(K, H, W) tensor never exists. Tests hold the two forms equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core import LowResLogits, Upsample


@dataclass(frozen=True)
class Bilinear:
    """Bilinear interpolation to any size; `align_corners` as in `F.interpolate`."""

    align_corners: bool = False

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, h, w) -> (B, K, H, W)."""
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)

    def interpolation_table(self, num_cells: int, num_pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Cells (num_pixels, 2) and weights (num_pixels, 2) of one axis."""
        pixels = np.arange(num_pixels, dtype=np.float64)
        if self.align_corners:
            position = pixels * ((num_cells - 1) / max(num_pixels - 1, 1))
        else:
            position = np.maximum((pixels + 0.5) * (num_cells / num_pixels) - 0.5, 0)
        first = np.minimum(position.astype(np.intp), num_cells - 1)
        second = np.minimum(first + 1, num_cells - 1)
        weight = (position - first).astype(np.float32)
        return np.stack([first, second], 1), np.stack([1 - weight, weight], 1)


@dataclass(frozen=True)
class BilinearByFactor:
    """Bilinear interpolation by a whole factor, for cells that average `factor` pixels a side; what reaches further is cut off."""

    factor: int

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, h, w) -> (B, K, H, W)."""
        full = F.interpolate(logits, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return full[..., : size[0], : size[1]]

    def interpolation_table(self, num_cells: int, num_pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Cells (num_pixels, 2) and weights (num_pixels, 2) of one axis."""
        cells, weights = Bilinear().interpolation_table(num_cells, num_cells * self.factor)
        return cells[:num_pixels], weights[:num_pixels]


@dataclass(frozen=True)
class AlignedBilinear:
    """Bilinear interpolation between cells that lie on the pixels 0, stride, 2 * stride, ...: DeepLab's, on maps of any size.

    The cells have to reach the last pixel: `pad_to_stride` the image before. Source: Caffe's Interp layer with a zoom factor.
    """

    stride: int

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, h, w) -> (B, K, H, W)."""
        height, width = ((cells - 1) * self.stride + 1 for cells in logits.shape[-2:])
        assert min(height - size[0], width - size[1]) >= 0, f"cells reach {height}x{width} pixels, the image has {size}"
        full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=True)
        return full[..., : size[0], : size[1]]

    def interpolation_table(self, num_cells: int, num_pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Cells (num_pixels, 2) and weights (num_pixels, 2) of one axis."""
        pixels = np.arange(num_pixels)
        first = pixels // self.stride
        weight = (pixels % self.stride / self.stride).astype(np.float32)
        return np.stack([first, np.minimum(first + 1, num_cells - 1)], 1), np.stack([1 - weight, weight], 1)


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """(B, C, H, W) with zeros at the bottom and right, up to sides of `stride` * n + 1: what a Grid can bring to full size."""
    down, right = ((1 - side) % stride for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, down)) if down or right else x


def center_pixels(upsample: Upsample, num_cells: int, num_pixels: int) -> NDArray[np.intp]:
    """The pixel that each cell of one axis speaks for most, (num_cells,); -1 for a cell outside the image."""
    cells, weights = upsample.interpolation_table(num_cells, num_pixels)
    shares = np.zeros((num_cells, num_pixels), np.float32)
    np.add.at(shares, (cells, np.arange(num_pixels)[:, None]), weights)
    return np.where(shares.any(1), shares.argmax(1), -1)


def low_res_labels(low_res: LowResLogits, masks: Tensor, ignore_id: int) -> Tensor:
    """masks (B, H, W) of class ids -> (B, h, w): the label at each score cell's centre, `ignore_id` outside the image."""
    sizes = zip(low_res.logits.shape[-2:], masks.shape[-2:], strict=True)
    rows, columns = (torch.from_numpy(center_pixels(low_res.upsample, *size)).to(masks.device) for size in sizes)
    labels = masks[:, rows.clamp_min(0)[:, None], columns.clamp_min(0)]
    return labels.masked_fill((rows < 0)[:, None] | (columns < 0), ignore_id)


def bilinear_profile(kernel: int) -> NDArray[np.float64]:
    """The 1-D profile of a bilinear upsampling kernel of that length; its 2-D form is the outer product.

    Source: Caffe's bilinear filler; FCN, `surgery.py`. Length 4 gives .25 .75 .75 .25.
    """
    half = (kernel + 1) // 2
    center = half - 1 if kernel % 2 else half - 0.5
    profile: NDArray[np.float64] = 1 - np.abs(np.arange(kernel) - center) / half
    return profile


def bilinear_kernel(kernel: int, num_maps: int) -> Tensor:
    """(num_maps, 1, kernel, kernel) float32: weights of a grouped transposed convolution, one map at a time."""
    profile = torch.from_numpy(bilinear_profile(kernel)).float()
    return torch.outer(profile, profile).expand(num_maps, 1, kernel, kernel).clone()


@dataclass(frozen=True)
class TransposedBilinear:
    """FCN's last layer: a bilinear transposed convolution, cropped at `offset` to the image's size.

    kernel, stride, offset in pixels of the output; kernel <= 2 * stride, so a pixel mixes at most two cells an axis.
    """

    kernel: int
    stride: int
    offset: int

    def __post_init__(self) -> None:
        assert self.kernel <= 2 * self.stride, "a pixel would mix more than two cells"

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, h, w) -> (B, K, H, W)."""
        num_maps = logits.shape[1]
        weight = bilinear_kernel(self.kernel, num_maps).to(logits)
        full = F.conv_transpose2d(logits, weight, stride=self.stride, groups=num_maps)
        top_left = slice(self.offset, self.offset + size[0]), slice(self.offset, self.offset + size[1])
        return full[..., top_left[0], top_left[1]]

    def interpolation_table(self, num_cells: int, num_pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Cells (num_pixels, 2) and weights (num_pixels, 2) of one axis; cells outside the map weigh nothing."""
        profile = bilinear_profile(self.kernel)
        position = np.arange(num_pixels) + self.offset
        last = position // self.stride
        cells = np.stack([last - 1, last], 1)
        places = position[:, None] - cells * self.stride
        inside = (cells >= 0) & (cells < num_cells) & (places < self.kernel)
        weights = np.where(inside, profile[np.minimum(places, self.kernel - 1)], 0)
        return np.clip(cells, 0, num_cells - 1), weights.astype(np.float32)


class Upscore(nn.Module):
    """(B, K, h, w) -> (B, K, (h - 1) * stride + kernel, ...): each map on its own, no bias, nothing cropped.

    A fixed kernel is a buffer outside the state, a learned one a parameter that weight decay has to leave alone.
    """

    # Names of parameters that an optimiser must not decay: decay would shrink the interpolation itself.
    no_weight_decay = ("weight",)

    weight: Tensor

    def __init__(self, num_maps: int, kernel: int, stride: int, learned: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        # `empty` follows the device that torch was told to build on.
        weight = torch.empty(num_maps, 1, kernel, kernel).copy_(bilinear_kernel(kernel, num_maps))
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Upsampled scores."""
        return F.conv_transpose2d(scores, self.weight.to(scores.dtype), stride=self.stride, groups=len(self.weight))

    def extra_repr(self) -> str:
        """Shown by print(model)."""
        return f"{len(self.weight)}, kernel={self.kernel}, stride={self.stride}, learned={isinstance(self.weight, nn.Parameter)}"


@dataclass(frozen=True)
class Identity:
    """Scores that are at full size already (U-Net's kind, or a learned last layer)."""

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, K, H, W), unchanged."""
        assert tuple(logits.shape[-2:]) == size, f"logits are {tuple(logits.shape[-2:])}, the image is {size}"
        return logits

    def interpolation_table(self, num_cells: int, num_pixels: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Each pixel is its own cell."""
        cells = np.arange(num_pixels)
        return np.stack([cells, cells], 1), np.tile(np.array([1, 0], np.float32), (num_pixels, 1))
