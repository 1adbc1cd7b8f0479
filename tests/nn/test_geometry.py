"""Geometry against torch's own layers, against NaNs sent through random nets, and against the papers' constants."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from helpers.papers import number
from pixelwise.backbones import create_backbone
from pixelwise.backbones.googlenet import GoogLeNet
from pixelwise.nn.geometry import (
    CoordMap,
    Layer,
    affected_outputs,
    coordinates,
    crop_offset,
    layers_of,
    output_size,
    receptive_field,
    upsampling_to,
)
from pixelwise.nn.interpolation import bilinear_profile
from pixelwise.nn.upsampling import bilinear_kernel

DATA = CoordMap()
small = st.integers(1, 3)


@st.composite
def poolings(draw: st.DrawFn) -> nn.MaxPool2d:
    kernel, dilation = draw(small), draw(st.integers(1, 2))
    padding = draw(st.integers(0, kernel // 2))
    return nn.MaxPool2d(kernel, draw(small), padding=padding, dilation=dilation, ceil_mode=draw(st.booleans()))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    return nn.Conv2d(
        1, 1, draw(st.integers(1, 4)), draw(small), padding=draw(st.integers(0, 3)), dilation=draw(st.integers(1, 2))
    )


windows = st.one_of(poolings(), convolutions())


@given(windows, st.integers(1, 20))
def test_output_size_is_torchs(module: nn.Module, size: int) -> None:
    [layer] = layers_of([module])
    assume(layer.extent <= size + 2 * layer.padding)
    assert layer.output_size(size) == module(torch.zeros(1, 1, size, size)).shape[-1]


@given(small, small, st.integers(1, 9))
def test_output_size_of_a_transposed_convolution(kernel: int, stride: int, size: int) -> None:
    module = nn.ConvTranspose2d(1, 1, kernel, stride)
    [layer] = layers_of([module])
    assert layer.transposed
    assert layer.output_size(size) == module(torch.zeros(1, 1, size, size)).shape[-1]


@given(st.lists(windows, min_size=1, max_size=3), st.integers(0, 14), st.integers(0, 14))
def test_a_position_sees_the_pixels_of_its_receptive_field_and_no_others(
    chain: list[nn.Module], row: int, column: int
) -> None:
    """A NaN reaches the positions whose field holds it; dilated and strided kernels may skip pixels inside."""
    layers = layers_of(chain)
    for i in range(len(layers)):
        assume(output_size(layers[: i + 1], 15) > 0)
    field = receptive_field(layers)
    seen = affected_outputs(nn.Sequential(*chain), (15, 15), (row, column), in_channels=1)
    assume(seen.bottom)
    allowed = [i for i in range(output_size(layers, 15)) if field.span(i)[0] <= row < field.span(i)[1]]
    assert allowed[0] <= seen.top < seen.bottom <= allowed[-1] + 1
    if all(layer.dilation == 1 and layer.kernel >= layer.stride for layer in layers):
        assert (seen.top, seen.bottom) == (allowed[0], allowed[-1] + 1)


@given(st.lists(windows, min_size=1, max_size=4), st.integers(0, 5))
def test_a_position_is_the_middle_of_its_receptive_field(chain: list[nn.Module], index: int) -> None:
    layers = layers_of(chain)
    first, end = receptive_field(layers).span(index)
    assert coordinates(layers).inverse()(index) == Fraction(first + end - 1, 2)


def test_a_pixel_outside_every_window_affects_nothing() -> None:
    assert affected_outputs(nn.MaxPool2d(1, 4), (8, 8), (2, 0)).size == (0, 0)


def test_a_pixel_affects_its_neighbors_through_a_three_by_three() -> None:
    assert affected_outputs(nn.Conv2d(3, 1, 3, padding=1), (9, 11), (4, 7)) == (3, 6, 6, 9)


@pytest.mark.parametrize(("kernel", "stride"), [(64, 32), (32, 16), (16, 8), (4, 2), (63, 32), (3, 2)])
def test_a_position_lies_in_the_middle_of_its_transposed_kernel(kernel: int, stride: int) -> None:
    profile = bilinear_profile(kernel)
    middle = sum(i * w for i, w in enumerate(profile)) / profile.sum()
    assert float(Layer(kernel, stride, transposed=True).coordinates(0)) == pytest.approx(middle)


# The authors' FCN: (kernel, stride, padding) of convolutions and poolings.
VGG16_POOL2 = [Layer(3, padding=100), Layer(3, padding=1), Layer(2, 2), *[Layer(3, padding=1)] * 2, Layer(2, 2)]
VGG16_POOL3 = [*VGG16_POOL2, *[Layer(3, padding=1)] * 3, Layer(2, 2)]
VGG16_POOL4 = [*VGG16_POOL3, *[Layer(3, padding=1)] * 3, Layer(2, 2)]
VGG16_FC7 = [*VGG16_POOL4, *[Layer(3, padding=1)] * 3, Layer(2, 2), Layer(7), Layer(1)]
CAFFENET = [Layer(11, 4, 100), Layer(3, 2), Layer(5, 1, 2), Layer(3, 2), *[Layer(3, padding=1)] * 3, Layer(3, 2)]
CAFFENET_FC7 = [*CAFFENET, Layer(6), Layer(1)]


def deconv(kernel: int, stride: int) -> Layer:
    return Layer(kernel, stride, transposed=True)


def test_crop_offsets_of_fcn_on_vgg16() -> None:
    fc7, pool4, pool3 = coordinates(VGG16_FC7), coordinates(VGG16_POOL4), coordinates(VGG16_POOL3)
    upscore2 = fc7.then(deconv(4, 2).coordinates)
    upscore_pool4 = upscore2.then(deconv(4, 2).coordinates)
    crop = "crop offset"
    assert crop_offset(fc7.then(deconv(64, 32).coordinates), DATA) == number("32s score crop", crop) == 19
    assert (
        crop_offset(cropped=pool4, onto=upscore2)
        == number("16s score_pool4", crop)
        == number("8s score_pool4", crop)
        == 5
    )
    assert crop_offset(upscore2.then(deconv(32, 16).coordinates), DATA) == number("16s score crop", crop) == 27
    assert crop_offset(cropped=pool3, onto=upscore_pool4) == number("8s score_pool3", crop) == 9
    assert crop_offset(upscore_pool4.then(deconv(16, 8).coordinates), DATA) == number("8s score crop", crop) == 31


def test_crop_offset_of_fcn_on_alexnet() -> None:
    up = upsampling_to(coordinates(CAFFENET_FC7), DATA)
    assert [up.kernel, up.stride] == number("AlexNet upscore", "deconv") == [63, 32]
    assert up.crop == number("AlexNet-32s score crop", "crop offset") == 18


@pytest.mark.parametrize(
    ("layers", "variant"), [(VGG16_POOL3, "VGG16 pool3"), (VGG16_POOL4, "VGG16 pool4"), (VGG16_FC7[:-2], "VGG16 pool5")]
)
def test_receptive_fields_of_the_poolings(layers: list[Layer], variant: str) -> None:
    field = receptive_field(layers)
    assert [field.size, field.stride] == number(variant, "[receptive field, stride]")


def test_receptive_fields_of_table_1() -> None:
    assert receptive_field(VGG16_FC7)[:2] == (number("VGG16", "receptive field (px)"), number("VGG16", "max stride"))
    assert receptive_field(CAFFENET_FC7)[:2] == (
        number("AlexNet", "receptive field (px)"),
        number("AlexNet", "max stride"),
    )
    backbone = create_backbone("googlenet", tiny=True)
    assert isinstance(backbone, GoogLeNet)
    googlenet = layers_of(backbone.modules_to())
    assert receptive_field(googlenet).size == number("GoogLeNet inception_5b", "receptive field") == 715
    assert receptive_field([*googlenet, Layer(7)])[:2] == (number("GoogLeNet", "receptive field (px)"), 32)


@pytest.mark.parametrize("size", [1, 224, 256, 375, 500])
def test_sizes_on_the_way_through_vgg16(size: int) -> None:
    expected = number("FCN-32s VGG16", "intermediate", f"1x3x{size}x{size}")
    with_ceil = [Layer(x.kernel, x.stride, x.padding, ceil_mode=True) for x in VGG16_FC7]
    assert output_size(with_ceil, size) == expected["fc7"]
    assert deconv(64, 32).output_size(expected["fc7"]) == expected["upscore"]


def test_bilinear_kernels() -> None:
    assert bilinear_profile(4).tolist() == number("size 4", "1-D profile")
    sizes = (4, 16, 32, 64, 63)
    assert [bilinear_profile(k).sum() for k in sizes] == number("sizes 4,16", "1-D sum")
    assert [bilinear_kernel(k, 1).max().item() for k in sizes] == number("sizes 4,16", "2-D maximum")


def test_maps_that_no_crop_aligns_are_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="aligned"):
        crop_offset(CoordMap(Fraction(1, 2)), DATA)
    with pytest.raises(AssertionError, match="aligns"):
        upsampling_to(CoordMap(Fraction(1, 2), Fraction(1, 3)), DATA)
