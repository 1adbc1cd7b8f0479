"""Published weights into networks: names read from the publishers' prototxt files, numbers from plain PyTorch, refusals one by one."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from caffefile import Layer, write
from torch import Tensor, nn

from pixelwise.backbones import BACKBONES, create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.checkpoint import load_checkpoint
from pixelwise.commands.import_ import import_weights
from pixelwise.errors import CheckpointError, ConfigError, UnknownNameError
from pixelwise.importing import import_fcn, load_classifier, torchnames
from pixelwise.importing.assign import Foreign, fits
from pixelwise.models import create_model
from pixelwise.nn.model import Preprocess
from pixelwise.weights import WEIGHTS

KEYS: dict[str, dict[str, list[int]]] = json.loads((Path(__file__).parent / "data" / "torchvision_keys_fcn.json").read_text())
TRUNKS = {"googlenet": "googlenet_torchvision"}

# Convolutions in the order of the published prototxt files.
VGG16 = [f"conv{stage}_{i}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]
CAFFENET = ["conv1", "conv2", "conv3", "conv4", "conv5"]
INCEPTION = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
GOOGLENET = ["conv1/7x7_s2", "conv2/3x3_reduce", "conv2/3x3"]
GOOGLENET += [f"inception_{m}/{conv}" for m in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b") for conv in INCEPTION]
FC = ["fc6", "fc7"]
BILINEAR_4 = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
OFFICIAL = {
    "fcn32s_vgg16": ([*VGG16, *FC, "score_fr"], [("upscore", 64)]),
    "fcn16s_vgg16": ([*VGG16, *FC, "score_fr", "score_pool4"], [("upscore2", 4), ("upscore16", 32)]),
    "fcn8s_vgg16": (
        [*VGG16, *FC, "score_fr", "score_pool4", "score_pool3"],
        [("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)],
    ),
    "fcn8s_atonce_vgg16": (
        [*VGG16, *FC, "score_fr", "score_pool4", "score_pool3"],
        [("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)],
    ),
    "fcn32s_alexnet": ([*CAFFENET, *FC, "score_fr"], [("upscore", 63)]),
    "fcn32s_googlenet": ([*GOOGLENET, "score_fr"], [("upscore", 63)]),
}


def filled(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with random numbers everywhere, variances positive, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
                if name.endswith("running_var"):
                    value.abs_().add_(0.5)
    return network.eval()


def dense_bilinear(num_classes: int, kernel: int) -> np.ndarray:
    """Caffe's blob: K x K kernels, bilinear on the diagonal, written as two loops."""
    half = (kernel + 1) // 2
    center = half - 1 if kernel % 2 == 1 else half - 0.5
    blob = np.zeros((num_classes, num_classes, kernel, kernel), np.float32)
    for row in range(kernel):
        for column in range(kernel):
            blob[range(num_classes), range(num_classes), row, column] = (1 - abs(row - center) / half) * (
                1 - abs(column - center) / half
            )
    return blob


def layers_of(
    network: nn.Module, names: Sequence[str], kinds: type[nn.Module] | tuple[type[nn.Module], ...] = nn.Conv2d
) -> list[Layer]:
    """The network's layers of these kinds, in order, under Caffe's names."""
    modules = [m for m in network.modules() if isinstance(m, kinds)]
    layers: list[Layer] = []
    for name, module in zip(names, modules, strict=True):
        kind = "InnerProduct" if isinstance(module, nn.Linear) else "Convolution"
        layers.append((name, kind, [module.weight.detach().numpy(), module.bias.detach().numpy()]))  # type: ignore[operator, union-attr]
    return layers


def official_layers(name: str, network: nn.Module, num_classes: int) -> list[Layer]:
    """All layers with weights of the published net `name`, numbers taken from our network."""
    convs, upscores = OFFICIAL[name]
    layers = layers_of(network, convs)
    layers += [(layer, "Deconvolution", [dense_bilinear(num_classes, kernel)]) for layer, kernel in upscores]
    if "atonce" in name:
        layers += [
            (f"scale_{pool}", "Scale", [np.full(32, scale, np.float32)]) for pool, scale in (("pool4", 0.01), ("pool3", 0.0001))
        ]
    return [("data", "Python", []), *layers, ("loss", "SoftmaxWithLoss", [])]


def images(size: tuple[int, int] = (33, 40)) -> Tensor:
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def caffe_8s(tmp_path: Path, change: Callable[[list[Layer]], object] = lambda layers: None, name: str = "fcn8s_vgg16") -> Path:
    """A made file of a tiny net with five classes, changed."""
    layers = official_layers(name, filled(create_model(name, 5, tiny=True)), 5)
    change(layers)
    return write(tmp_path / f"{name}.caffemodel", layers)


def position(layers: list[Layer], name: str) -> int:
    return [layer[0] for layer in layers].index(name)


# --- Caffe: whole nets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_net_comes_back_with_its_function(tmp_path: Path, name: str) -> None:
    network = filled(create_model(name, 5, tiny=True))
    path = write(tmp_path / "net.caffemodel", official_layers(name, network, 5))
    imported = import_fcn(path, name, tiny=True)
    assert imported.model.num_classes == 5
    assert imported.report.fresh == ()
    assert imported.report.num_values == sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        expected, got = network(images()).logits, imported.model(images()).logits
    assert expected.std() > 0
    assert torch.equal(got, expected)


def test_v1_layers_with_old_sizes_come_back(tmp_path: Path) -> None:
    network = filled(create_model("fcn8s_vgg16", 5, tiny=True))
    layers = [layer for layer in official_layers("fcn8s_vgg16", network, 5) if layer[2]]
    imported = import_fcn(write(tmp_path / "v1.caffemodel", layers, v1=True), "fcn8s_vgg16", tiny=True)
    for key, value in network.state_dict().items():
        assert torch.equal(imported.model.state_dict()[key], value)


def test_learned_upsampling_is_loaded(tmp_path: Path) -> None:
    learned = dense_bilinear(5, 4) * np.arange(1, 6, dtype=np.float32)[:, None, None, None]

    def change(layers: list[Layer]) -> None:
        layers[position(layers, "upscore2")] = ("upscore2", "Deconvolution", [learned])

    path = caffe_8s(tmp_path, change)
    with pytest.raises(CheckpointError, match=r"upscore2\.weight is learned, not bilinear"):
        import_fcn(path, "fcn8s_vgg16", tiny=True)
    state = import_fcn(path, "fcn8s_vgg16", tiny=True, options={"upsampling": "learned"}).model.state_dict()
    for k in range(5):
        np.testing.assert_allclose(state["head.upscores.0.weight"][k, 0], BILINEAR_4 * (k + 1), rtol=1e-6)


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
        import_fcn(caffe_8s(tmp_path, change), "fcn8s_vgg16", tiny=True)
    assert words in str(caught.value)


def test_scales_of_at_once_are_proved(tmp_path: Path) -> None:
    def change(layers: list[Layer]) -> None:
        layers[position(layers, "scale_pool3")] = ("scale_pool3", "Scale", [np.full(32, 0.001, np.float32)])

    path = caffe_8s(tmp_path, change, "fcn8s_atonce_vgg16")
    with pytest.raises(CheckpointError, match=r"scale_pool3\.weight is not 0\.0001 everywhere"):
        import_fcn(path, "fcn8s_atonce_vgg16", tiny=True)


def test_staged_and_at_once_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"2 unexpected \(scale_pool4\.weight, scale_pool3\.weight\)"):
        import_fcn(caffe_8s(tmp_path, name="fcn8s_atonce_vgg16"), "fcn8s_vgg16", tiny=True)
    with pytest.raises(CheckpointError, match=r"2 missing \(scale_pool4\.weight, scale_pool3\.weight\)"):
        import_fcn(caffe_8s(tmp_path), "fcn8s_atonce_vgg16", tiny=True)


# --- strictness -------------------------------------------------------------------------------------------------------


def test_one_error_lists_what_is_missing_unexpected_and_misshaped(tmp_path: Path) -> None:
    def change(layers: list[Layer]) -> None:
        del layers[position(layers, "conv5_3")]
        layers.append(("extra", "Convolution", [np.ones((2, 2), np.float32)]))
        place = position(layers, "conv1_2")
        layers[place] = ("conv1_2", "Convolution", [np.ones((4, 4, 5, 5), np.float32), layers[place][2][1]])

    path = caffe_8s(tmp_path, change)
    with pytest.raises(CheckpointError) as caught:
        import_fcn(path, "fcn8s_vgg16", tiny=True)
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
        import_fcn(caffe_8s(tmp_path, change), "fcn8s_vgg16", tiny=True)


def test_long_lists_are_counted_and_cut(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.caffemodel", [("score_fr", "Convolution", [np.ones((5, 256, 1, 1), np.float32), np.ones(5, np.float32)])]
    )
    with pytest.raises(CheckpointError, match=r"37 missing \(conv1_1\.weight \(for \S+\), ([^,]+, ){4}\.\.\.\)"):
        import_fcn(path, "fcn8s_vgg16", tiny=True)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"score_fr\.weight 5x256x1x1 for 7x256x1x1.*number of classes"):
        import_fcn(caffe_8s(tmp_path), "fcn8s_vgg16", 7, tiny=True)


def test_a_file_of_another_family_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"holds vgg16, and fcn32s_alexnet is built on alexnet_caffe; fix: import it as fcn16s_vgg16"
    ):
        import_fcn(caffe_8s(tmp_path), "fcn32s_alexnet", tiny=True)


def test_other_models_and_unknown_names_are_refused(tmp_path: Path) -> None:
    path = caffe_8s(tmp_path)
    with pytest.raises(UnknownNameError, match="fcn8s_vgg16"):
        import_fcn(path, "fcn8s_vgg15")
    with pytest.raises(ConfigError, match="no published weights fit"):
        import_fcn(path, "fcn32s_late_fusion_vgg16")
    with pytest.raises(ConfigError, match="widht"):
        import_fcn(path, "fcn8s_vgg16", tiny=True, options={"widht": 1})


@pytest.mark.parametrize(
    ("shape", "target", "expected"),
    [
        ((4, 3, 2, 2), (4, 3, 2, 2), True),
        ((4, 12), (4, 3, 2, 2), True),
        ((1, 1, 4, 12), (4, 3, 2, 2), True),
        ((1, 1, 1, 4), (4,), True),
        ((1, 1, 4, 12), (4, 12), True),
        ((1, 1, 1, 12), (1, 3, 2, 2), True),
        ((12, 4), (4, 3, 2, 2), False),
        ((4, 3, 4, 1), (4, 3, 2, 2), False),
        ((48,), (4, 3, 2, 2), False),
        ((1, 4), (4,), True),
        ((4, 1), (4,), False),
        ((4, 12), (12, 4), False),
        ((), (), True),
        ((), (1,), False),
    ],
)
def test_only_reshapes_that_keep_the_meaning_fit(shape: tuple[int, ...], target: tuple[int, ...], expected: bool) -> None:
    assert fits(shape, target) is expected


# --- Caffe: classifiers -----------------------------------------------------------------------------------------------


def bgr(pixels: Tensor) -> Tensor:
    """Caffe's input, one plane after the other: blue, green, red, each less its mean."""
    red, green, blue = pixels.double().unbind(1)
    return torch.stack([blue - 104.00699, green - 116.66877, red - 122.67892], 1)


def plain_lrn(cells: Tensor) -> Tensor:
    """x / (1 + alpha / n * sum of squares of the five channels around) ** beta."""
    out = torch.empty_like(cells)
    for c in range(cells.shape[1]):
        window = cells[:, max(0, c - 2) : c + 3]
        out[:, c] = cells[:, c] / (1 + 1e-4 / 5 * window.square().sum(1)) ** 0.75
    return out


def plain_caffenet(pixels: Tensor, blobs: dict[str, list[Tensor]]) -> Tensor:
    cells = bgr(pixels)
    for name, stride, padding, groups in (
        ("conv1", 4, 0, 1),
        ("conv2", 1, 2, 2),
        ("conv3", 1, 1, 1),
        ("conv4", 1, 1, 2),
        ("conv5", 1, 1, 2),
    ):
        cells = F.conv2d(cells, *blobs[name], stride=stride, padding=padding, groups=groups).relu()
        if name in ("conv1", "conv2", "conv5"):
            cells = F.max_pool2d(cells, 3, 2, ceil_mode=True)
        if name in ("conv1", "conv2"):
            cells = plain_lrn(cells)
    return plain_head(cells.flatten(1), blobs)


def plain_vgg16(pixels: Tensor, blobs: dict[str, list[Tensor]]) -> Tensor:
    return plain_head(plain_vgg16_maps(pixels, blobs, margin=1).flatten(1), blobs)


def plain_vgg16_maps(pixels: Tensor, blobs: dict[str, list[Tensor]], margin: int) -> Tensor:
    cells = bgr(pixels)
    for name in VGG16:
        cells = F.conv2d(cells, *blobs[name], padding=margin if name == "conv1_1" else 1).relu()
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
            cells = F.max_pool2d(cells, 2, 2, ceil_mode=True)
    return cells


def plain_head(features: Tensor, blobs: dict[str, list[Tensor]]) -> Tensor:
    for name in FC:
        features = (features @ blobs[name][0].T + blobs[name][1]).relu()
    return features @ blobs["fc8"][0].T + blobs["fc8"][1]


def classifier_file(tmp_path: Path, trunk: str, names: list[str], *, v1: bool = True) -> tuple[Path, dict[str, list[Tensor]]]:
    """A made .caffemodel of a tiny classifier with seven classes, and its blobs in double precision."""
    network = filled(create_backbone(trunk, tiny=True, num_classes=7))
    layers = layers_of(network, [*names, *FC, "fc8"], (nn.Conv2d, nn.Linear))
    path = write(tmp_path / f"{trunk}.caffemodel", layers, v1=v1)
    return path, {name: [torch.from_numpy(blob).double() for blob in blobs] for name, _, blobs in layers}


@pytest.mark.parametrize(
    ("trunk", "names", "size", "plain"), [("vgg16", VGG16, 224, plain_vgg16), ("alexnet_caffe", CAFFENET, 227, plain_caffenet)]
)
def test_a_caffe_classifier_gives_its_logits(tmp_path: Path, trunk: str, names: list[str], size: int, plain: Any) -> None:
    path, blobs = classifier_file(tmp_path, trunk, names)
    backbone = create_backbone(trunk, tiny=True, num_classes=7).eval()
    assert isinstance(backbone, ClassifierBackbone)
    report = load_classifier(backbone, path)
    assert len(report.loaded) == 2 * (len(names) + 3)
    pixels = images((size, size))
    with torch.no_grad():
        got = backbone.classify(Preprocess("caffe", 3)(pixels)).double()
    expected = plain(pixels, blobs)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    swapped = plain(pixels.flip(1), blobs)
    assert (swapped - expected).abs().max() > 1e-3 * expected.abs().max(), "the test would not see swapped colours"


def test_a_caffe_classifier_becomes_an_fcn(tmp_path: Path) -> None:
    path, blobs = classifier_file(tmp_path, "vgg16", VGG16)
    imported = import_fcn(path, "fcn32s_vgg16", tiny=True)
    assert imported.model.num_classes == 21
    assert set(imported.report.dropped) == {"fc8.weight", "fc8.bias"}
    assert set(imported.report.fresh) == {"head.scores.0.weight", "head.scores.0.bias"}
    pixels = images((60, 47))
    maps = plain_vgg16_maps(pixels, blobs, margin=100)
    with torch.no_grad():
        hidden = imported.model.trunk(imported.model.preprocess(pixels))[0].double()
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
        (f"loss{i}/{part}", "InnerProduct", [np.ones((2, 2), np.float32)]) for i in (1, 2) for part in ("conv", "fc", "classifier")
    ]
    path = write(tmp_path / "x.caffemodel", layers)
    report = import_fcn(path, "fcn32s_googlenet", 3, tiny=True).report
    assert len(report.loaded) == 2 * len(GOOGLENET)
    assert {name for name, reason in report.dropped.items() if "auxiliary" in reason} == {
        layer[0] + ".weight" for layer in layers[-6:]
    }
    assert {name for name, reason in report.dropped.items() if "last layer" in reason} == {
        "loss3/classifier.weight",
        "loss3/classifier.bias",
    }


# --- torchvision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", KEYS)
def test_every_published_torchvision_key_has_its_place(network: str) -> None:
    arrays = {name: Foreign(tuple(shape), lambda: torch.zeros(0)) for name, shape in KEYS[network].items()}
    trunk = TRUNKS.get(network, network)
    assert torchnames.trunk_in(arrays) == trunk
    family = "googlenet" if network == "googlenet" else "alexnet" if network == "alexnet" else "vgg16"
    with torch.device("meta"):
        model = create_model(f"fcn32s_{family}", 21, trunk=trunk)
    plan = torchnames.plan_fcn(model, arrays, trunk)  # type: ignore[arg-type]
    own = model.state_dict()
    used = list(plan.moves.values())
    assert len(set(used)) == len(used)
    assert set(used) | set(plan.dropped) == set(KEYS[network])
    assert not set(used) & set(plan.dropped)
    assert set(plan.moves) | set(plan.fresh) == set(own)
    for key, name in plan.moves.items():
        assert fits(KEYS[network][name], own[key].shape), f"{name} for {key}"
    last = {"alexnet": "classifier.6.", "googlenet": "fc."}.get(network, "classifier.6.")
    assert {name for name in plan.dropped if not name.startswith("aux")} == {last + "weight", last + "bias"}


@pytest.mark.parametrize("trunk", ["alexnet", "vgg11", "vgg13_bn", "vgg16", "vgg19", "googlenet_torchvision"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_torchvision_file_becomes_an_fcn(tmp_path: Path, trunk: str, ending: str) -> None:
    heads = {"aux_heads": True} if "aux_heads" in BACKBONES[trunk].options else {}
    classifier = filled(create_backbone(trunk, tiny=True, num_classes=7, **heads))
    path = save(tmp_path / f"net{ending}", classifier.state_dict())
    family = next(f for f in ("alexnet", "vgg16", "googlenet") if f[:3] == trunk[:3])
    imported = import_fcn(path, f"fcn32s_{family}", 4, tiny=True)
    assert imported.spec.options["preprocessing"] == ("tensorflow" if family == "googlenet" else "torchvision")
    state, given = imported.model.state_dict(), classifier.state_dict()
    linears = [name for name, layer in classifier.named_modules() if isinstance(layer, nn.Linear) and not name.startswith("aux")]
    convs = [f"trunk.fc.{i}" for i, layer in enumerate(imported.model.trunk.fc) if isinstance(layer, nn.Conv2d)]
    for linear, conv in zip(linears[:-1], convs, strict=True):
        assert torch.equal(state[f"{conv}.weight"].flatten(1), given[f"{linear}.weight"])
    for name in imported.model.trunk.backbone.state_dict():
        assert torch.equal(state[f"trunk.backbone.{name}"], given[name])
    assert all(name in given for name in imported.report.dropped)
    fresh = classifier_backbone(trunk, heads)
    assert len(load_classifier(fresh, path).loaded) == len(given)
    pixels = images((224, 224)) / 255.0
    with torch.no_grad():
        assert torch.equal(fresh.classify(pixels), classifier.classify(pixels))  # type: ignore[operator]


def classifier_backbone(trunk: str, heads: dict[str, Any]) -> ClassifierBackbone:
    backbone = create_backbone(trunk, tiny=True, num_classes=7, **heads).eval()
    assert isinstance(backbone, ClassifierBackbone)
    return backbone


def save(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def vgg_state() -> dict[str, Tensor]:
    return dict(filled(create_backbone("vgg16_bn", tiny=True, num_classes=7)).state_dict())


def test_files_older_than_the_counter_are_read(tmp_path: Path) -> None:
    state = {name: value for name, value in vgg_state().items() if not name.endswith("num_batches_tracked")}
    report = import_fcn(save(tmp_path / "old.pth", state), "fcn32s_vgg16", tiny=True).report
    assert "trunk.backbone.features.1.num_batches_tracked" in report.fresh
    del state["features.1.running_mean"]
    with pytest.raises(CheckpointError, match=r"1 missing \(features\.1\.running_mean"):
        import_fcn(save(tmp_path / "cut.pth", state), "fcn32s_vgg16", tiny=True)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = vgg_state()
    state["classifier.0.bias"][3] = float("inf")
    with pytest.raises(CheckpointError, match=r"1 not finite \(classifier\.0\.bias\)"):
        import_fcn(save(tmp_path / "x.pth", state), "fcn32s_vgg16", tiny=True)


class Payload:
    """Unpickled, it makes a file: the sign that a stranger's code ran."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_malicious_pickle_is_refused_without_a_way_around(tmp_path: Path, plain_pickle: bool) -> None:
    sentinel, path = tmp_path / "sentinel", tmp_path / "evil.pth"
    content = {"features.0.weight": torch.zeros(1), "payload": Payload(sentinel)}
    if plain_pickle:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        import_fcn(path, "fcn8s_vgg16", tiny=True)
    assert not sentinel.exists()
    message = str(caught.value)
    assert len(message) < 400
    assert not any(word in message for word in ("weights_only", "safe_globals", "\x1b", "torch.load", "Unpickler"))
    assert caught.value.__cause__ is None


def test_wrong_torch_files_are_refused(tmp_path: Path) -> None:
    state = vgg_state()
    whole = save(tmp_path / "whole.pth", state).read_bytes()
    torch.save({"state_dict": state}, tmp_path / "wrapped.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": torch.zeros(2, 2).to_sparse()}, tmp_path / "sparse.pth")
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.pth").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "cut.safetensors").write_bytes(safetensors.torch.save(state)[:-9])
    (tmp_path / "pointer.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "page.safetensors").write_bytes(b"<!doctype html><title>Not found</title>")
    (tmp_path / "weights.h5").write_bytes(b"x")
    (tmp_path / "empty.pth").write_bytes(b"")
    words = {
        "wrapped.pth": "no flat table of tensors: 'state_dict' is a dict",
        "list.pth": "holds a list",
        "sparse.pth": "sparse",
        "cut.pth": "cut, damaged",
        "noise.pth": "damaged",
        "cut.safetensors": "no whole .safetensors file",
        "pointer.pth": "Git LFS pointer",
        "page.safetensors": "HTML page",
        "weights.h5": "known are .caffemodel, .pth",
        "empty.pth": "is empty",
        "none.pth": "cannot be opened",
    }
    for name, expected in words.items():
        with pytest.raises(CheckpointError) as caught:
            import_fcn(tmp_path / name, "fcn8s_vgg16", tiny=True)
        message = str(caught.value)
        assert expected in message
        assert message.startswith(str(tmp_path / name))
        assert "; fix: " in message


def test_damage_of_a_torch_file_never_escapes_as_another_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole.pth").read_bytes()
    for _ in range(150):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(0, 256)
        (tmp_path / "x.pth").write_bytes(bytes(content[: random.integers(1, len(content) + 1)]))
        with pytest.raises(CheckpointError):
            import_fcn(tmp_path / "x.pth", "fcn32s_vgg16", tiny=True)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_checkpoint_and_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classifier = filled(create_backbone("googlenet", num_classes=7))
    path = write(
        tmp_path / "bvlc_googlenet.caffemodel", layers_of(classifier, [*GOOGLENET, "loss3/classifier"], (nn.Conv2d, nn.Linear))
    )
    assert import_weights(str(path), as_="fcn32s_googlenet", out=tmp_path / "out") == 0
    printed = capsys.readouterr().out
    # papers: 5,995,077 parameters with the score layer, 5,973,552 without.
    assert "loaded 5,973,552 numbers" in printed
    assert "published as googlenet.caffe" in printed
    assert "left out: loss3/classifier.weight, loss3/classifier.bias (the classifier's last layer" in printed
    assert "started fresh, so train before use: head.scores.0.weight, head.scores.0.bias" in printed
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.taxonomy.names[15] == "person"
    assert checkpoint.model.preprocess.order == "bgr"
    own = checkpoint.model.state_dict()
    assert torch.equal(
        own["trunk.backbone.inception4e.branch3.1.conv.weight"], classifier.state_dict()["inception4e.branch3.1.conv.weight"]
    )
    assert "unrestricted use" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_published_name_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    classifier = filled(create_backbone("googlenet_torchvision", num_classes=7))
    path = save(tmp_path / "made-0.pth", dict(classifier.state_dict()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = replace(WEIGHTS["googlenet.torchvision"], name="made", url="https://example.org/made-0.pth", sha256=digest[:8])
    monkeypatch.setitem(WEIGHTS, "made", entry)
    assert import_weights("made", as_="fcn32s_googlenet", out=tmp_path / "out", num_classes=3) == 0
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.taxonomy.names == ("class_0", "class_1", "class_2")
    assert checkpoint.card["scores"] == {"as published": "ImageNet-1K top-1 69.778, top-5 89.53"}


def test_a_refused_import_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"something else of that name")
    cases = {
        "vgg16-397923af.pth": "has sha256",
        "none.pth": "is no file and no published name",
        "vgg16.torchvison": r"did you mean .*vgg16\.torchvision",
    }
    for name, words in cases.items():
        file = str(tmp_path / name) if name.endswith(".pth") else name
        with pytest.raises(CheckpointError, match=words):
            import_weights(file, as_="fcn8s_vgg16", out=tmp_path / "out")
    with pytest.raises(CheckpointError, match="no published sha256.*download it yourself"):
        import_weights("fcn8s-heavy-pascal.caffe", as_="fcn8s_vgg16", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
