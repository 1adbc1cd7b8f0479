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
from pixelwise.errors import ConfigError
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
        # Filters of the group of channel c, one group after the other.
        filters = weight.shape[0] * weight.shape[1] // channels
        first = c // weight.shape[1] * filters
        kernels = weight[first : first + filters, c % weight.shape[1], i, j]
        out[0, first : first + filters, h, w] += kernels * read(x[0, c], row, column) * float(mask[0, position, h, w])
    return out


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "offset_groups", "groups"),
    [
        (1, 1, 1, 1, 1),
        (2, 1, 1, 2, 1),
        (1, 2, 2, 1, 1),
        (1, 0, 1, 2, 1),
        (1, 1, 1, 1, 2),
        (2, 1, 1, 2, 4),
        (1, 1, 1, 4, 2),
    ],
)
def test_equals_loops(stride: int, padding: int, dilation: int, offset_groups: int, groups: int) -> None:
    torch.manual_seed(stride + padding + dilation)
    x, weight = torch.randn(1, 4, 5, 6), torch.randn(4 if groups > 1 else 3, 4 // groups, 3, 3)
    size = [(n + 2 * padding - 2 * dilation - 1) // stride + 1 for n in (5, 6)]
    offsets, mask = torch.randn(1, 18 * offset_groups, *size) * 1.5, torch.rand(1, 9 * offset_groups, *size)
    ours = deform_conv2d(x, offsets, weight, mask=mask, stride=stride, padding=padding, dilation=dilation)
    looped = by_loops(
        x, offsets, weight, mask=mask, stride=stride, padding=padding, dilation=dilation, groups=offset_groups
    )
    torch.testing.assert_close(ours, looped, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_with_zero_offsets_are_those_of_an_ordinary_convolution(groups: int) -> None:
    layer, x = DeformConv2d(4, 8, padding=1, groups=groups, offset_groups=2), torch.randn(2, 4, 9, 7)
    assert layer.weight.shape == (8, 4 // groups, 3, 3)
    assert layer.offset.out_channels == 2 * 18
    expected = functional.conv2d(x, layer.weight, layer.bias, padding=1, groups=groups)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("weight", "offsets", "mask", "subject"),
    [
        ((3, 3, 3, 3), (1, 18, 5, 6), None, "weight"),  # 3 of 4 channels
        ((3, 2, 3, 3), (1, 18, 5, 6), None, "weight"),  # 2 groups, 3 filters
        ((4, 8, 3, 3), (1, 18, 5, 6), None, "weight"),  # more channels than the map
        ((4, 4, 3, 3), (1, 27, 5, 6), None, "offsets"),
        ((4, 4, 3, 3), (1, 54, 5, 6), None, "offsets"),  # 3 groups of 4 channels
        ((4, 4, 3, 3), (1, 18, 5, 5), None, "offsets"),
        ((4, 4, 3, 3), (1, 18, 5, 6), (1, 18, 5, 6), "mask"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    weight: tuple[int, ...], offsets: tuple[int, ...], mask: tuple[int, ...] | None, subject: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{subject}: "):
        deform_conv2d(
            torch.zeros(1, 4, 5, 6),
            torch.zeros(offsets),
            torch.zeros(weight),
            mask=None if mask is None else torch.zeros(mask),
            padding=1,
        )


@pytest.mark.parametrize(("groups", "offset_groups"), [(3, 1), (0, 1), (4, 1), (1, 3), (1, 0)])
def test_groups_must_divide_the_channels(groups: int, offset_groups: int) -> None:
    name = "groups" if groups != 1 else "offset_groups"
    with pytest.raises(ConfigError, match=f"^{name}: must divide"):
        DeformConv2d(4, 6, groups=groups, offset_groups=offset_groups)


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


def smooth_map(channels: int, height: int, width: int) -> Tensor:
    """A positive map of mean 5 that varies slowly, as after a ReLU."""
    rows, columns = torch.arange(height).double(), torch.arange(width).double()
    planes = [5 + torch.sin(0.3 * rows + c)[:, None] * torch.cos(0.2 * columns + 2 * c) for c in range(channels)]
    return torch.stack(planes)[None]


@pytest.mark.parametrize("whole", [0.0, 1.0, -2.0])
@pytest.mark.parametrize("modulated", [False, True])
def test_gradient_at_whole_offsets_is_the_difference_to_the_right(whole: float, *, modulated: bool) -> None:
    """Where training starts. (f(offset + h) - f(offset)) / h, as equations 3 and 4 give it to the right."""
    torch.manual_seed(0)
    x, weight = smooth_map(2, 4, 5), torch.randn(2, 2, 3, 3, dtype=torch.double)
    mask = torch.rand(1, 9, 4, 5, dtype=torch.double) if modulated else None
    projection = torch.randn(1, 2, 4, 5, dtype=torch.double)

    def loss(offsets: Tensor) -> Tensor:
        return (deform_conv2d(x, offsets, weight, mask=mask, padding=1) * projection).sum()

    offsets = torch.full((1, 18, 4, 5), whole, dtype=torch.double, requires_grad=True)
    loss(offsets).backward()
    assert offsets.grad is not None
    before, step = loss(offsets.detach()), 1e-4
    numeric = torch.zeros(offsets.numel(), dtype=torch.double)
    for i in range(len(numeric)):
        moved = offsets.detach().flatten().clone()
        moved[i] += step
        numeric[i] = (loss(moved.view_as(offsets)) - before) / step
    torch.testing.assert_close(offsets.grad.flatten(), numeric, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("modulated", [False, True])
def test_offset_gradient_of_a_fresh_layer_written_out(*, modulated: bool) -> None:
    """The sum over channels of w * (next - here): read from shifted maps, with mask 1/2 where modulated."""
    torch.manual_seed(0)
    layer = DeformConv2d(3, 2, padding=1, bias=False, modulated=modulated).double()
    x, projection = smooth_map(3, 12, 14), torch.randn(1, 2, 12, 14, dtype=torch.double)
    maps: list[Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        maps.append(output)

    layer.offset.register_forward_hook(keep)
    (layer(x) * projection).sum().backward()
    assert maps[0].grad is not None
    found = maps[0].grad[:, :18]
    # Zeros around the map, one more at the bottom and right for the differences.
    padded = functional.pad(x, (1, 2, 1, 2))
    down, right = padded.diff(dim=2), padded.diff(dim=3)
    expected = torch.empty_like(found)
    for i, j in itertools.product(range(3), range(3)):
        back = torch.einsum("oc,bohw->bchw", layer.weight[:, :, i, j].detach(), projection)
        for axis, slope in enumerate((down, right)):
            expected[:, 2 * (3 * i + j) + axis] = (back * slope[..., i : i + 12, j : j + 14]).sum(1)
    expected *= 0.5 if modulated else 1
    cosine = functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-9)
    assert float(found.norm() / expected.norm()) == pytest.approx(1, abs=1e-9)


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
