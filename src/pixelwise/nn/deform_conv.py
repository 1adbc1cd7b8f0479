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

from ..errors import ConfigError


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
    """Convolve x (B, C, H, W) with weight (F, C / groups, k, l), reading at displaced positions -> (B, F, h, w).

    offsets  (B, 2 * G * k * l, h, w), pairs (row, column) in positions of x, for G offset groups: each moves the
             reading positions of C / G neighboring channels
    mask     (B, G * k * l, h, w) or None: a factor per kernel position
    The groups of the weight are those of an ordinary convolution and independent of the offset groups. Outside x the
    value is zero; between positions it is bilinear, and fades to zero over one position beyond the border. At whole
    positions, where bilinear interpolation has a corner, the gradient of an offset is the difference to the right (and
    down), as in the authors' code. Raises ConfigError for shapes that do not fit.
    """
    batch, channels, height, width = x.shape
    out_channels, group_channels, rows, columns = weight.shape
    kernel_area = rows * columns
    size = tuple(
        (n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in ((height, rows), (width, columns))
    )
    groups = max(channels // group_channels, 1)
    if group_channels * groups != channels or out_channels % groups:
        what = f"shape {tuple(weight.shape)} does not fit {channels} channels"
        raise ConfigError("weight", what, "channels of weight times groups must be those of x; groups must divide F")
    offset_groups = max(offsets.shape[1] // (2 * kernel_area), 1)
    if offsets.shape != (batch, 2 * offset_groups * kernel_area, *size) or channels % offset_groups:
        what = f"expected (B, 2 * G * {kernel_area}, {size[0]}, {size[1]}), got {tuple(offsets.shape)}"
        raise ConfigError("offsets", what, f"give one batch entry per image and a G that divides {channels} channels")
    if mask is not None and mask.shape != (batch, offset_groups * kernel_area, *size):
        what = f"expected {(batch, offset_groups * kernel_area, *size)}, got {tuple(mask.shape)}"
        raise ConfigError("mask", what, "give one factor per pair of offsets")

    # Regular grid of an ordinary convolution, (k * l, 2, h, w), plus the offsets. Positions are kept in single
    # precision at least: half precision does not tell neighboring positions beyond 256 apart.
    axis_grid = partial(_axis_grid, stride=stride, padding=padding, dilation=dilation, device=offsets.device)
    row, column = axis_grid(size[0], rows), axis_grid(size[1], columns)
    shape = (rows, columns, *size)
    grid = torch.stack([row[:, None, :, None].expand(shape), column[None, :, None, :].expand(shape)], 2).flatten(0, 1)
    precision = torch.promote_types(offsets.dtype, torch.float32)
    positions = grid + offsets.to(precision).view(batch, offset_groups, kernel_area, 2, *size)

    # One row per (channel, kernel position): the convolution is a matrix product from here on.
    grouped = x.reshape(batch * offset_groups, channels // offset_groups, height, width)
    samples = _sample_bilinear(grouped, positions.flatten(0, 1))
    if mask is not None:
        samples = samples * mask.reshape(batch * offset_groups, 1, kernel_area, *size)
    samples = samples.reshape(batch, groups, group_channels * kernel_area, size[0] * size[1])
    out = (weight.view(groups, out_channels // groups, -1) @ samples).view(batch, out_channels, *size)
    return out if bias is None else out + bias[:, None, None]


def _axis_grid(length: int, kernel: int, *, stride: int, padding: int, dilation: int, device: torch.device) -> Tensor:
    """Return, for one axis, the input position (kernel, length) of each kernel position and output position."""
    start = torch.arange(length, device=device) * stride - padding
    return (torch.arange(kernel, device=device)[:, None] * dilation + start).float()


def _sample_bilinear(x: Tensor, positions: Tensor) -> Tensor:
    """Sample x (N, C, H, W) at positions (N, k, 2, h, w) -> (N, C, k, h, w); zero outside."""
    num, channels, height, width = x.shape
    # The position of the upper left neighbor is a constant for the gradient, and the share of each neighbor is linear
    # in the fraction, so that the gradient at a whole position is the one-sided difference to the next neighbor.
    corner = positions.detach().floor()
    fraction = positions - corner
    shares = (1 - fraction, fraction)
    values = x.flatten(2)
    out = x.new_zeros(num, channels, *positions.shape[1:2], *positions.shape[3:])
    # The four neighbors of each position, each weighted by the area of the opposite rectangle.
    for down in (0, 1):
        for right in (0, 1):
            row, column = (corner[:, :, 0] + down), (corner[:, :, 1] + right)
            share = shares[down][:, :, 0] * shares[right][:, :, 1]
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            neighbors = values.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1)).view_as(out)
            out = out + neighbors * (share * inside)[:, None].to(x.dtype)
    return out


class DeformConv2d(nn.Conv2d):
    """A convolution whose reading positions are shifted, and with `modulated` weighted, by a second convolution.

    The second convolution has the same geometry and starts at zero: at first no position is shifted, and with
    `modulated` each counts half (sigmoid of 0). `groups` are those of nn.Conv2d; `offset_groups` groups of channels
    have offsets of their own. Sources: version 1, figure 2; version 2, section 3.2.
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
        groups: int = 1,
        bias: bool = True,
        offset_groups: int = 1,
        modulated: bool = False,
    ) -> None:
        for name, value, channels in (
            ("groups", groups, (in_channels, out_channels)),
            ("offset_groups", offset_groups, (in_channels,)),
        ):
            if value < 1 or any(number % value for number in channels):
                expected = " and ".join(map(str, channels))
                raise ConfigError(name, f"must divide {expected} channels, got {value}", "1 means no groups")
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        self.modulated = modulated
        self.num_offsets = 2 * offset_groups * kernel * kernel
        num_masks = offset_groups * kernel * kernel if modulated else 0
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
