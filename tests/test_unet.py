"""U-Net: the paper's counts and sizes, its layers written out, tiles against the whole, and its padded kin on every trunk."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers import number
from torch import nn
from torch.nn import functional

from pixelwise.backbones import BACKBONES, list_backbones
from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.unet import UNet
from pixelwise.models.unet_same import UNetSame
from pixelwise.nn.count import num_parameters
from pixelwise.nn.mirror import mirror


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
    assert list(model.valid(torch.empty(1, 1, 572, 572, device="meta")).shape) == number("1->2", "output shape")
    assert num_parameters(model) == number("1->2 channels, base 64", "parameters")
    assert model.input_side(388) == 572, "a crop of 388 pixels is mirrored to the paper's tile"


def test_which_sides_the_net_takes() -> None:
    """Every pooling sees an even side exactly for n = 12 modulo 16 from 188 on; there the output has n - 184."""
    model = full()
    assert (model.context, model.step) == (92, 16)
    for wanted in (*range(1, 24), 100, 101, 388, 389):
        side = model.input_side(wanted)
        assert side % 16 == 12
        assert side - 184 - 16 < wanted <= side - 184 or side == 188
        assert model.valid(torch.empty(1, 1, side, 188, device="meta")).shape[-2:] == (side - 184, 4)


def test_the_figure_written_out() -> None:
    model, x = tiny(), torch.randn(1, 1, 188, 204)
    state = dict(model.named_parameters())

    def twice(cells: torch.Tensor, name: str) -> torch.Tensor:
        for place in (0, 2):
            cells = functional.conv2d(cells, state[f"{name}.{place}.weight"], state[f"{name}.{place}.bias"]).relu()
        return cells

    with torch.no_grad():
        maps, cells = [], x
        for i in range(5):
            cells = twice(functional.max_pool2d(cells, 2) if i else cells, f"down.{i}")
            maps.append(cells)
        for i, crop in enumerate((4, 16, 40, 88)):
            skip = maps[3 - i][..., crop:-crop, crop:-crop]
            up = functional.conv_transpose2d(cells, state[f"up.{i}.weight"], state[f"up.{i}.bias"], stride=2)
            cells = twice(torch.cat([skip, up], 1), f"merge.{i}")
        expected = functional.conv2d(cells, state["score.weight"], state["score.bias"])
        torch.testing.assert_close(model.valid(x), expected)


def mirrored_index(place: int, length: int) -> int:
    """Walk from pixel 0, turning round at both ends."""
    position, direction = 0, 1 if place >= 0 else -1
    for _ in range(abs(place)):
        if length > 1 and not 0 <= position + direction < length:
            direction = -direction
        position += direction if length > 1 else 0
    return position


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 12), st.integers(1, 20))
def test_mirrors_are_walked_between(height: int, width: int, before: int, side: int) -> None:
    x = torch.arange(height * width).view(1, 1, height, width)
    mirrored = mirror(x, before, (side, side + 1))
    assert mirrored.shape == (1, 1, side, side + 1)
    for row, column in itertools.product(range(side), range(side + 1)):
        source = mirrored_index(row - before, height), mirrored_index(column - before, width)
        assert mirrored[0, 0, row, column] == x[0, 0, source[0], source[1]]


def test_mirrored_context_is_numpys_reflection() -> None:
    model, picture = tiny(), images(196, 100)
    reflected = np.pad(picture[0, 0].numpy(), 92, mode="reflect")
    with torch.no_grad():
        whole = model.valid(model.preprocess(torch.from_numpy(reflected)[None, None]))
        assert torch.equal(model(picture).logits, whole)


@pytest.mark.parametrize("tile", [20, 36, 68, 1044])
@pytest.mark.parametrize("size", [(1, 1), (52, 53), (53, 20), (100, 70), (36, 37)])
def test_tiles_equal_the_whole(tile: int, size: tuple[int, int]) -> None:
    whole, tiled, picture = tiny(), tiny(tile=tile), images(*size)
    with torch.no_grad():
        torch.testing.assert_close(tiled(picture).logits, whole(picture).logits, atol=1e-4, rtol=1e-4)


def test_a_pixel_of_a_tile_depends_on_its_surroundings_alone() -> None:
    """Pieces cut with 92 pixels of the true picture around them, at a step of the poolings, give the whole's scores."""
    model, picture = tiny(), images(320, 280)
    with torch.no_grad():
        whole = model(picture).logits
        for top, left in ((96, 112), (112, 96)):
            piece = picture[..., top - 92 : top + 100 + 92, left - 92 : left + 68 + 92]
            inner = model.inner(piece).output().logits
            torch.testing.assert_close(inner, whole[..., top : top + 100, left : left + 68], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tile", [-4, 4, 16, 19, 388 + 8, 1])
def test_tiles_that_the_net_cannot_score(tile: int) -> None:
    with pytest.raises(ConfigError, match=r"allowed are 0 and 20 \+ 16 k; fix: take"):
        tiny(tile=tile)


def test_fresh_weights_are_normal_of_two_over_the_incoming_nodes() -> None:
    torch.manual_seed(0)
    model = create_model("unet", 2, 1, width=0.5)
    assert isinstance(model, UNet)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            up = isinstance(layer, nn.ConvTranspose2d)
            nodes = layer.in_channels if up else layer.in_channels * layer.kernel_size[0] ** 2
            values = layer.weight.numel()
            assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / nodes), rel=5 / math.sqrt(2 * values))
            assert layer.bias is not None
            assert not layer.bias.any()
    assert math.sqrt(2 / 576) == pytest.approx(number("init", "std sqrt"))


def test_dropout_ends_the_contracting_path() -> None:
    """The last two stages' maps, which lose half of their cells in training and nothing later."""
    model = tiny().train()
    seen: list[torch.Tensor] = []
    model.dropout.register_forward_hook(
        lambda m, inputs, output: seen.append((output == 0).float().mean() - (inputs[0] == 0).float().mean())
    )
    model.valid(torch.randn(1, 1, 188, 188))
    assert len(seen) == 2
    model.eval()
    with torch.no_grad():
        x = torch.randn(1, 1, 188, 188)
        assert torch.equal(model.valid(x), model.valid(x))


def one_of_each_paper() -> list[Any]:
    """Every trunk; of a file with several sizes the first runs on each push."""
    files = [BACKBONES[name].build.__module__ for name in list_backbones()]
    return [
        pytest.param(name, marks=[pytest.mark.slow] if files[i] in files[:i] else []) for i, name in enumerate(list_backbones())
    ]


@pytest.mark.parametrize("trunk", one_of_each_paper())
def test_the_padded_kin_takes_every_trunk(trunk: str) -> None:
    torch.manual_seed(0)
    width = BACKBONES[trunk].tiny["width"]
    model = create_model("unet_same", 3, 3, trunk=trunk, width=width, batch_norm=True).train()
    assert isinstance(model, UNetSame)
    logits = model(images(33, 70, channels=3)).logits
    assert logits.shape == (1, 3, 33, 70)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert model(images(1, 1, channels=3)).logits.shape == (1, 3, 1, 1), "one picture of one pixel trains"


def test_the_padded_net_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        counts = [num_parameters(create_model("unet_same", k, c)) for k, c in ((2, 1), (2, 3), (21, 3))]
    assert counts == [number(f"{c}->{k} channels", "parameters") for k, c in ((2, 1), (2, 3), (21, 3))]


def test_stages_of_the_padded_net_can_be_narrowed() -> None:
    model = create_model("unet_same", 3, 3, trunk="resnet18", width=0.25, channels=(32, 16, 8, 8, 4))
    assert isinstance(model, UNetSame)
    assert [stage.up.out_channels for stage in model.stages] == [32, 16, 8, 8, 4]  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="resnet18 has 5 stages"):
        create_model("unet_same", 3, 3, trunk="resnet18", width=0.25, channels=(32, 16))
