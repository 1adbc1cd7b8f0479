"""The mobile nets, DenseNet and Xception: torchvision's state, the papers' rules, strides replaced by dilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from helpers.papers import number, torchvision_state
from pixelwise.analysis.mult_adds import num_parameters
from pixelwise.backbones import Backbone, create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.backbones.densenet import DenseBlock, DenseLayer
from pixelwise.backbones.efficientnet import DROP, SCALES, MBConv
from pixelwise.backbones.mobilenetv2 import InvertedResidual
from pixelwise.backbones.xception import XceptionBlock
from pixelwise.errors import ConfigError
from pixelwise.nn.channels import make_divisible
from pixelwise.nn.separable_conv import depthwise, pointwise
from pixelwise.nn.squeeze_excitation import SqueezeExcitation

TORCHVISION = {
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3_large": "mobilenet_v3_large",
    "mobilenetv3_small": "mobilenet_v3_small",
    **{f"densenet{n}": f"densenet{n}" for n in (121, 161, 169, 201)},
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(8)},
}
ATROUS = [
    "mobilenetv2",
    "mobilenetv3_large",
    "mobilenetv3_small",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_lite0",
    "xception41",
    "xception71",
]


def full(name: str, **options: Any) -> Backbone:
    with torch.device("meta"):
        return create_backbone(name, **options).eval()


FAST = ("mobilenetv2", "mobilenetv3_large", "mobilenetv3_small", "densenet121", "efficientnet_b0", "efficientnet_b5")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in TORCHVISION])
def test_state_is_torchvisions(name: str) -> None:
    state = full(name, num_classes=1000).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == torchvision_state(TORCHVISION[name])


@pytest.mark.parametrize("name", ATROUS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_have_the_strides_that_they_claim(name: str, output_stride: int) -> None:
    net = full(name, output_stride=output_stride)
    assert net.strides == tuple(min(2**i, output_stride) for i in range(1, 6))
    maps = net(torch.empty(1, 3, 256, 320, device="meta"))
    for features, stride, channels in zip(maps, net.strides, net.channels, strict=True):
        assert features.shape[1:] == (channels, 256 // stride, 320 // stride)


@pytest.mark.parametrize(
    "name", ["mobilenetv2", "mobilenetv3_large", "efficientnet_b0", "efficientnet_lite0", "xception41"]
)
def test_a_dilated_net_computes_the_strided_nets_map_and_the_positions_between(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that loses its stride reads the old grid, so it keeps the dilation before; both maps agree on it."""
    torch.manual_seed(0)
    strided, dense = (create_backbone(name, tiny=True, output_stride=s).eval() for s in (32, 8))
    dense.load_state_dict(strided.state_dict())
    for block in (m for m in (*strided.modules(), *dense.modules()) if isinstance(m, SqueezeExcitation)):
        # The two average over different positions: left out here.
        monkeypatch.setattr(block, "forward", lambda x: x)
    images = torch.rand(1, 3, 257, 321)
    with torch.no_grad():
        one, two = strided(images)[-1], dense(images)[-1]
    # Both pad by the same number of positions, which lie closer in the denser net.
    inner = (..., slice(3, -3), slice(3, -3))
    assert one[inner].numel()
    torch.testing.assert_close(two[..., ::4, ::4][inner], one[inner], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (1, 1, 1, 2)), (8, (1, 2, 2, 4)), (32, (1, 1, 1, 1))])
def test_dilations_of_xception_are_the_authors(output_stride: int, rates: tuple[int, ...]) -> None:
    """Dilation of entry block 3, middle flow, exit block 1 and exit block 2, as in the authors' code."""
    net = full("xception65", output_stride=output_stride)
    depthwise_3x3 = ("entry.2.separable1.1", "middle.0.separable1.1", "exit1.separable1.1", "exit2.0.0")
    layers = [net.get_submodule(name) for name in depthwise_3x3]
    assert [layer.dilation for layer in layers if isinstance(layer, nn.Conv2d)] == [(rate, rate) for rate in rates]


def test_parameters_of_xceptions_blocks() -> None:
    """Per separable convolution 9 in + in * out and two norms; per projection in * out and a norm."""
    counts = {(64, 128, 2): 53_696, (128, 256, 2): 205_696, (256, 728, 2): 1_457_360, (728, 728, 1): 1_618_344}
    for (channels, out, stride), expected in counts.items():
        block = XceptionBlock(channels, (out, out, out), stride=stride, project=channels != out or stride != 1)
        assert num_parameters(block) == expected
    assert num_parameters(XceptionBlock(728, (728, 1024, 1024), stride=2, project=True)) == 3_104_384


def test_xceptions_shortcut_reads_the_input_before_the_relu() -> None:
    block = XceptionBlock(4, (4, 4, 4), project=False).eval()
    x = torch.randn(1, 4, 5, 5)
    kept = x.clone()
    with torch.no_grad():
        chain = x
        for separable in (block.separable1, block.separable2, block.separable3):
            _, deep, norm1, point, norm2 = separable
            chain = norm2(point(norm1(deep(functional.relu(chain)))))
        torch.testing.assert_close(block(x), chain + kept)
    assert torch.equal(x, kept)


def test_a_separable_convolution_is_the_full_one_with_a_product_kernel() -> None:
    deep, point, x = depthwise(3), pointwise(3, 16), torch.randn(1, 3, 8, 9)
    weight = point.weight * deep.weight[:, 0][None]
    torch.testing.assert_close(point(deep(x)), functional.conv2d(x, weight, padding=1), atol=1e-5, rtol=1e-4)
    counts = [weight.numel(), deep.weight.numel(), point.weight.numel(), deep.weight.numel() + point.weight.numel()]
    assert counts == number("3->16 channels, 3x3", "weights")


def test_dense_block_concatenates() -> None:
    torch.manual_seed(0)
    block, x = DenseBlock(5, 3, growth=2, dilation=1).eval(), torch.randn(1, 5, 6, 6)
    with torch.no_grad():
        known = [x]
        for layer in block:
            assert isinstance(layer, DenseLayer)
            everything = torch.cat(known, 1)
            inner = layer.conv1(functional.relu(layer.norm1(everything)))
            known.append(layer.conv2(functional.relu(layer.norm2(inner))))
        torch.testing.assert_close(block(x), torch.cat(known, 1))


@pytest.mark.parametrize("number_", range(8))
def test_efficientnets_factors(number_: int) -> None:
    assert [*SCALES[number_]] == number(f"B{number_}", "[width, depth")
    net = full(f"efficientnet_b{number_}")
    assert isinstance(net, ClassifierBackbone)
    assert net.input_size == SCALES[number_].resolution


def test_squeeze_is_a_quarter_of_the_blocks_input_not_of_the_expanded_channels() -> None:
    block = MBConv(16, 24, 3, expansion=6, nominal_stride=2, stride=2, dilation=1, drop_prob=0.0)
    [excitation] = (m for m in block.modules() if isinstance(m, SqueezeExcitation))
    assert excitation.fc1.out_channels == 4


def test_stochastic_depth_drops_whole_blocks_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = MBConv(4, 4, 3, expansion=1, nominal_stride=1, stride=1, dilation=1, drop_prob=0.5)
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    x = torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        residual = block.block(x)
        outputs = block(x.expand(400, -1, -1, -1))
        dropped = torch.tensor([torch.equal(o, x[0]) for o in outputs])
        torch.testing.assert_close(
            outputs[~dropped], (x + 2 * residual).expand(int((~dropped).sum()), -1, -1, -1), atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(block.eval()(x), x + residual)
    assert 140 < int(dropped.sum()) < 260
    drops = [m.drop_prob for m in full("efficientnet_b0").modules() if isinstance(m, MBConv)]
    assert drops == pytest.approx([DROP * i / 16 for i in range(16)])


@pytest.mark.parametrize(
    ("exact", "rounded"), [(32 * 1.1, 32), (16 * 1.1, 16), (24 * 1.4, 32), (80 * 1.2, 96), (10, 16), (1, 8)]
)
def test_channels_are_rounded_but_never_down_by_a_tenth(exact: float, rounded: int) -> None:
    assert make_divisible(exact, 1) == rounded
    with pytest.raises(ConfigError, match="width_mult"):
        make_divisible(exact, 0)


def test_a_block_that_lost_its_stride_gets_no_shortcut() -> None:
    for nominal_stride in (1, 2):
        block = InvertedResidual(8, 8, expansion=6, nominal_stride=nominal_stride, stride=1, dilation=1)
        assert block.has_shortcut == (nominal_stride == 1)


@pytest.mark.parametrize(
    ("width_mult", "outputs", "expanded"),
    [
        (0.5, [8, 12, 16, 32, 48, 80, 160], [16, 48, 72, 96, 192, 288, 480]),
        # 6 * 6 = 36 -> 40, 6 * 11 = 66 -> 64, 6 * 22 = 132 -> 136, 6 * 34 = 204 -> 208.
        (0.35, [6, 8, 11, 22, 34, 56, 112], [11, 40, 48, 64, 136, 208, 336]),
    ],
)
def test_widths_of_mobilenetv2_by_deeplabs_rule(width_mult: float, outputs: list[int], expanded: list[int]) -> None:
    """Table 2 times the multiplier, to the nearest whole number; expanded channels to multiples of 8."""
    net = full("mobilenetv2", width_mult=width_mult, divisor=1, last_conv=False)
    blocks = [m for m in net.modules() if isinstance(m, InvertedResidual)]
    firsts = [blocks[i] for i in (0, 1, 3, 6, 10, 13, 16)]
    convs = [[m for m in block.modules() if isinstance(m, nn.Conv2d)] for block in firsts]
    assert [layers[-1].out_channels for layers in convs] == outputs
    assert [layers[0].out_channels for layers in convs] == expanded
    # The paper's rule, multiples of 8.
    assert full("mobilenetv2", width_mult=0.5).channels[1] == 16
    with pytest.raises(ConfigError, match="divisor: must be >= 1, got 0"):
        create_backbone("mobilenetv2", divisor=0)


@pytest.mark.parametrize("name", ["mobilenetv2", "mobilenetv3_large", "efficientnet_b0", "efficientnet_lite0"])
def test_padding_is_tensorflows_at_odd_sizes_only(name: str) -> None:
    """TensorFlow's SAME: as much padding as the last window needs, the smaller half at the top and left."""
    torch.manual_seed(0)
    net = create_backbone(name, tiny=True).eval()
    calls: list[tuple[nn.Conv2d, torch.Tensor, torch.Tensor]] = []
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs[0], output)))
    for size, is_same in ((65, True), (64, False)):
        calls.clear()
        with torch.no_grad():
            net(torch.rand(1, 3, size, size))
            assert len(calls) == 5
            for layer, x, found in calls:
                kernel, side = layer.kernel_size[0], x.shape[-1]
                total = (-(-side // 2) - 1) * 2 + kernel - side
                pads = (total // 2, total - total // 2) * 2
                same = functional.conv2d(functional.pad(x, pads), layer.weight, None, 2, groups=layer.groups)
                assert torch.allclose(same, found, atol=1e-5) == is_same
