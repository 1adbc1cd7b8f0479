"""Compact on any backbone: strides of its logits, a bounded window per label, maps on one grid, backbones that do not
fit.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel

# Without global pooling, so that tiles equal the whole; the last has no output stride to choose.
BACKBONES = {
    "mobilenetv2": {"width_mult": 0.1},
    "resnet18": {"width_mult": 1 / 16},
    "compact": {"channels": (8, 8, 8, 8), "num_blocks": (1, 1), "dilations": (1,)},
}


def compact(backbone: str, **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    small = {"backbone_options": BACKBONES[backbone], "aspp_channels": 4, "atrous_rates": (2,)}
    model = create_model("compact", 3, backbone=backbone, **{**small, "decoder_channels": (8, 6), **options}).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.1, 0.4)
    return model


def images(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize(
    ("backbone", "output_stride", "decoder_channels", "logits_stride"),
    [
        ("compact", 16, (8, 6, 4), 2),
        ("compact", 16, (8,), 8),
        ("mobilenetv2", 8, (6,), 4),
        ("mobilenetv2", 16, (8, 6), 4),
        ("mobilenetv2", 32, (8, 6, 4, 2), 2),
        ("resnet18", 32, (8, 6, 4), 4),
    ],
)
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_decoder_ends_at_the_stride_of_its_last_number(
    backbone: str, output_stride: int, decoder_channels: tuple[int, ...], logits_stride: int, align_corners: bool
) -> None:
    options = {"output_stride": output_stride, "decoder_channels": decoder_channels, "align_corners": align_corners}
    model = compact(backbone, **options)
    height, width = (65, 97) if align_corners else (64, 96)
    with torch.no_grad():
        low_res = model.forward_low_res(images(height, width))
    assert model.logits_stride == logits_stride
    assert low_res.logits.shape == (1, 3, -(-height // logits_stride), -(-width // logits_stride))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_tile_with_its_surroundings_has_the_logits_of_the_whole(backbone: str, align_corners: bool) -> None:
    """Cut at a multiple of the output stride, and wide enough: nothing in the network sees the whole image."""
    model, image = compact(backbone, align_corners=align_corners, separable="all"), images(496, 48)
    # Half the window: every backbone here sees less than 200 pixels to either side, branches and decoder included.
    context, top = 208, 240
    with torch.no_grad():
        whole = model(image).logits[..., top : top + 16, :]
        tile = model(image[..., top - context : top + 16 + context, :]).logits[..., context : context + 16, :]
        far = image.clone()
        far[..., 0, :] = 0
        moved = model(far).logits
    torch.testing.assert_close(tile, whole, atol=1e-5, rtol=1e-5)
    assert (moved[..., :16, :] != model(image).logits[..., :16, :]).any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_aligned_corners_the_size_of_the_image_moves_no_map(backbone: str) -> None:
    """Position i of every map lies on pixel i * stride, whatever the size; centers move where it is no multiple."""
    image = images(437, 48)
    differences = {}
    for align_corners in (True, False):
        model = compact(backbone, align_corners=align_corners)
        with torch.no_grad():
            whole, part = model(image).logits, model(image[..., :432, :]).logits
        differences[align_corners] = float((whole[..., :208, :] - part[..., :208, :]).abs().max() / whole.std())
    assert differences[True] < 1e-4
    assert differences[False] > 1e-3


def test_branches_and_separable_convolutions() -> None:
    plain, separable = compact("compact", aspp_channels=None), compact("compact", separable="all")
    shapes = [{name: tuple(value.shape) for name, value in model.state_dict().items()} for model in (plain, separable)]
    # Half of the backbone's eight channels; a separable 3x3 has one kernel per channel, then a 1x1.
    assert shapes[0]["pyramid.1.0.weight"] == (4, 8, 3, 3)
    assert shapes[1]["pyramid.1.0.weight"] == (8, 1, 3, 3)
    assert shapes[1]["pyramid.1.3.weight"] == (4, 8, 1, 1)
    assert shapes[0]["fusions.1.mix.0.weight"] == (6, 9, 3, 3)
    assert shapes[1]["fusions.1.mix.0.weight"] == (9, 1, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"backbone": "compact", "output_stride": 8},
            "compact ends at stride 16, expected 8; fix: set output_stride 16",
        ),
        (
            {"backbone": "resnet18", "decoder_channels": (8, 8, 8, 8)},
            r"resnet18 has maps at strides \(2, 4, 8, 16, 16\)",
        ),
        ({"backbone": "alexnet", "decoder_channels": (8, 8)}, r"alexnet has maps at strides \(8, 16, 16\)"),
        ({"decoder_channels": ()}, "give one number per stride below 16"),
        ({"backbone_options": {"width": 1}}, "backbone compact: has no option 'width'"),
    ],
)
def test_backbones_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model("compact", 3, **options)
