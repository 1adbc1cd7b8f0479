"""The context modules written out: DeepLab v3's ASPP, image pooling, PSPNet's pyramid pooling."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from helpers.by_definition import aligned_bilinear, conv_norm_relu, randomize_norms
from pixelwise.nn.blocks import ConvNormAct
from pixelwise.nn.pyramid_pooling import ASPP, BatchNorm2dSafe, ImagePooling, PyramidPooling


def test_the_aspp_written_out() -> None:
    torch.manual_seed(0)
    aspp, x = ASPP(6, 4, (2, 3)).eval(), torch.randn(2, 6, 9, 11)
    randomize_norms(aspp)
    with torch.no_grad():
        features = []
        for branch in aspp.branches:
            assert isinstance(branch, ConvNormAct)
            features.append(conv_norm_relu(branch[0], branch[1], x))
        pooled = conv_norm_relu(aspp.pooling[1], aspp.pooling[2], x.mean((2, 3), keepdim=True))
        features.append(pooled.expand(-1, -1, 9, 11))
        expected = conv_norm_relu(aspp.project[0], aspp.project[1], torch.cat(features, 1))
        torch.testing.assert_close(aspp(x), expected, atol=1e-5, rtol=1e-4)


def test_large_rates_are_one_by_ones_on_small_maps() -> None:
    """v3, figure 4: as the rate nears the size of the map, only the middle of the kernel reads it."""
    aspp, x = ASPP(3, 4, (18,)).eval(), torch.randn(1, 3, 17, 17)
    branch = aspp.branches[1]
    assert isinstance(branch, ConvNormAct)
    conv = branch[0]
    assert isinstance(conv, nn.Conv2d)
    middle = functional.conv2d(x, conv.weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(conv(x), middle, atol=1e-5, rtol=1e-4)


def test_a_single_value_per_channel_is_normalized_by_the_running_statistics() -> None:
    norm = BatchNorm2dSafe(3)
    randomize_norms(norm)
    x = torch.randn(1, 3, 1, 1)
    alone = norm.train()(x)
    torch.testing.assert_close(alone, norm.eval()(x))
    two, ordinary = torch.randn(2, 3, 1, 1), nn.BatchNorm2d(3)
    ordinary.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm.train()(two), ordinary(two))


def test_image_pooling_repeats_the_mean() -> None:
    pooling, x = ImagePooling(4, 3).eval(), torch.randn(2, 4, 5, 7)
    randomize_norms(pooling)
    with torch.no_grad():
        out = pooling(x)
        expected = conv_norm_relu(pooling[1], pooling[2], x.mean((2, 3), keepdim=True))
    assert out.shape == (2, 3, 5, 7)
    torch.testing.assert_close(out, expected.expand(-1, -1, 5, 7))


def test_bins_are_means_of_regions() -> None:
    """PSPNet: on a 6 x 6 map, each of the bins 1, 2, 3, 6 divides the map."""
    pyramid, x = PyramidPooling(8, (1, 2, 3, 6)), torch.randn(2, 8, 6, 6)
    assert pyramid.out_channels == 16
    for bins, level in zip((1, 2, 3, 6), pyramid.levels, strict=True):
        assert isinstance(level, nn.Sequential)
        pooled, side = level[0](x), 6 // bins
        for row in range(bins):
            for column in range(bins):
                region = x[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
                torch.testing.assert_close(pooled[..., row, column], region.mean((2, 3)))


def test_the_pyramid_pooling_written_out() -> None:
    """After the map itself: averages over bins rounded outwards, reduced, and upsampled with aligned corners."""
    torch.manual_seed(0)
    pyramid, x = PyramidPooling(8, (1, 3)).eval(), torch.randn(2, 8, 7, 10)
    randomize_norms(pyramid)
    parts = [x]
    with torch.no_grad():
        for level, bins in zip(pyramid.levels, (1, 3), strict=True):
            assert isinstance(level, nn.Sequential)
            pooled = torch.empty(2, 8, bins, bins)
            for i in range(bins):
                for j in range(bins):
                    rows = slice(7 * i // bins, -(-7 * (i + 1) // bins))
                    columns = slice(10 * j // bins, -(-10 * (j + 1) // bins))
                    pooled[..., i, j] = x[..., rows, columns].mean((2, 3))
            parts.append(aligned_bilinear(conv_norm_relu(level[1], level[2], pooled), (7, 10)))
        out = pyramid(x)
    torch.testing.assert_close(out, torch.cat(parts, 1), atol=1e-5, rtol=1e-4)
    assert torch.equal(out[:, :8], x)
