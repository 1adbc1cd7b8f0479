"""Training from a pretrained backbone: a learning rate per part, frozen strides, frozen norm statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.tiny_data import TINY_COMPACT, tiny_config, write_dataset
from pixelwise.backbones import create_backbone
from pixelwise.config import Config
from pixelwise.data import open_dataset
from pixelwise.errors import ConfigError
from pixelwise.models import MODELS, create_model
from pixelwise.train.build import build_model
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.module import TrainingModule
from pixelwise.train.run import train
from pixelwise.train.state import read_state
from pixelwise.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")

# Backbone, options, names of the layers from the image to the map of stride 4: torchvision's names.
TO_STRIDE_4 = [
    ("compact", TINY_COMPACT["backbone_options"], ("stem", "stride4")),
    ("mobilenetv2", {"width_mult": 0.1}, tuple(f"features.{i}" for i in range(4))),
    ("efficientnet_b0", {"width_mult": 0.1}, tuple(f"features.{i}" for i in range(3))),
    ("resnet18", {"width_mult": 1 / 16}, ("conv1", "bn1", "layer1")),
]


@pytest.fixture(autouse=True)
def quiet() -> None:
    silence_lightning()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def on_backbone(name: str, options: dict[str, Any]) -> dict[str, Any]:
    small = {"atrous_rates": [2], "aspp_channels": 4, "decoder_channels": [8, 6]}
    return {"name": "compact", "options": {"backbone": name, "backbone_options": options, **small}}


def moved_by(config: Config, folder: Path) -> set[str]:
    """Return the state names that a run changes, without counters."""
    torch.manual_seed(config.train.seed)
    before = build_model(config.model, open_dataset(config.data.path).taxonomy).state_dict()
    train(config, folder)
    after = load_checkpoint(folder / "checkpoints" / "last").model.state_dict()
    names = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    return {name for name in names if not name.endswith("num_batches_tracked")}


def module_of(data: Path, **sections: dict[str, Any]) -> TrainingModule:
    config = tiny_config(data, **sections)
    taxonomy = open_dataset(data).taxonomy
    return TrainingModule(build_model(config.model, taxonomy), config, taxonomy.ignore_id)


def test_each_part_has_its_own_learning_rate(data: Path) -> None:
    factors = {"lr": 0.1, "backbone_lr_factor": 0.3, "head_lr_factor": 10.0, "bias_lr_factor": 2.0}
    module = module_of(data, optimizer=factors)
    rates = {id(p): group["base_lr"] for group in module.optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in module.model.named_parameters()}
    assert len(rates) == len(found)
    for name, rate in found.items():
        part = name.partition(".")[0]
        expected = {"backbone": 0.03, "score": 1.0}.get(part, 0.1)
        # Norms have a bias too, which is not one of the recipes' biases.
        is_bias = name in ("score.bias", "fusions.0.reduce.bias", "fusions.1.reduce.bias", "fusions.2.reduce.bias")
        assert rate == pytest.approx(expected * (2 if is_bias else 1)), name
    assert sum(name.startswith("backbone.") for name in found) > 10


@pytest.mark.parametrize(("name", "options", "frozen"), TO_STRIDE_4)
def test_a_frozen_stride_stands_still(
    name: str, options: dict[str, Any], frozen: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    model = {**on_backbone(name, options), "freeze_stride": 4}
    # Decay alone would move a weight whose gradient is zero.
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}
    config = tiny_config(data, model=model, optimizer=optimizer, train={"steps": 1})
    moved = moved_by(config, tmp_path / "run")
    prefixes = tuple(f"backbone.{layer}." for layer in frozen)
    counters = "num_batches_tracked"
    names = {key for key in build_model(config.model, open_dataset(data).taxonomy).state_dict() if counters not in key}
    assert not {key for key in moved if key.startswith(prefixes)}
    assert {key for key in names if not key.startswith(prefixes)} == moved


def test_frozen_layers_keep_no_activations_and_skip_no_block(data: Path) -> None:
    """Autograd records nothing before the first learning layer, and stochastic depth is off there."""
    model = {**on_backbone("efficientnet_b0", {"width_mult": 0.1}), "freeze_stride": 8}
    module = module_of(data, model=model)
    outputs: dict[str, list[Tensor]] = {"frozen": [], "learning": []}
    for kind, index in (("frozen", 3), ("learning", 4)):
        layer = module.model.get_submodule(f"backbone.features.{index}")
        layer.register_forward_hook(lambda _, __, output, kind=kind: outputs[kind].append(output))
    images = torch.randint(0, 256, (4, 3, 64, 64)).float()
    for seed in range(8):
        module.on_train_batch_start(None, 0)  # type: ignore[arg-type]
        torch.manual_seed(seed)
        module.forward_model(images)
    assert not any(output.requires_grad for output in outputs["frozen"])
    assert all(output.requires_grad for output in outputs["learning"])
    assert all(torch.equal(output, outputs["frozen"][0]) for output in outputs["frozen"])
    assert not all(torch.equal(output, outputs["learning"][0]) for output in outputs["learning"])


@pytest.mark.parametrize(
    "name", ["compact", "unet", "vgg11_bn", "googlenet", "densenet121", "xception41", "se_resnet50"]
)
def test_every_backbone_says_what_lies_before_a_stride(name: str) -> None:
    """Found by gradients: exactly the parameters that the last map within the stride depends on."""
    backbone = create_backbone(name, tiny=True)
    maps = backbone(torch.rand(2, 3, 64, 64))
    within = [i for i, stride in enumerate(backbone.strides) if stride <= 4]
    maps[within[-1]].square().sum().backward()
    reached = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    listed = {id(p) for layer in backbone.modules_within(4) for p in layer.parameters()}
    assert {name for name, parameter in backbone.named_parameters() if id(parameter) in listed} == reached


def test_norms_of_the_backbone_keep_their_statistics_and_fresh_ones_learn(data: Path, tmp_path: Path) -> None:
    moved = moved_by(tiny_config(data, train={"freeze_norm": "backbone", "steps": 1}), tmp_path / "run")
    statistics = {name for name in moved if "running" in name}
    assert statistics
    assert not any(name.startswith("backbone.") for name in statistics)
    assert {"pyramid.0.1.running_mean", "fusions.2.mix.1.running_var"} <= statistics
    assert {"backbone.stem.1.weight", "backbone.stem.1.bias"} <= moved, "scale and shift still learn"


def test_a_resumed_run_has_the_same_bits(data: Path, tmp_path: Path) -> None:
    config = tiny_config(
        data,
        model={**on_backbone("efficientnet_b0", {"width_mult": 0.1}), "freeze_stride": 4},
        optimizer={
            "name": "adamw",
            "lr": 0.01,
            "backbone_lr_factor": 0.2,
            "head_lr_factor": 3.0,
            "schedule": "constant",
        },
        train={"steps": 4, "ema": 0.9, "freeze_norm": "backbone"},
    )
    train(config, tmp_path / "whole")
    train(config.updated({"train": {"steps": 2}}), tmp_path / "cut")
    train(config, tmp_path / "cut", resume=True)
    states = [read_state(tmp_path / run / "checkpoints" / "last" / "state.safetensors") for run in ("whole", "cut")]
    assert states[0].tensors.keys() == states[1].tensors.keys()
    assert all(torch.equal(tensor, states[1].tensors[name]) for name, tensor in states[0].tensors.items())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"freeze_stride": 4}}, "--model.freeze_stride: frrn_a declares no backbone"),
        ({"optimizer": {"backbone_lr_factor": 0.1}}, "--optimizer.backbone_lr_factor: frrn_a declares no backbone"),
        ({"train": {"freeze_norm": "backbone"}}, "--train.freeze_norm: frrn_a declares no backbone"),
    ],
)
def test_a_network_without_a_backbone_has_none_to_tune(
    data: Path, sections: dict[str, dict[str, Any]], message: str
) -> None:
    model = {"name": "frrn_a", "options": dict(MODELS["frrn_a"].tiny), **sections.pop("model", {})}
    with pytest.raises(ConfigError, match=message):
        module_of(data, model=model, **sections)


def test_a_stride_finer_than_every_map_freezes_nothing(data: Path) -> None:
    options = {"backbone": "alexnet", "geometry": "same", "width_mult": 0.1}
    model = {"name": "fcn32s_vgg16", "options": options, "freeze_stride": 4}
    with pytest.raises(ConfigError, match="expected 8 or more, the finest stride of the backbone, got 4"):
        module_of(data, model=model)


def test_every_network_but_those_without_one_declares_its_backbone() -> None:
    without = {"deconvnet", "frrn_a", "frrn_b", "unet"}
    for name in MODELS:
        channels = MODELS[name].options["in_channels"].default
        with torch.device("meta"):
            backbones = create_model(name, 3, channels, tiny=True).backbones()
        assert bool(backbones) == (name not in without), name
