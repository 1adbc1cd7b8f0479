"""Deformable convolution: every kernel position reads the map at a place shifted by a learned offset.

An ordinary 3x3 convolution reads nine fixed places around each output position. Here a second convolution predicts a
(row, column) offset per kernel position, and the map is read there by bilinear interpolation; version 2 also predicts a
weight (mask) per kernel position. Channels of the offset map: (row, column) pairs of the kernel positions in row-major
order, group by group, then the masks, as in the authors' code.

Sources: Dai et al. 2017, "Deformable convolutional networks" (https://arxiv.org/abs/1703.06211), equations 2 to 5; Zhu
et al. 2019, "Deformable ConvNets v2" (https://arxiv.org/abs/1811.11168), equation 1.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn


def deform_conv2d(
    x: Tensor,
    offsets: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Convolve x (B, C, H, W) with weight (F, C, k, l), reading at displaced positions -> (B, F, h, w).

    offsets  (B, 2 * G * k * l, h, w), pairs (row, column) in positions of x, for G groups of channels
    mask     (B, G * k * l, h, w) or None: a factor per kernel position
    Outside x the value is zero; between positions it is bilinear, and fades to zero over one position beyond the
    border.
    """
    batch, channels, height, width = x.shape
    out_channels, _, rows, columns = weight.shape
    kernel_area = rows * columns
    size = offsets.shape[-2:]
    groups = offsets.shape[1] // (2 * kernel_area)

    # Regular grid of an ordinary convolution, (k * l, 2, h, w), plus the offsets. Positions are kept in single
    # precision at least: half precision does not tell neighboring positions beyond 256 apart.
    axis_grid = partial(_axis_grid, stride=stride, padding=padding, dilation=dilation, device=offsets.device)
    row, column = axis_grid(size[0], rows), axis_grid(size[1], columns)
    shape = (rows, columns, *size)
    grid = torch.stack([row[:, None, :, None].expand(shape), column[None, :, None, :].expand(shape)], 2).flatten(0, 1)
    precision = torch.promote_types(offsets.dtype, torch.float32)
    positions = grid + offsets.to(precision).view(batch, groups, kernel_area, 2, *size)

    # One row per (channel, kernel position): the convolution is a matrix product from here on.
    samples = _sample_bilinear(x.reshape(batch * groups, channels // groups, height, width), positions.flatten(0, 1))
    if mask is not None:
        samples = samples * mask.reshape(batch * groups, 1, kernel_area, *size)
    samples = samples.reshape(batch, channels * kernel_area, size[0] * size[1])
    out = (weight.flatten(1) @ samples).view(batch, out_channels, *size)
    return out if bias is None else out + bias[:, None, None]


def _axis_grid(length: int, kernel: int, *, stride: int, padding: int, dilation: int, device: torch.device) -> Tensor:
    """Return, for one axis, the input position (kernel, length) of each kernel position and output position."""
    start = torch.arange(length, device=device) * stride - padding
    return (torch.arange(kernel, device=device)[:, None] * dilation + start).float()


def _sample_bilinear(x: Tensor, positions: Tensor) -> Tensor:
    """Sample x (N, C, H, W) at positions (N, k, 2, h, w) -> (N, C, k, h, w); zero outside."""
    num, channels, height, width = x.shape
    corner = positions.floor()
    values = x.flatten(2)
    out = x.new_zeros(num, channels, *positions.shape[1:2], *positions.shape[3:])
    # The four neighbors of each position, each weighted by the area of the opposite rectangle.
    for down in (0, 1):
        for right in (0, 1):
            row, column = (corner[:, :, 0] + down), (corner[:, :, 1] + right)
            share = (1 - (positions[:, :, 0] - row).abs()) * (1 - (positions[:, :, 1] - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            neighbors = values.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view_as(out)
            out = out + neighbors * (share * inside)[:, None].to(x.dtype)
    return out


class DeformConv2d(nn.Conv2d):
    """A convolution whose reading positions are shifted, and with `modulated` weighted, by a second convolution.

    The second convolution has the same geometry and starts at zero: at first no position is shifted, and with
    `modulated` each counts half (sigmoid of 0). Sources: version 1, figure 2; version 2, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
        groups: int = 1,
        modulated: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, bias=bias)
        assert in_channels % groups == 0, f"expected a multiple of {groups} channels, got {in_channels}"
        self.modulated = modulated
        self.num_offsets = 2 * groups * kernel * kernel
        num_masks = groups * kernel * kernel if modulated else 0
        self.offset = nn.Conv2d(in_channels, self.num_offsets + num_masks, kernel, stride, padding, dilation)
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """Set all offsets to zero, as at the start of the paper's training."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Compute (B, in_channels, H, W) -> (B, out_channels, h, w)."""
        maps = self.offset(x)
        mask = maps[:, self.num_offsets :].sigmoid() if self.modulated else None
        stride, padding, dilation = (int(v[0]) for v in (self.stride, self.padding, self.dilation))
        return deform_conv2d(
            x,
            maps[:, : self.num_offsets],
            self.weight,
            bias=self.bias,
            mask=mask,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
