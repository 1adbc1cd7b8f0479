"""DeconvNet and FRRN: their units written out, sizes that do not fit, unpooling by switches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pixelwise.errors import ConfigError
from pixelwise.models import create_model
from pixelwise.models.deconvnet import DeconvNet
from pixelwise.models.frrn import FRRN, FRRU, RU


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


def test_frrn_upsamples_the_pooling_stream_bilinearly() -> None:
    """The paper's figure 1: repetition in the units, interpolation between the stages."""
    model, seen = frrn().eval(), []
    (first_up, *_), (*_, last_down) = model.up.children(), model.down.children()
    first, *_ = first_up.children()
    *_, last = last_down.children()
    first.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    last.register_forward_hook(lambda m, i, output: seen.append(output[0]))
    with torch.no_grad():
        model(images(64, 64))
    before, after = seen
    middle = before[..., 1:3].mean(-1)
    left_of_the_border = after[..., 3]
    # Between the second and third position lie pixels 3 and 4; their mean is that of the two.
    torch.testing.assert_close(
        after[..., ::2, 3:5].mean(-1) + after[..., 1::2, 3:5].mean(-1), 2 * smoothed(middle), atol=1e-4, rtol=1e-3
    )
    assert not torch.equal(left_of_the_border, after[..., 2])


def smoothed(rows: torch.Tensor) -> torch.Tensor:
    """The mean of the two pixels that bilinear doubling makes of each row: 1/8 of the neighbors, 3/4 of itself."""
    padded = torch.cat([rows[..., :1], rows, rows[..., -1:]], -1)
    return (padded[..., :-2] + 6 * rows + padded[..., 2:]) / 8


def test_deconvnet_resizes_an_image_to_its_square_and_the_logits_back() -> None:
    model, x = deconvnet().eval(), images(50, 90)
    square = functional.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False)
    with torch.no_grad():
        scores = model.forward_low_res(square).logits
        back = functional.interpolate(scores, size=(50, 90), mode="bilinear", align_corners=False)
        # Normalizing is linear: before or after the resizing is the same.
        torch.testing.assert_close(model(x).logits, back, atol=1e-3, rtol=1e-3)
    assert model.fc6(torch.zeros(1, 16, 2, 2)).shape[-2:] == (1, 1)
