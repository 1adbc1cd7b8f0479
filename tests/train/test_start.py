"""What a run starts from: another checkpoint, the stage before, its own last state; and which weights it moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_data import TINY_COMPACT, TINY_FCN, tiny_config, write_dataset
from pixelwise.config import ModelConfig
from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.errors import CheckpointError
from pixelwise.models import create_model
from pixelwise.models.fcn import FCN
from pixelwise.train.build import build_model, start_from
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.resume import check_settings, run_settings
from pixelwise.train.run import train
from pixelwise.weights.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(autouse=True)
def quiet() -> None:
    silence_lightning()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def scores_and_logits(model: FCN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output of each score layer, and the logits before the last upsampling."""
    seen: dict[str, torch.Tensor] = {}
    for name in model.score_layer_names:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
    seen["logits"] = model.forward_low_res(images).logits
    return seen


def test_stages_go_on_where_the_one_before_stopped(data: Path, tmp_path: Path) -> None:
    """At the start of 16s the score of fc7 is 32s' bit for bit, pool4 adds nothing, and so on."""
    images = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    previous: FCN | None = None
    start: str | None = None
    for net in ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16"):
        stage = {"name": net, "options": TINY_FCN, "init_from": start}
        config = tiny_config(data, model=stage, train={"steps": 2}, optimizer={"lr": 1e-3})
        model = build_model(config.model, open_dataset(data).taxonomy).eval()
        assert isinstance(model, FCN)
        if previous is not None:
            before, now = (scores_and_logits(m, images) for m in (previous, model))
            *old, new = model.score_layer_names
            assert all(torch.equal(now[name], before[name]) for name in old)
            assert bool((now[new] == 0).all())
            # As the new skip adds nothing, the sum holds the upsampled scores of the stage before.
            upscore = model.get_submodule({"score_pool4": "upscore2", "score_pool3": "upscore_pool4"}[new])
            assert bool(torch.isin(now["logits"], upscore(before["logits"])).all())
        if net != "fcn8s_vgg16":
            out = tmp_path / f"run_{net}"
            train(config, out)
            start = str(out / "checkpoints" / "last")
            loaded = load_checkpoint(start).model
            assert isinstance(loaded, FCN)
            newest = loaded.score_layer_names[-1]
            assert bool((loaded.get_parameter(f"{newest}.weight") != 0).any()), "the new score layer has learned"
            previous = loaded


def test_a_run_goes_on_without_the_checkpoint_that_it_started_from(data: Path, tmp_path: Path) -> None:
    """The start's normalization stays with the run."""
    start = create_model("compact", 3, **TINY_COMPACT, preprocessing="caffe")
    save_checkpoint(tmp_path / "start", start, open_dataset(data).taxonomy)
    changes: dict[str, Any] = {
        "model": {"name": "compact", "options": TINY_COMPACT, "init_from": str(tmp_path / "start")}
    }
    train(tiny_config(data, **changes, train={"steps": 2}), tmp_path / "run")
    (tmp_path / "start").rename(tmp_path / "moved")
    train(tiny_config(data, **changes, train={"steps": 3}), tmp_path / "run", resume=True)
    loaded = load_checkpoint(tmp_path / "run" / "checkpoints" / "last").model
    assert loaded.preprocess.order == "bgr"


def test_a_run_killed_before_its_first_state_starts_from_its_init_from(data: Path, tmp_path: Path) -> None:
    """Weights are written before the state: after a kill between the two, there are weights but nothing to resume."""
    start = create_model("compact", 3, **TINY_COMPACT)
    save_checkpoint(tmp_path / "start", start, open_dataset(data).taxonomy)
    changes: dict[str, Any] = {
        "model": {"name": "compact", "options": TINY_COMPACT, "init_from": str(tmp_path / "start")}
    }
    train(tiny_config(data, **changes, train={"steps": 2}), tmp_path / "whole")
    train(tiny_config(data, **changes, train={"steps": 2}), tmp_path / "cut")
    for state in (tmp_path / "cut" / "checkpoints" / "last").glob("*state*"):
        state.unlink()
    train(tiny_config(data, **changes, train={"steps": 2}), tmp_path / "cut", resume=True)
    first, second = (
        load_checkpoint(tmp_path / run / "checkpoints" / "last").model.state_dict() for run in ("whole", "cut")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_settings_that_an_older_state_lacks_are_no_change(data: Path) -> None:
    config = tiny_config(data)
    saved = run_settings(config)
    del saved["loss"]["bootstrap_top_k"], saved["optimizer"]["head_lr_factor"], saved["sampling"], saved["steps"]
    assert check_settings(config, saved, "state") == []
    with pytest.raises(CheckpointError, match="other settings in loss"):
        check_settings(config, {**saved, "loss": {**saved["loss"], "lovasz": 0.7}}, "state")


def test_patchwise_training_leaves_frozen_norms_frozen(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, loss={"patch_keep_prob": 0.5}, train={"freeze_norm": True, "steps": 2})
    start = build_model(config.model, open_dataset(data).taxonomy).state_dict()
    torch.manual_seed(config.train.seed)
    train(config, tmp_path / "run")
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last").model.state_dict()
    means = [key for key in start if key.endswith("running_mean")]
    assert means
    assert all(not state[key].any() for key in means)


def test_a_start_that_fits_nowhere(tmp_path: Path) -> None:
    compact, fcn = create_model("compact", 3, **TINY_COMPACT), create_model("fcn32s_vgg16", 3, **TINY_FCN)
    with pytest.raises(CheckpointError, match="shares no tensor"):
        start_from(compact, fcn, "x")
    other = create_model("compact", 5, **TINY_COMPACT)
    line = start_from(other, compact, "x")
    assert line.endswith("2 fresh: score.weight, score.bias")


def test_unused_tensors_are_listed() -> None:
    line = start_from(create_model("fcn32s_vgg16", 3, **TINY_FCN), create_model("fcn16s_vgg16", 3, **TINY_FCN), "x")
    assert line.endswith("0 fresh; 2 of the checkpoint unused: score_pool4.weight, score_pool4.bias")


@pytest.mark.parametrize(("options", "order", "std"), [({}, "rgb", 58.395), ({"preprocessing": "caffe"}, "bgr", 1.0)])
def test_weights_come_with_the_pixels_they_were_learned_on(
    tmp_path: Path, options: dict[str, str], order: str, std: float
) -> None:
    """A published RGB classifier over its deviation starts a net of default BGR; a run's best checkpoint is found."""
    taxonomy = Taxonomy(("a", "b", "c"))
    given = create_model("fcn32s_vgg16", 3, **{**TINY_FCN, "preprocessing": "torchvision"})
    save_checkpoint(tmp_path / "run" / "checkpoints" / "best", given, taxonomy)
    small = {key: value for key, value in TINY_FCN.items() if key != "preprocessing"}
    model = build_model(ModelConfig("fcn32s_vgg16", {**small, **options}, str(tmp_path / "run")), taxonomy)
    assert model.preprocess.order == order
    assert float(model.preprocess.std.flatten()[0]) == pytest.approx(std)
    assert all(torch.equal(tensor, given.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_only_the_classifier_learns(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, model={"train_only": "score_layers"}, train={"freeze_norm": True, "steps": 2})
    torch.manual_seed(0)
    before = build_model(config.model, open_dataset(data).taxonomy).state_dict()
    train(config, tmp_path / "run")
    changed = {
        name
        for name, tensor in load_checkpoint(tmp_path / "run" / "checkpoints" / "last").model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"score.weight", "score.bias"}
