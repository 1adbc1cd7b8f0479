"""U-Net: the paper's counts and sizes, its layers written out, training with context, and the padded U-Net on every
backbone.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from helpers.papers import number
from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.analysis.mult_adds import num_parameters
from pixelwise.backbones import BACKBONES, list_backbones
from pixelwise.config import Config
from pixelwise.core import Batch
from pixelwise.data.transforms import Augment
from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.unet import UNet
from pixelwise.models.unet_padded import UNetPadded
from pixelwise.nn.geometry import coordinates, layers_of
from pixelwise.nn.reflect_pad import reflect_pad
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.module import TrainingModule
from pixelwise.train.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


def full(num_classes: int = 2, in_channels: int = 1) -> UNet:
    with torch.device("meta"):
        model = create_model("unet", num_classes, in_channels).eval()
    assert isinstance(model, UNet)
    return model


def tiny(**options: Any) -> UNet:
    torch.manual_seed(0)
    model = create_model("unet", 3, 1, tiny=True, **options).eval()
    assert isinstance(model, UNet)
    return model


def images(*size: int, channels: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (1, channels, *size), generator=torch.Generator().manual_seed(seed)).float()


def test_the_papers_sizes() -> None:
    model = full()
    assert list(model.forward_valid(torch.empty(1, 1, 572, 572, device="meta")).shape) == number("1->2", "output shape")
    assert num_parameters(model) == number("1->2 channels, base 64", "parameters")
    assert model.input_size(388) == 572, "a crop of 388 pixels is reflected to the paper's tile"


def test_valid_input_sizes() -> None:
    """Every pooling sees an even side exactly for n = 12 modulo 16 from 188 on; there the output has n - 184."""
    model = full()
    assert (model.context_px, model.tile_step) == (92, 16)
    for size in (*range(1, 24), 100, 101, 388, 389):
        side = model.input_size(size)
        assert side % 16 == 12
        assert side - 184 - 16 < size <= side - 184 or side == 188
        assert model.forward_valid(torch.empty(1, 1, side, 188, device="meta")).shape[-2:] == (side - 184, 4)


def test_context_is_that_of_the_layers() -> None:
    """The first logit lies 92 pixels inside the input, by the geometry of the longest chain of layers."""
    model = full()
    chain: list[nn.Module] = [model.down1]
    for level in (model.down2, model.down3, model.down4, model.bottom):
        chain += [nn.MaxPool2d(2), level]
    for i in (4, 3, 2, 1):
        chain += [model.get_submodule(f"upconv{i}"), model.get_submodule(f"up{i}")]
    assert int(coordinates(layers_of([*chain, model.score])).inverse()(0)) == model.context_px


def test_the_figure_written_out() -> None:
    model, x = tiny(), torch.randn(1, 1, 188, 204)
    state = dict(model.named_parameters())

    def twice(x: torch.Tensor, name: str) -> torch.Tensor:
        for place in (0, 2):
            x = functional.conv2d(x, state[f"{name}.{place}.weight"], state[f"{name}.{place}.bias"]).relu()
        return x

    with torch.no_grad():
        maps = [twice(x, "down1")]
        for name in ("down2", "down3", "down4", "bottom"):
            maps.append(twice(functional.max_pool2d(maps[-1], 2), name))
        y = maps[4]
        for level, crop in ((4, 4), (3, 16), (2, 40), (1, 88)):
            skip = maps[level - 1][..., crop:-crop, crop:-crop]
            weight, bias = state[f"upconv{level}.weight"], state[f"upconv{level}.bias"]
            up = functional.conv_transpose2d(y, weight, bias, stride=2)
            y = twice(torch.cat([skip, up], 1), f"up{level}")
        expected = functional.conv2d(y, state["score.weight"], state["score.bias"])
        torch.testing.assert_close(model.forward_valid(x), expected)


def test_the_release_has_a_wider_last_up_convolution_than_the_figure() -> None:
    """The authors' Caffe network: 31,100,354 parameters; 128 channels out of the last up-convolution, not 64."""
    model = full()
    assert num_parameters(model) == 31_030_658
    released = nn.ConvTranspose2d(128, 128, 2, 2), nn.Conv2d(64 + 128, 64, 3)
    figure = model.upconv1, model.up1[0]
    added, taken = (sum(map(num_parameters, layers)) for layers in (released, figure))
    assert 31_030_658 + added - taken == 31_100_354


def reflected_index(place: int, length: int) -> int:
    """Walk from pixel 0, turning round at both ends."""
    position, direction = 0, 1 if place >= 0 else -1
    for _ in range(abs(place)):
        if length > 1 and not 0 <= position + direction < length:
            direction = -direction
        position += direction if length > 1 else 0
    return position


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 12), st.integers(1, 20))
def test_reflections_walk_back_and_forth(height: int, width: int, before: int, side: int) -> None:
    x = torch.arange(height * width).view(1, 1, height, width)
    padded = reflect_pad(x, before, (side, side + 1))
    assert padded.shape == (1, 1, side, side + 1)
    for row, column in itertools.product(range(side), range(side + 1)):
        source = reflected_index(row - before, height), reflected_index(column - before, width)
        assert padded[0, 0, row, column] == x[0, 0, source[0], source[1]]


def test_reflected_context_is_numpys_reflection() -> None:
    model, image = tiny(), images(196, 100)
    reflected = np.pad(image[0, 0].numpy(), 92, mode="reflect")
    with torch.no_grad():
        whole = model.forward_valid(model.preprocess(torch.from_numpy(reflected)[None, None]))
        assert torch.equal(model(image).logits, whole)


def test_fresh_weights_are_normal_of_two_over_the_incoming_nodes() -> None:
    torch.manual_seed(0)
    model = create_model("unet", 2, 1, width_mult=0.5)
    assert isinstance(model, UNet)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            up = isinstance(layer, nn.ConvTranspose2d)
            nodes = layer.in_channels if up else layer.in_channels * layer.kernel_size[0] ** 2
            values = layer.weight.numel()
            assert float(layer.weight.detach().std()) == pytest.approx(
                math.sqrt(2 / nodes), rel=5 / math.sqrt(2 * values)
            )
            assert layer.bias is not None
            assert not layer.bias.any()
    assert math.sqrt(2 / 576) == pytest.approx(number("init", "std sqrt"))


def test_dropout_ends_the_contracting_path() -> None:
    """The last two levels lose half of their activations in training, nothing after them does."""
    model = tiny().train()
    seen: list[torch.Tensor] = []
    model.dropout.register_forward_hook(
        lambda m, inputs, output: seen.append((output == 0).float().mean() - (inputs[0] == 0).float().mean())
    )
    model.forward_valid(torch.randn(1, 1, 188, 188))
    assert len(seen) == 2
    model.eval()
    with torch.no_grad():
        x = torch.randn(1, 1, 188, 188)
        assert torch.equal(model.forward_valid(x), model.forward_valid(x))


def one_of_each_paper() -> list[Any]:
    """Every backbone; of a file with several sizes the first runs on each push."""
    files = [BACKBONES[name].module for name in list_backbones()]
    return [
        pytest.param(name, marks=[pytest.mark.slow] if files[i] in files[:i] else [])
        for i, name in enumerate(list_backbones())
    ]


@pytest.mark.parametrize("backbone", one_of_each_paper())
def test_the_padded_net_takes_every_backbone(backbone: str) -> None:
    torch.manual_seed(0)
    tiny = dict(BACKBONES[backbone].tiny)
    width = tiny.pop("width_mult", None)
    options = {"backbone": backbone, "backbone_options": tiny, "width_mult": width, "batch_norm": True}
    model = create_model("unet_padded", 3, 3, **options).train()
    assert isinstance(model, UNetPadded)
    logits = model(images(33, 70, channels=3)).logits
    assert logits.shape == (1, 3, 33, 70)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert model(images(1, 1, channels=3)).logits.shape == (1, 3, 1, 1), "one image of one pixel trains"
        # AlexNet's unpadded poolings leave a map that is too short for the image.
        assert model(images(64, 48, channels=3)).logits.shape == (1, 3, 64, 48)


def test_the_padded_net_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        counts = [num_parameters(create_model("unet_padded", k, c)) for k, c in ((2, 1), (2, 3), (21, 3))]
    assert counts == [number(f"{c}->{k} channels", "parameters") for k, c in ((2, 1), (2, 3), (21, 3))]


def test_the_decoder_of_the_padded_net_can_be_narrowed() -> None:
    model = create_model("unet_padded", 3, 3, backbone="resnet18", width_mult=0.25, decoder_channels=(32, 16, 8, 8, 4))
    assert isinstance(model, UNetPadded)
    assert [block.get_submodule("up").out_channels for block in model.blocks] == [32, 16, 8, 8, 4]
    with pytest.raises(ConfigError, match="resnet18 takes 5 blocks"):
        create_model("unet_padded", 3, 3, backbone="resnet18", width_mult=0.25, decoder_channels=(32, 16))


SMALL = {"name": "unet", "options": {"width_mult": 1 / 16, "dropout": 0.0}}
STILL = {"crop": [32, 48], "scale": [1.0, 1.0], "flip": 0.0}


def module_of(config: Config, model: UNet | None = None) -> TrainingModule:
    return TrainingModule(model or create_model("unet", 3, 3, tiny=True), config, 255)


def test_training_on_windows_with_everything_the_paper_has(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", size=(64, 96))
    augment = {**STILL, "tiled_crops": True, "context_px": 92, "elastic": 3.0, "rotate": 10.0, "brightness": 0.1}
    loss = {"border_weight": 10.0, "class_weights": "inverse"}
    config = tiny_config(
        data,
        model=SMALL,
        augment=augment,
        loss=loss,
        optimizer={"lr": 1e-3, "momentum": 0.99},
        train={"steps": 2, "validate_every": 2},
    )
    silence_lightning()
    scores = train(config, tmp_path / "run")
    assert scores is not None
    assert 0 <= scores.mean_iou <= 1
    train(config.updated({"train": {"steps": 3}}), tmp_path / "run", resume=True)


def test_crops_with_context_are_scored_as_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of a crop that brings its surroundings is that of the same pixels when the whole image is scored."""
    torch.manual_seed(0)
    model = create_model("unet", 3, 3, width_mult=1 / 16, dropout=0.0)
    assert isinstance(model, UNet)
    pixels = np.random.default_rng(0).integers(0, 256, (196, 180, 3), np.uint8)
    mask = np.random.default_rng(1).integers(0, 3, (196, 180), np.uint8)
    config = Config().updated({"augment": {"crop": [64, 80], "scale": [1.0, 1.0], "flip": 0.0, "context_px": 92}})
    # A crop whose corner lies where the poolings of the whole fall alike.
    crop, labels = Augment(config.augment, 255)(pixels, mask, np.random.default_rng(0), (96 + 40.0, 48 + 32.0))
    batch = Batch(torch.from_numpy(crop.transpose(2, 0, 1).copy())[None], torch.from_numpy(labels)[None].long(), ("p",))
    module = module_of(config, model)
    monkeypatch.setattr(module, "log_live", lambda name, value: None)
    with torch.no_grad():
        loss = module.training_step(batch, 0)
        logits = model(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]).logits[..., 48:112, 96:176]
    expected = functional.cross_entropy(logits, torch.from_numpy(mask[48:112, 96:176]).long()[None])
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "context"), [("unet", 91), ("compact", 92), ("unet_padded", 92)])
def test_context_that_a_network_does_not_take(name: str, context: int) -> None:
    config = Config().updated({"augment": {"context_px": context}, "model": {"name": name}})
    expected = 92 if name == "unet" else 0
    with pytest.raises(ConfigError) as caught:
        TrainingModule(create_model(name, 3, tiny=True), config, 255)
    what = f"--augment.context_px: {name} expects {expected}, got {context}"
    assert str(caught.value) == f"{what}; fix: set --augment.context_px {expected}"
