"""Deformable convolution against loops over pixels, and where it must equal an ordinary one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from helpers.papers import number
from pixelwise.analysis.mult_adds import num_parameters
from pixelwise.nn.deform_conv import DeformConv2d, deform_conv2d


def read(plane: Tensor, row: float, column: float) -> float:
    """Equation 3: the sum over all positions of their value times two hat functions."""
    total = 0.0
    for r, c in itertools.product(range(plane.shape[0]), range(plane.shape[1])):
        total += float(plane[r, c]) * max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
    return total


def by_loops(
    x: Tensor, offsets: Tensor, weight: Tensor, *, mask: Tensor, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    """Compute a deformable convolution of a batch of one, equation 2."""
    channels, side = x.shape[1], weight.shape[-1]
    height, width = offsets.shape[-2:]
    out = torch.zeros(1, weight.shape[0], height, width)
    for h, w, c, i, j in itertools.product(range(height), range(width), range(channels), range(side), range(side)):
        position = (c // (channels // groups)) * side * side + i * side + j
        row = h * stride - padding + i * dilation + float(offsets[0, 2 * position, h, w])
        column = w * stride - padding + j * dilation + float(offsets[0, 2 * position + 1, h, w])
        out[0, :, h, w] += weight[:, c, i, j] * read(x[0, c], row, column) * float(mask[0, position, h, w])
    return out


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (1, 0, 1, 2)]
)
def test_equals_loops(stride: int, padding: int, dilation: int, groups: int) -> None:
    torch.manual_seed(stride + padding + dilation)
    x, weight = torch.randn(1, 4, 5, 6), torch.randn(3, 4, 3, 3)
    size = [(n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (5, 6)]
    offsets, mask = torch.randn(1, 18 * groups, *size) * 1.5, torch.rand(1, 9 * groups, *size)
    ours = deform_conv2d(x, offsets, weight, mask=mask, stride=stride, padding=padding, dilation=dilation)
    looped = by_loops(x, offsets, weight, mask=mask, stride=stride, padding=padding, dilation=dilation, groups=groups)
    torch.testing.assert_close(ours, looped, atol=1e-4, rtol=1e-4)


def test_published_samples() -> None:
    places = [(1.5, 2.25), (-0.5, 2), (4.25, 4.75), (-1, 0), (5, 0)]
    plane = torch.arange(25.0).view(1, 1, 5, 5)
    for (row, column), value in zip(places, number("bilinear sampling on arange(25)", "value at"), strict=True):
        offsets = torch.tensor([row, column]).view(1, 2, 1, 1).expand(1, 2, 5, 5).clone()
        out = deform_conv2d(plane, offsets, torch.ones(1, 1, 1, 1))
        assert math.isclose(float(out[0, 0, 0, 0]), value, abs_tol=1e-6)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 4, 4), (2, 0, 2)])
def test_zero_offsets_are_an_ordinary_convolution(stride: int, padding: int, dilation: int) -> None:
    layer = DeformConv2d(3, 5, stride=stride, padding=padding, dilation=dilation)
    x = torch.randn(2, 3, 13, 11)
    expected = functional.conv2d(x, layer.weight, layer.bias, stride, padding, dilation)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_offsets_of_dilation_minus_one_are_that_dilation() -> None:
    dilation, x, weight = 3, torch.randn(1, 2, 12, 12), torch.randn(4, 2, 3, 3)
    shifts = torch.tensor(
        [[(i - 1) * (dilation - 1), (j - 1) * (dilation - 1)] for i in range(3) for j in range(3)]
    ).float()
    offsets = shifts.view(1, 18, 1, 1).expand(1, 18, 12, 12)
    torch.testing.assert_close(
        deform_conv2d(x, offsets, weight, padding=1),
        functional.conv2d(x, weight, padding=dilation, dilation=dilation),
        atol=1e-4,
        rtol=1e-4,
    )


def test_constant_offsets_shift() -> None:
    x, weight = torch.randn(1, 2, 9, 9), torch.randn(3, 2, 3, 3)
    offsets = torch.tensor([1.0, -2.0]).repeat(9).view(1, 18, 1, 1).expand(1, 18, 9, 9)
    shifted = functional.pad(x, (2, 0, 0, 1))[..., 1:, :9]
    inner = (..., slice(1, -2), slice(3, -1))
    expected = functional.conv2d(shifted, weight, padding=1)
    torch.testing.assert_close(
        deform_conv2d(x, offsets, weight, padding=1)[inner], expected[inner], atol=1e-4, rtol=1e-4
    )


def test_modulated_layers_start_at_one_half() -> None:
    layer, x = DeformConv2d(2, 3, 3, padding=1, bias=False, modulated=True), torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(layer(x), functional.conv2d(x, layer.weight, padding=1) / 2, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_differences() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 2, 4, 4, dtype=torch.double), torch.randn(2, 2, 3, 3, dtype=torch.double)
    # Away from whole positions, where the hat function has a corner.
    offsets = torch.rand(1, 18, 4, 4, dtype=torch.double) * 0.6 + 0.2
    mask = torch.rand(1, 9, 4, 4, dtype=torch.double)
    inputs = [t.requires_grad_() for t in (x, offsets, weight, mask)]
    assert torch.autograd.gradcheck(lambda a, o, w, m: deform_conv2d(a, o, w, mask=m, padding=1), inputs)


def test_channels_and_parameters_of_the_offset_layer() -> None:
    maps = [DeformConv2d(512, 512, modulated=m).offset for m in (False, True)]
    assert [layer.out_channels for layer in maps] == number("3x3, 1 group", "offset channels")
    assert num_parameters(maps[0]) == number("offset conv 512->18", "parameters")


@pytest.mark.parametrize("modulated", [False, True])
def test_positions_are_exact_in_half_precision(modulated: bool) -> None:
    """bfloat16 rounds integers beyond 256: positions in it would be wrong."""
    torch.manual_seed(0)
    layer, x = DeformConv2d(4, 3, 3, padding=1, modulated=modulated).eval(), torch.randn(1, 4, 40, 45)
    with torch.no_grad():
        whole = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = layer(x).float()
    assert float((half - whole).abs().max()) < 0.05 * float(whole.abs().max())
