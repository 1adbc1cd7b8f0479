"""ResNet and SE-ResNet: torchvision's state, the papers' counts and receptive fields, strides replaced by dilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from helpers.papers import number, torchvision_state
from pixelwise.backbones import create_backbone
from pixelwise.backbones.resnet import Bottleneck, ResNet
from pixelwise.backbones.senet import SEBottleneck
from pixelwise.errors import ConfigError
from pixelwise.nn.deform_conv import DeformConv2d
from pixelwise.nn.geometry import layers_of, receptive_field
from pixelwise.nn.squeeze_excitation import SqueezeExcitation


def full(name: str, **options: Any) -> ResNet:
    with torch.device("meta"):
        net = create_backbone(name, **options).eval()
    assert isinstance(net, ResNet)
    return net


def tiny(name: str = "resnet50", **options: Any) -> ResNet:
    torch.manual_seed(0)
    net = create_backbone(name, tiny=True, **options).eval()
    assert isinstance(net, ResNet)
    return net


def dilations(net: ResNet, number: int) -> list[int]:
    """Return the dilation of the 3x3 convolution in each bottleneck of a stage."""
    blocks = list(net.stage(number))
    assert all(isinstance(block, Bottleneck) for block in blocks)
    return [block.conv2.dilation[0] for block in blocks if isinstance(block, Bottleneck)]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_state_is_torchvisions(depth: int) -> None:
    net = full(f"resnet{depth}", num_classes=1000)
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == torchvision_state(f"resnet{depth}")


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_receptive_field_depends_on_where_the_stride_lies(depth: int) -> None:
    places = ("3x3", "1x1", "last")
    sizes = [receptive_field(layers_of(full(f"resnet{depth}", stride_in=p).modules_to())).size for p in places]
    published = number(f"ResNet-{depth}", "receptive")
    # TensorFlow's stride in the last block gives the receptive field of a stride in the first 1x1.
    assert sizes == [*published, published[1]]


@pytest.mark.parametrize("place", ["3x3", "1x1", "last"])
@pytest.mark.parametrize(("output_stride", "rates"), [(32, (1, 1)), (16, (1, 2)), (8, (2, 4))])
def test_strides_become_dilation(place: str, output_stride: int, rates: tuple[int, int]) -> None:
    """DeepLab v3, section 3.1: output stride 16 has rate 2 in layer4; output stride 8 has 2 in layer3, 4 in layer4."""
    net = full("resnet50", stride_in=place, output_stride=output_stride)
    maps = net(torch.empty(1, 3, 513, 513, device="meta"))
    assert [features.shape[-1] for features in maps] == [512 // s + 1 for s in net.strides]
    assert net.strides[-1] == output_stride
    for number_, rate in zip((3, 4), rates, strict=True):
        assert set(dilations(net, number_)) == {rate}


def test_torchvisions_first_block_keeps_the_dilation_before() -> None:
    net = full("resnet50", output_stride=8, dilate_first=False)
    assert [dilations(net, number_) for number_ in (3, 4)] == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]


def test_multi_grid_and_cascade_multiply_the_dilation() -> None:
    """DeepLab v3: output stride 16, multi-grid (1, 2, 4) -> 2, 4, 8; blocks 5 to 7 at base rates 4, 8, 16."""
    net = full("resnet101", output_stride=16, multi_grid=(1, 2, 4), cascade=3)
    assert [dilations(net, number_) for number_ in (4, 5, 6, 7)] == [[2, 4, 8], [4, 8, 16], [8, 16, 32], [16, 32, 64]]
    assert dilations(full("resnet101", output_stride=8, multi_grid=(1, 2, 4)), 4) == [4, 8, 16]


@pytest.mark.parametrize(("place", "dilate_first"), [("3x3", False), ("1x1", True), ("last", True)])
def test_a_dilated_net_computes_the_strided_nets_map_and_the_positions_between(place: str, dilate_first: bool) -> None:
    """Holschneider's algorithm: every fourth position of the denser map is the coarser map, with the same weights.

    Where the stride was in a 3x3, that convolution still reads the old grid: torchvision's rule is the exact one.
    """
    strided, dense = tiny(stride_in=place), tiny(stride_in=place, output_stride=8, dilate_first=dilate_first)
    dense.load_state_dict(strided.state_dict())
    images = torch.rand(1, 3, 129, 161)
    with torch.no_grad():
        one, two = strided(images)[-1], dense(images)[-1]
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(two[..., ::4, ::4][inner], one[inner], atol=1e-4, rtol=1e-3)


def test_the_map_before_the_last_block() -> None:
    """TensorFlow's block1/unit_2/conv3 at stride 4: a residual before any ReLU."""
    net = tiny(stride_in="last")
    with torch.no_grad():
        maps = net(torch.rand(1, 3, 65, 65))
    assert net.strides == (2, 4, 8, 16, 32)
    assert (maps[1] < 0).any()
    assert not (maps[-1] < 0).any()


def test_deep_stem_is_three_small_convolutions() -> None:
    net = full("resnet50", deep_stem=True)
    shapes = [tuple(net.state_dict()[f"conv{i}.weight"].shape) for i in (1, 2, 3)]
    assert shapes == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)]
    assert net.channels[0] == 128


def test_caffe_names_cover_every_convolution() -> None:
    for depth, last in ((50, "res4f_branch2a"), (101, "res4b22_branch2a"), (152, "res3b7_branch2a")):
        net = full(f"resnet{depth}", num_classes=1000)
        names = net.caffe_names()
        layers = {path for path, m in net.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
        assert set(names.values()) == layers
        assert len(names) == len(layers)
        assert last in names


def test_deformable_layers_start_as_ordinary_ones() -> None:
    plain, moved = tiny(output_stride=16), tiny(output_stride=16, deformable="v1")
    moved.load_state_dict(plain.state_dict(), strict=False)
    layers = [m for m in moved.modules() if isinstance(m, DeformConv2d)]
    assert len(layers) == 3, "the 3x3 convolutions of the last stage"
    images = torch.rand(1, 3, 65, 80)
    with torch.no_grad():
        torch.testing.assert_close(moved(images)[-1], plain(images)[-1], atol=1e-4, rtol=1e-4)


def test_squeeze_and_excitation_written_out() -> None:
    torch.manual_seed(0)
    block, x = SqueezeExcitation(6, 2), torch.randn(2, 6, 3, 5)
    assert block.fc1.bias is not None
    assert block.fc2.bias is not None
    with torch.no_grad():
        out = block(x)
        for b in range(2):
            averages = torch.stack([x[b, c].mean() for c in range(6)])
            hidden = (block.fc1.weight[:, :, 0, 0] @ averages + block.fc1.bias).clamp_min(0)
            scale = 1 / (1 + torch.exp(-(block.fc2.weight[:, :, 0, 0] @ hidden + block.fc2.bias)))
            torch.testing.assert_close(out[b], x[b] * scale[:, None, None])


def test_se_scales_before_the_addition() -> None:
    block = tiny("se_resnet50").stage(1)[1]
    assert isinstance(block, SEBottleneck)
    x = torch.rand(1, block.conv1.in_channels, 4, 4)
    with torch.no_grad():
        inner = functional.relu(block.bn2(block.conv2(functional.relu(block.bn1(block.conv1(x))))))
        expected = functional.relu(block.se(block.bn3(block.conv3(inner))) + x)
        torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride_in": "2x2"}, "option stride_in: expected one of 3x3, 1x1, last, got '2x2'"),
        ({"output_stride": 4}, "output_stride: expected 8, 16 or 32, got 4"),
        ({"multi_grid": (1, 2)}, "expected 3 factors"),
        ({"deformable": "v3"}, "option deformable: expected one of none, v1, v2, got 'v3'"),
    ],
)
def test_a_wrong_option_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


@pytest.mark.parametrize("name", ["resnet50", "se_resnet50"])
@pytest.mark.parametrize(
    ("size", "caffe", "torchvisions"), [(97, [49, 24, 12, 6, 3], [49, 25, 13, 7, 4]), (224, [], [])]
)
def test_caffes_first_pooling(name: str, size: int, caffe: list[int], torchvisions: list[int]) -> None:
    """3x3 with stride 2 from the first pixel on, the last window cut off at the border."""
    equal = [112, 56, 28, 14, 7]
    plain, net = tiny(name), tiny(name, stem_pool="caffe")
    seen: list[torch.Tensor] = []
    net.maxpool.register_forward_hook(lambda module, inputs, output: seen.extend((inputs[0], output)))
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        assert [features.shape[-1] for features in net(images)] == (caffe or equal)
        assert [features.shape[-1] for features in plain(images)] == (torchvisions or equal)
    before, after = seen
    starts = range(0, before.shape[-1] - 1, 2)
    windows = [[before[..., i : i + 3, j : j + 3].amax((2, 3)) for j in starts] for i in starts]
    torch.testing.assert_close(after, torch.stack([torch.stack(row, -1) for row in windows], -2))
    assert net.strides == plain.strides
