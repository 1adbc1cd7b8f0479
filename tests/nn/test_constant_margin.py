"""The maps that skip the constant part of a wide margin against the maps of the plain chain.

In float64, in which rounding (oneDNN chooses its functions by shape) cannot hide a position that is off by one.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from pixelwise.models import create_model
from pixelwise.nn.constant_margin import MAX_SIZES, ConstantMargin
from pixelwise.nn.geometry import layers_of


@st.composite
def chains(draw: st.DrawFn) -> list[nn.Module]:
    """Chains like those of VGG and AlexNet: a first convolution with a wide padding, poolings that round up or down."""
    kernel = draw(st.sampled_from((1, 3, 5)))
    layers: list[nn.Module] = [
        nn.Conv2d(3, 8, kernel, draw(st.sampled_from((1, 2, 4))), padding=kernel + draw(st.integers(1, 30))),
        nn.ReLU(inplace=True),
    ]
    for _ in range(draw(st.integers(0, 4))):
        kernel = draw(st.sampled_from((1, 3, 5)))
        dilation = draw(st.sampled_from((1, 2)))
        kind = draw(st.sampled_from(("convolution", "pooling", "norm")))
        if kind == "convolution":
            padding = draw(st.integers(0, dilation * (kernel // 2)))
            layers += [nn.Conv2d(8, 8, kernel, 1, padding, dilation), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
        elif kind == "pooling":
            kernel = draw(st.sampled_from((2, 3)))
            layers.append(nn.MaxPool2d(kernel, draw(st.sampled_from((1, 2))), draw(st.sampled_from((0, 1))),
                                       ceil_mode=draw(st.booleans())))  # fmt: skip
        else:
            layers.append(nn.LocalResponseNorm(5))
    return layers


@settings(max_examples=60)
@given(chains(), st.integers(1, 90), st.integers(1, 90), st.integers(0, 1000))
def test_maps_are_those_of_the_whole_chain(layers: list[nn.Module], height: int, width: int, seed: int) -> None:
    side = min(height, width)
    for geometry in layers_of(layers):
        side = geometry.output_size(side)
        assume(side >= 1)
    generator = torch.Generator().manual_seed(seed)
    chain = nn.Sequential(*layers).double().eval()
    for weight in chain.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    # Not before a ReLU in place, which would change the map that was returned.
    ends = [k for k, after in enumerate(layers[1:]) if not isinstance(after, nn.ReLU)]
    indices = sorted({*ends[:1], len(layers) - 1})
    images = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        maps, x = [], images
        for position, layer in enumerate(layers):
            x = layer(x)
            maps += [x] if position in indices else []
        found = ConstantMargin(layers, indices)(images)
    assert ConstantMargin.fits(layers)
    for one, other in zip(maps, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["fcn8s_vgg16", "fcn32s_alexnet"])
def test_fcn_skips_its_margin(name: str) -> None:
    """Of the positions of conv1_2, those around a small window are never computed, and the scores are the same."""
    model = create_model(name, 5, width_mult=1 / 8).double().eval()
    for parameter in model.parameters():
        if parameter.ndim == 1 or parameter.abs().max() == 0:
            nn.init.uniform_(parameter, -0.1, 0.1)
    faster = model.for_inference()
    images = torch.randint(0, 256, (1, 3, 150, 131)).double()
    with torch.inference_mode():
        expected = model.forward_low_res(images).logits
        faster.forward_low_res(images)  # the constants are made at the first image of a size
        computed: list[int] = []
        second = [layer for layer in faster.modules() if isinstance(layer, nn.ReLU)][1]
        second.register_forward_hook(lambda _, __, x: computed.append(x.shape[2] * x.shape[3]))
        logits = faster.forward_low_res(images).logits
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    # VGG16: 150 + 2 * 2 rows of 348; AlexNet's conv2, at stride 8, sees a few more.
    whole = (150 + 198) * (131 + 198) if "vgg" in name else 43 * 40
    assert len(computed) == 1
    assert computed[0] < 0.65 * whole


def test_other_weights_are_seen() -> None:
    """Constants that were made from weights before a change are not used after it."""
    model = create_model("fcn32s_alexnet", 5, width_mult=1 / 8).double().eval()
    nn.init.uniform_(model.get_submodule("score_fr").get_parameter("weight"), -0.1, 0.1)
    faster, images = model.for_inference(), torch.full((1, 3, 150, 131), 90.0).double()
    with torch.no_grad():
        before = faster.forward_low_res(images).logits
        for change in (0.05, 0.1):
            for parameter in model.backbone.parameters():  # type: ignore[union-attr]
                if change == 0.05:
                    parameter += change
                else:
                    parameter.data = parameter.data + change
            after = faster.forward_low_res(images).logits
            expected = model.forward_low_res(images).logits
            torch.testing.assert_close(after, expected, rtol=1e-10, atol=1e-10)
            assert not torch.equal(after, before)


def test_a_network_in_training_stays_as_it_is() -> None:
    model = create_model("fcn32s_alexnet", 5, width_mult=1 / 8).train()
    assert model.for_inference() is model
    assert all(module.training for module in model.modules())


def test_margins_of_a_few_sizes_are_kept() -> None:
    chain = [nn.Conv2d(3, 4, 3, padding=10), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]
    margin, runs = ConstantMargin(chain, [2]).eval(), [0]

    def count(*_: object) -> None:
        runs[0] += 1

    # Called once per image, and once more where the constants are made.
    chain[0].register_forward_hook(count)
    with torch.inference_mode():
        for side in [*range(20, 20 + MAX_SIZES), 20, *range(40, 40 + MAX_SIZES - 1), 20]:
            margin(torch.zeros(1, 3, side, side))
        assert runs[0] == 2 * (2 * MAX_SIZES - 1) + 2
        margin(torch.zeros(1, 3, 21, 21))
    assert runs[0] == 2 * (2 * MAX_SIZES - 1) + 2 + 2


@pytest.mark.slow
@pytest.mark.parametrize("size", [(360, 480), (375, 500)])
def test_full_width_is_equal_bit_by_bit(size: tuple[int, int]) -> None:
    """VGG16 in float32 and channels_last, as it labels images."""
    model = create_model("fcn8s_vgg16", 21).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(1, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = model.backbone(images)
        found = model.for_inference().backbone(images)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
