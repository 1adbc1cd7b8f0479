"""Learning rates against values worked out by hand, and one step of each optimizer against a few lines of numpy."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from pixelwise.config import Config, OptimizerConfig
from pixelwise.models import create_model
from pixelwise.nn.upsampling import Upscore
from pixelwise.recipes import recipe_file
from pixelwise.train.schedule import build_optimizer, lr_factor, set_lr

# (1 - step / 20000) ** 0.9: DeepLab's schedule at a quarter, a half, three quarters and the last step.
POLY = {0: 1.0, 5000: 0.771899, 10000: 0.535887, 15000: 0.287175, 19999: 0.000134609}


@pytest.mark.parametrize(("step", "factor"), POLY.items())
def test_poly(step: int, factor: float) -> None:
    assert lr_factor(step, 20000, OptimizerConfig(schedule="poly", power=0.9)) == pytest.approx(factor, rel=1e-4)


def test_cosine_and_constant() -> None:
    cosine = OptimizerConfig(schedule="cosine")
    quarter = math.sqrt(0.5)
    assert [lr_factor(s, 4, cosine) for s in range(4)] == pytest.approx([1, (1 + quarter) / 2, 0.5, (1 - quarter) / 2])
    assert {lr_factor(s, 9, OptimizerConfig(schedule="constant")) for s in range(9)} == {1.0}


def test_steps() -> None:
    """DeepLab v1: a tenth after every 2000 steps."""
    config = OptimizerConfig(schedule="step", step_every=2000, step_factor=0.1)
    factors = [lr_factor(s, 6000, config) for s in (0, 1999, 2000, 3999, 4000, 5999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_rises_evenly_and_then_falls_from_the_top() -> None:
    factors = [lr_factor(s, 12, OptimizerConfig(warmup_steps=4, power=1.0)) for s in range(12)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4:] == pytest.approx([1 - n / 8 for n in range(8)])


class Net(nn.Module):
    """One of each kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.upscore = Upscore(3, 4, 2, learned=True)


KINDS = {
    "conv.weight": "weight",
    "conv.bias": "bias",
    "norm.weight": "plain",
    "norm.bias": "plain",
    "upscore.weight": "plain",
}


def moved(name: str, x: np.ndarray, gradients: list[np.ndarray], config: OptimizerConfig) -> np.ndarray:
    """The published update rules in float64."""
    kind = KINDS[name]
    decay = config.weight_decay if kind == "weight" else 0.0
    rate = config.lr * (config.bias_lr_factor if kind == "bias" else 1.0)
    first, second = np.zeros_like(x), np.zeros_like(x)
    for step, g in enumerate(gradients, 1):
        if config.name == "sgd":
            first = config.momentum * first + g + decay * x
            x = x - rate * first
            continue
        x = x * (1 - rate * decay)
        first = config.momentum * first + (1 - config.momentum) * g
        second = 0.999 * second + 0.001 * g**2
        x = x - rate * (first / (1 - config.momentum**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return x


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_steps_equal_numpy(name: Literal["sgd", "adamw"]) -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(name=name, lr=0.05, momentum=0.9, weight_decay=0.1, bias_lr_factor=2.0)
    net = Net()
    assert set(KINDS) == {name for name, _ in net.named_parameters()}
    optimizer = build_optimizer(net, config)
    set_lr(optimizer, 1.0)
    before = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}
    gradients: dict[str, list[np.ndarray]] = {name: [] for name in KINDS}
    for _ in range(3):
        for key, parameter in net.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            gradients[key].append(parameter.grad.double().numpy())
        optimizer.step()
    for key, parameter in net.named_parameters():
        expected = moved(key, before[key], gradients[key], config)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-5, atol=1e-6, err_msg=key)


def test_rates_scale_each_group_and_frozen_weights_are_left_out() -> None:
    net = Net()
    net.conv.weight.requires_grad = False
    optimizer = build_optimizer(net, OptimizerConfig(lr=0.1, bias_lr_factor=2.0))
    set_lr(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert id(net.conv.weight) not in rates
    assert rates[id(net.conv.bias)] == pytest.approx(0.1)
    assert rates[id(net.norm.bias)] == pytest.approx(0.05)


def test_the_head_has_its_own_rate() -> None:
    net = Net()
    optimizer = build_optimizer(
        net, OptimizerConfig(lr=0.1, bias_lr_factor=2.0, head_lr_factor=10.0), head_modules=[net.conv]
    )
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(net.conv.weight)] == (pytest.approx(1.0), 0.0005)
    assert rates[id(net.conv.bias)] == (pytest.approx(2.0), 0.0)
    assert rates[id(net.norm.bias)] == (pytest.approx(0.1), 0.0)
    assert len(rates) == sum(1 for _ in net.parameters())


@pytest.mark.parametrize("name", ["deeplabv3plus_xception41", "deeplabv3plus_mobilenetv2"])
@pytest.mark.parametrize("decayed", [False, True])
def test_depthwise_kernels_are_decayed_only_if_asked(name: str, *, decayed: bool) -> None:
    """TensorFlow's DeepLab: `weights_regularizer=None` for depthwise kernels, in backbone, ASPP and decoder."""
    net = create_model(name, 5, tiny=True)
    optimizer = build_optimizer(net, OptimizerConfig(weight_decay=4e-5, decay_depthwise=decayed))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    convs = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    # A kernel per channel has one input plane: (C, 1, 3, 3).
    depthwise = [layer for layer in convs if layer.weight.shape[1:] == (1, 3, 3)]
    assert len(depthwise) >= 17
    assert {decay[id(layer.weight)] for layer in depthwise} == {4e-5 if decayed else 0.0}
    assert {decay[id(layer.weight)] for layer in convs if layer not in depthwise} == {4e-5}


def test_a_bias_of_a_depthwise_layer_stays_a_bias() -> None:
    layer = nn.Conv2d(4, 8, 3, groups=4)
    optimizer = build_optimizer(layer, OptimizerConfig(lr=0.1, bias_lr_factor=2.0, decay_depthwise=False))
    groups = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert layer.bias is not None
    assert groups[id(layer.weight)] == (pytest.approx(0.1), 0.0)
    assert groups[id(layer.bias)] == (pytest.approx(0.2), 0.0)


def test_the_recipe_of_deeplab_v3_plus_spares_depthwise_kernels() -> None:
    assert not Config.from_yaml(recipe_file("deeplabv3plus_xception65_voc")).optimizer.decay_depthwise
    assert OptimizerConfig().decay_depthwise
