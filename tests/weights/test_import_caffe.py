"""Caffe's files into networks: names of the publishers' prototxt files, numbers against plain PyTorch, refusals one by
one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.caffe_file import Layer, write
from helpers.foreign_nets import (
    CAFFENET,
    FC,
    GOOGLENET,
    OFFICIAL,
    VGG16,
    conv,
    dense_bilinear,
    filled,
    images,
    import_tiny,
    layers_of,
    official_layers,
)
from pixelwise.backbones import create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.errors import CheckpointError, ConfigError, UnknownNameError
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.models.fcn import FCN
from pixelwise.nn.preprocessing import Preprocess
from pixelwise.weights.importing import load_classifier

BILINEAR_4 = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])


@cache
def made(name: str) -> tuple[nn.Module, tuple[Layer, ...]]:
    """A tiny net with five classes and random numbers, and the layers of its file."""
    network = filled(create_model(name, 5, tiny=True))
    return network, tuple(official_layers(name, network, 5))


def caffe_8s(
    tmp_path: Path, change: Callable[[list[Layer]], object] = lambda layers: None, name: str = "fcn8s_vgg16"
) -> Path:
    """A made file of a tiny net with five classes, changed."""
    layers = list(made(name)[1])
    change(layers)
    return write(tmp_path / f"{name}.caffemodel", layers)


def position(layers: list[Layer], name: str) -> int:
    return [layer[0] for layer in layers].index(name)


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_net_comes_back_with_its_function(tmp_path: Path, name: str) -> None:
    network, layers = made(name)
    imported = import_tiny(write(tmp_path / "net.caffemodel", layers), name)
    assert imported.model.num_classes == 5
    assert imported.report.fresh == ()
    assert imported.report.num_values == sum(p.numel() for p in network.parameters())
    image = images(num_channels=imported.model.in_channels)
    with torch.no_grad():
        # The file of two heads says another mean than the registered one, so both get the file's.
        network.preprocess = imported.model.preprocess
        expected, got = network(image).logits, imported.model(image).logits
    assert expected.std() > 0
    assert torch.equal(got, expected)


def test_v1_layers_with_old_sizes_come_back(tmp_path: Path) -> None:
    network, made_layers = made("fcn8s_vgg16")
    layers = [layer for layer in made_layers if layer[2]]
    imported = import_tiny(write(tmp_path / "v1.caffemodel", layers, v1=True), "fcn8s_vgg16")
    for key, value in network.state_dict().items():
        assert torch.equal(imported.model.state_dict()[key], value)


def test_learned_upsampling_is_loaded(tmp_path: Path) -> None:
    # Each class its own factor, and each row its own, so that a mixed-up axis shows.
    learned = dense_bilinear(5, 4) * np.arange(1, 6, dtype=np.float32)[:, None, None, None]
    learned *= np.array([1, 2, 3, 4], np.float32)[:, None]

    def change(layers: list[Layer]) -> None:
        layers[position(layers, "upscore2")] = ("upscore2", "Deconvolution", [learned])

    path = caffe_8s(tmp_path, change)
    with pytest.raises(CheckpointError, match=r"upscore2\.weight is learned, not bilinear"):
        import_tiny(path, "fcn8s_vgg16")
    state = import_tiny(path, "fcn8s_vgg16", options={"upsampling": "learned"}).model.state_dict()
    for k in range(5):
        np.testing.assert_allclose(
            state["upscore2.weight"][k, 0], BILINEAR_4 * (k + 1) * [[1], [2], [3], [4]], rtol=1e-6
        )


@pytest.mark.parametrize(
    ("layer", "blob", "words"),
    [
        ("upscore2", dense_bilinear(5, 4) + np.float32(0.1), "mixes classes"),
        ("upscore8", dense_bilinear(5, 4), "upscore8.weight 5x5x4x4 for 5 kernels of 16x16"),
        ("upscore8", dense_bilinear(4, 16), "4x4x16x16 for 5 kernels"),
        ("upscore8", dense_bilinear(5, 16) * np.float32(1.01), "upscore8.weight is learned"),
        ("conv1_1", np.full((4, 3, 3, 3), np.nan, np.float32), "1 not finite (conv1_1.weight)"),
    ],
)
def test_numbers_that_cannot_be_right_are_refused(tmp_path: Path, layer: str, blob: np.ndarray, words: str) -> None:
    def change(layers: list[Layer]) -> None:
        place = position(layers, layer)
        layers[place] = (layer, layers[place][1], [blob, *layers[place][2][1:]])

    with pytest.raises(CheckpointError) as caught:
        import_tiny(caffe_8s(tmp_path, change), "fcn8s_vgg16")
    assert words in str(caught.value)


def test_scales_of_at_once_are_proved(tmp_path: Path) -> None:
    def change(layers: list[Layer]) -> None:
        layers[position(layers, "scale_pool3")] = ("scale_pool3", "Scale", [np.full(32, 0.001, np.float32)])

    path = caffe_8s(tmp_path, change, "fcn8s_atonce_vgg16")
    with pytest.raises(CheckpointError, match=r"scale_pool3\.weight is not 0\.0001 everywhere"):
        import_tiny(path, "fcn8s_atonce_vgg16")


def test_staged_and_at_once_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"2 unexpected \(scale_pool4\.weight, scale_pool3\.weight\)"):
        import_tiny(caffe_8s(tmp_path, name="fcn8s_atonce_vgg16"), "fcn8s_vgg16")
    with pytest.raises(CheckpointError, match=r"2 missing \(scale_pool4\.weight, scale_pool3\.weight\)"):
        import_tiny(caffe_8s(tmp_path), "fcn8s_atonce_vgg16")


def test_one_error_lists_what_is_missing_unexpected_and_misshaped(tmp_path: Path) -> None:
    def change(layers: list[Layer]) -> None:
        del layers[position(layers, "conv5_3")]
        layers.append(("extra", "Convolution", [np.ones((2, 2), np.float32)]))
        place = position(layers, "conv1_2")
        layers[place] = ("conv1_2", "Convolution", [np.ones((4, 4, 5, 5), np.float32), layers[place][2][1]])

    path = caffe_8s(tmp_path, change)
    with pytest.raises(CheckpointError) as caught:
        import_tiny(path, "fcn8s_vgg16")
    message = str(caught.value)
    assert message.startswith(f"{path}: does not fit the network: 2 missing (conv5_3.weight (for ")
    assert "; 1 unexpected (extra.weight)" in message
    assert "; 1 mis-shaped (conv1_2.weight 4x4x5x5 for 4x4x3x3)" in message
    assert "; fix: " in message


@pytest.mark.parametrize("kind", ["missing", "unexpected", "mis-shaped"])
def test_one_fault_is_enough(tmp_path: Path, kind: str) -> None:
    def change(layers: list[Layer]) -> None:
        name, layer_type, (weight, bias) = layers[position(layers, "score_pool3")]
        blobs = {"missing": [weight], "unexpected": [weight, bias, bias], "mis-shaped": [weight, bias[:-1]]}[kind]
        layers[position(layers, name)] = (name, layer_type, blobs)

    with pytest.raises(CheckpointError, match=rf"the network: 1 {kind} \(score_pool3"):
        import_tiny(caffe_8s(tmp_path, change), "fcn8s_vgg16")


def test_long_lists_are_counted_and_cut(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.caffemodel",
        [("score_fr", "Convolution", [np.ones((5, 256, 1, 1), np.float32), np.ones(5, np.float32)])],
    )
    with pytest.raises(
        CheckpointError, match=r"37 missing \(conv1_1\.weight \(for \S+\), ([^,]+, ){1}\.\.\. \(37 in total\)\)"
    ):
        import_tiny(path, "fcn8s_vgg16")


def test_a_score_layer_without_axes_is_misshaped(tmp_path: Path) -> None:
    def change(layers: list[Layer]) -> None:
        layers[position(layers, "score_fr")] = (
            "score_fr",
            "Convolution",
            [np.ones((), np.float32), np.ones(5, np.float32)],
        )

    with pytest.raises(CheckpointError, match=r"score_fr\.weight scalar for 5x256x1x1"):
        import_tiny(caffe_8s(tmp_path, change), "fcn8s_vgg16", 5)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"score_fr\.weight 5x256x1x1 for 7x256x1x1.*number of classes"):
        import_tiny(caffe_8s(tmp_path), "fcn8s_vgg16", 7)


def test_a_file_of_another_family_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"expected alexnet_caffe, the backbone of fcn32s_alexnet, got vgg16; fix: import it as fcn16s_vgg16",
    ):
        import_tiny(caffe_8s(tmp_path), "fcn32s_alexnet")


def test_other_models_and_unknown_names_are_refused(tmp_path: Path) -> None:
    path = caffe_8s(tmp_path)
    with pytest.raises(UnknownNameError, match="fcn8s_vgg16"):
        import_tiny(path, "fcn8s_vgg15")
    with pytest.raises(ConfigError, match="no published weights fit"):
        import_tiny(path, "frrn_a")
    with pytest.raises(CheckpointError, match="expected an image classifier for compact, got a whole net"):
        import_tiny(path, "compact")
    with pytest.raises(ConfigError, match="widht"):
        import_tiny(path, "fcn8s_vgg16", options={"widht": 1})


def bgr(pixels: Tensor) -> Tensor:
    """Caffe's input, one plane after the other: blue, green, red, each less its mean."""
    red, green, blue = pixels.double().unbind(1)
    return torch.stack([blue - 104.00699, green - 116.66877, red - 122.67892], 1)


def plain_lrn(x: Tensor) -> Tensor:
    """x / (1 + alpha / n * sum of squares of the five channels around) ** beta."""
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - 2) : c + 3]
        out[:, c] = x[:, c] / (1 + 1e-4 / 5 * window.square().sum(1)) ** 0.75
    return out


def plain_caffenet(pixels: Tensor, blobs: dict[str, list[Tensor]]) -> Tensor:
    x = bgr(pixels)
    for name, stride, padding, groups in (
        ("conv1", 4, 0, 1),
        ("conv2", 1, 2, 2),
        ("conv3", 1, 1, 1),
        ("conv4", 1, 1, 2),
        ("conv5", 1, 1, 2),
    ):
        x = conv(x, blobs[name], stride=stride, padding=padding, groups=groups).relu()
        if name in ("conv1", "conv2", "conv5"):
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        if name in ("conv1", "conv2"):
            x = plain_lrn(x)
    return plain_head(x.flatten(1), blobs)


def plain_vgg16(pixels: Tensor, blobs: dict[str, list[Tensor]]) -> Tensor:
    return plain_head(plain_vgg16_maps(pixels, blobs, padding=1).flatten(1), blobs)


def plain_vgg16_maps(pixels: Tensor, blobs: dict[str, list[Tensor]], padding: int) -> Tensor:
    x = bgr(pixels)
    for name in VGG16:
        x = conv(x, blobs[name], padding=padding if name == "conv1_1" else 1).relu()
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return x


def plain_head(features: Tensor, blobs: dict[str, list[Tensor]]) -> Tensor:
    for name in FC:
        features = (features @ blobs[name][0].T + blobs[name][1]).relu()
    return features @ blobs["fc8"][0].T + blobs["fc8"][1]


def classifier_file(
    tmp_path: Path, backbone: str, names: list[str], *, v1: bool = True
) -> tuple[Path, dict[str, list[Tensor]]]:
    """A made .caffemodel of a tiny classifier with seven classes, and its blobs in double precision."""
    network = filled(create_backbone(backbone, tiny=True, num_classes=7))
    layers = layers_of(network, [*names, *FC, "fc8"], (nn.Conv2d, nn.Linear))
    path = write(tmp_path / f"{backbone}.caffemodel", layers, v1=v1)
    return path, {name: [torch.from_numpy(blob).double() for blob in blobs] for name, _, blobs in layers}


@pytest.mark.parametrize(
    ("backbone", "names", "size", "plain"),
    [("vgg16", VGG16, 224, plain_vgg16), ("alexnet_caffe", CAFFENET, 227, plain_caffenet)],
)
def test_a_caffe_classifier_gives_its_logits(
    tmp_path: Path, backbone: str, names: list[str], size: int, plain: Any
) -> None:
    path, blobs = classifier_file(tmp_path, backbone, names)
    classifier = create_backbone(backbone, tiny=True, num_classes=7).eval()
    assert isinstance(classifier, ClassifierBackbone)
    report = load_classifier(classifier, path)
    assert len(report.loaded) == 2 * (len(names) + 3)
    pixels = images((size, size))
    with torch.no_grad():
        got = classifier.classify(Preprocess("caffe", 3)(pixels)).double()
    expected = plain(pixels, blobs)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    swapped = plain(pixels.flip(1), blobs)
    assert (swapped - expected).abs().max() > 1e-3 * expected.abs().max(), "the test would not see swapped colors"


def fc7_of(model: SegmentationModel, pixels: Tensor) -> Tensor:
    assert isinstance(model, FCN)
    x: Tensor = model.fc7(model.fc6(model.backbone(model.preprocess(pixels))[-1]))
    return x


def test_a_caffe_classifier_becomes_an_fcn(tmp_path: Path) -> None:
    path, blobs = classifier_file(tmp_path, "vgg16", VGG16)
    imported = import_tiny(path, "fcn32s_vgg16")
    assert imported.model.num_classes == 21
    assert set(imported.report.dropped) == {"fc8.weight", "fc8.bias"}
    assert set(imported.report.fresh) == {"score_fr.weight", "score_fr.bias"}
    pixels = images((60, 47))
    maps = plain_vgg16_maps(pixels, blobs, padding=100)
    with torch.no_grad():
        hidden = fc7_of(imported.model, pixels).double()
        assert not imported.model(pixels).logits.any(), "score layers start at zero"
    for row, column in ((0, 0), (1, 0), (hidden.shape[2] - 1, hidden.shape[3] - 1)):
        window = maps[:, :, row : row + 7, column : column + 7].flatten(1)
        for name in FC:
            window = (window @ blobs[name][0].T + blobs[name][1]).relu()
        torch.testing.assert_close(hidden[:, :, row, column], window, rtol=1e-4, atol=1e-4 * float(window.max()))


def test_googlenets_auxiliary_heads_are_left_out_and_said(tmp_path: Path) -> None:
    network = filled(create_backbone("googlenet", tiny=True, num_classes=7))
    layers = layers_of(network, [*GOOGLENET, "loss3/classifier"], (nn.Conv2d, nn.Linear))
    layers += [
        (f"loss{i}/{part}", "InnerProduct", [np.ones((2, 2), np.float32)])
        for i in (1, 2)
        for part in ("conv", "fc", "classifier")
    ]
    path = write(tmp_path / "x.caffemodel", layers)
    report = import_tiny(path, "fcn32s_googlenet", 3).report
    assert len(report.loaded) == 2 * len(GOOGLENET)
    assert {name for name, reason in report.dropped.items() if "auxiliary" in reason} == {
        layer[0] + ".weight" for layer in layers[-6:]
    }
    assert {name for name, reason in report.dropped.items() if "last layer" in reason} == {
        "loss3/classifier.weight",
        "loss3/classifier.bias",
    }
