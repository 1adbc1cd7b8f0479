"""DeepLab v3, v3+ and PSPNet: atrous rates at every output stride, the decoder written out, training with one image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from helpers.by_definition import aligned_bilinear, randomize_norms
from pixelwise.backbones.resnet import Bottleneck, ResNet
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.models.deeplabv3 import DeepLabV3, DeepLabV3Cascade, atrous_rates_at
from pixelwise.models.deeplabv3plus import Decoder, DeepLabV3Plus
from pixelwise.models.pspnet import PSPNet
from pixelwise.nn.pyramid_pooling import BatchNorm2dSafe


def tiny(name: str, **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    return create_model(name, 5, tiny=True, **options)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, (6, 12, 18)), (8, (12, 24, 36)), (32, (3, 6, 9))])
def test_the_pyramid_sees_the_same_pixels_at_every_output_stride(output_stride: int, rates: tuple[int, ...]) -> None:
    """v3, section 3.3: doubled at 8; the counts of v3+'s table 3 only fit halves at 32."""
    assert atrous_rates_at(output_stride) == rates
    model = tiny("deeplabv3_resnet50", output_stride=output_stride)
    assert isinstance(model, DeepLabV3)
    convs = [branch.get_submodule("0") for branch in model.aspp.branches]
    assert [conv.dilation for conv in convs] == [(rate, rate) for rate in (1, *rates)]


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
    assert isinstance(model.backbone, ResNet)
    assert model.backbone.map_names[-1] == "layer7"
    rates = [block.conv2.dilation for block in model.backbone.stage(7) if isinstance(block, Bottleneck)]
    assert rates == [(16, 16), (32, 32), (16, 16)], "base rate 16 of block 7, multi-grid (1, 2, 1)"


def test_auxiliary_scores_come_from_the_fourth_stage_in_training_only() -> None:
    model = tiny("pspnet_resnet50").train()
    assert isinstance(model, PSPNet)
    assert model.aux_head is not None
    first = next(layer for layer in model.aux_head.modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == model.backbone.channels[3]
    images = torch.rand(2, 3, 57, 57) * 255
    assert [aux.shape for aux in model(images).aux] == [(2, 5, 57, 57)]
    assert model.eval()(images).aux == ()


def test_the_decoder_reads_the_map_of_stride_four() -> None:
    model = tiny("deeplabv3plus_resnet50").eval()
    assert isinstance(model, DeepLabV3Plus)
    assert model.decoder is not None
    assert model.backbone.map_names[model.low_level_index] == "layer1"
    scores = model.forward_low_res(torch.rand(1, 3, 65, 65) * 255).logits
    assert scores.shape == (1, 5, 17, 17)
    full = create_model("deeplabv3plus_xception65", 21)
    assert isinstance(full, DeepLabV3Plus)
    assert full.decoder is not None
    reduce = full.decoder.reduce[0]
    assert isinstance(reduce, nn.Conv2d)
    assert (reduce.in_channels, reduce.out_channels) == (256, 48)


def test_the_decoder_written_out() -> None:
    """v3+, section 3.1: the encoder's map with aligned corners, then the reduced finer map, two convolutions."""
    torch.manual_seed(0)
    decoder = Decoder(6, 5, reduced_channels=4).eval()
    encoded, fine = torch.randn(1, 6, 4, 5), torch.randn(1, 5, 13, 17)
    randomize_norms(decoder)
    with torch.no_grad():
        reduced = decoder.reduce(fine)
        mixed = decoder.refine(torch.cat([aligned_bilinear(encoded, (13, 17)), reduced], 1))
        torch.testing.assert_close(decoder(encoded, fine), mixed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3plus_resnet50", "pspnet_resnet50"])
def test_scores_are_upsampled_with_aligned_corners(name: str) -> None:
    model, x = tiny(name).eval(), torch.randint(0, 256, (1, 3, 49, 65), dtype=torch.uint8)
    with torch.no_grad():
        scores = model.forward_low_res(x).logits
        torch.testing.assert_close(model(x).logits, aligned_bilinear(scores, (49, 65)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "strides"), [({}, (1, 2)), ({"stride_in": "3x3"}, (1, 2)), ({"stride_in": "1x1"}, (2, 1))]
)
def test_the_stride_of_pspnet(options: dict[str, Any], strides: tuple[int, int]) -> None:
    """The authors' Caffe files: PSPNet-101 for VOC in conv3_1_3x3, PSPNet-50 for ADE20K in conv3_1_1x1_reduce."""
    with torch.device("meta"):
        model = create_model("pspnet_resnet50", 150, **options)
        plain = create_model("pspnet_resnet50", 150)
    assert isinstance(model, PSPNet)
    block = model.backbone.get_submodule("layer2.0")
    convs = [block.get_submodule(name) for name in ("conv1", "conv2")]
    assert tuple(conv.stride[0] for conv in convs if isinstance(conv, nn.Conv2d)) == strides
    others = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    # The stem, the convolution and the shortcut of conv3_1.
    assert len(others) == 3
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (model, plain)]
    assert shapes[0] == shapes[1]


def test_a_narrow_mobilenetv2_is_googles_with_its_whole_head() -> None:
    """deeplabv3_mnv2_dm05: 24 * 0.5 = 12 channels, 160 into image pooling and 1x1 of 256 each."""
    with torch.device("meta"):
        model = create_model("deeplabv3plus_mobilenetv2", 21, width_mult=0.5)
        narrow = create_model("deeplabv3plus_mobilenetv2", 21, width_mult=0.5, head_width_mult=0.5)
        full = create_model("deeplabv3plus_mobilenetv2", 21)
    assert isinstance(model, DeepLabV3Plus)
    assert isinstance(narrow, DeepLabV3Plus)
    assert isinstance(full, DeepLabV3Plus)
    assert model.backbone.channels == (8, 12, 16, 48, 160)
    assert full.backbone.channels == (16, 24, 32, 96, 320)
    assert [net.score.in_channels for net in (model, narrow, full)] == [256, 128, 256]
    assert model.state_dict()["aspp.project.0.weight"].shape == (256, 512, 1, 1)


@pytest.mark.parametrize(("options", "eps"), [({}, 1e-5), ({"norm_eps": 1e-3}, 1e-3)])
def test_norms_of_deeplabs_mobilenetv2(options: dict[str, Any], eps: float) -> None:
    """torchvision's eps, or slim's default in the backbone of the authors; their model.py sets 1e-5 after it."""
    model = tiny("deeplabv3plus_mobilenetv2", **options)
    assert isinstance(model, DeepLabV3Plus)
    found = [{m.eps for m in part.modules() if isinstance(m, nn.BatchNorm2d)} for part in (model.backbone, model.aspp)]
    assert found == [{eps}, {1e-5}]
