"""The authors' nets of NYUDv2, SIFT Flow and PASCAL-Context: files with their layer names against their prototxt files
written out.

Source: shelhamer/fcn.berkeleyvision.org, net.py, trainval.prototxt and the data layers' means of each net's folder.
"""

from __future__ import annotations

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
    FC,
    NUM_GEOMETRIC,
    VGG16,
    conv,
    filled,
    images,
    import_tiny,
    layers_of,
    make_imports_tiny,
    official_layers,
)
from pixelwise.backbones import create_backbone
from pixelwise.commands.import_ import import_
from pixelwise.errors import CheckpointError
from pixelwise.models import create_model
from pixelwise.models.fcn import FCN, FullyConnected
from pixelwise.models.fcn_fusion import LateFusionFCN, TwoHeadFCN
from pixelwise.weights.checkpoint import load_checkpoint

LATE = "fcn32s_late_fusion_vgg16"
TWO_HEADS = {32: "fcn32s_two_heads_vgg16", 16: "fcn16s_two_heads_vgg16", 8: "fcn8s_two_heads_vgg16"}
PLAIN = {32: "fcn32s_vgg16", 16: "fcn16s_vgg16", 8: "fcn8s_vgg16"}
POOLED = {"conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"}
NYUD_BGR = (116.190, 97.203, 92.318)
HHA = (132.431, 94.076, 118.477)
SIFT_FLOW_BGR = (114.578, 115.294, 108.353)
VOC_BGR = (104.00699, 116.66877, 122.67892)


@cache
def made(name: str, num_classes: int, in_channels: int | None = None) -> tuple[Layer, ...]:
    """The layers of a tiny net with random numbers under the official names; four channels are early fusion."""
    layers = official_layers(name, filled(create_model(name, num_classes, in_channels, tiny=True)), num_classes)
    if in_channels == 4:
        layers = [("conv1_1_bgrd" if layer == "conv1_1" else layer, kind, blobs) for layer, kind, blobs in layers]
    return tuple(layers)


def blobs_of(layers: tuple[Layer, ...]) -> dict[str, list[Tensor]]:
    return {name: [torch.from_numpy(blob).double() for blob in blobs] for name, _, blobs in layers}


def centered(images: Tensor, mean: tuple[float, ...], flip: bool) -> Tensor:
    """Caffe's input: the first three planes turned around where they are color, each plane less its mean."""
    planes = list(images.double().unbind(1))
    if flip:
        planes[:3] = planes[2::-1]
    return torch.stack([plane - m for plane, m in zip(planes, mean, strict=True)], 1)


def stream(data: Tensor, blobs: dict[str, list[Tensor]], suffix: str = "", first: str = "conv1_1") -> dict[str, Tensor]:
    """VGG16 as a stream of FCN: its poolings, and fc7."""
    maps = {}
    for layer in VGG16:
        name = first if layer == "conv1_1" else layer
        data = conv(data, blobs[name + suffix], padding=100 if layer == "conv1_1" else 1).relu()
        if layer in POOLED:
            data = F.max_pool2d(data, 2, 2, ceil_mode=True)
            maps["pool" + layer[4]] = data
    for layer in FC:
        data = conv(data, blobs[layer + suffix]).relu()
    return maps | {"fc7": data}


def up(x: Tensor, blob: Tensor, stride: int) -> Tensor:
    return F.conv_transpose2d(x, blob, stride=stride)


def crop(x: Tensor, offset: int, like: Tensor) -> Tensor:
    return x[..., offset : offset + like.shape[-2], offset : offset + like.shape[-1]]


def head(maps: dict[str, Tensor], blobs: dict[str, list[Tensor]], stride: int, image: Tensor, task: str = "") -> Tensor:
    """Score layers, upsampling, crops and sums of the nets of stride 32, 16 and 8."""
    score = conv(maps["fc7"], blobs["score_fr" + task])
    if stride == 32:
        return crop(up(score, blobs["upscore" + task][0], 32), 19, image)
    score = up(score, blobs["upscore2" + task][0], 2)
    score = score + crop(conv(maps["pool4"], blobs["score_pool4" + task]), 5, score)
    if stride == 16:
        return crop(up(score, blobs["upscore16" + task][0], 16), 27, image)
    score = up(score, blobs["upscore_pool4" + task][0], 2)
    score = score + crop(conv(maps["pool3"], blobs["score_pool3" + task]), 9, score)
    return crop(up(score, blobs["upscore8" + task][0], 8), 31, image)


def assert_same(got: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_late_fusion_averages_the_scores_of_its_streams(tmp_path: Path) -> None:
    layers = made(LATE, 5)
    model = import_tiny(write(tmp_path / "x.caffemodel", layers), LATE).model
    assert (model.num_classes, model.in_channels) == (5, 6)
    image, blobs = images(num_channels=6), blobs_of(layers)
    color = stream(centered(image[:, :3], NYUD_BGR, flip=True), blobs, "color")["fc7"]
    hha = stream(centered(image[:, 3:], HHA, flip=False), blobs, "hha")["fc7"]
    score = 0.5 * conv(color, blobs["score_frcolor"]) + 0.5 * conv(hha, blobs["score_frhha"])
    with torch.no_grad():
        assert_same(model(image).logits, crop(up(score, blobs["upscore"][0], 32), 19, image))


@pytest.mark.parametrize("stride", TWO_HEADS)
def test_two_heads_label_twice(tmp_path: Path, stride: int) -> None:
    layers = made(TWO_HEADS[stride], 5)
    model = import_tiny(write(tmp_path / "x.caffemodel", layers), TWO_HEADS[stride]).model
    assert isinstance(model, TwoHeadFCN)
    assert (model.num_classes, model.num_geometric) == (5, NUM_GEOMETRIC)
    image, blobs = images(), blobs_of(layers)
    maps = stream(centered(image, SIFT_FLOW_BGR, flip=True), blobs)
    with torch.no_grad():
        semantic, geometric = (
            low.upsample_to((image.shape[-2], image.shape[-1])).logits for low in model.forward_low_res_all(image)
        )
    assert_same(semantic, head(maps, blobs, stride, image, "_sem"))
    assert_same(geometric, head(maps, blobs, stride, image, "_geo"))


def test_early_fusion_takes_depth_as_its_fourth_plane(tmp_path: Path) -> None:
    layers = made("fcn32s_vgg16", 5, 4)
    path = write(tmp_path / "x.caffemodel", layers)
    model = import_tiny(path, "fcn32s_vgg16").model
    assert model.in_channels == 4
    image, blobs = images(num_channels=4), blobs_of(layers)
    maps = stream(centered(image, (*NYUD_BGR, 7.844), flip=True), blobs, first="conv1_1_bgrd")
    with torch.no_grad():
        assert_same(model(image).logits, head(maps, blobs, 32, image))
    assert import_tiny(path, "fcn32s_vgg16", in_channels=4).model.in_channels == 4
    with pytest.raises(CheckpointError, match=r"takes images of 4 channels, got in_channels=3; fix: leave"):
        import_tiny(path, "fcn32s_vgg16", in_channels=3)


@pytest.mark.parametrize(
    ("file", "stride", "mean", "flip"),
    [
        ("nyud-fcn32s-color-heavy", 32, NYUD_BGR, True),
        ("nyud-fcn32s-hha-heavy", 32, HHA, False),
        ("pascalcontext-fcn32s-heavy", 32, VOC_BGR, True),
        ("pascalcontext-fcn16s-heavy", 16, VOC_BGR, True),
        ("pascalcontext-fcn8s-heavy", 8, VOC_BGR, True),
        ("renamed", 32, VOC_BGR, True),
    ],
)
def test_nets_that_look_alike_are_distinguished_by_their_files_name(
    tmp_path: Path, file: str, stride: int, mean: tuple[float, ...], flip: bool
) -> None:
    layers = made(PLAIN[stride], 6)
    model = import_tiny(write(tmp_path / f"{file}.caffemodel", layers), PLAIN[stride]).model
    image, blobs = images(), blobs_of(layers)
    with torch.no_grad():
        assert_same(model(image).logits, head(stream(centered(image, mean, flip), blobs), blobs, stride, image))


NETS = [(LATE, None), (TWO_HEADS[16], None), ("fcn32s_vgg16", 4)]
TWICE = {LATE: "score_frhha", TWO_HEADS[16]: "score_pool4_geo", "fcn32s_vgg16": "conv1_1_bgrd"}


@pytest.mark.parametrize(("name", "in_channels"), NETS)
@pytest.mark.parametrize("kind", ["missing", "unexpected", "mis-shaped"])
def test_one_fault_is_enough(tmp_path: Path, name: str, in_channels: int | None, kind: str) -> None:
    faulty = []
    for layer, layer_type, blobs in made(name, 5, in_channels):
        if layer == TWICE[name]:
            weight, bias = blobs
            blobs = {"missing": [weight], "unexpected": [weight, bias, bias], "mis-shaped": [weight, bias[:-1]]}[kind]
        faulty.append((layer, layer_type, blobs))
    with pytest.raises(CheckpointError, match=rf"the network: 1 {kind} \({TWICE[name]}\."):
        import_tiny(write(tmp_path / "x.caffemodel", faulty), name)


@pytest.mark.parametrize(("name", "in_channels"), NETS)
def test_every_layer_is_needed_and_no_other_allowed(tmp_path: Path, name: str, in_channels: int | None) -> None:
    layers = [layer for layer in made(name, 5, in_channels) if layer[2]]
    for i in range(1, len(layers), 8):
        with pytest.raises(CheckpointError, match=rf"missing \({layers[i][0]}"):
            import_tiny(write(tmp_path / "x.caffemodel", layers[:i] + layers[i + 1 :]), name)
    extra = ("conv1_1", *layers[0][1:])
    with pytest.raises(
        CheckpointError, match=r"2 unexpected \(conv1_1\.weight, conv1_1\.bias\)" if name != TWO_HEADS[16] else "twice"
    ):
        import_tiny(write(tmp_path / "x.caffemodel", [*layers, extra]), name)


def test_the_second_heads_upsampling_is_proved_and_loaded(tmp_path: Path) -> None:
    layers = [
        (layer, kind, [blobs[0] * np.float32(1.5)] if layer == "upscore2_geo" else blobs)
        for layer, kind, blobs in made(TWO_HEADS[16], 5)
    ]
    path = write(tmp_path / "x.caffemodel", layers)
    with pytest.raises(CheckpointError, match=r"upscore2_geo\.weight is learned, not bilinear"):
        import_tiny(path, TWO_HEADS[16])
    state = import_tiny(path, TWO_HEADS[16], options={"upsampling": "learned"}).model.state_dict()
    expected = 1.5 * np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    # The kernels of five semantic classes, then of the geometric ones.
    assert len(state["upscore2.weight"]) == 5 + NUM_GEOMETRIC
    for kernel in state["upscore2.weight"][5:]:
        np.testing.assert_allclose(kernel[0], expected, rtol=1e-6)
    for kernel in state["upscore2.weight"][:5]:
        np.testing.assert_allclose(kernel[0], expected / 1.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("held", "asked", "words"),
    [
        (
            LATE,
            "fcn32s_vgg16",
            f"with one stream and one head for .*, got one with two streams; fix: import it as {LATE}$",
        ),
        (TWO_HEADS[16], "fcn16s_vgg16", "got one with two heads; fix: import it as fcn16s_two_heads_vgg16 or"),
        ("fcn16s_vgg16", TWO_HEADS[16], "with two heads for .*, got one with one stream and one head; .*fcn16s_vgg16"),
        (TWO_HEADS[16], TWO_HEADS[32], r"6 unexpected|unexpected \("),
    ],
)
def test_nets_of_another_layout_are_named(tmp_path: Path, held: str, asked: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        import_tiny(write(tmp_path / "x.caffemodel", made(held, 5)), asked)


@pytest.mark.parametrize("name", [LATE, TWO_HEADS[16]])
def test_an_image_classifier_fills_every_stream(tmp_path: Path, name: str) -> None:
    classifier = filled(create_backbone("vgg16", tiny=True, num_classes=7))
    path = write(tmp_path / "x.caffemodel", layers_of(classifier, [*VGG16, *FC, "fc8"], (nn.Conv2d, nn.Linear)))
    imported = import_tiny(path, name)
    given = classifier.state_dict()
    model = imported.model
    for stream in [model.color, model.hha] if isinstance(model, LateFusionFCN) else [model]:
        assert isinstance(stream, FCN)
        assert isinstance(stream.fc6, FullyConnected)
        assert all(torch.equal(value, given[key]) for key, value in stream.backbone.state_dict().items())
        assert torch.equal(stream.fc6.conv.weight.flatten(1), given["classifier.0.weight"])
    parts = ["semantic", "geometric"]
    layers = {
        LATE: ["color.score_fr", "hha.score_fr"],
        TWO_HEADS[16]: [f"{score}.{part}" for score in ("score_fr", "score_pool4") for part in parts],
    }
    assert {key.rpartition(".")[0] for key in imported.report.fresh} == {*layers[name]}
    means = imported.model.preprocess.mean.flatten().tolist()
    assert means == pytest.approx((*NYUD_BGR, *HHA) if name == LATE else VOC_BGR, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "in_channels", "options"),
    [
        (LATE, None, {"geometry": "same"}),
        (TWO_HEADS[16], None, {"upsampling": "learned"}),
        ("fcn32s_vgg16", 4, {"in_channels": 4, "upsampling": "intermediate", "geometry": "caffe"}),
    ],
)
def test_the_command_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, in_channels: int | None, options: dict[str, Any]
) -> None:
    make_imports_tiny(monkeypatch)
    path = write(tmp_path / "x.caffemodel", made(name, 5, in_channels))
    assert import_(str(path), as_=name, out=tmp_path / "out", **options) == 0
    checkpoint = load_checkpoint(tmp_path / "out")
    model = checkpoint.model
    assert model.in_channels == {LATE: 6, "fcn32s_vgg16": 4}.get(name, 3)
    assert checkpoint.taxonomy.num_classes == 5
    chosen = {key: value for key, value in options.items() if key != "in_channels"}
    assert chosen.items() <= dict(model.spec.options).items()
    image = images(num_channels=model.in_channels)
    plain = import_tiny(path, name).model
    with torch.no_grad():
        same = torch.allclose(model(image).logits, plain(image).logits, atol=1e-4)
    assert same is (options.get("geometry") != "same")
