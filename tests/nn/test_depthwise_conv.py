"""Depthwise convolution and its gradients, against torch's convolution in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.backbones import create_backbone
from pixelwise.nn.depthwise_conv import DepthwiseConv2d

CHANNELS_LAST = torch.channels_last
# Channels, height, width, kernel, stride, padding, dilation.
GEOMETRIES = {
    "same": (32, 6, 5, 3, 1, 1, 1),
    "channels that are no multiple of 32": (41, 4, 7, 3, 1, 1, 1),
    "stride 2, odd": (64, 7, 9, 3, 2, 1, 1),
    "stride 2, even": (32, 8, 6, 5, 2, 2, 1),
    "stride 3": (32, 8, 10, 3, 3, 0, 1),
    "dilation 2": (32, 6, 11, 5, 1, 4, 2),
    "stride 2 and dilation 2": (32, 9, 8, 3, 2, 2, 2),
    "dilation wider than the map": (32, 3, 4, 3, 1, 4, 4),
    "one position": (32, 1, 1, 5, 1, 2, 1),
    "no padding": (32, 5, 6, 3, 1, 0, 1),
    "padding wider than same": (32, 4, 5, 3, 1, 3, 1),
    "even kernel": (32, 6, 7, 2, 2, 0, 1),
    "taps outside of the map on both sides": (33, 2, 2, 5, 2, 4, 1),
}


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def layer_of(geometry: tuple[int, ...]) -> tuple[DepthwiseConv2d, Tensor]:
    """Return a layer with random weights, and a random channels_last map for it."""
    channels, height, width, kernel, stride, padding, dilation = geometry
    torch.manual_seed(0)
    layer = DepthwiseConv2d(channels, kernel, stride, padding=padding, dilation=dilation)
    return layer, torch.randn(2, channels, height, width).to(memory_format=CHANNELS_LAST)


def exact(layer: nn.Conv2d, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Return result and gradients of torch's convolution in float64, for the weights as the map's type rounds them."""
    x, weight = x.detach().double().requires_grad_(), layer.weight.detach().to(x.dtype).double().requires_grad_()
    y = F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return [y.detach(), *torch.autograd.grad(y, (x, weight), grad.double())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_result_and_gradients_are_those_of_torch(geometry: tuple[int, ...], dtype: torch.dtype, threads: int) -> None:
    layer, x = layer_of(geometry)
    x = x.to(dtype).requires_grad_()
    y = layer.to(dtype)(x)
    assert "_Depthwise" in type(y.grad_fn).__name__
    grad = torch.randn_like(y)
    ours = [y.detach(), *torch.autograd.grad(y, (x, layer.weight), grad)]
    # Sums are in float32 for bfloat16, and rounded once, to 8 bits.
    rounding = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float64: 1e-14}[dtype]
    for one, other in zip(ours, exact(layer, x, grad), strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        assert (one.double() - other).abs().max() <= rounding * max(1.0, float(other.abs().max()))
    assert ours[1].is_contiguous(memory_format=CHANNELS_LAST)


@pytest.mark.parametrize("name", ["stride 2, odd", "dilation 2"])
def test_gradients_are_the_slopes_of_the_result(name: str) -> None:
    layer, _ = layer_of(GEOMETRIES[name])
    x = torch.randn(1, layer.in_channels, 3, 4, dtype=torch.float64).to(memory_format=CHANNELS_LAST)
    assert torch.autograd.gradcheck(layer.double(), x.requires_grad_(), fast_mode=True)


def test_the_number_of_threads_does_not_change_the_gradients() -> None:
    layer, x = layer_of((96, 16, 18, 5, 2, 2, 1))
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        x.grad, layer.weight.grad = None, None
        layer(x.requires_grad_()).square().sum().backward()
        results.append((x.grad, layer.weight.grad))
    torch.set_num_threads(before)
    for one, other in results[1:]:
        assert torch.equal(one, results[0][0])  # type: ignore[arg-type]
        assert torch.equal(other, results[0][1])  # type: ignore[arg-type]


@pytest.mark.parametrize("frozen", ["map", "weights"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    layer, x = layer_of(GEOMETRIES["stride 2, odd"])
    layer.weight.requires_grad_(frozen != "weights")
    y = layer(x.requires_grad_(frozen != "map"))
    y.sum().backward()
    _, for_x, for_weight = exact(layer, x, torch.ones_like(y))
    expected = {"map": (None, for_weight), "weights": (for_x, None)}[frozen]
    for ours, other in zip((x.grad, layer.weight.grad), expected, strict=True):
        assert (ours is None) == (other is None)
        if ours is not None:
            torch.testing.assert_close(ours.double(), other, rtol=1e-5, atol=1e-5)


def test_autocast_computes_in_bfloat16_and_trains_float32_weights() -> None:
    layer, x = layer_of(GEOMETRIES["same"])
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.requires_grad_())
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
    expected = exact(layer, x.to(torch.bfloat16), torch.ones_like(y))
    for ours, other in zip((y, x.grad, layer.weight.grad), expected, strict=True):
        torch.testing.assert_close(ours.double(), other, rtol=2**-7, atol=2**-7)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3)


@pytest.mark.parametrize(
    "change", [Tensor.contiguous, transposed, lambda x: x[:, :, ::2], lambda x: x[0]], ids=["nchw", "t", "rows", "chw"]
)
def test_other_maps_are_left_to_torch(change: Any) -> None:
    layer, x = layer_of(GEOMETRIES["same"])
    x = change(x).requires_grad_()
    y = layer(x)
    assert "_Depthwise" not in type(y.grad_fn).__name__
    y.sum().backward()
    for ours, other in zip((y, x.grad, layer.weight.grad), exact(layer, x, torch.ones_like(y)), strict=True):
        torch.testing.assert_close(ours.double(), other, rtol=1e-5, atol=1e-5)


def test_a_stride_replaced_after_building_counts() -> None:
    layer, x = layer_of(GEOMETRIES["stride 2, odd"])
    layer.stride, layer.dilation, layer.padding = (1, 1), (2, 2), (2, 2)
    y = layer(x.requires_grad_())
    y.sum().backward()
    for ours, other in zip((y, x.grad, layer.weight.grad), exact(layer, x, torch.ones_like(y)), strict=True):
        assert ours is not None
        torch.testing.assert_close(ours.double(), other, rtol=1e-5, atol=1e-5)


def test_a_second_derivative_is_refused() -> None:
    layer, x = layer_of(GEOMETRIES["same"])
    (slope,) = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv2", "mobilenetv3_large", "xception65"])
def test_every_depthwise_layer_of_the_mobile_networks_is_of_this_kind(name: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name)
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    assert len(convs) > 10
    assert {type(conv) for conv in convs} == {DepthwiseConv2d}
