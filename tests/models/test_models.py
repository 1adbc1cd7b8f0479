"""The contract of every registered network, in its tiny size. Registering a network makes these tests run on it.

Networks of one builder differ in depth or field of view alone: one runs on every push, the others under `slow`.
"""

from __future__ import annotations

from functools import partial
from inspect import Parameter
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn

from pixelwise.core import LowResLogits, Output
from pixelwise.errors import ConfigError, UnknownNameError
from pixelwise.models import MODELS, create_model, list_models
from pixelwise.models.base import SegmentationModel
from pixelwise.models.fcn_fusion import TwoHeadFCN

NUM_CLASSES = 5
SIZES = [(1, 1), (7, 13), (64, 48), (31, 97), (2, 101)]


def default_channels(name: str) -> int:
    default = MODELS[name].options["in_channels"].default
    return default if isinstance(default, int) else 3


def tiny(name: str, in_channels: int = 0, **options: Any) -> SegmentationModel:
    """A test-sized net without zeros: a layer that starts at zero would hide whatever lies before it."""
    torch.manual_seed(0)
    model = create_model(name, NUM_CLASSES, in_channels or default_channels(name), tiny=True, **options)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.02, 0.3)
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def make_images(name: str, batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, default_channels(name), *size), dtype=torch.uint8, generator=generator)


def one_per_builder() -> list[ParameterSet]:
    # The shortest name of several is the shallower ResNet, or FCN-8s with all skips.
    chosen: dict[Any, str] = {}
    for name in sorted(list_models(), key=lambda name: (len(name), name)):
        build = MODELS[name].build
        chosen.setdefault(build.func if isinstance(build, partial) else build, name)
    return [pytest.param(n, marks=[] if n in chosen.values() else [pytest.mark.slow]) for n in list_models()]


every_model = pytest.mark.parametrize("name", one_per_builder())


@every_model
def test_any_size_in_same_size_out(name: str) -> None:
    model = tiny(name).eval()
    with torch.no_grad():
        for size in SIZES:
            logits = model(make_images(name, 1, size)).logits
            assert logits.shape == (1, NUM_CLASSES, *size)
            assert logits.isfinite().all()


@every_model
def test_train_and_eval_return_an_output(name: str) -> None:
    model, images = tiny(name), make_images(name, 2, (64, 48))
    for mode in (True, False):
        output = model.train(mode)(images)
        assert isinstance(output, Output)
        assert output.logits.shape == (2, NUM_CLASSES, 64, 48)
        assert all(aux.shape == output.logits.shape for aux in output.aux)
    assert output.aux == ()


@every_model
def test_one_image_trains(name: str) -> None:
    """Also if batch normalization sees one value per channel: after an image pooling, in fully connected layers."""
    model = tiny(name).train()
    loss = model(make_images(name, 1, (40, 56))).logits.square().mean()
    loss.backward()
    assert loss.isfinite()


@every_model
def test_gradients_reach_every_parameter(name: str) -> None:
    model, images = tiny(name).train(), make_images(name, 2, (64, 48))
    generator = torch.Generator().manual_seed(2)
    # A network with a second head shows it through `forward_low_res_all`, the others through `forward`.
    size = (images.shape[-2], images.shape[-1])
    heads = model.forward_low_res_all(images) if isinstance(model, TwoHeadFCN) else (model.forward_low_res(images),)
    outputs = [low_res.upsample_to(size) for low_res in heads]
    for logits in [t for output in outputs for t in (output.logits, *output.aux)]:
        weighted = (logits * torch.randn(logits.shape, generator=generator)).sum()
        torch.autograd.backward(weighted, retain_graph=True)
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad, parameter_name
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@every_model
def test_state_round_trip(name: str) -> None:
    model = tiny(name).eval()
    again = model.spec.build().eval()
    again.load_state_dict(model.state_dict())
    images = make_images(name, 1, (20, 33))
    with torch.no_grad():
        assert torch.equal(again(images).logits, model(images).logits)


@every_model
def test_a_fresh_net_and_its_state_are_finite(name: str) -> None:
    model = create_model(name, NUM_CLASSES, default_channels(name), tiny=True).eval()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model(make_images(name, 1, (9, 10))).logits.isfinite().all()


@every_model
def test_uint8_and_float_images_give_the_same_logits(name: str) -> None:
    model, images = tiny(name).eval(), make_images(name, 1, (24, 30))
    with torch.no_grad():
        assert torch.equal(model(images).logits, model(images.float()).logits)


@every_model
def test_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    model, images = tiny(name).eval(), make_images(name, 2, (24, 30))
    with torch.no_grad():
        together, alone = model(images).logits[1:], model(images[1:]).logits
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


@every_model
def test_the_interpolation_table_gives_the_logits(name: str) -> None:
    """Inference upsamples with the table, training with the layer: one map, two forms."""
    model, size = tiny(name).eval(), (37, 50)
    images = make_images(name, 1, size)
    with torch.no_grad():
        low_res, logits = model.forward_low_res(images), model(images).logits[0].double().numpy()
    assert isinstance(low_res, LowResLogits)
    scores = low_res.logits[0].double().numpy()
    (rows, row_weights), (columns, column_weights) = (
        low_res.upsample.interpolation_table(in_size, out_size)
        for in_size, out_size in zip(scores.shape[1:], size, strict=True)
    )
    mixed = np.zeros_like(logits)
    for i in range(2):
        for j in range(2):
            weight = row_weights[:, i, None].astype(float) * column_weights[None, :, j]
            mixed += weight * scores[:, rows[:, i, None], columns[None, :, j]]
    np.testing.assert_allclose(mixed, logits, atol=1e-4 * max(1, np.abs(logits).max()))


@every_model
def test_further_input_channels(name: str) -> None:
    model = tiny(name, in_channels=4).eval()
    assert model(torch.zeros(1, 4, 20, 30)).logits.shape == (1, NUM_CLASSES, 20, 30)
    with pytest.raises(ConfigError, match="expected 4 channels, got 2"):
        model(torch.zeros(1, 2, 20, 30))


@every_model
def test_the_builders_signature_is_the_list_of_options(name: str) -> None:
    entry = MODELS[name]
    assert list(entry.options)[:2] == ["num_classes", "in_channels"]
    for option, parameter in list(entry.options.items())[2:]:
        assert parameter.kind is Parameter.KEYWORD_ONLY, option
        assert parameter.default is not Parameter.empty, option
    assert entry.summary.endswith(".")
    with pytest.raises(ConfigError, match="has no option 'no_such_thing'"):
        create_model(name, no_such_thing=1)


@every_model
def test_each_option_given_at_its_default_changes_nothing(name: str) -> None:
    entry = MODELS[name]
    defaults = {o: p.default for o, p in list(entry.options.items())[2:] if o not in entry.tiny}
    plain, spelled = tiny(name).state_dict(), tiny(name, **defaults).state_dict()
    assert list(plain) == list(spelled)
    assert all(torch.equal(plain[key], spelled[key]) for key in plain)


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="fcn8s_vgg16"):
        create_model("fcn8_vgg16")
    with pytest.raises(ConfigError, match="got 0 and 3"):
        create_model("fcn8s_vgg16", 0, tiny=True)


@every_model
def test_the_stride_of_the_logits_is_declared(name: str) -> None:
    """Measured as the image pixels that one more row of logits takes; networks of one input size count as 1."""
    model = tiny(name).train()
    with torch.device("meta"), torch.no_grad():
        rows = [
            model.to("meta").forward_low_res(make_images(name, 2, (n, 64)).to("meta")).logits.shape[-2]
            for n in (128, 384)
        ]
    assert model.logits_stride == (1 if model.fixed_input_size else 256 // (rows[1] - rows[0]))
