"""torchvision's files into networks against the published key lists, hostile files, and the command."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from helpers.caffe_file import write
from helpers.foreign_nets import GOOGLENET, filled, images, import_tiny, layers_of, make_imports_tiny, save
from helpers.papers import torchvision_state
from pixelwise.backbones import BACKBONES, create_backbone
from pixelwise.backbones.classifier import ClassifierBackbone
from pixelwise.commands.import_ import import_
from pixelwise.errors import CheckpointError
from pixelwise.models import MODELS, create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.models.fcn import FCN, FullyConnected
from pixelwise.weights.checkpoint import load_checkpoint
from pixelwise.weights.importing import import_model, load, load_classifier
from pixelwise.weights.importing.classifiers import backbone_in
from pixelwise.weights.importing.efficientnet_lite import lite_names
from pixelwise.weights.importing.fcn_nets import map_classifier_to_fcn
from pixelwise.weights.importing.load import KeyMapping, SourceArray, WeightFile, fits, load_mapped, read_weight_file
from pixelwise.weights.published import WEIGHTS

NETWORKS = ("alexnet", "vgg13", "vgg16", "vgg16_bn", "vgg19", "googlenet")
DEFAULTS = {"googlenet": "googlenet_torchvision"}


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
def test_only_reshapes_that_keep_the_meaning_fit(
    shape: tuple[int, ...], target: tuple[int, ...], expected: bool
) -> None:
    assert fits(shape, target) is expected


def test_arrays_longer_than_a_piece_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PIECE", 7)
    values = torch.arange(60.0).reshape(5, 12)
    network = nn.Conv2d(3, 5, 2, bias=False)
    mapping = KeyMapping(moves={"weight": "w"})
    load_mapped(network, WeightFile(Path("made"), {"w": SourceArray.of_array(values.numpy())}), mapping, "")
    assert torch.equal(network.weight, values.reshape(5, 3, 2, 2))
    values[4, 11] = float("nan")
    with pytest.raises(CheckpointError, match=r"1 not finite \(w\)"):
        load_mapped(network, WeightFile(Path("made"), {"w": SourceArray.of_tensor(values)}), mapping, "")
    assert network.weight.isfinite().all(), "nothing is copied when something is wrong"


def published_file(network: str) -> WeightFile:
    """torchvision's names and shapes, without numbers."""
    shapes = torchvision_state(network)
    arrays = {name: SourceArray(tuple(shape), lambda start, stop: torch.zeros(0)) for name, shape in shapes.items()}
    return WeightFile(Path("made.pth"), arrays)


def fcn(network: str, *, tiny: bool = False) -> FCN:
    model = create_model(f"fcn32s_{family_of(network)}", tiny=tiny, backbone=DEFAULTS.get(network, network))
    assert isinstance(model, FCN)
    return model


def family_of(network: str) -> str:
    return next(family for family in ("alexnet", "vgg16", "googlenet") if family[:3] == network[:3])


@pytest.mark.parametrize("network", NETWORKS)
def test_every_published_torchvision_key_has_its_place(network: str) -> None:
    file = published_file(network)
    assert backbone_in(file) == DEFAULTS.get(network, network)
    model = fcn(network, tiny=True)
    plan = map_classifier_to_fcn(model, file)
    own = model.state_dict()
    used = list(plan.moves.values())
    assert len(set(used)) == len(used)
    assert set(used) | set(plan.dropped) == set(torchvision_state(network))
    assert not set(used) & set(plan.dropped)
    assert set(plan.moves) | set(plan.fresh) == set(own)
    last = {"alexnet": "classifier.6.", "googlenet": "fc."}.get(network, "classifier.6.")
    assert {name for name in plan.dropped if not name.startswith("aux")} == {last + "weight", last + "bias"}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_published_torchvision_shape_fits_in_full_size(network: str) -> None:
    with torch.device("meta"):
        model = fcn(network)
    own = model.state_dict()
    for key, name in map_classifier_to_fcn(model, published_file(network)).moves.items():
        assert fits(torchvision_state(network)[name], own[key].shape), f"{name} for {key}"


@pytest.mark.parametrize(
    ("backbone", "ending"),
    [
        *((backbone, ".pth") for backbone in ("alexnet", "vgg11", "vgg13_bn", "vgg16", "googlenet_torchvision")),
        *((backbone, ".safetensors") for backbone in ("vgg19", "alexnet")),
    ],
)
def test_a_torchvision_file_becomes_an_fcn(tmp_path: Path, backbone: str, ending: str) -> None:
    heads = {"aux_heads": True} if "aux_heads" in BACKBONES[backbone].options else {}
    classifier = filled(classifier_backbone(backbone, heads))
    path = save(tmp_path / f"net{ending}", classifier.state_dict())
    family = family_of(backbone)
    imported = import_tiny(path, f"fcn32s_{family}", 4)
    assert imported.spec.options["preprocessing"] == ("tensorflow" if family == "googlenet" else "torchvision")
    state, given = imported.model.state_dict(), classifier.state_dict()
    linears = [
        name
        for name, layer in classifier.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith("aux")
    ]
    convs = [f"{name}.conv" for name, layer in imported.model.named_children() if isinstance(layer, FullyConnected)]
    for linear, conv in zip(linears[:-1], convs, strict=True):
        assert torch.equal(state[f"{conv}.weight"].flatten(1), given[f"{linear}.weight"])
    for name in imported.model.get_submodule("backbone").state_dict():
        assert torch.equal(state[f"backbone.{name}"], given[name])
    assert all(name in given for name in imported.report.dropped)
    fresh = classifier_backbone(backbone, heads)
    assert len(load_classifier(fresh, path).loaded) == len(given)
    pixels = images((224, 224)) / 255.0
    with torch.no_grad():
        assert torch.equal(fresh.classify(pixels), classifier.classify(pixels))


def classifier_backbone(backbone: str, heads: dict[str, Any]) -> ClassifierBackbone:
    classifier = create_backbone(backbone, tiny=True, num_classes=7, **heads).eval()
    assert isinstance(classifier, ClassifierBackbone)
    return classifier


@cache
def made_vgg() -> nn.Module:
    return filled(create_backbone("vgg11_bn", tiny=True, num_classes=7))


def vgg_state() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made_vgg().state_dict().items()}


def test_files_older_than_the_counter_are_read(tmp_path: Path) -> None:
    state = {name: value for name, value in vgg_state().items() if not name.endswith("num_batches_tracked")}
    report = import_tiny(save(tmp_path / "old.pth", state), "fcn32s_vgg16").report
    assert "backbone.features.1.num_batches_tracked" in report.fresh
    del state["features.1.running_mean"]
    with pytest.raises(CheckpointError, match=r"1 missing \(features\.1\.running_mean"):
        import_tiny(save(tmp_path / "cut.pth", state), "fcn32s_vgg16")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = vgg_state()
    state["classifier.0.bias"][3] = float("inf")
    with pytest.raises(CheckpointError, match=r"1 not finite \(classifier\.0\.bias\)"):
        import_tiny(save(tmp_path / "x.pth", state), "fcn32s_vgg16")


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
        import_tiny(path, "fcn8s_vgg16")
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
        "wrapped.pth": "expected a flat table of tensors, got 'state_dict' of type dict",
        "list.pth": "expected a table of tensors, got a list",
        "sparse.pth": "sparse",
        "cut.pth": "truncated, damaged",
        "noise.pth": "damaged",
        "cut.safetensors": "not a complete .safetensors file",
        "pointer.pth": "Git LFS pointer",
        "page.safetensors": "HTML page",
        "weights.h5": "expected .caffemodel, .pth",
        "empty.pth": "is empty",
        "none.pth": "cannot be opened",
    }
    for name, expected in words.items():
        with pytest.raises(CheckpointError) as caught:
            import_tiny(tmp_path / name, "fcn8s_vgg16")
        message = str(caught.value)
        assert expected in message
        assert message.startswith(str(tmp_path / name))
        assert "; fix: " in message


def test_a_torch_file_with_other_bytes_than_were_saved_is_refused(tmp_path: Path) -> None:
    """The archive holds a checksum of each tensor, which torch does not look at."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.full((3,), 7.0)}, path)
    whole = path.read_bytes()
    assert read_weight_file(path).arrays["a"].read().tolist() == [7, 7, 7]
    place = whole.index(torch.full((3,), 7.0).numpy().tobytes())
    path.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
    assert torch.load(path, weights_only=True)["a"].tolist() != [7, 7, 7]
    with pytest.raises(CheckpointError, match="truncated, damaged, or not a PyTorch file; fix: download it again"):
        read_weight_file(path)


def test_damage_of_a_torch_file_never_escapes_as_another_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    torch.save(
        {"a": torch.ones(3), "b": torch.zeros(2, 2)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=False
    )
    whole = (tmp_path / "whole.pth").read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(0, 256)
        (tmp_path / "x.pth").write_bytes(bytes(content[: random.integers(1, len(content) + 1)]))
        with pytest.raises(CheckpointError):
            import_tiny(tmp_path / "x.pth", "fcn32s_vgg16")


@pytest.mark.parametrize(
    ("tiny", "num_loaded"),
    # papers: 5,995,077 parameters with the score layer, 5,973,552 without.
    [(True, None), pytest.param(False, "5,973,552", marks=pytest.mark.slow)],
)
def test_the_command_writes_a_checkpoint_and_says_what_it_did(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny: bool,
    num_loaded: str | None,
) -> None:
    if tiny:
        make_imports_tiny(monkeypatch)
    classifier = filled(create_backbone("googlenet", tiny=tiny, num_classes=7))
    layers = layers_of(classifier, [*GOOGLENET, "loss3/classifier"], (nn.Conv2d, nn.Linear))
    path = write(tmp_path / "bvlc_googlenet.caffemodel", layers)
    assert import_(str(path), as_="fcn32s_googlenet", out=tmp_path / "out") == 0
    printed = capsys.readouterr().out
    held = sum(blob.size for _, _, blobs in layers[:-1] for blob in blobs)
    assert f"loaded {num_loaded or f'{held:,}'} numbers" in printed
    assert "published as googlenet.caffe" in printed
    assert "left out: loss3/classifier.weight, loss3/classifier.bias (the classifier's last layer" in printed
    assert "not in the file, so train before use: score_fr.weight, score_fr.bias" in printed
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.taxonomy.names[15] == "person"
    assert checkpoint.model.preprocess.order == "bgr"
    name = "inception4e.branch3.1.conv.weight"
    assert torch.equal(checkpoint.model.state_dict()[f"backbone.{name}"], classifier.state_dict()[name])
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "unrestricted use" in card
    assert "train before predicting" in card


def test_a_published_name_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_imports_tiny(monkeypatch)
    monkeypatch.setenv("PIXELWISE_CACHE", str(tmp_path))
    path = save(tmp_path / "made-0.pth", vgg_state())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = replace(
        WEIGHTS["vgg11_bn.torchvision"], name="made", url="https://example.org/made-0.pth", sha256=digest[:8]
    )
    monkeypatch.setitem(WEIGHTS, "made", entry)
    assert import_("made", as_="fcn32s_vgg16", out=tmp_path / "out", num_classes=3) == 0
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.taxonomy.names == ("class_0", "class_1", "class_2")
    assert checkpoint.card["scores"] == {"as published": "ImageNet-1K top-1 70.37, top-5 89.81"}


def test_a_refused_import_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"something else of that name")
    cases = {
        "vgg16-397923af.pth": "expected the SHA-256 of vgg16.torchvision",
        "none.pth": "neither a file nor the name of published weights",
        "vgg16.torchvison": r"did you mean .*vgg16\.torchvision",
    }
    for name, words in cases.items():
        file = str(tmp_path / name) if name.endswith(".pth") else name
        with pytest.raises(CheckpointError, match=words):
            import_(file, as_="fcn8s_vgg16", out=tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"no published sha256.*download it yourself"):
        import_("fcn8s-heavy-pascal.caffe", as_="fcn8s_vgg16", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_networks_on_a_classifier_declare_that_it_can_be_imported() -> None:
    for name in MODELS:
        with torch.device("meta"):
            model: SegmentationModel = create_model(name, tiny=True)
        on_classifier = isinstance(dict(model.named_children()).get("backbone"), ClassifierBackbone)
        # A network that takes any backbone takes a published one too.
        on_classifier |= "backbone_options" in MODELS[name].options
        if model.import_format not in ("caffe", "torchvision"):
            assert model.import_format == ("backbone" if on_classifier else ""), name
        assert bool(model.caffe_names()) == (model.import_format == "caffe"), name
        assert MODELS[name].product is type(model)


def test_a_torch_file_without_a_fully_connected_layer_is_refused(tmp_path: Path) -> None:
    state = {
        name: value for name, value in vgg_state().items() if not name.startswith(("classifier.3", "classifier.6"))
    }
    with pytest.raises(CheckpointError, match="expected 2 fully connected layers for fc6 and fc7, got 1"):
        import_tiny(save(tmp_path / "x.pth", state), "fcn32s_vgg16")
    state = {name: value for name, value in vgg_state().items() if not name.startswith("classifier.3")}
    with pytest.raises(CheckpointError, match=r"mis-shaped \(classifier\.6\.weight"):
        import_tiny(save(tmp_path / "x.pth", state), "fcn32s_vgg16")


@pytest.mark.parametrize("network", ["compact", "deeplabv3", "deeplabv3plus", "pspnet", "unet_padded", "fcn8s"])
@pytest.mark.parametrize("backbone", ["efficientnet_b0", "resnet18", "mobilenetv2"])
def test_a_published_classifier_fills_the_backbone_of_any_network(tmp_path: Path, network: str, backbone: str) -> None:
    torch.manual_seed(0)
    small = dict(BACKBONES[backbone].tiny)
    state = filled(create_backbone(backbone, num_classes=7, **small)).state_dict()
    torch.save(state, tmp_path / "file.pth")
    width = {"width_mult": small["width_mult"]} if network == "fcn8s" else {"backbone_options": small}
    if backbone == "efficientnet_b0" and network == "fcn8s":
        pytest.skip("FCN scales the width alone")
    options = {"backbone": backbone, **width, **({"decoder_channels": [8]} if network == "compact" else {})}
    imported = import_model(tmp_path / "file.pth", network, 3, options=options)
    own = imported.model.get_submodule("backbone").state_dict()
    assert own
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())
    assert imported.spec.options["preprocessing"] == "torchvision"


def test_the_command_takes_options_of_the_network(tmp_path: Path) -> None:
    torch.save(filled(create_backbone("resnet18", num_classes=7, width_mult=1 / 16)).state_dict(), tmp_path / "f.pth")
    options = "{backbone: resnet18, backbone_options: {width_mult: 0.0625}, output_stride: 8}"
    assert import_(str(tmp_path / "f.pth"), as_="deeplabv3", out=tmp_path / "out", num_classes=3, options=options) == 0
    model = load_checkpoint(tmp_path / "out").model
    assert model.logits_stride == 8


def test_the_publishers_names_of_efficientnet_lite(tmp_path: Path) -> None:
    """Stem, first and last block, and head, by hand: blocks count through, norms from 0 where there is an expansion."""
    ours = {
        "_conv_stem.weight": "features.0.0.weight",
        "_bn0.running_var": "features.0.1.running_var",
        "_blocks.0._depthwise_conv.weight": "features.1.0.block.0.0.weight",
        "_blocks.0._bn1.bias": "features.1.0.block.0.1.bias",
        "_blocks.15._expand_conv.weight": "features.7.0.block.0.0.weight",
        "_blocks.15._bn2.weight": "features.7.0.block.2.1.weight",
        "_conv_head.weight": "features.8.0.weight",
        "_fc.weight": "classifier.1.weight",
    }
    names = lite_names(0)
    for theirs, own in ours.items():
        layer, _, kind = theirs.rpartition(".")
        assert f"{names[layer]}.{kind}" == own
    back = {module: layer for layer, module in names.items()}
    state = filled(create_backbone("efficientnet_lite0", num_classes=7)).state_dict()
    renamed = {f"{back[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}
    torch.save(renamed, tmp_path / "lite0.pth")
    imported = import_model(tmp_path / "lite0.pth", "compact_efficientnet_lite0", 3)
    own_state = imported.model.get_submodule("backbone").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in own_state.items())
    assert imported.spec.options["preprocessing"] == "efficientnet_lite"


def test_a_backbone_that_was_no_classifier_takes_no_file(tmp_path: Path) -> None:
    torch.save(filled(create_backbone("resnet18", num_classes=7, width_mult=1 / 16)).state_dict(), tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match="fits no part of compact, whose backbone was never an image classifier"):
        import_model(tmp_path / "f.pth", "compact", 3)
