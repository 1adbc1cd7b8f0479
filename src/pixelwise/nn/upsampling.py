"""The last step of a segmentation network: from low-resolution logits to the size of the image.

Networks compute their logits on a coarse grid, typically 1/8 of the image's height and width, and upsample them by a
fixed bilinear interpolation. "Bilinear" means that every output pixel is a weighted mean of at most two neighboring
logits along each axis. The variants in this file differ only in where the coarse grid lies on the image, which each
paper chose differently:

    Bilinear             stretch to any size (`F.interpolate`), with corners aligned or not
    BilinearByFactor     a whole factor, cut to the image's size
    AlignedBilinear      logits lie exactly on the pixels 0, 8, 16, ... (DeepLab)
    TransposedBilinear   a transposed convolution with a fixed kernel, cropped (FCN)
    Identity             logits have full size already

Each variant has two equal forms. Called, it upsamples a tensor on any device, with gradients. `interpolation_table`
gives the same operator for one axis as numbers (`nn/interpolation.py`): two source indices and two weights per output
pixel. Inference uses the table to upsample and take the argmax in one pass, so that the full (K, H, W) tensor never
exists in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core import LowResLogits, Upsample
from .interpolation import (
    Table,
    aligned_table,
    bilinear_profile,
    bilinear_table,
    by_factor_table,
    identity_table,
    transposed_table,
)


@dataclass(frozen=True, kw_only=True)
class Bilinear:
    """Bilinear interpolation to any size; `align_corners` as in `F.interpolate`."""

    align_corners: bool = False

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Upsample (B, K, h, w) -> (B, K, H, W)."""
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=self.align_corners)

    def interpolation_table(self, in_size: int, out_size: int) -> Table:
        """Return source indices and weights of one axis."""
        return bilinear_table(in_size, out_size, align_corners=self.align_corners)


@dataclass(frozen=True)
class BilinearByFactor:
    """Bilinear interpolation by a whole factor, cut to the image's size.

    Each logit stands for factor x factor pixels.
    """

    factor: int

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Upsample (B, K, h, w) -> (B, K, H, W), where H <= h * factor and W <= w * factor."""
        full = F.interpolate(logits, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return full[..., : size[0], : size[1]]

    def interpolation_table(self, in_size: int, out_size: int) -> Table:
        """Return source indices and weights of one axis."""
        return by_factor_table(in_size, out_size, factor=self.factor)


@dataclass(frozen=True)
class AlignedBilinear:
    """Bilinear interpolation between logits that lie on the pixels 0, stride, 2 * stride, ...: DeepLab's.

    The last logit must lie on or beyond the last pixel: call `pad_to_stride` on the image first. DeepLab's crop of 321
    pixels at stride 8 has 41 logits, on the pixels 0 to 320. Source: Caffe's Interp layer with a zoom factor.
    """

    stride: int

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Upsample (B, K, h, w) -> (B, K, H, W)."""
        height, width = ((side - 1) * self.stride + 1 for side in logits.shape[-2:])
        assert min(height - size[0], width - size[1]) >= 0, (
            f"logits cover {height}x{width} pixels, the image has {size}"
        )
        full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=True)
        return full[..., : size[0], : size[1]]

    def interpolation_table(self, in_size: int, out_size: int) -> Table:
        """Return source indices and weights of one axis."""
        return aligned_table(in_size, out_size, stride=self.stride)


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Pad (B, C, H, W) with zeros at the bottom and right to sides of `stride` * n + 1, as `AlignedBilinear` needs."""
    bottom, right = ((1 - side) % stride for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


@dataclass(frozen=True)
class TransposedBilinear:
    """FCN's last layer: a bilinear transposed convolution, cropped to the image's size.

    kernel and stride are in output pixels; `crop` is the row (= column) of the output on which the image begins. FCN on
    VGG16: 64/32 cropped at 19 (32s), 32/16 at 27 (16s), 16/8 at 31 (8s). kernel <= 2 * stride, so that a pixel depends
    on at most two logits per axis.
    """

    kernel: int
    stride: int
    crop: int

    def __post_init__(self) -> None:
        assert self.kernel <= 2 * self.stride, f"expected a kernel <= {2 * self.stride}, got {self.kernel}"

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Upsample (B, K, h, w) -> (B, K, H, W)."""
        num_maps = logits.shape[1]
        weight = bilinear_kernel(self.kernel, num_maps).to(logits)
        full = F.conv_transpose2d(logits, weight, stride=self.stride, groups=num_maps)
        return full[..., self.crop : self.crop + size[0], self.crop : self.crop + size[1]]

    def interpolation_table(self, in_size: int, out_size: int) -> Table:
        """Return source indices and weights of one axis; logits beyond the map have weight 0."""
        return transposed_table(in_size, out_size, kernel=self.kernel, stride=self.stride, crop=self.crop)


@dataclass(frozen=True)
class Identity:
    """Logits that have full size already: U-Net's, or those of a learned last upsampling."""

    def __call__(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (B, K, H, W) unchanged."""
        # A trace has no numbers to compare.
        is_right = torch.compiler.is_exporting() or tuple(logits.shape[-2:]) == size
        assert is_right, f"expected logits of size {size}, got {tuple(logits.shape[-2:])}"
        return logits

    def interpolation_table(self, in_size: int, out_size: int) -> Table:
        """Return every pixel as its own source, with weight 1."""
        return identity_table(in_size, out_size)


def bilinear_kernel(kernel: int, num_maps: int) -> Tensor:
    """Return the weights (num_maps, 1, kernel, kernel) float32 of a transposed convolution with one group per map."""
    profile = torch.from_numpy(bilinear_profile(kernel)).float()
    return torch.outer(profile, profile).expand(num_maps, 1, kernel, kernel).clone()


def repeat_border(x: Tensor, times: int) -> Tensor:
    """Repeat the outermost positions of (B, C, h, w), so that a transposed convolution does not fade the border."""
    return F.pad(x, (times,) * 4, mode="replicate") if times else x


class Upscore(nn.Module):
    """FCN's upsampling inside the network: a transposed convolution per map, starting as a bilinear interpolation.

    (B, K, h, w) -> (B, K, (h + 2 * border - 1) * stride + kernel, ...), without bias or crop. A fixed kernel is a
    buffer outside the state, a learned one a parameter. The optimizer does not decay it (`train/schedule.py`), because
    decay would shrink the interpolation itself.

    border  how often the outermost scores are repeated before the upsampling, see `repeat_border`
    """

    weight: Tensor

    def __init__(self, num_maps: int, kernel: int, stride: int, *, learned: bool, border: int = 0) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride
        self.border = border
        # `empty` follows torch's default device, which may be "meta".
        weight = torch.empty(num_maps, 1, kernel, kernel).copy_(bilinear_kernel(kernel, num_maps))
        if learned:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Upsample scores (B, K, h, w)."""
        scores = repeat_border(scores, self.border)
        return F.conv_transpose2d(scores, self.weight.to(scores.dtype), stride=self.stride, groups=len(self.weight))

    def extra_repr(self) -> str:
        """Return what print(model) shows."""
        is_learned = isinstance(self.weight, nn.Parameter)
        return f"{len(self.weight)}, kernel={self.kernel}, stride={self.stride}, learned={is_learned}"


def add_cropped(upsampled: Tensor, skip: Tensor, crop: int) -> Tensor:
    """Return the sum of two maps of one stride where both exist: FCN's skip.

    crop  row and column of `skip` on which the first element of `upsampled` lies; negative where `skip` starts later
    """
    upsampled = upsampled[..., max(-crop, 0) :, max(-crop, 0) :]
    skip = skip[..., max(crop, 0) :, max(crop, 0) :]
    height, width = min(upsampled.shape[-2], skip.shape[-2]), min(upsampled.shape[-1], skip.shape[-1])
    return upsampled[..., :height, :width] + skip[..., :height, :width]


def with_last_upsampling(
    scores: Tensor, to_image: TransposedBilinear, upscore: nn.Module | None, images: Tensor
) -> LowResLogits:
    """Return scores (B, K, h, w) with the last upsampling, `to_image`.

    upscore  the layer that applies it where it is learned: the result then has the size of the images
    """
    if upscore is None:
        return LowResLogits(scores, to_image)
    (height, width), crop = images.shape[-2:], to_image.crop
    return LowResLogits(upscore(scores)[..., crop : crop + height, crop : crop + width], Identity())


def center_pixels(upsample: Upsample, in_size: int, out_size: int) -> NDArray[np.intp]:
    """Return, per logit of one axis, the pixel that it influences most, (in_size,); -1 for logits off the image."""
    indices, weights = upsample.interpolation_table(in_size, out_size)
    influence = np.zeros((in_size, out_size), np.float32)
    np.add.at(influence, (indices, np.arange(out_size)[:, None]), weights)
    return np.where(influence.any(1), influence.argmax(1), -1)


def low_res_labels(low_res: LowResLogits, masks: Tensor, ignore_id: int) -> Tensor:
    """Return the class id at each logit's center pixel: masks (B, H, W) -> (B, h, w), `ignore_id` outside the image.

    Masks (B, K, H, W) of several labels per pixel become (B, K, h, w).
    """
    sizes = zip(low_res.logits.shape[-2:], masks.shape[-2:], strict=True)
    rows, columns = (torch.from_numpy(center_pixels(low_res.upsample, *size)).to(masks.device) for size in sizes)
    labels = masks[..., rows.clamp_min(0)[:, None], columns.clamp_min(0)]
    return labels.masked_fill((rows < 0)[:, None] | (columns < 0), ignore_id)
