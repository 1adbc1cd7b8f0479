"""DeconvNet and FRRN: their units written out, sizes that do not fit, unpooling by switches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.deconvnet import DeconvNet
from pixelwise.models.frrn import FRRN, FRRU, RU, upsample_by_two


def frrn(name: str = "frrn_a") -> FRRN:
    torch.manual_seed(0)
    model = create_model(name, 5, tiny=True)
    assert isinstance(model, FRRN)
    return model


def deconvnet(**options: int) -> DeconvNet:
    torch.manual_seed(0)
    model = create_model("deconvnet", 5, tiny=True, **options)
    assert isinstance(model, DeconvNet)
    return model


def images(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(1)).float()


def plain_unit(layers: nn.Module, x: torch.Tensor) -> torch.Tensor:
    conv, norm = list(layers.children())[:2]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is None
    normed: torch.Tensor = norm(functional.conv2d(x, conv.weight, padding=1))
    return normed.relu()


def test_a_unit_of_two_streams_written_out() -> None:
    """Pooled by maxima, answered by a bare 1x1 convolution, upsampled by repetition."""
    torch.manual_seed(0)
    unit, y, z = FRRU(3, 6, residual_channels=4, stride=4).eval(), torch.randn(2, 3, 5, 7), torch.randn(2, 4, 20, 28)
    with torch.no_grad():
        new_y, new_z = unit(y, z)
        pooled = z.unfold(2, 4, 4).unfold(3, 4, 4).amax((4, 5))
        expected = plain_unit(unit.conv2, plain_unit(unit.conv1, torch.cat([y, pooled], 1)))
        torch.testing.assert_close(new_y, expected)
        assert unit.to_residual.bias is not None
        answer = torch.einsum("oc,bchw->bohw", unit.to_residual.weight[:, :, 0, 0], expected)
        answer = answer + unit.to_residual.bias[:, None, None]
        torch.testing.assert_close(
            new_z - z, answer.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-5, rtol=1e-4
        )


def test_a_residual_unit_has_no_relu_after_the_sum() -> None:
    torch.manual_seed(0)
    unit, x = RU(3, 3).eval(), torch.full((1, 3, 6, 6), -5.0)
    assert float(unit(x).detach().min()) < -1


@pytest.mark.parametrize(("name", "multiple"), [("frrn_a", 16), ("frrn_b", 32)])
def test_frrn_meets_other_sizes_by_repeating_the_border(name: str, multiple: int) -> None:
    model = frrn(name).eval()
    x = images(multiple + 3, 2 * multiple - 5)
    padded = functional.pad(x, (0, 5, 0, multiple - 3), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(model(x).logits, model(padded).logits[..., : multiple + 3, : 2 * multiple - 5])


def test_frrn_subsamples_images_and_upsamples_logits_itself() -> None:
    plain = frrn().eval().double()
    subsampling = create_model("frrn_a", 5, tiny=True, subsample=4).eval().double()
    subsampling.load_state_dict(plain.state_dict())
    x = images(128, 192).double()
    with torch.no_grad():
        small = plain(functional.interpolate(x, scale_factor=0.25, mode="area")).logits
        torch.testing.assert_close(
            subsampling(x).logits, functional.interpolate(small, scale_factor=4.0, mode="bilinear", align_corners=False)
        )
        assert subsampling(images(35, 50)).logits.shape[-2:] == (35, 50)
    with pytest.raises(ConfigError, match="subsample"):
        create_model("frrn_b", 5, subsample=0)


def test_deconvnet_unpools_to_the_places_of_the_maxima() -> None:
    """All other positions of an unpooled map are zero."""
    model = deconvnet().eval()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for level in range(1, 6):
        block, mirror = model.get_submodule(f"conv{level}"), model.get_submodule(f"deconv{level}")
        maps: list[torch.Tensor] = []
        block.register_forward_hook(lambda m, inputs, output, maps=maps: maps.append(output))
        mirror.register_forward_pre_hook(lambda m, inputs, maps=maps: seen.append((maps[0], inputs[0])))
    with torch.no_grad():
        model(images(64, 64))
    assert len(seen) == 5
    for before, unpooled in seen:
        assert before.shape[-2:] == unpooled.shape[-2:]
        height, width = before.shape[-2:]
        places = before.view(1, -1, height // 2, 2, width // 2, 2).permute(0, 1, 2, 4, 3, 5).flatten(4).argmax(4)
        windows = unpooled.view(1, -1, height // 2, 2, width // 2, 2).permute(0, 1, 2, 4, 3, 5).flatten(4)
        others = windows.scatter(4, places[..., None], 0)
        assert not others.any()


@pytest.mark.parametrize("input_size", [0, 16, 100])
def test_deconvnet_takes_squares_that_the_poolings_halve(input_size: int) -> None:
    with pytest.raises(ConfigError, match=f"must be a multiple of 32, got {input_size}"):
        deconvnet(input_size=input_size)


def by_theano(y: np.ndarray) -> np.ndarray:
    """Theano's `bilinear_upsampling` by 2, written out: repeated borders, each position spread by [0.5, 1, 0.5]."""
    for axis in (-2, -1):
        size = y.shape[axis]
        bordered = np.moveaxis(
            np.pad(y, [(1, 1) if a == axis % y.ndim else (0, 0) for a in range(y.ndim)], "edge"), axis, 0
        )
        spread = np.zeros((2 * (size + 2) + 1, *bordered.shape[1:]))
        for i, values in enumerate(bordered):
            for tap, share in enumerate((0.5, 1, 0.5)):
                spread[2 * i + tap] += share * values
        # Theano crops 3 = 2 * 2 - (2 - 1) // 2 - 1 entries at the start.
        y = np.moveaxis(spread[3 : 3 + 2 * size], 0, axis)
    return y


def test_frrn_upsamples_as_the_authors_theano() -> None:
    row = torch.arange(6.0).view(1, 1, 1, 6)
    expected = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5]
    assert upsample_by_two(row)[0, 0].tolist() == [expected, expected]
    assert upsample_by_two(row.mT)[0, 0].T.tolist() == [expected, expected]
    y = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    np.testing.assert_allclose(upsample_by_two(torch.from_numpy(y)).numpy(), by_theano(y), atol=1e-12)


@pytest.mark.parametrize("name", ["frrn_a", "frrn_b"])
def test_frrn_enlarges_between_all_stages_alike(name: str) -> None:
    """Each stage on the way up reads Theano's enlargement of the stage before; so do the last units."""
    model = frrn(name).double().eval()
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []
    last_units = [model.down[-1][-1], *(stage[-1] for stage in model.up)]  # type: ignore[index]
    for unit in last_units:
        unit.register_forward_hook(lambda m, i, output: before.append(output[0]))
    for unit in (*(stage[0] for stage in model.up), model.last_units):  # type: ignore[index]
        unit.register_forward_pre_hook(lambda m, inputs: after.append(inputs[0]))
    with torch.no_grad():
        model(images(64, 96))
    assert len(before) == len(after) == (4 if name == "frrn_a" else 5)
    for small, large in zip(before, after, strict=True):
        np.testing.assert_allclose(large[:, : small.shape[1]].numpy(), by_theano(small.numpy()), atol=1e-9)


def test_norms_of_frrn_have_the_eps_of_lasagne() -> None:
    assert {layer.eps for layer in frrn().modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-4}


def test_deconvnet_resizes_an_image_to_its_square_and_the_logits_back() -> None:
    model, x = deconvnet().eval(), images(50, 90)
    square = functional.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False)
    with torch.no_grad():
        scores = model.forward_low_res(square).logits
        back = functional.interpolate(scores, size=(50, 90), mode="bilinear", align_corners=False)
        # Normalizing is linear: before or after the resizing is the same.
        torch.testing.assert_close(model(x).logits, back, atol=1e-3, rtol=1e-3)
    assert model.fc6(torch.zeros(1, 16, 2, 2)).shape[-2:] == (1, 1)
