"""Registered backbones keep the interface; AlexNet, VGG, GoogLeNet match their papers' and torchvision's numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn

from helpers.by_definition import randomize_norms
from helpers.papers import number, torchvision_state
from pixelwise.analysis.mult_adds import multiply_adds, num_parameters
from pixelwise.backbones import BACKBONES, create_backbone, list_backbones
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.backbones.googlenet import GoogLeNet
from pixelwise.errors import ConfigError
from pixelwise.nn.blocks import caffe_lrn
from pixelwise.nn.channels import inflate_first_conv, scale_channels

CLASSIFIERS = ("alexnet", "alexnet_caffe", "vgg11", "googlenet", "googlenet_torchvision")


def one_per_class(names: Iterable[str], *others: str) -> list[ParameterSet]:
    """Return the smallest network of each class, and `others`, as fast cases, and their twins as slow ones."""
    classes, cases = set(), []
    for name in sorted(names, key=lambda name: (len(name), name)):
        product = BACKBONES[name].product
        is_twin = product in classes and name not in others
        classes.add(product)
        cases.append(pytest.param(name, marks=pytest.mark.slow if is_twin else ()))
    return cases


WITH_OUTPUT_STRIDE = [name for name in list_backbones() if "output_stride" in BACKBONES[name].options]
# Networks of a class that has a smaller one, tested as often, because they are built in another way.
OTHERS = ("resnet50", "vgg11_bn", "unet_bn", "googlenet_torchvision", "xception71")


def full(name: str, **options: Any) -> ClassifierBackbone:
    with torch.device("meta"):
        backbone = create_backbone(name, **options).eval()
    assert isinstance(backbone, ClassifierBackbone)
    return backbone


def tiny_classifier(name: str, **options: Any) -> ClassifierBackbone:
    """Build a network without a zero: fresh biases are zero, which would hide a lost one."""
    torch.manual_seed(0)
    backbone = create_backbone(name, tiny=True, num_classes=10, **options).eval()
    assert isinstance(backbone, ClassifierBackbone)
    for parameter in backbone.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, -0.3, 0.5)
    randomize_norms(backbone)
    return backbone


@pytest.mark.parametrize("name", one_per_class(list_backbones(), *OTHERS))
def test_a_backbone_describes_its_maps(name: str) -> None:
    backbone = create_backbone(name, tiny=True, in_channels=4).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 4, 128, 160))
    assert [m.shape[1] for m in maps] == list(backbone.channels)
    assert len(maps) == len(backbone.strides) == len(set(backbone.map_names))
    assert list(backbone.strides) == sorted(backbone.strides), "maps come finest first"
    for features, stride in zip(maps, backbone.strides, strict=True):
        assert abs(features.shape[-2] - 128 / stride) <= 2
        assert abs(features.shape[-1] - 160 / stride) <= 2


def test_every_backbone_names_its_paper_and_has_defaults_for_all_options() -> None:
    for name in list_backbones():
        entry = BACKBONES[name]
        assert entry.summary.endswith("."), name
        assert entry.paper.startswith("https://"), name
        assert entry.year > 2000, name
        assert all(p.default is not p.empty for p in entry.options.values()), name
        with pytest.raises(ConfigError, match=f"backbone {name}: has no option 'widht'"):
            create_backbone(name, widht=2)


@pytest.mark.parametrize("name", ["alexnet", "vgg13", "vgg16", "vgg16_bn", "vgg19", "googlenet"])
def test_state_is_torchvisions(name: str) -> None:
    options = {"aux_heads": True} if name == "googlenet" else {}
    backbone = full("googlenet_torchvision" if name == "googlenet" else name, num_classes=1000, **options)
    assert {key: list(value.shape) for key, value in backbone.state_dict().items()} == torchvision_state(name)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("alexnet", "torchvision alexnet"),
        ("alexnet_caffe", "Caffe caffenet (groups 2, 227 input)"),
        ("vgg16", "torchvision vgg16"),
        ("vgg16_bn", "torchvision vgg16_bn"),
    ],
)
def test_parameters_and_multiply_adds_of_the_classifiers(name: str, variant: str) -> None:
    backbone = full(name, num_classes=1000)
    images = torch.empty(1, 3, backbone.input_size, backbone.input_size, device="meta")
    assert num_parameters(backbone) == number(variant, "parameters")
    assert multiply_adds(lambda: backbone.classify(images)) == number(variant.partition(" (")[0], "MACs")


def test_parameters_and_multiply_adds_of_both_googlenets() -> None:
    def parameters(name: str) -> list[int]:
        return [
            num_parameters(full(name, **o))
            for o in ({}, {"num_classes": 1000}, {"num_classes": 1000, "aux_heads": True})
        ]

    images = torch.empty(1, 3, 224, 224, device="meta")
    assert parameters("googlenet") == number("Caffe GoogLeNet", "parameters")
    assert multiply_adds(lambda: full("googlenet")(images)) == number("Caffe GoogLeNet backbone", "MACs")
    torchvision = full("googlenet_torchvision", num_classes=1000)
    assert parameters("googlenet_torchvision")[1:] == number("torchvision googlenet [no aux, aux]", "parameters")
    assert multiply_adds(lambda: torchvision.classify(images)) == number("torchvision googlenet", "MACs")


def test_parameters_of_vgg16_by_part() -> None:
    assert num_parameters(full("vgg16")) == number("VGG16 conv1-conv5", "parameters")
    head = full("vgg16", num_classes=21).head()
    assert head is not None
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [num_parameters(layer) for layer in linears[:2]] == number("VGG16 fc6 / fc7", "parameters")


def test_lrn_is_caffes_and_not_the_papers() -> None:
    activity = torch.arange(10.0, 61, 10).view(1, 6, 1, 1)
    answer = caffe_lrn()(activity).flatten()
    torch.testing.assert_close(answer, torch.tensor(number("x=10,20", "Caffe")), atol=2e-5, rtol=0)
    assert (answer - torch.tensor(number("x=10,20", "AlexNet paper"))).abs().min() > 1


def test_lrn_equals_the_sum_written_out() -> None:
    x = torch.randn(1, 7, 2, 3) * 40
    for channel in range(7):
        around = x[:, max(channel - 2, 0) : channel + 3].square().sum(1)
        torch.testing.assert_close(caffe_lrn()(x)[:, channel], x[:, channel] / (1 + 1e-4 / 5 * around) ** 0.75)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_convolutionalized_classifier_gives_its_logits_at_its_own_size(name: str) -> None:
    backbone = tiny_classifier(name)
    images = torch.randn(2, 3, backbone.input_size, backbone.input_size)
    with torch.no_grad():
        logits = backbone.classify(images)
        sliding = backbone.convolutionalize()(images)
    assert not any(module.training for module in backbone.modules())
    assert sliding.shape == (2, 10, 1, 1)
    assert logits.std() > 0.05
    assert (sliding[..., 0, 0] - logits).abs().max() < 1e-4


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_on_larger_images_each_answer_is_the_head_on_its_window_of_the_last_map(name: str) -> None:
    backbone = tiny_classifier(name)
    sliding, head = backbone.convolutionalize(), backbone.head()
    assert head is not None
    images = torch.randn(1, 3, backbone.input_size + 32, backbone.input_size + 64)
    with torch.no_grad():
        last, answers = backbone(images)[-1], sliding(images)
        side = backbone(images[..., : backbone.input_size, : backbone.input_size])[-1].shape[-1]
        for row in range(last.shape[-2] - side + 1):
            for column in range(last.shape[-1] - side + 1):
                window = head(last[..., row : row + side, column : column + side])
                torch.testing.assert_close(answers[..., row, column], window, atol=1e-4, rtol=1e-4)
    assert answers.shape[-2:] == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("alexnet_caffe", {}, 10), ("vgg16", {"ceil_mode": True}, 10), ("googlenet", {}, 15)],
)
def test_map_size_of_the_unpadded_nets_at_500(name: str, options: dict[str, Any], expected: int) -> None:
    assert expected in number("unpadded convolutionalized nets", "output grid")
    backbone = full(name, num_classes=21, **options)
    images = torch.empty(1, 3, 500, 500, device="meta")
    if name == "googlenet":  # FCN drops the average pooling
        assert backbone(images)[-1].shape[-1] == expected
    else:
        assert backbone.convolutionalize()(images).shape == (1, 21, expected, expected)


def test_a_classifier_without_a_sliding_form_is_an_error() -> None:
    with pytest.raises(ConfigError, match="has no classifier"):
        full("vgg11").convolutionalize()
    with pytest.raises(ConfigError, match="adaptive pooling from 8x8 to 7x7"):
        full("vgg11", num_classes=2).convolutionalize(256)


def test_classifying_without_a_classifier_is_an_error() -> None:
    with pytest.raises(ConfigError, match="num_classes=1000"):
        full("alexnet").classify(torch.empty(1, 3, 224, 224, device="meta"))


@pytest.mark.parametrize("name", ["googlenet", "googlenet_torchvision"])
def test_auxiliary_heads_are_classifiers_of_inner_maps(name: str) -> None:
    backbone = tiny_classifier(name, aux_heads=True)
    assert isinstance(backbone, GoogLeNet)
    answers = backbone.classify_with_aux(torch.rand(2, 3, 224, 224))
    assert [tuple(a.shape) for a in answers] == [(2, 10)] * 3
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        answers[1].sum(), list(backbone.parameters()), allow_unused=True
    )
    reached = {name for (name, _), g in zip(backbone.named_parameters(), gradients, strict=True) if g is not None}
    assert "inception4a.branch1.conv.weight" in reached
    assert "inception4b.branch1.conv.weight" not in reached
    with pytest.raises(ConfigError, match="num_classes"):
        create_backbone(name, aux_heads=True)


@pytest.mark.parametrize("name", ["alexnet_caffe", "vgg16", "vgg19", "googlenet"])
def test_every_layer_with_weights_has_a_name_in_the_caffe_file(name: str) -> None:
    backbone = full(name, num_classes=1000, **({"aux_heads": True} if name == "googlenet" else {}))
    layers = {path for path, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    names = backbone.caffe_names()
    assert set(names.values()) == layers
    assert len(names) == len(layers)
    expected = {
        "alexnet_caffe": ("conv3", "features.8"),
        "vgg16": ("conv3_3", "features.14"),
        "vgg19": ("conv5_4", "features.34"),
    }
    layer, module = expected.get(name, ("inception_4c/5x5_reduce", "inception4c.branch3.0.conv"))
    assert names[layer] == module


def test_inflating_the_first_layer_copies_color_and_adds_its_mean() -> None:
    weight = torch.arange(2 * 3 * 1.0).view(2, 3, 1, 1)
    assert inflate_first_conv(weight, 5).flatten(1).tolist() == [[0, 1, 2, 1, 1], [3, 4, 5, 4, 4]]
    with pytest.raises(ConfigError, match="3 or more"):
        inflate_first_conv(weight, 2)


def test_width_scales_to_even_counts() -> None:
    assert [scale_channels(64, w) for w in (1, 0.5, 1 / 16, 1 / 64, 0.1)] == [64, 32, 4, 2, 6]
    assert scale_channels(4096, 1) == 4096
    with pytest.raises(ConfigError, match="must be > 0"):
        scale_channels(64, 0)


@pytest.mark.parametrize("name", one_per_class(WITH_OUTPUT_STRIDE, *OTHERS))
def test_one_state_for_every_output_stride(name: str) -> None:
    """Weights trained at one output stride fit the others."""
    pooled = {"pool_kernel": 3} if "pool_kernel" in BACKBONES[name].options else {}
    states = []
    for output_stride in (8, 16, 32):
        backbone = create_backbone(name, tiny=True, output_stride=output_stride, **pooled)
        assert backbone.strides[-1] == output_stride
        states.append({key: value.shape for key, value in backbone.state_dict().items()})
    assert states[0] == states[1] == states[2]
