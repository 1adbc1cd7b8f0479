"""Two ways to one dense map: every shift of the image, or dilated kernels; and both against plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pixelwise.backbones import create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.errors import ConfigError
from pixelwise.nn.geometry import layers_of, receptive_field
from pixelwise.nn.shift_and_stitch import rarefy, shift_and_stitch


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2), nn.ReLU()),
        nn.AvgPool2d(2, 2), nn.Conv2d(4, 3, 3),
    ).double()  # fmt: skip


def inner(dense: torch.Tensor, border: int, size: tuple[int, int]) -> torch.Tensor:
    return dense[..., border : size[0] - border, border : size[1] - border]


def test_both_ways_agree_away_from_borders() -> None:
    net, images = small_net(), torch.randn(2, 2, 90, 106, dtype=torch.double)
    stitched, rarefied = shift_and_stitch(net, images, 8), rarefy(net)(images)
    size = (min(stitched.shape[-2], rarefied.shape[-2]), min(stitched.shape[-1], rarefied.shape[-1]))
    assert min(size) > 60
    a, b = inner(stitched, 16, size), inner(rarefied, 16, size)
    assert a.std() > 0.01
    torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


def test_every_stride_th_output_of_both_is_the_nets_own() -> None:
    net, images = small_net(), torch.randn(1, 2, 80, 80, dtype=torch.double)
    coarse = net(images)
    torch.testing.assert_close(shift_and_stitch(net, images, 8)[..., ::8, ::8], coarse)
    rarefied = rarefy(net)(images)[..., ::8, ::8]
    torch.testing.assert_close(
        rarefied[..., : coarse.shape[-2], : coarse.shape[-1]][..., 1:-1, 1:-1], coarse[..., 1:-1, 1:-1]
    )


def test_stitching_interlaces_as_in_the_definition() -> None:
    """A net that picks every third pixel gives, stitched, every pixel; the row of a shift is its remainder."""
    images = torch.arange(12.0).view(1, 1, 1, 12) + 100 * torch.arange(9.0).view(1, 1, 9, 1)
    two_maps = torch.cat([images, -images], 1)
    assert torch.equal(shift_and_stitch(lambda x: x[..., ::3, ::3], two_maps, 3), two_maps)


def test_a_rarefied_kernel_is_the_kernel_with_zeros_between() -> None:
    """f'_ij = f_(i/s, j/s) where s divides i and j, else 0; written out in loops."""
    torch.manual_seed(1)
    conv = nn.Conv2d(1, 1, 3, bias=False)
    net = nn.Sequential(nn.MaxPool2d(2, 3), conv).double()
    images, s = torch.randn(1, 1, 20, 20, dtype=torch.double), 3
    spread = torch.zeros(7, 7, dtype=torch.double)
    for i in range(7):
        for j in range(7):
            if i % s == 0 and j % s == 0:
                spread[i, j] = conv.weight[0, 0, i // s, j // s]
    pooled = torch.zeros(19, 19, dtype=torch.double)
    for y in range(19):
        for x in range(19):
            pooled[y, x] = images[0, 0, y : y + 2, x : x + 2].max()
    expected = torch.zeros(13, 13, dtype=torch.double)
    for y in range(13):
        for x in range(13):
            expected[y, x] = (pooled[y : y + 7, x : x + 7] * spread).sum()
    torch.testing.assert_close(rarefy(net)(images)[0, 0], expected)


@pytest.mark.parametrize(("name", "size"), [("alexnet_caffe", 420), ("googlenet", 130)])
def test_larger_nets_both_ways(name: str, size: int) -> None:
    """CaffeNet's sliding classifier, and GoogLeNet to inception3a, with branches: equal where padding is not seen."""
    torch.manual_seed(2)
    backbone = create_backbone(name, tiny=True, width_mult=1 / 32, num_classes=3).eval()
    assert isinstance(backbone, ClassifierBackbone)
    chain = backbone.modules_to(2)[:8] if name == "googlenet" else list(backbone.convolutionalize().children())
    net, field = nn.Sequential(*chain), receptive_field(layers_of(chain))
    stride, num_compared = field.stride, 0
    images = torch.randn(1, 3, size + stride, size + stride)
    with torch.no_grad():
        rarefied = rarefy(net)(images)
        for dy, dx in ((0, 0), (1, 0), (3, stride - 1)):
            coarse = net(images[..., dy : dy + size, dx : dx + size])
            seen = [i for i in range(coarse.shape[-1]) if field.span(i)[0] >= 0 and field.span(i)[1] <= size]
            first, end = seen[0], seen[-1] + 1
            dense = rarefied[..., dy::stride, dx::stride]
            torch.testing.assert_close(
                dense[..., first:end, first:end], coarse[..., first:end, first:end], atol=1e-4, rtol=1e-4
            )
            num_compared += len(seen) ** 2
    assert num_compared >= 12


def test_the_net_itself_is_unchanged() -> None:
    net = small_net()
    before = repr(net)
    assert repr(rarefy(net)) != before
    assert repr(net) == before


def test_layers_without_a_sliding_window_are_an_error() -> None:
    with pytest.raises(ConfigError, match="convolutionalize"):
        rarefy(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


class TwoStrides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.MaxPool2d(2, 2), nn.MaxPool2d(3, 1)


def test_branches_of_different_strides_are_an_error() -> None:
    with pytest.raises(ConfigError, match="different strides"):
        rarefy(nn.Sequential(TwoStrides()))
