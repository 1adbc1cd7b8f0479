"""DeepLab v1 and v2: fields of view, logits at every eighth pixel, MSc branches and scales against their parts written
out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixelwise.analysis.mult_adds import num_parameters
from pixelwise.analysis.receptive_field import receptive_field_size
from pixelwise.backbones import create_backbone
from pixelwise.backbones.resnet import Bottleneck
from pixelwise.backbones.vgg import VGG
from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.deeplabv1 import DeepLabV1, DeepLabV1MSc, MultiScaleBranch
from pixelwise.models.deeplabv2 import ATROUS_RATES, DeepLabV2, Head
from pixelwise.nn.geometry import Layer, coordinates, layers_of
from pixelwise.nn.upsampling import AlignedBilinear, center_pixels, pad_to_stride

V1 = ("deeplabv1_largefov_vgg16", "deeplabv1_vgg16_7x7", "deeplabv1_vgg16_4x4", "deeplabv1_msc_largefov_vgg16")


def v1(name: str, **options: Any) -> DeepLabV1 | DeepLabV1MSc:
    torch.manual_seed(0)
    model = create_model(name, 5, tiny=True, **options).eval()
    assert isinstance(model, DeepLabV1 | DeepLabV1MSc)
    # The authors' fillers are so small that the logits would hide an error.
    for layer in model.score_layers():
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.1)
    return model


def msc(**options: Any) -> DeepLabV1MSc:
    model = v1(V1[3], **options)
    assert isinstance(model, DeepLabV1MSc)
    return model


def images(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


def test_aligned_bilinear_puts_logits_on_every_eighth_pixel() -> None:
    scores = torch.randn(1, 2, 4, 3)
    full = AlignedBilinear(8)(scores, (25, 17))
    assert torch.equal(full[..., ::8, ::8], scores)
    torch.testing.assert_close(full[..., 4, 8], (scores[..., 0, 1] + scores[..., 1, 1]) / 2)
    assert torch.equal(AlignedBilinear(8)(scores, (18, 11)), full[..., :18, :11])
    assert center_pixels(AlignedBilinear(8), 41, 321).tolist() == list(range(0, 321, 8)), (
        "labels are taken at every eighth pixel"
    )
    with pytest.raises(AssertionError, match="25x17"):
        AlignedBilinear(8)(scores, (26, 17))


@pytest.mark.parametrize("size", [(1, 1), (9, 8), (321, 10)])
def test_an_image_is_padded_with_its_mean_color(size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size)
    wide = pad_to_stride(x, 8)
    assert all(side % 8 == 1 and 0 <= side - given < 8 for side, given in zip(wide.shape[-2:], size, strict=True))
    assert torch.equal(wide[..., : size[0], : size[1]], x)
    assert not wide[..., size[0] :, :].any()
    assert not wide[..., size[1] :].any()


def test_vgg_replaces_its_last_strides_by_dilation() -> None:
    """v1, section 3.1: conv5 at rate 2 after a pooling of stride 1."""
    with torch.device("meta"):
        net = create_backbone("vgg16", output_stride=8, pool_kernel=3)
        plain = create_backbone("vgg16")
    assert isinstance(net, VGG)
    assert net.strides == (2, 4, 8, 8, 8)
    rates = [layer.dilation[0] for layer in net.features if isinstance(layer, nn.Conv2d)]
    assert rates == [1] * 10 + [2] * 3
    assert {key: value.shape for key, value in net.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    for index in range(5):
        assert coordinates(layers_of(net.modules_to(index))) == coordinates([Layer(1, net.strides[index])]), (
            "map positions lie on pixels"
        )
    with pytest.raises(ConfigError, match="got 2 at output stride 8"):
        create_backbone("vgg16", output_stride=8)


@pytest.mark.parametrize(
    ("name", "rate", "view", "field"),
    [(V1[0], 12, 200, 435), (V1[1], 4, 200, 419), (V1[2], 4, 104, 323), (V1[2], 8, 200, 419), (V1[3], 12, 200, 435)],
)
def test_fields_of_view(name: str, rate: int, view: int, field: int) -> None:
    """The paper's 224, 128 and 224 are names of classifiers' inputs: on the grid of stride 8 the kernels span these
    pixels.
    """
    model = v1(name, dilation=rate)
    fc6 = layers_of([model.fc.get_submodule("fc6")])[0]
    assert (fc6.extent - 1) * 8 + 8 == view
    assert model.receptive_fields()["fc7"] == (field, 8, -(field - 1) // 2)
    with pytest.raises(ConfigError, match="got 0"):
        create_model(name, dilation=0)


@pytest.mark.parametrize("name", V1)
def test_scores_lie_on_every_eighth_pixel(name: str) -> None:
    model = v1(name)
    for side, size in ((65, 9), (66, 10), (72, 10), (73, 10)):
        assert model.forward_low_res(images(side, 33)).logits.shape == (1, 5, size, 5)


def test_branches_of_msc_are_further_score_maps() -> None:
    """MSc: one classifier on the concatenation is the sum of the authors' six score layers."""
    model, x = msc(), images(33, 41)
    with torch.no_grad():
        pixels = model.preprocess(x)
        maps = model.backbone(pixels)
        columns = [model.fc(model.pool5a(maps[-1]))]
        for branch, fine, stride in zip(model.branches, (pixels, *maps[:4]), (8, 4, 2, 1, 1), strict=True):
            assert isinstance(branch, MultiScaleBranch)
            strided = functional.conv2d(fine, branch.conv3x3.weight, branch.conv3x3.bias, stride, 1).relu()
            columns.append(branch.conv1x1(strided).relu())
        weights = torch.split(model.score.weight, [c.shape[1] for c in columns], 1)
        summed = torch.stack([functional.conv2d(c, w) for c, w in zip(columns, weights, strict=True)]).sum(0)
        assert model.score.bias is not None
        torch.testing.assert_close(model.forward_low_res(x).logits, summed + model.score.bias[:, None, None])


def test_dense_evaluation_agrees_on_the_grid() -> None:
    """The authors' training file strides in the branches, their test file does not: one function, more pixels."""
    model, x = msc(), images(33, 41)
    dense = msc(dense_eval=True)
    dense.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = dense(x).logits
        torch.testing.assert_close(logits[..., ::8, ::8], model.forward_low_res(x).logits, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(logits, model(x).logits, atol=1e-2)
    assert dense.train().forward_low_res(x).logits.shape[-2:] == (5, 6), "training keeps stride 8"


def v2(name: str = "deeplabv2_resnet101", **options: Any) -> DeepLabV2:
    torch.manual_seed(0)
    model = create_model(name, 5, tiny=True, **options).eval()
    assert isinstance(model, DeepLabV2)
    for parameter in model.aspp.branches.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("head", list(ATROUS_RATES))
def test_branches_are_summed(head: Head) -> None:
    model, rates = v2(head=head, scales=(1,)), ATROUS_RATES[head]
    x = torch.randn(1, model.backbone.channels[-1], 9, 7)
    with torch.no_grad():
        parts = [
            functional.conv2d(
                x, branch.get_parameter("weight"), branch.get_parameter("bias"), padding=rate, dilation=rate
            )
            for branch, rate in zip(model.aspp.branches, rates, strict=True)
        ]
        torch.testing.assert_close(model.aspp(x), torch.stack(parts).sum(0))
    vgg = v2("deeplabv2_vgg16", head=head)
    fc6 = [branch.get_submodule("fc6") for branch in vgg.aspp.branches]
    assert [layer.dilation for layer in fc6] == [(rate, rate) for rate in rates]
    assert isinstance(vgg.aspp.pool5a, nn.AvgPool2d) == (head == "largefov")


def test_largefov_on_vgg_is_v1s_net() -> None:
    with torch.device("meta"):
        ours, earlier = create_model("deeplabv2_vgg16", head="largefov"), create_model(V1[0])
    assert [p.shape for p in ours.parameters()] == [p.shape for p in earlier.parameters()]


def test_parameters_of_backbone_and_of_one_branch() -> None:
    with torch.device("meta"):
        model = create_model("deeplabv2_resnet101", head="largefov")
    assert isinstance(model, DeepLabV2)
    assert num_parameters(model.backbone) == 42_500_160
    assert num_parameters(model) == 42_887_253


def test_the_resnet_has_the_authors_strides_and_rates() -> None:
    model = v2()
    assert model.backbone.strides == (2, 4, 8, 8, 8)
    for stage, stride, rate in ((2, 2, 1), (3, 1, 2), (4, 1, 4)):
        units = [
            unit for unit in model.backbone.get_submodule(f"layer{stage}").children() if isinstance(unit, Bottleneck)
        ]
        assert [unit.conv1.stride[0] for unit in units] == [stride] + [1] * (len(units) - 1)
        assert {unit.conv2.dilation[0] for unit in units} == {rate}
        assert {unit.conv2.stride[0] for unit in units} == {1}


def test_positions_of_all_scales_coincide() -> None:
    """The authors' 321: 241 and 161 pixels, maps of 41, 31 and 21; every fourth pixel is every third or second of the
    smaller.
    """
    model = v2()
    seen: list[Tensor] = []
    maps: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    model.aspp.register_forward_hook(lambda layer, inputs, output: maps.append(output))
    with torch.no_grad():
        model(images(321, 257))
        assert [x.shape[-2:] for x in seen] == [(321, 257), (241, 193), (161, 129)]
        assert [x.shape[-2:] for x in maps] == [(41, 33), (31, 25), (21, 17)]
        torch.testing.assert_close(seen[1][..., ::3, ::3], seen[0][..., ::4, ::4], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(seen[2], seen[0][..., ::2, ::2], atol=1e-3, rtol=1e-4)


def test_the_maximum_over_scales_and_its_four_losses() -> None:
    model, x = v2(), images(65, 97)
    alone = v2(scales=(1,))
    alone.load_state_dict(model.state_dict())
    with torch.no_grad():
        pixels = model.preprocess(x)
        each = []
        for size in ((65, 97), (49, 73), (33, 49)):
            small = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=True)
            scores = model.aspp(model.backbone(small)[-1])
            each.append(functional.interpolate(scores, size=(9, 13), mode="bilinear", align_corners=True))
        torch.testing.assert_close(model.forward_low_res(x).logits, torch.stack(each).max(0).values)
        torch.testing.assert_close(alone.forward_low_res(x).logits, each[0])
        assert model(x).aux == ()
        # Norms keep their statistics, as in the authors' training.
        model.train().backbone.eval()
        output = model(x)
        assert len(output.aux) == 3
        for aux, scores in zip(output.aux, each, strict=True):
            torch.testing.assert_close(aux, AlignedBilinear(8)(scores, (65, 97)))


@pytest.mark.parametrize("scales", [(), (0.5, 1), (1, 0), (1, 0.77), (1, -0.5)])
def test_scales_without_a_common_grid_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="1 first"):
        create_model("deeplabv2_vgg16", tiny=True, scales=scales)


def test_a_head_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of aspp_s, aspp_l, largefov"):
        create_model("deeplabv2_vgg16", head="aspp")


def test_fields_of_the_branches() -> None:
    fields = v2("deeplabv2_vgg16").receptive_fields()
    assert {
        name: field.size - 2 * 8 * rate for (name, field), rate in zip(fields.items(), (6, 12, 18, 24), strict=True)
    } == {f"rate {rate}": 435 - 2 * 8 - 2 * 8 * 12 for rate in (6, 12, 18, 24)}


def test_the_measured_field_is_that_of_the_smallest_image() -> None:
    """A pixel of the half-size image stands for two, and the interpolation between positions reaches two further."""
    one, three = (v2(head="largefov", scales=scales) for scales in ((1,), (1, 0.5)))
    analytic = one.receptive_fields()["rate 12"].size
    measured = [receptive_field_size(model, 8) for model in (one, three)]
    assert measured[0] == analytic + 8
    assert measured[1] is not None
    assert measured[1] > 2 * analytic
