"""Deformable convolution: each tap of the kernel reads where an offset, learned from the map itself, sends it.

Source: Dai et al. 2017, "Deformable convolutional networks" (https://arxiv.org/abs/1703.06211), equations 2 to 5; with a
weight for each tap: Zhu et al. 2019, "Deformable ConvNets v2" (https://arxiv.org/abs/1811.11168), equation 1. DatasetFormat of the
channels: (row, column) pairs of the taps in row-major order, group by group, then the weights, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def deform_conv2d(
    x: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Convolve x (B, C, H, W) with weight (F, C, k, l), reading at displaced places -> (B, F, h, w).

    offsets (B, 2 * G * k * l, h, w), pairs (row, column) in cells of x, for G groups of channels; mask (B, G * k * l, h, w)
    or None weighs the taps. Outside x is zero; between cells it is bilinear, up to one cell beyond the border.
    """
    batch, channels, height, width = x.shape
    out_channels, _, rows, columns = weight.shape
    num_taps = rows * columns
    size = offsets.shape[-2:]
    groups = offsets.shape[1] // (2 * num_taps)
    places = _grid(size, rows, columns, stride, padding, dilation, offsets.device)
    # Places in single precision at least, whatever the features are: half precision has no cells beyond 256.
    exact = torch.promote_types(offsets.dtype, torch.float32)
    places = places + offsets.to(exact).view(batch, groups, num_taps, 2, *size)
    read = _bilinear(x.reshape(batch * groups, channels // groups, height, width), places.flatten(0, 1))
    if mask is not None:
        read = read * mask.reshape(batch * groups, 1, num_taps, *size)
    taps = read.reshape(batch, channels * num_taps, size[0] * size[1])
    out = (weight.flatten(1) @ taps).view(batch, out_channels, *size)
    return out if bias is None else out + bias[:, None, None]


def _grid(
    size: torch.Size, rows: int, columns: int, stride: int, padding: int, dilation: int, device: torch.device
) -> Tensor:
    """(taps, 2, h, w): row and column that each tap of an ordinary convolution reads."""

    def axis(count: int, taps: int) -> Tensor:
        start = torch.arange(count, device=device) * stride - padding
        return (torch.arange(taps, device=device)[:, None] * dilation + start).float()

    row, column = axis(size[0], rows), axis(size[1], columns)
    shape = (rows, columns, *size)
    both = torch.stack([row[:, None, :, None].expand(shape), column[None, :, None, :].expand(shape)], 2)
    return both.flatten(0, 1)


def _bilinear(x: Tensor, places: Tensor) -> Tensor:
    """x (N, C, H, W) read at places (N, taps, 2, h, w) -> (N, C, taps, h, w); zero outside."""
    num, channels, height, width = x.shape
    corner = places.floor()
    cells = x.flatten(2)
    out = x.new_zeros(num, channels, *places.shape[1:2], *places.shape[3:])
    for down in (0, 1):
        for right in (0, 1):
            row, column = (corner[:, :, 0] + down), (corner[:, :, 1] + right)
            share = (1 - (places[:, :, 0] - row).abs()) * (1 - (places[:, :, 1] - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            values = cells.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view_as(out)
            out = out + values * (share * inside)[:, None].to(x.dtype)
    return out


class DeformConv2d(nn.Conv2d):
    """A convolution whose taps are moved, and with `modulated` weighed, by a second convolution of the same geometry.

    The second convolution starts at zero: at first no tap moves, and a weighed one counts half (sigmoid of 0).
    Source: paper figure 2; v2 section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        groups: int = 1,
        modulated: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, bias=bias)
        assert in_channels % groups == 0, f"{in_channels} channels are not {groups} groups"
        self.modulated = modulated
        self.num_taps = groups * kernel * kernel
        num_maps = self.num_taps * (3 if modulated else 2)
        self.offset = nn.Conv2d(in_channels, num_maps, kernel, stride, padding, dilation)
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """Move no tap, as at the start of the paper's training."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, h, w)."""
        maps = self.offset(x)
        mask = maps[:, 2 * self.num_taps :].sigmoid() if self.modulated else None
        offsets = maps[:, : 2 * self.num_taps]
        stride, padding, dilation = (int(v[0]) for v in (self.stride, self.padding, self.dilation))
        return deform_conv2d(x, offsets, self.weight, self.bias, mask, stride, padding, dilation)
