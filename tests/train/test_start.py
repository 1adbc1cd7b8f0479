"""What a run starts from: another checkpoint, the stage before, its own last state; and which weights it moves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.tiny_data import NAMES, TINY_COMPACT, TINY_FCN, tiny_config, write_dataset
from pixelwise.config import ModelConfig
from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.errors import CheckpointError
from pixelwise.models import MODELS, SegmentationModel, create_model
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
    config = tiny_config(data, loss={"patch_keep_prob": 0.5}, train={"freeze_norm": "all", "steps": 2})
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
    config = tiny_config(data, model={"train_only": "score_layers"}, train={"freeze_norm": "all", "steps": 2})
    torch.manual_seed(0)
    before = build_model(config.model, open_dataset(data).taxonomy).state_dict()
    train(config, tmp_path / "run")
    changed = {
        name
        for name, tensor in load_checkpoint(tmp_path / "run" / "checkpoints" / "last").model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"score.weight", "score.bias"}


def named(folder: Path, classes: tuple[str, ...], model: SegmentationModel) -> Path:
    """A checkpoint of a network whose classes have these names."""
    return save_checkpoint(folder, model, Taxonomy(classes))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("compact", TINY_COMPACT),
        ("fcn8s_vgg16", {**TINY_FCN, "upsampling": "learned"}),
        ("deconvnet", MODELS["deconvnet"].tiny),
    ],
)
@pytest.mark.parametrize("classes", [("disc", "bar", "ground"), ("bar", "new", "disc", "ground"), ("ground", "disc")])
def test_a_start_matches_class_scores_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: dict[str, Any], classes: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    source = create_model(name, 3, **options).eval()
    for tensor in (*source.parameters(), *source.buffers()):
        if tensor.is_floating_point() and tensor.requires_grad:
            tensor.data.normal_(0, 0.3)
    start = named(tmp_path, NAMES, source)
    settings = ModelConfig(name=name, options=dict(options), init_from=str(start))
    model = build_model(settings, Taxonomy(classes)).eval()
    known = [word for word in classes if word in NAMES]
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        ours, theirs = model(images).logits, source(images).logits
    for word in known:
        difference = ours[:, classes.index(word)] - theirs[:, NAMES.index(word)]
        # The kernels sum over the classes in another order.
        assert difference.abs().max() < 1e-5 * theirs.abs().max()
    line = capsys.readouterr().out
    assert f"{len(known)} of {len(classes)} classes matched by name" in line
    assert (", new: new" in line) == ("new" in classes)


def test_files_that_changed_since_the_state_are_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corrected mask is no reason to refuse to go on; a dataset that was only copied is no reason for a word."""
    train(tiny_config(data, train={"steps": 2}), tmp_path / "run")
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    capsys.readouterr()
    train(tiny_config(copy, train={"steps": 3}), tmp_path / "run", resume=True)
    assert "have changed" not in capsys.readouterr().out
    mask = copy / "masks" / "val" / "p1.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    train(tiny_config(copy, train={"steps": 4}), tmp_path / "run", resume=True)
    out = capsys.readouterr().out
    assert "validation images or masks have changed" in out
    assert "training images or masks have changed" not in out


def test_a_start_with_other_classes_only_keeps_fresh_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = create_model("compact", 3, **TINY_COMPACT)
    settings = ModelConfig(name="compact", options=TINY_COMPACT, init_from=str(named(tmp_path, NAMES, source)))
    torch.manual_seed(7)
    model = build_model(settings, Taxonomy(("a", "b", "c")))
    assert not torch.equal(model.state_dict()["score.weight"], source.state_dict()["score.weight"])
    others = [key for key in source.state_dict() if not key.startswith("score.")]
    assert all(torch.equal(model.state_dict()[key], source.state_dict()[key]) for key in others)
    line = capsys.readouterr().out
    assert "2 fresh: score.weight, score.bias" in line
    assert "0 of 3 classes matched by name, new: a, b, c" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("classes: [disc, ground, bar]\n", "the name of class 0 was 'ground', now 'disc'"),
        ("classes: [ground, disc]\n", "3 then, 2 now"),
        ("classes: [{name: ground, color: [1, 2, 3]}, disc, bar]\n", r"the color of class 0 .* now \[1, 2, 3\]"),
        ("classes: [ground, {name: disc, value: 2}, {name: bar, value: 1}]\n", "the value of class 1"),
        ("classes: [ground, disc, bar]\nignore: [255, 9]\n", r"`ignore` was \[255\], now \[255, 9\]"),
        ("train", r"other training images \(7 then, 6 now\)"),
        ("val", r"other validation images \(as many, with other names\)"),
    ],
)
def test_a_run_resumes_on_its_own_data_alone(data: Path, tmp_path: Path, change: str, message: str) -> None:
    copy, out = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(data, copy)
    train(tiny_config(copy, train={"steps": 2}), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    moved = copy.rename(tmp_path / "moved")
    for kind in ("images", "masks"):
        if change == "train":
            (moved / kind / "train" / "p3.png").unlink()
        elif change == "val":
            (moved / kind / "val" / "p1.png").rename(moved / kind / "val" / "q.png")
    if change.startswith("classes"):
        (moved / "classes.yaml").write_text(change)
    with pytest.raises(CheckpointError, match=message):
        train(tiny_config(moved, train={"steps": 4}), out, resume=True)
    changed = [path for path, content in before.items() if path.read_bytes() != content]
    assert not changed, "a refused resume leaves the run as it was"


def test_a_moved_dataset_is_the_same_one(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "a")
    train(tiny_config(tmp_path / "a", train={"steps": 2}), tmp_path / "run")
    (tmp_path / "a").rename(tmp_path / "b")
    train(tiny_config(tmp_path / "b", train={"steps": 3}), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines()[-1].startswith("3,")


def test_settings_of_a_run_stay_if_nothing_is_left_to_train(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    train(tiny_config(data, train={"steps": 4}), out)
    files = {name: (out / name).read_bytes() for name in ("config.yaml", "metrics.csv", "environment.json")}
    assert train(tiny_config(data, train={"steps": 3}), out, resume=True) is None
    assert {name: (out / name).read_bytes() for name in files} == files
    assert "has 4 steps, --train.steps is 3: nothing is left to train" in capsys.readouterr().out
