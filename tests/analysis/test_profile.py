"""Costs against numbers by hand and those of the papers; receptive fields against the arithmetic of the layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelwise.analysis.model_table import measure_cost, read_table
from pixelwise.analysis.mult_adds import multiply_adds, on_meta
from pixelwise.analysis.profile import count_modules, measure_strides, profile_spec, with_speed
from pixelwise.analysis.receptive_field import receptive_field_extent, receptive_field_size, receptive_field_window
from pixelwise.commands.profile import profile as command
from pixelwise.core import LowResLogits, Taxonomy
from pixelwise.errors import CheckpointError, ConfigError, UnknownNameError
from pixelwise.models import MODELS, ModelSpec, SegmentationModel, create_model, list_models
from pixelwise.nn.upsampling import Bilinear
from pixelwise.weights.checkpoint import save_checkpoint


class TwoLayers(SegmentationModel):
    """A 3x3 convolution of stride 2, a rectifier, a 1x1 convolution: small enough to count by hand."""

    logits_stride = 2

    def __init__(self) -> None:
        super().__init__(3, 3, "torchvision")
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.score = nn.Conv2d(4, 3, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        return LowResLogits(self.score(self.backbone(self.preprocess(images))), Bilinear())


class WithProduct(TwoLayers):
    """As above, with a matrix product outside any module."""

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        low_res = super().forward_low_res(images)
        return low_res._replace(
            logits=torch.einsum("bkhw,kl->blhw", low_res.logits, torch.eye(3, device=images.device))
        )


class Chain(SegmentationModel):
    """Layers in a row, and scores enlarged bilinearly."""

    logits_stride = 1

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(2, 3, "torchvision")
        self.layers = nn.Sequential(*layers)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        return LowResLogits(self.layers(self.preprocess(images)), Bilinear())


def test_costs_of_two_layers_are_those_worked_out_by_hand() -> None:
    with on_meta():
        net = TwoLayers().eval()
    modules, largest = count_modules(net, torch.empty(1, 3, 8, 12, dtype=torch.uint8, device="meta"))
    # Feature maps are 4 x 6. Backbone: 4 * 3 * 9 weights, 4 biases, 8 of the norm, which keeps 4 means and 4 variances.
    assert [module.name for module in modules] == ["preprocess", "backbone", "score"]
    preprocess, backbone, score = modules
    assert (backbone.parameters, backbone.buffers) == (4 * 27 + 4 + 8, 8)
    assert (score.parameters, score.buffers) == (3 * 4 + 3, 0)
    assert (preprocess.parameters, preprocess.buffers) == (0, 6)
    assert (backbone.multiply_adds, score.multiply_adds) == (4 * 6 * 4 * 27, 4 * 6 * 3 * 4)
    # Convolution and norm output 96 numbers each; the rectifier works in place.
    assert (preprocess.activations, backbone.activations, score.activations) == (3 * 8 * 12, 2 * 96, 72)
    assert largest == 3 * 8 * 12
    assert measure_strides(net) == (2, 2)


def test_shortcuts_of_the_meta_device_change_no_count() -> None:
    """Norms and initialization are skipped there; with real values they run."""
    torch.manual_seed(0)
    real = create_model("deeplabv3plus_mobilenetv2", 5, tiny=True).eval()
    with on_meta():
        meta = create_model("deeplabv3plus_mobilenetv2", 5, tiny=True).eval()
    images = torch.zeros(1, 3, 65, 97)
    assert count_modules(real, images) == count_modules(meta, images.to("meta"))
    assert multiply_adds(lambda: real(images)) == multiply_adds(lambda: meta(images.to("meta"))) > 0
    with on_meta():
        outside = torch.empty(1000, device="cpu").normal_()
        normalized = F.batch_norm(outside.view(1000, 1), torch.zeros(1, device="cpu"), torch.ones(1, device="cpu"))
    assert float(outside.std()) == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(normalized.flatten(), outside, atol=1e-3, rtol=1e-3)


def test_products_outside_of_modules_count() -> None:
    modules, _ = count_modules(WithProduct().eval(), torch.zeros(1, 3, 8, 12, dtype=torch.uint8))
    assert (modules[-1].name, modules[-1].multiply_adds) == ("functions", 4 * 6 * 3 * 3)


def test_fcn_has_the_papers_numbers() -> None:
    result = profile_spec(ModelSpec("fcn32s_vgg16", 21), (500, 500))
    # FCN's parameters, and its multiply-adds at 500 x 500 with one bilinear kernel per class; receptive field 404,
    # stride 32.
    assert result.parameters == 134_346_581
    assert result.multiply_adds == 180_925_453_056
    assert result.feature_receptive_fields == {"fc7": 404}
    assert (result.logits_stride, result.coarsest_stride) == (32, 32)
    # A pixel between two positions of stride 32 sees the receptive fields of both.
    assert result.receptive_field == 404 + 32
    assert result.speed is None


def test_strides_of_the_logits_and_of_the_coarsest_map_differ_with_skips() -> None:
    with on_meta():
        assert measure_strides(create_model("fcn8s_vgg16", 5, tiny=True)) == (8, 32)
        assert measure_strides(create_model("compact", 5)) == (2, 16)


def test_every_branch_of_googlenet_counts() -> None:
    with on_meta():
        net = create_model("fcn32s_googlenet", 3, tiny=True)
    # 715 without the average pooling, by the arithmetic of the layers; and two positions of stride 32.
    assert receptive_field_size(net, 32) == 715 + 32


def window_by_nan(net: SegmentationModel, size: tuple[int, int], pixel: tuple[int, int]) -> tuple[int, ...]:
    """Set every input pixel to NaN in turn; return the window of those that make the output at `pixel` NaN."""
    reached = []
    with torch.no_grad():
        for row in range(size[0]):
            for column in range(size[1]):
                images = torch.zeros(1, 3, *size)
                images[..., row, column] = torch.nan
                if net(images).logits[0, :, pixel[0], pixel[1]].isnan().any():
                    reached.append((row, column))
    rows, columns = zip(*reached, strict=True)
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


# Not pixel 0: it mixes its second position with weight 0, which a NaN passes and a number does not.
@pytest.mark.parametrize("pixel", [(1, 1), (7, 9), (13, 15)])
def test_the_window_is_the_one_that_nan_in_every_pixel_finds(pixel: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()]
    net = Chain(layers).eval()
    assert tuple(receptive_field_window(net, (14, 16), pixel)) == window_by_nan(net, (14, 16), pixel)


def test_dead_units_and_lost_maxima_hide_nothing() -> None:
    net = Chain([nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=2, dilation=2)]).eval()
    for parameter in net.parameters():
        nn.init.constant_(parameter, -1)
    # 5 and 3 with dilation 2: 2 + 2 pixels to each side.
    assert receptive_field_extent(net, 64, [30]) == [(26, 35)]
    assert receptive_field_size(net, 1) == 9


def test_a_global_pooling_sees_the_whole_image() -> None:
    class Global(TwoLayers):
        def forward_low_res(self, images: Tensor) -> LowResLogits:
            low_res = super().forward_low_res(images)
            return low_res._replace(logits=low_res.logits + F.adaptive_avg_pool2d(low_res.logits, 1))

    assert receptive_field_size(Global().eval(), 1) is None


def test_speed_is_the_median_of_the_counted_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(np.cumsum([0, 9.0, 0, 0.001, 0, 0.005, 0, 0.002]))
    monkeypatch.setattr("pixelwise.analysis.profile.time.perf_counter", lambda: float(next(ticks)))
    model = create_model("compact", 3, tiny=True)
    speed = with_speed(profile_spec(model.spec, (16, 16)), model, num_runs=3).speed
    assert speed is not None
    assert speed.median_ms == pytest.approx(2)
    assert (speed.num_runs, speed.precision, speed.device) == (3, "float32", "cpu")
    assert speed.threads == torch.get_num_threads()


def test_the_command_prints_json_of_a_stored_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("compact", 4, tiny=True)
    save_checkpoint(tmp_path, model, Taxonomy(("a", "b", "c", "d")))
    assert command(str(tmp_path), size=(32, 48), json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["num_classes"], printed["size"]) == (4, [32, 48])
    assert printed["parameters"] == sum(p.numel() for p in model.parameters())
    assert printed["parameters"] == sum(module["parameters"] for module in printed["modules"])
    assert printed["speed"]["median_ms"] > 0


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("compact", size=(64, 64), num_classes=5, speed=False) == 0
    out = capsys.readouterr().out
    assert "compact, 5 classes, one image of 64 x 64 pixels" in out
    assert f"{sum(p.numel() for p in create_model('compact', 5).parameters()):,}" in out
    (stride,) = [line for line in out.splitlines() if line.startswith("stride ")]
    assert [word for word in stride.split() if word.isdigit()] == ["2", "16"]
    assert "speed" not in out


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="fcn8s_vgg: no such model; fix: did you mean fcn8s_vgg16"):
        command("fcn8s_vgg")
    with pytest.raises(ConfigError, match="size: must be >= 1 x 1 pixels, got 0 x 5"):
        command("compact", size=(0, 5))
    with pytest.raises(CheckpointError, match="no such file"):
        command(str(tmp_path))
    save_checkpoint(tmp_path, create_model("compact", 2, tiny=True), Taxonomy(("a", "b")))
    with pytest.raises(ConfigError, match=r"--num-classes: got 3, .* has 2"):
        command(str(tmp_path), num_classes=3)


# Deep backbones take seconds even on the meta device; their systems are counted on a smaller backbone too.
HEAVY = re.compile("resnet101|xception")


def names_with_marks(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] if HEAVY.search(name) else []) for name in names]


@pytest.mark.parametrize("name", names_with_marks(list_models()))
def test_every_network_can_be_counted(name: str) -> None:
    with on_meta():
        net = create_model(name, 3, tiny=True).eval()
    modules, largest = count_modules(net, torch.empty(1, net.in_channels, 64, 64, dtype=torch.uint8, device="meta"))
    assert sum(module.parameters for module in modules) == sum(p.numel() for p in net.parameters())
    assert sum(module.multiply_adds for module in modules) > 0
    assert largest > 0


# Image pixels per position of the coarsest feature map, by the papers. In the small squares of DeconvNet and
# hypercolumns that map is one position of fc6; the smallest of DeepLab v2's three images is half as large.
COARSEST_STRIDES = {
    "compact": 16,
    "deconvnet": 64,
    "deeplabv1_largefov_vgg16": 8,
    "deeplabv2_resnet101": 16,
    "deeplabv2_vgg16": 8,
    "deeplabv3_resnet50": 16,
    "deeplabv3plus_mobilenetv2": 16,
    "fcn8s_googlenet": 32,
    "fcn16s_alexnet": 32,
    "fcn32s_late_fusion_vgg16": 32,
    "frrn_a": 16,
    "frrn_b": 32,
    "hypercolumns_alexnet": 67,
    "hypercolumns_vgg16": 64,
    "pspnet_resnet50": 8,
    "torchvision_deeplabv3_mobilenet_v3_large": 16,
    "torchvision_lraspp_mobilenet_v3_large": 16,
    "torchvision_fcn_resnet50": 8,
    "unet": 16,
}


@pytest.mark.parametrize("name", names_with_marks(COARSEST_STRIDES))
def test_the_coarsest_stride_is_the_papers(name: str) -> None:
    with on_meta():
        assert measure_strides(create_model(name, 3, tiny=True).eval())[1] == COARSEST_STRIDES[name]


def test_the_table_of_costs_names_only_networks() -> None:
    assert set(read_table()) <= set(MODELS)


def wrong_rows(names: Sequence[str]) -> list[str]:
    table = read_table()
    return [name for name in names if name in table and measure_cost(name) != table[name]]


def test_rows_of_the_table_of_costs_are_right() -> None:
    """`python -m pixelwise.analysis.model_table` writes the table anew."""
    assert wrong_rows(["compact", "deeplabv1_largefov_vgg16", "unet"]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_row_of_the_table_of_costs_is_right() -> None:
    assert wrong_rows(list_models()) == []
