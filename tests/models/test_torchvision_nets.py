"""torchvision's segmentation nets: its state, its places of strides and rates, its heads written out, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.command_line import call
from helpers.papers import torchvision_state
from pixelwise.backbones import create_backbone
from pixelwise.errors import CheckpointError, ConfigError
from pixelwise.models import MODELS, create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.weights.checkpoint import load_checkpoint
from pixelwise.weights.importing import import_model


def tiny(name: str, **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    model = create_model(name, 5, tiny=True, **options).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
    return model


def shapes(model: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].product.import_format == "torchvision"])
def test_state_is_torchvisions(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert shapes(model) == torchvision_state(name.removeprefix("torchvision_"))


@pytest.mark.parametrize("depth", [50, 101])
def test_the_first_unit_of_a_stage_keeps_the_rate_before(depth: int) -> None:
    """torchvision, `replace_stride_with_dilation`: 1 and 2 in layer3, 2 and 4 in layer4."""
    with torch.device("meta"):
        backbone: Any = create_model(f"torchvision_deeplabv3_resnet{depth}").backbone
    assert [unit.conv2.dilation[0] for unit in backbone.layer3] == [1] + [2] * (len(backbone.layer3) - 1)
    assert [unit.conv2.dilation[0] for unit in backbone.layer4] == [2, 4, 4]
    assert [unit.conv2.stride[0] for unit in (backbone.layer2[0], backbone.layer3[0], backbone.layer4[0])] == [2, 1, 1]


def test_the_mobile_backbone_has_rate_two_in_its_last_stage() -> None:
    with torch.device("meta"):
        chain: Any = create_model("torchvision_deeplabv3_mobilenet_v3_large").backbone
    depthwise = [m for m in chain.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [m.dilation[0] for m in depthwise] == [1] * 12 + [2] * 3
    assert [m.stride[0] for m in depthwise].count(2) == 3


def unit(state: dict[str, Tensor], conv: str, norm: str, x: Tensor, dilation: int = 1) -> Tensor:
    """Convolution, norm and ReLU from bare numbers."""
    weight = state[f"{conv}.weight"]
    x = functional.conv2d(x, weight, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-5).sqrt()
    return (
        (x - state[f"{norm}.running_mean"][:, None, None]) * scale[:, None, None] + state[f"{norm}.bias"][:, None, None]
    ).clamp_min(0)


def two_layers(state: dict[str, Tensor], head: str, x: Tensor) -> Tensor:
    x = unit(state, f"{head}.0", f"{head}.1", x)
    return functional.conv2d(x, state[f"{head}.4.weight"], state[f"{head}.4.bias"])


def pyramid_head(state: dict[str, Tensor], x: Tensor) -> Tensor:
    convs = [
        unit(state, f"classifier.0.convs.{i}.0", f"classifier.0.convs.{i}.1", x, (1, 12, 24, 36)[i]) for i in range(4)
    ]
    pooled = unit(state, "classifier.0.convs.4.1", "classifier.0.convs.4.2", x.mean((2, 3), keepdim=True))
    x = torch.cat([*convs, pooled.expand(-1, -1, *x.shape[-2:])], 1)
    x = unit(state, "classifier.0.project.0", "classifier.0.project.1", x)
    x = unit(state, "classifier.1", "classifier.2", x)
    return functional.conv2d(x, state["classifier.4.weight"], state["classifier.4.bias"])


@pytest.mark.parametrize(
    "name", ["torchvision_fcn_resnet50", "torchvision_deeplabv3_resnet50", "torchvision_deeplabv3_mobilenet_v3_large"]
)
def test_the_heads_written_out(name: str) -> None:
    model: Any = tiny(name)
    state, x = dict(model.state_dict()), torch.randn(1, 3, 97, 65)
    with torch.no_grad():
        middle, last = model.features(model.preprocess(x))
        expected = two_layers(state, "classifier", last) if "fcn" in name else pyramid_head(state, last)
        torch.testing.assert_close(model.forward_low_res(x).logits, expected, atol=1e-2, rtol=1e-3)
        aux = two_layers(state, "aux_classifier", middle)
        torch.testing.assert_close(model.aux_classifier(middle), aux, atol=1e-4, rtol=1e-4)
    assert model.train()(x.repeat(2, 1, 1, 1)).aux[0].shape == (2, 5, 97, 65)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_file_is_read_whole_through_the_command(
    auxiliary: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, full = (
        "torchvision_deeplabv3_mobilenet_v3_large",
        create_model("torchvision_deeplabv3_mobilenet_v3_large", auxiliary=auxiliary),
    )
    torch.save(full.state_dict(), tmp_path / "net.pth")
    result = call(capsys, "import", tmp_path / "net.pth", "--as", name, "--out", tmp_path / "out")
    assert "21 classes" in result.out
    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.taxonomy.names[15] == "person"
    x = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(checkpoint.model.eval()(x).logits, full.eval()(x).logits)


def test_a_classifiers_file_fills_a_backbone(tmp_path: Path) -> None:
    classifier: Any = create_backbone("mobilenetv2", num_classes=1000).eval()
    torch.save(classifier.state_dict(), tmp_path / "mobilenet.pth")
    imported = import_model(tmp_path / "mobilenet.pth", "deeplabv3plus_mobilenetv2", 5)
    backbone: Any = imported.model.backbone
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        # The first layers, before strides become rates, are the classifier's to the last bit.
        assert torch.equal(backbone.features[:4](x), classifier.features[:4](x))
    assert imported.spec.num_classes == 5
    assert set(imported.report.dropped) >= {"classifier.1.weight", "classifier.1.bias"}
    assert "score.weight" in imported.report.fresh
    with pytest.raises(CheckpointError, match="missing"):
        import_model(tmp_path / "mobilenet.pth", "deeplabv3_resnet50")
    torch.save({**classifier.state_dict(), "features.x.weight": torch.zeros(1)}, tmp_path / "made_up.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected \(features\.x\.weight\)"):
        import_model(tmp_path / "made_up.pth", "deeplabv3plus_mobilenetv2", 5)
    with pytest.raises(ConfigError, match="no published weights"):
        import_model(tmp_path / "mobilenet.pth", "frrn_a")


def test_files_that_are_no_net_of_torchvisions(tmp_path: Path) -> None:
    name, path = "torchvision_fcn_resnet50", tmp_path / "a.pth"
    torch.save({"fc.weight": torch.zeros(10, 4)}, path)
    with pytest.raises(CheckpointError, match="without class scores"):
        import_model(path, name)
    torch.save({"classifier.4.bias": torch.zeros(())}, path)
    with pytest.raises(CheckpointError, match="without class scores"):
        import_model(path, name)
    torch.save({"classifier.4.bias": torch.zeros(4), "backbone.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"missing .*mis-shaped|mis-shaped"):
        import_model(path, name)
    with pytest.raises(CheckpointError, match="ends in"):
        import_model(path.rename(tmp_path / "a.caffemodel"), name)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_the_prefixes_of_pytorchs_wrappers_are_removed_and_reported(
    tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "torchvision_lraspp_mobilenet_v3_large"
    torch.manual_seed(0)
    state = create_model(name, 3).state_dict()
    torch.save({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "x.pth")
    result = call(capsys, "import", tmp_path / "x.pth", "--as", name, "--out", tmp_path / "out")
    assert result.code == 0, result
    for part in ("module.", "_orig_mod."):
        line = f"removed the prefix '{part}' of PyTorch's wrappers from {len(state)} names"
        assert (line in result.out) == (part in prefix)
    loaded = load_checkpoint(tmp_path / "out").model.state_dict()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in state.items())


def test_a_part_that_was_compiled_alone_is_read(tmp_path: Path) -> None:
    name = "torchvision_lraspp_mobilenet_v3_large"
    state = create_model(name, 3).state_dict()
    named = {key.replace("backbone.", "backbone._orig_mod.", 1): tensor for key, tensor in state.items()}
    torch.save(named, tmp_path / "x.pth")
    imported = import_model(tmp_path / "x.pth", name)
    num_backbone = sum(key.startswith("backbone.") for key in state)
    assert imported.report.stripped == {"_orig_mod.": num_backbone}
    torch.save({**state, **named}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="twice, with and without the prefix"):
        import_model(tmp_path / "x.pth", name)
