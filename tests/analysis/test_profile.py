"""Counts against numbers worked out by hand and those of the paper; fields against the arithmetic of the layers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixelwise.analysis.profile import count_parts, profile_spec, strides, with_speed
from pixelwise.analysis.receptive_field import receptive_field_extent, receptive_field_size, receptive_field_window
from pixelwise.commands.profile import profile as command
from pixelwise.core import LowResLogits, Taxonomy
from pixelwise.errors import CheckpointError, ConfigError, UnknownNameError
from pixelwise.models import MODELS, ModelSpec, create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.nn.upsampling import Bilinear
from pixelwise.weights.checkpoint import save_checkpoint


class TwoLayers(SegmentationModel):
    """A 3x3 convolution of stride 2, a rectifier, a 1x1 convolution: every number fits on a page."""

    def __init__(self) -> None:
        super().__init__(3, 3, "torchvision")
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.score = nn.Conv2d(4, 3, 1)

    def forward_low_res(self, images):
        return LowResLogits(self.score(self.backbone(self.preprocess(images))), Bilinear())


def test_counts_of_two_layers_are_those_worked_out_by_hand():
    with torch.device("meta"):
        net = TwoLayers().eval()
    parts, largest = count_parts(net, torch.empty(1, 3, 8, 12, dtype=torch.uint8, device="meta"))
    # Maps are 4 x 6. Backbone: 4 * 3 * 9 weights, 4 biases, 8 of the norm; the norm keeps 4 means and 4 variances.
    assert [p.name for p in parts] == ["preprocess", "backbone", "score"]
    pixels, backbone, score = parts
    assert (backbone.parameters, backbone.buffers) == (4 * 27 + 4 + 8, 8)
    assert (score.parameters, score.buffers) == (3 * 4 + 3, 0)
    assert (pixels.parameters, pixels.buffers) == (0, 6)
    assert (backbone.multiply_adds, score.multiply_adds) == (4 * 6 * 4 * 27, 4 * 6 * 3 * 4)
    # Convolution and norm put out 96 numbers each; the rectifier works in place.
    assert (pixels.activations, backbone.activations, score.activations) == (3 * 8 * 12, 2 * 96, 72)
    assert largest == 3 * 8 * 12
    assert strides(net) == (2, 2)


def test_fcn_has_the_papers_numbers():
    result = profile_spec(ModelSpec("fcn32s_vgg16", 21), (500, 500))
    # Source: FCN's parameter table and multiply-adds at 500 x 500 with one bilinear kernel a class; field 404, stride 32.
    assert result.parameters == 134_346_581
    assert result.multiply_adds == 180_925_453_056
    assert result.map_fields == {"fr": 404}
    assert (result.score_stride, result.coarsest_stride) == (32, 32)
    # A pixel between two cells of stride 32 sees both fields.
    assert result.receptive_field == 404 + 32
    assert result.speed is None


def test_strides_of_scores_and_of_the_coarsest_map_differ_with_skips():
    with torch.device("meta"):
        assert strides(create_model("fcn8s_vgg16", 5, tiny=True)) == (8, 32)
        assert strides(create_model("compact", 5)) == (2, 16)


def test_googlenets_branches_all_count():
    with torch.device("meta"):
        net = create_model("fcn32s_googlenet", 3, tiny=True)
    # 715 without the average pool, by the layers' arithmetic; and two cells of stride 32.
    assert receptive_field_size(net, 512, [243, 250]) == 715 + 32


class Chain(SegmentationModel):
    """Convolutions and a pooling, scores at full size by the nearest cell."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__(2, 3, "torchvision")
        self.layers = nn.Sequential(*layers)

    def forward_low_res(self, images):
        return LowResLogits(self.layers(self.preprocess(images)), Bilinear())


def brute_window(net: SegmentationModel, size: tuple[int, int], pixel: tuple[int, int]) -> tuple[int, ...]:
    """Every pixel in turn is made NaN: the rows and columns of those that the output at `pixel` hears of."""
    heard = []
    with torch.no_grad():
        for row in range(size[0]):
            for column in range(size[1]):
                images = torch.zeros(1, 3, *size)
                images[..., row, column] = torch.nan
                if net(images).logits[0, :, pixel[0], pixel[1]].isnan().any():
                    heard.append((row, column))
    rows, columns = zip(*heard, strict=True)
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


# Not pixel 0: it mixes its second cell with weight 0, which a NaN passes and a number does not.
@pytest.mark.parametrize("pixel", [(1, 1), (7, 9), (13, 15)])
def test_window_is_the_one_that_nan_in_every_pixel_finds(pixel):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()]
    net = Chain(layers).eval()
    assert tuple(receptive_field_window(net, (14, 16), pixel)) == brute_window(net, (14, 16), pixel)


def test_dead_units_and_lost_maxima_hide_nothing():
    net = Chain([nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=2, dilation=2)]).eval()
    for parameter in net.parameters():
        nn.init.constant_(parameter, -1)
    # 5 and 3 with dilation 2: 2 + 2 pixels to each side.
    assert receptive_field_extent(net, 64, [30]) == [(26, 35)]
    assert receptive_field_size(net, 64, [30]) == 9


def test_global_pooling_sees_the_whole_image():
    class Global(TwoLayers):
        def forward_low_res(self, images):
            low_res = super().forward_low_res(images)
            return low_res._replace(logits=low_res.logits + F.adaptive_avg_pool2d(low_res.logits, 1))

    assert receptive_field_size(Global().eval(), 64, [30]) is None


def test_speed_is_the_median_of_the_counted_runs(monkeypatch):
    ticks = iter(np.cumsum([0, 9.0, 0, 0.001, 0, 0.005, 0, 0.002]))
    monkeypatch.setattr("pixelwise.analysis.profile.time.perf_counter", lambda: float(next(ticks)))
    model = create_model("compact", 3, tiny=True)
    speed = with_speed(profile_spec(model.spec, (16, 16)), model, num_runs=3).speed
    assert speed.median_ms == pytest.approx(2)
    assert (speed.num_runs, speed.precision, speed.device) == (3, "float32", "cpu")
    assert speed.threads == torch.get_num_threads()


def test_command_prints_json_of_a_stored_network(tmp_path, capsys):
    save_checkpoint(tmp_path, create_model("compact", 4, tiny=True), Taxonomy(("a", "b", "c", "d")))
    assert command(str(tmp_path), size=(32, 48), json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["num_classes"], told["size"]) == (4, [32, 48])
    assert told["parameters"] == sum(p.numel() for p in create_model("compact", 4, tiny=True).parameters())
    assert told["speed"]["median_ms"] > 0


def test_command_prints_a_table(capsys):
    assert command("compact", size=(64, 64), num_classes=5, speed=False) == 0
    out = capsys.readouterr().out
    assert "compact, 5 classes, one image of 64 x 64 pixels" in out
    assert f"{sum(p.numel() for p in create_model('compact', 5).parameters()):,}" in out
    assert "stride              2 of the scores, 16 of the coarsest map" in out
    assert "speed" not in out


def test_refusals_are_one_line(tmp_path):
    with pytest.raises(UnknownNameError, match="fcn8s_vgg: no such model; fix: did you mean fcn8s_vgg16"):
        command("fcn8s_vgg")
    with pytest.raises(ConfigError, match="size: got 0x5"):
        command("compact", size=(0, 5))
    with pytest.raises(CheckpointError, match="no such file"):
        command(str(tmp_path))
    save_checkpoint(tmp_path, create_model("compact", 2, tiny=True), Taxonomy(("a", "b")))
    with pytest.raises(ConfigError, match=r"--num-classes: got 3, .* has 2"):
        command(str(tmp_path), num_classes=3)


# Pixels per cell of the coarsest map, by the papers; one cell of fc6 in the tiny squares of DeconvNet and hypercolumns;
# the smallest of DeepLab v2's three images is half as large.
COARSEST = {
    "compact": 16,
    "deconvnet": 64,
    "deeplabv1": 8,
    "deeplabv2_resnet101": 16,
    "deeplabv2_vgg16": 8,
    "deeplabv3": 16,
    "fcn": 32,
    "late_fusion": 32,
    "frrn_a": 16,
    "frrn_b": 32,
    "hypercolumns_alexnet": 67,
    "hypercolumns_vgg16": 64,
    "pspnet": 8,
    "torchvision_deeplabv3_mobilenet": 16,
    "torchvision_lraspp": 16,
    "torchvision": 8,
    "unet": 16,
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_can_be_counted(name):
    with torch.device("meta"):
        net = create_model(name, 3, tiny=True).eval()
    parts, _ = count_parts(net, torch.empty(1, net.in_channels, 64, 64, dtype=torch.uint8, device="meta"))
    assert sum(part.parameters for part in parts) == sum(p.numel() for p in net.parameters())
    assert strides(net)[1] == next(stride for prefix, stride in COARSEST.items() if name.startswith(prefix))
