"""DeepLab v3, v3+ and PSPNet: their parts written out, rates at every output stride, training with one image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.models.deeplabv3 import DeepLabV3, DeepLabV3Cascade, atrous_rates_at
from pixelwise.models.deeplabv3plus import Decoder, DeepLabV3Plus
from pixelwise.models.pspnet import PSPNet
from pixelwise.nn.pyramid_pooling import ASPP, BatchNorm2dSafe, ImagePooling, PyramidPooling


def tiny(name: str, **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    return create_model(name, 5, tiny=True, **options)


def randomise_norms(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.uniform_(layer.bias, -0.3, 0.3)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36)), (32, (3, 6, 9))])
def test_the_pyramid_sees_the_same_pixels_at_every_output_stride(output_stride: int, rates: tuple[int, ...]) -> None:
    """v3, section 3.3: doubled at 8; the counts of v3+'s table 3 only fit halves at 32."""
    assert atrous_rates_at(output_stride) == rates
    model = tiny("deeplabv3_resnet50", output_stride=output_stride)
    assert isinstance(model, DeepLabV3)
    assert [branch[0].dilation[0] for branch in model.aspp.branches] == [1, *rates]  # type: ignore[index]


def test_the_pyramid_written_out() -> None:
    torch.manual_seed(0)
    aspp, x = ASPP(6, 4, (2, 3)).eval(), torch.randn(2, 6, 9, 11)
    randomise_norms(aspp)

    def unit(layers: Any, cells: torch.Tensor) -> torch.Tensor:
        conv, norm = layers[0], layers[1]
        out = functional.conv2d(
            cells, conv.weight, padding=conv.dilation[0] * (conv.kernel_size[0] // 2), dilation=conv.dilation
        )
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return ((out - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).clamp_min(0)

    with torch.no_grad():
        cells = [unit(branch, x) for branch in aspp.branches]
        pooled = unit([aspp.pooling[1], aspp.pooling[2]], x.mean((2, 3), keepdim=True)).expand(-1, -1, 9, 11)
        torch.testing.assert_close(aspp(x), unit(aspp.project, torch.cat([*cells, pooled], 1)), atol=1e-5, rtol=1e-4)


def test_large_rates_are_one_by_ones_on_small_maps() -> None:
    """v3, figure 4: as the rate nears the map's size only the middle tap reads it."""
    aspp, x = ASPP(3, 4, (18,)).eval(), torch.randn(1, 3, 17, 17)
    conv = aspp.branches[1][0]  # type: ignore[index]
    middle = functional.conv2d(x, conv.weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(conv(x), middle, atol=1e-5, rtol=1e-4)


def test_a_single_value_a_channel_is_normed_by_the_running_statistics() -> None:
    norm = BatchNorm2dSafe(3)
    nn.init.uniform_(norm.running_mean, -1, 1)
    x = torch.randn(1, 3, 1, 1)
    alone = norm.train()(x)
    torch.testing.assert_close(alone, norm.eval()(x))
    two = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(norm.train()(two), nn.BatchNorm2d(3)(two))


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3plus_xception41", "pspnet_resnet50"])
@pytest.mark.parametrize("size", [(33, 49), (1, 1)])
def test_one_image_trains(name: str, size: tuple[int, int]) -> None:
    model = tiny(name).train()
    if size == (1, 1):
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d) and not isinstance(layer, BatchNorm2dSafe):
                layer.eval()
    model(torch.rand(1, 3, *size) * 255).logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_image_pooling_spreads_the_mean() -> None:
    pooling, x = ImagePooling(4, 3).eval(), torch.randn(2, 4, 5, 7)
    with torch.no_grad():
        out = pooling(x)
        expected = (pooling[1](x.mean((2, 3), keepdim=True)) / (1 + 1e-5) ** 0.5).clamp_min(0)
    assert out.shape == (2, 3, 5, 7)
    torch.testing.assert_close(out, expected.expand(-1, -1, 5, 7))


def test_bins_are_means_of_regions() -> None:
    """PSPNet: at 6 x 6 cells each of the bins 1, 2, 3, 6 divides the map."""
    pyramid, x = PyramidPooling(8, (1, 2, 3, 6)), torch.randn(2, 8, 6, 6)
    assert pyramid.out_channels == 16
    for size, level in zip((1, 2, 3, 6), pyramid.levels, strict=True):
        pooled, side = level[0](x), 6 // size  # type: ignore[index]
        for row in range(size):
            for column in range(size):
                region = x[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
                torch.testing.assert_close(pooled[..., row, column], region.mean((2, 3)))


def test_the_input_comes_first_and_whole() -> None:
    pyramid, x = PyramidPooling(8, (1, 2)).eval(), torch.randn(1, 8, 5, 9)
    assert torch.equal(pyramid(x)[:, :8], x)


@pytest.mark.parametrize(
    "name", ["deeplabv3_resnet50", "deeplabv3plus_resnet50", "deeplabv3plus_xception41", "deeplabv3plus_mobilenetv2"]
)
def test_the_same_weights_serve_every_output_stride(name: str) -> None:
    """v3: trained at 16, evaluated at 8."""
    coarse, dense = tiny(name).eval(), tiny(name, output_stride=8).eval()
    dense.load_state_dict(coarse.state_dict())
    images = torch.rand(1, 3, 65, 97) * 255
    scores = [model.forward_low_res(images).logits for model in (coarse, dense)]
    if name != "deeplabv3plus_mobilenetv2" and "plus" in name:
        assert scores[0].shape == scores[1].shape == (1, 5, 17, 25)
    else:
        assert [tuple(s.shape[-2:]) for s in scores] == [(5, 7), (9, 13)]


def test_cascade_has_three_more_blocks_and_no_pyramid() -> None:
    model = tiny("deeplabv3_cascade_resnet50")
    assert isinstance(model, DeepLabV3Cascade)
    assert model.backbone.map_names[-1] == "layer7"  # type: ignore[union-attr]
    rates = [unit.conv2.dilation[0] for unit in model.backbone.stage(7)]  # type: ignore[operator]
    assert rates == [16, 32, 16], "base rate 16 of block 7, multi-grid (1, 2, 1)"


def test_auxiliary_scores_come_from_the_fourth_stage_in_training_only() -> None:
    model = tiny("pspnet_resnet50").train()
    assert isinstance(model, PSPNet)
    assert model.aux_head is not None
    assert model.aux_head[0][0].in_channels == model.backbone.channels[3]  # type: ignore[index]
    images = torch.rand(2, 3, 57, 57) * 255
    assert [aux.shape for aux in model(images).aux] == [(2, 5, 57, 57)]
    assert model.eval()(images).aux == ()


def test_the_decoder_reads_the_map_of_stride_four() -> None:
    model = tiny("deeplabv3plus_resnet50").eval()
    assert isinstance(model, DeepLabV3Plus)
    assert model.decoder is not None
    assert model.backbone.map_names[model.low_level_index] == "layer1"  # type: ignore[index]
    scores = model.forward_low_res(torch.rand(1, 3, 65, 65) * 255).logits
    assert scores.shape == (1, 5, 17, 17)
    full = create_model("deeplabv3plus_xception65", 21)
    assert isinstance(full, DeepLabV3Plus)
    assert full.decoder is not None
    assert (full.decoder.reduce[0].in_channels, full.decoder.reduce[0].out_channels) == (256, 48)  # type: ignore[union-attr]


def aligned(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear interpolation with aligned corners by its definition: two matrices of weights."""

    def weights(cells: int, pixels: int) -> torch.Tensor:
        places = torch.linspace(0, cells - 1, pixels) if pixels > 1 else torch.zeros(1)
        return (1 - (places[:, None] - torch.arange(cells)).abs()).clamp_min(0)

    return weights(x.shape[-2], size[0]) @ x @ weights(x.shape[-1], size[1]).T


def test_pspnets_pyramid_written_out() -> None:
    """Averages over bins whose borders are rounded outwards, each reduced, spread with aligned corners, behind the map itself."""
    torch.manual_seed(0)
    pyramid, x = PyramidPooling(8, (1, 3)).eval(), torch.randn(2, 8, 7, 10)
    randomise_norms(pyramid)
    parts = [x]
    with torch.no_grad():
        for level, bins in zip(pyramid.levels, (1, 3), strict=True):
            pooled = torch.stack(
                [
                    torch.stack(
                        [
                            x[
                                ..., 7 * i // bins : -(-7 * (i + 1) // bins), 10 * j // bins : -(-10 * (j + 1) // bins)
                            ].mean((2, 3))
                            for j in range(bins)
                        ],
                        -1,
                    )
                    for i in range(bins)
                ],
                -2,
            )
            _, conv, norm, _ = level  # type: ignore[misc]
            cells = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], pooled)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            cells = (cells - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
            parts.append(aligned(cells.clamp_min(0), (7, 10)))
        torch.testing.assert_close(pyramid(x), torch.cat(parts, 1), atol=1e-5, rtol=1e-4)


def test_the_decoder_written_out() -> None:
    """v3+, section 3.1: the encoder's map with aligned corners first, the reduced fine map behind it, two convolutions."""
    torch.manual_seed(0)
    decoder, encoded, fine = (
        Decoder(6, 5, reduced_channels=4).eval(),
        torch.randn(1, 6, 4, 5),
        torch.randn(1, 5, 13, 17),
    )
    randomise_norms(decoder)
    with torch.no_grad():
        reduced = decoder.reduce(fine)
        mixed = decoder.refine(torch.cat([aligned(encoded, (13, 17)), reduced], 1))
        torch.testing.assert_close(decoder(encoded, fine), mixed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3plus_resnet50", "pspnet_resnet50"])
def test_scores_are_brought_to_full_size_with_aligned_corners(name: str) -> None:
    model, x = tiny(name).eval(), torch.randint(0, 256, (1, 3, 49, 65), dtype=torch.uint8)
    with torch.no_grad():
        scores = model.forward_low_res(x).logits
        torch.testing.assert_close(model(x).logits, aligned(scores, (49, 65)), atol=1e-4, rtol=1e-4)
