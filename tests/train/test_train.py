"""A run in one process: what it writes, what stops it, and the numbers it claims."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import loggers
from PIL import Image
from torch import nn

import pixelwise
from helpers.tiny_data import TINY_COMPACT, TINY_FCN, tiny_config, write_dataset
from pixelwise.cli import main
from pixelwise.config import Config, ModelConfig, TrainConfig
from pixelwise.core import Batch, Taxonomy
from pixelwise.data import inspection, open_dataset
from pixelwise.data.check import check_dataset
from pixelwise.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    ImageError,
    InputError,
    Interrupted,
    PixelwiseError,
)
from pixelwise.evaluation.evaluator import evaluate_model
from pixelwise.evaluation.result import read_scores
from pixelwise.inference.segmenter import Precision
from pixelwise.models import create_model
from pixelwise.train import validation
from pixelwise.train.build import build_model, choose_memory_format, make_class_weights
from pixelwise.train.callbacks import make_loggers, silence_lightning
from pixelwise.train.ema import ModelEMA
from pixelwise.train.finish import finish_run
from pixelwise.train.module import TrainingModule
from pixelwise.train.ranks import check_launch, process_rank
from pixelwise.train.run import train
from pixelwise.train.run_folder import COLUMNS, RunFolder
from pixelwise.train.schedule import lr_factor
from pixelwise.train.state import read_newest_state
from pixelwise.train.validation import validate
from pixelwise.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(autouse=True)
def quiet() -> None:
    silence_lightning()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights(out: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_checkpoint(out / "checkpoints" / name).model.state_dict()


def during(step: int, act: Callable[[TrainingModule], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `act` at the start of each batch once `step` steps are done."""
    start = TrainingModule.on_train_batch_start

    def wrapped(self: TrainingModule, batch: Any, batch_idx: int) -> None:
        start(self, batch, batch_idx)
        if self.step >= step:
            act(self)

    monkeypatch.setattr(TrainingModule, "on_train_batch_start", wrapped)


def test_a_run_writes_its_folder(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, train={"ema": 0.9})
    out = tmp_path / "run"
    scores = train(config, out, command="pixelwise train x")
    finished = finish_run(config, out)
    assert scores is not None
    assert finished.report == out / "report.html"
    written = {
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.parent.name != "samples"
    }
    checkpoints = {
        f"checkpoints/{n}/{f}" for n in ("last", "best") for f in ("config.json", "model.safetensors", "README.md")
    }
    states = {"checkpoints/last/state.safetensors", "checkpoints/last/state.previous.safetensors"}
    assert written == checkpoints | states | {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "scores.json",
        "report.html",
        "run.lock",
    }
    assert Config.from_yaml(out / "config.yaml") == config
    found = [(int(row["step"]), row["split"]) for row in rows(out)]
    assert found == [
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (3, "val"),
        (4, "train"),
        (5, "train"),
        (6, "train"),
        (6, "val"),
    ]
    assert tuple(rows(out)[0]) == COLUMNS
    card = load_checkpoint(out / "checkpoints" / "last").card
    assert "pixelwise train x" in card["command"]
    (measurement,) = card["scores"]
    assert (measurement["split"], measurement["metrics"]["mean_iou"]) == ("val", scores.mean_iou)
    assert json.loads((out / "environment.json").read_text())["skipped_images"] == 0


def test_the_logged_score_is_that_of_the_checkpoint(data: Path, tmp_path: Path) -> None:
    """The validation while training equals `evaluate` of what was saved, the moving average included."""
    config = tiny_config(data, train={"ema": 0.9, "steps": 4, "validate_every": 4}, optimizer={"lr": 0.1})
    scores = train(config, tmp_path / "run")
    assert scores is not None
    finish_run(config, tmp_path / "run")
    split = open_dataset(data).split("val")
    for name in ("last", "best"):
        segmenter = pixelwise.load(tmp_path / "run" / "checkpoints" / name, device="cpu")
        again = evaluate_model(segmenter, split, boundary=False).scores
        assert again == scores
        logged = rows(tmp_path / "run")[-1]
        dice = [2 * c.correct / (c.truth + c.predicted) for c in again.classes if c.truth + c.predicted]
        assert float(logged["mean_dice"]) == pytest.approx(sum(dice) / len(dice), rel=1e-5)
        assert f"{again.mean_iou:.6g}" == logged["miou"]
    written = read_scores(tmp_path / "run" / "scores.json")
    assert written.scores.mean_iou == scores.mean_iou
    assert written.protocol.precision == "float32"


def test_the_printed_scores_are_those_of_the_best_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each validation is a line of its own, after its step; the last lines score the best checkpoint, not the last."""
    file, out = tmp_path / "config.yaml", tmp_path / "run"
    diverging = {"lr": 0.3, "schedule": "constant", "clip_norm": 0}
    file.write_text(tiny_config(data, train={"validate_every": 1}, optimizer=diverging).to_yaml())
    assert main(["train", str(file), "--out", str(out)]) == 0
    by_step = {int(row["step"]): float(row["miou"]) for row in rows(out) if row["split"] == "val"}
    best = max(by_step, key=lambda step: by_step[step])
    assert by_step[best] > by_step[6] + 0.01, "the example must get worse after its best step"
    lines = capsys.readouterr().out.splitlines()
    for step, miou in by_step.items():
        (place,) = (n for n, line in enumerate(lines) if line.startswith(f"step {step}/6 validation: "))
        assert f"mean IoU {100 * miou:.1f}%" in lines[place]
        assert lines[place - 1].startswith(f"step {step}/6 loss ")
        assert "miou" not in lines[place - 1]
    segmenter = pixelwise.load(out / "checkpoints" / "best", device="cpu")
    again = evaluate_model(segmenter, open_dataset(data).split("val"), boundary=False).scores
    assert again.mean_iou == pytest.approx(by_step[best], rel=1e-5)
    assert lines[-2] == f"best checkpoint, step {best}: {again.summary()}"
    assert lines[-1] == f"{out / 'checkpoints' / 'best'}, report {out / 'report.html'}"


def test_two_runs_of_one_seed_are_equal_and_of_two_differ(data: Path, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8), ("d", 2**31 - 1)):
        train(tiny_config(data, train={"steps": 2, "seed": seed}), tmp_path / name)
        made.append(weights(tmp_path / name)["score.weight"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_the_caller_keeps_signals_and_arithmetic(data: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(tiny_config(data, train={"steps": 1}), tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert float(torch.tensor(1e-40) * 1) != 0


def test_a_run_that_saved_nothing_does_not_keep_its_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite"):
        train(
            tiny_config(data, train={"steps": 3, "save_every": 100}, optimizer={"lr": 1e30, "clip_norm": 0.0}),
            tmp_path / "run",
        )
    assert (tmp_path / "run" / "config.yaml").exists()
    train(tiny_config(data, train={"steps": 1}), tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert all(row.startswith("1,") for row in rows[1:]), "nothing of the first is left"


def test_a_folder_is_not_trained_into_twice(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, train={"steps": 1})
    train(config, tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(InputError, match="contains a run already"):
        train(config, tmp_path / "run")
    assert train(config, tmp_path / "run", resume=True) is None, "nothing was left to do"
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "run").items())


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    """Locks may not reach other hosts, so a note from another host is believed while it is young."""
    note = tmp_path / "run.holder.json"
    note.write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
    with (
        pytest.raises(
            InputError, match=r"is held by process 7 on elsewhere, which was .* fix: .* or delete run\.holder\.json"
        ),
        RunFolder(tmp_path).opened(resume=True),
    ):
        pass
    note.unlink()
    for _ in range(2):
        with RunFolder(tmp_path).opened(resume=False):
            with (
                pytest.raises(
                    InputError, match=rf"is held by process {os.getpid()} on {socket.gethostname()}; fix: wait"
                ),
                RunFolder(tmp_path).opened(resume=True),
            ):
                pass
            assert json.loads(note.read_text())["pid"] == os.getpid(), "the refused run left the note alone"
        assert not note.exists()


def test_a_preempted_run_is_taken_over_on_another_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine minutes without a sign of life may be a slow network; eleven are the end. The holder gives signs."""
    note = tmp_path / "run.holder.json"
    for minutes, taken_over in ((9, False), (11, True)):
        note.write_text(json.dumps({"pid": 7, "host": "elsewhere"}))
        os.utime(note, (time.time() - 60 * minutes,) * 2)
        with (
            nullcontext() if taken_over else pytest.raises(InputError, match="counts as ended 10 minutes after"),
            RunFolder(tmp_path).opened(resume=True),
        ):
            assert json.loads(note.read_text())["pid"] == os.getpid()
    assert "no sign of life for 11 minutes: taken over" in capsys.readouterr().err
    assert not note.exists()
    monkeypatch.setattr("pixelwise.train.run_folder._SECONDS_BETWEEN_SIGNS", 0.01)
    with RunFolder(tmp_path).opened(resume=True):
        os.utime(note, (1, 1))
        deadline = time.monotonic() + 30
        while note.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert abs(note.stat().st_mtime - time.time()) < 60


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["run.lock", "metrics.csv", "checkpoints/last/state.safetensors"])
def test_pipes_in_a_run_are_refused_at_once(data: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "run" / name
    train(tiny_config(data, train={"steps": 2}), tmp_path / "run")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PixelwiseError, match="not a regular file"):
        train(tiny_config(data, train={"steps": 4}), tmp_path / "run", resume=True)
    path.unlink()
    if name != "run.lock":
        path.symlink_to("/dev/zero")
        with pytest.raises(PixelwiseError, match="not a regular file"):
            train(tiny_config(data, train={"steps": 4}), tmp_path / "run", resume=True)


def test_a_longer_run_goes_on_from_a_finished_one(data: Path, tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    for out, steps in (("whole", [6]), ("parts", [1, 3, 6])):
        for number in steps:
            train(
                tiny_config(data, train={"steps": number, "validate_every": 6}, optimizer=constant),
                tmp_path / out,
                resume=True,
            )
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"optimizer": {"momentum": 0.5}}, "optimizer"),
        ({"loss": {"lovasz": 1.0}}, "loss"),
        ({"model": {"train_only": "score_layers"}}, "model"),
        ({"train": {"ema": 0.9}}, "without a moving average"),
    ],
)
def test_a_resumed_run_keeps_its_settings(data: Path, tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    train(tiny_config(data, train={"steps": 1}), tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(CheckpointError, match=word):
        train(tiny_config(data, **{"train": {"steps": 2}, **changes}), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_a_change_of_sampling_is_reported(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_config(data, train={"steps": 1}), tmp_path / "run")
    train(tiny_config(data, train={"steps": 2}, data={"batch_size": 3, "workers": 1}), tmp_path / "run", resume=True)
    assert "data.batch_size changed: from here on, images and crops differ" in capsys.readouterr().out


@pytest.mark.parametrize("schedule", ["constant", "step", "poly", "cosine"])
def test_a_stretched_schedule_is_reported(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], schedule: str
) -> None:
    """A longer run reports it where the rates of an unbroken run of that length would have been others."""
    changes: dict[str, Any] = {
        "optimizer": {"schedule": schedule, "lr": 0.01, "clip_norm": 0},
        "augment": {"crop": [16, 16]},
    }
    for steps in (4, 6):
        config = tiny_config(data, train={"steps": steps}, **changes)
        train(config, tmp_path / "run", resume=steps == 6)
    rates = [float(row["lr"]) for row in rows(tmp_path / "run") if row["split"] == "train"]
    unbroken = [config.optimizer.lr * lr_factor(step, 6, config.optimizer) for step in range(6)]
    lines = capsys.readouterr().out.splitlines()
    assert f"resuming {tmp_path / 'run'} at step 4 of 6" in lines
    reported = [line for line in lines if line.startswith("train.steps changed from 4 to 6: ")]
    assert bool(reported) == (rates != pytest.approx(unbroken, rel=1e-4))
    assert len(reported) == (schedule in ("poly", "cosine"))


def test_a_resumed_run_takes_its_own_settings(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe that is not read is reported, and one that does not exist is an error."""
    saved, other, out = tmp_path / "saved.yaml", tmp_path / "other.yaml", tmp_path / "run"
    config = tiny_config(data, train={"steps": 1})
    saved.write_text(config.to_yaml())
    other.write_text(config.updated({"optimizer": {"momentum": 0.5}}).to_yaml())
    assert main(["train", str(saved), "--out", str(out)]) == 0
    state = (out / "checkpoints" / "last" / "state.safetensors").read_bytes()
    resumed = ["--out", str(out), "--resume"]
    notice = f"{out / 'config.yaml'}: its settings are used, not those of {other}, which differ in "
    for source, notices in (
        (str(saved), []),
        (str(data), []),
        (str(other), [notice + "--optimizer.momentum"]),
    ):
        capsys.readouterr()
        assert main(["train", source, *resumed]) == 0
        output = capsys.readouterr()
        assert output.err.splitlines() == notices
        assert f"resuming {out} at step 1 of 1" in output.out.splitlines()
        assert Config.from_yaml(out / "config.yaml") == config
    assert main(["train", "nonsense_recipe", *resumed]) == 2
    assert "nonsense_recipe: no such recipe" in capsys.readouterr().err
    assert (out / "checkpoints" / "last" / "state.safetensors").read_bytes() == state


def test_lines_that_a_kill_cut_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"step": step, "split": "train, one", "lr": 0.1, "loss": 1 / 3})
    whole = (tmp_path / "metrics.csv").read_text()
    assert whole.splitlines()[1] == '1,"train, one",0.1,0.333333,,,,,,,'
    for cut in range(len(whole) + 1):
        (tmp_path / "metrics.csv").write_text(whole[:cut])
        folder.truncate_metrics(2)
        kept = (tmp_path / "metrics.csv").read_text()
        complete = max(whole[:cut].count("\n"), 1)
        assert kept == "".join(whole.splitlines(keepends=True)[: min(complete, 3)])
    (tmp_path / "metrics.csv").write_bytes(whole.encode() + bytes(40))
    folder.truncate_metrics(5)
    assert (tmp_path / "metrics.csv").read_text() == whole
    # Lines of an earlier version, which had fewer columns, stay.
    (tmp_path / "metrics.csv").write_text("step,split,loss,miou\n1,val,,0.5\n2,train,0.25,\n3,val,,0.6\n")
    folder.truncate_metrics(2)
    first, second = rows(tmp_path)
    assert (first["step"], first["split"], first["miou"], first["mean_dice"]) == ("1", "val", "0.5", "")
    assert (second["step"], second["loss"]) == ("2", "0.25")


def test_a_log_that_cannot_be_written_warns_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "metrics.csv").mkdir()
    for step in (1, 2):
        folder.log({"step": step})
    assert capsys.readouterr().err.count("training goes on") == 1


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_numbers_that_are_not_finite_stop_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def spoil(module: TrainingModule) -> None:
        weight = module.model.get_parameter("score.weight")
        if where == "weight":
            weight.data[0, 0] = float("nan")
        else:
            weight.register_hook(lambda gradient: gradient * float("inf"))

    during(3, spoil, monkeypatch)
    with pytest.raises(InputError) as caught:
        train(tiny_config(data, train={"save_every": 1}), tmp_path / "run")
    line = str(caught.value)
    assert f"the {'loss' if where == 'weight' else 'gradient'} of step 4 is not finite, images p" in line
    assert line.endswith("earlier checkpoints are intact")
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    monkeypatch.undo()
    train(tiny_config(data, train={"save_every": 1}), tmp_path / "run", resume=True)
    assert rows(tmp_path / "run")[-1]["step"] == "6"


def test_a_huge_rate_ends_in_a_line_and_a_vanishing_one_changes_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite"):
        train(tiny_config(data, optimizer={"lr": 1e30}, train={"save_every": 1}), tmp_path / "huge")
    # Below the smallest float32: every update is rounded to 0.
    still = tiny_config(data, optimizer={"lr": 1e-60}, train={"freeze_norm": "all", "steps": 2})
    train(still, tmp_path / "none")
    torch.manual_seed(0)
    fresh = build_model(still.model, open_dataset(data).taxonomy).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in weights(tmp_path / "none").items())


def test_images_without_a_labeled_pixel_cost_nothing(data: Path, tmp_path: Path) -> None:
    # p5 keeps its labels, since a set without any is refused; the first two batches do not draw it.
    for path in (data / "masks" / "train").iterdir():
        if path.stem != "p5":
            Image.fromarray(np.full((32, 48), 255, np.uint8)).save(path)
    config = tiny_config(
        data, loss={"lovasz": 1.0}, optimizer={"weight_decay": 0.0}, train={"freeze_norm": "all", "steps": 2}
    )
    train(config, tmp_path / "run")
    assert [row["loss"] for row in rows(tmp_path / "run") if row["split"] == "train"] == ["0", "0"]
    torch.manual_seed(0)
    fresh = build_model(config.model, open_dataset(data).taxonomy).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in weights(tmp_path / "run").items())


def test_batch_norm_over_one_value_is_explained(data: Path, tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {"data": {"batch_size": 1}, "augment": {"crop": [16, 16]}}
    with pytest.raises(
        InputError, match=r"batch normalization got a single value per channel, in a batch of 1; fix: a larger"
    ):
        train(tiny_config(data, **changes), tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cut_image_stops_the_run_or_is_skipped(data: Path, tmp_path: Path, workers: int) -> None:
    bad = data / "images" / "train" / "p3.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"p3\.png: "):
        train(tiny_config(data, data={"workers": workers}), tmp_path / "stop")
    train(tiny_config(data, data={"workers": workers}, train={"on_read_error": "skip"}), tmp_path / "skip")
    # Twelve draws are one epoch of seven and five more.
    assert json.loads((tmp_path / "skip" / "environment.json").read_text())["skipped_images"] in (1, 2)


def test_a_signal_before_the_first_step_stops_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelwise.train.run.build_model", lambda *args, **options: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="stopped at once by SIGTERM"):
        train(tiny_config(data), tmp_path / "run")
    assert not (tmp_path / "run" / "run.holder.json").exists()


def test_two_interrupts_stop_in_the_middle_of_a_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_twice(module: TrainingModule) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    during(2, interrupt_twice, monkeypatch)
    with pytest.raises(Interrupted, match="stopped at once by SIGINT"):
        train(tiny_config(data), tmp_path / "run")
    monkeypatch.undo()
    train(tiny_config(data), tmp_path / "run", resume=True)
    train(tiny_config(data), tmp_path / "whole")
    assert all(
        torch.equal(tensor, weights(tmp_path / "run")[name]) for name, tensor in weights(tmp_path / "whole").items()
    )


def test_whole_images_of_many_sizes(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", num_train=2, size=(32, 48))
    write_dataset(tmp_path / "more", num_train=4, size=(40, 36))
    for kind in ("images", "masks"):
        for number in (2, 3):
            (tmp_path / "more" / kind / "train" / f"p{number}.png").rename(data / kind / "train" / f"p{number}.png")
    changes: dict[str, dict[str, Any]] = {
        "model": {"name": "fcn8s_vgg16", "options": TINY_FCN},
        "data": {"batch_size": 1, "sampling": "replacement"},
        "augment": {"crop": [0, 0], "scale": [1.0, 1.0], "flip": 0.0},
        "loss": {"reduction": "sum"},
        "optimizer": {"lr": 1e-6, "momentum": 0.99, "schedule": "constant", "bias_lr_factor": 2.0},
    }
    train(tiny_config(data, **changes), tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 8


def test_the_moving_average_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    average = ModelEMA(net, 0.5)
    expected = 1.0
    for step, value in enumerate((3.0, 5.0, 7.0), 1):
        net.weight.data.fill_(value)
        average.update(net, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.state["weight"]) == pytest.approx(expected)
    with average.applied_to(net):
        assert float(net.weight.detach()) == pytest.approx(expected)
    assert float(net.weight.detach()) == 7.0


def test_class_weights_of_a_split(data: Path) -> None:
    split = open_dataset(data).split("train")
    masks = np.concatenate([np.asarray(Image.open(path)).ravel() for path in (data / "masks" / "train").iterdir()])
    shares = np.array([(masks == k).sum() for k in range(3)]) / (masks != 255).sum()
    found = make_class_weights(tiny_config(data, loss={"class_weights": "log"}).loss, split)
    assert found is not None
    assert found.tolist() == pytest.approx((1 / np.log(1.1 + shares)).tolist(), rel=1e-6)
    given = make_class_weights(tiny_config(data, loss={"class_weights": [1, 2, 3]}).loss, split)
    assert given is not None
    assert given.dtype == torch.float32
    with pytest.raises(ConfigError, match="expected 3 numbers"):
        make_class_weights(tiny_config(data, loss={"class_weights": [1, 2]}).loss, split)


def test_a_split_without_masks_is_named(data: Path, tmp_path: Path) -> None:
    for path in (data / "masks" / "val").iterdir():
        path.unlink()
    with pytest.raises(DatasetError):
        train(tiny_config(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_launches_that_do_not_fit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no launcher started the others"):
        train(tiny_config(data, train={"nodes": 2}), tmp_path / "run")
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"fix: add --train\.devices 2 --train\.nodes 1$"):
        train(tiny_config(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "devices", "subject"),
    [
        ({"RANK": "1"}, 1, "RANK"),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "1"}, 1, "LOCAL_RANK"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, 1, "WORLD_SIZE"),
        ({"LOCAL_RANK": "0"}, 2, "LOCAL_RANK"),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "3"}, 1, "RANK"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, 2, "srun"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "2"}, 2, "srun"),
    ],
)
def test_variables_of_another_launch_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: int, subject: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun") as error:
        check_launch(TrainConfig(devices=devices), "cpu")
    assert error.value.subject == subject


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "SLURM_PROCID"])
@pytest.mark.parametrize("value", ["one", "-1", "1.5"])
def test_a_rank_that_is_no_number(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"^{name}: expected the variable to be a number, got '{value}'; fix: `unset"):
        process_rank()


def test_one_process_trains_alone_among_slurm_tasks(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "seg", "SLURM_JOB_ID": "17", "SLURM_PROCID": "1"}
    for name, value in {**slurm, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    assert train(tiny_config(data, train={"steps": 1}), tmp_path / "run") is not None
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 3
    assert dict(os.environ) == before


@pytest.mark.parametrize(("name", "stride"), [("fcn32s_vgg16", 32), ("compact", 2), ("deeplabv1_largefov_vgg16", 8)])
def test_patches_are_the_strides_of_the_logits(name: str, stride: int) -> None:
    module = TrainingModule(create_model(name, 3, tiny=True), Config(), 255)
    assert module.loss.patch_size == stride


@pytest.mark.parametrize(
    ("layer", "is_affected"),
    [
        (nn.Conv2d(4, 8, 1, 2), True),
        (nn.Conv2d(8, 12, 1, 2), True),
        (nn.Conv2d(8, 16, 1, 2), False),
        (nn.Conv2d(4, 4, 1, 1), False),
        (nn.Conv2d(4, 4, 3, 2), False),
    ],
    ids=str,
)
def test_layers_that_crash_in_channels_last_stay_contiguous(
    layer: nn.Module, is_affected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 1x1 convolution with stride 2 whose channels are no multiple of 8, on a CPU without AVX-512."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), layer)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert choose_memory_format(net, "cpu") == (torch.contiguous_format if is_affected else torch.channels_last)
    assert choose_memory_format(net, "cuda") == torch.channels_last
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert choose_memory_format(net, "cpu") == torch.channels_last


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("compact", {}, torch.channels_last),
        ("deeplabv3plus_xception41", {"width_mult": 0.25}, torch.contiguous_format),
    ],
)
def test_images_have_the_memory_format_of_the_weights(
    name: str, options: dict[str, Any], expected: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of Xception's 728 channels is no multiple of 8."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    module = TrainingModule(create_model(name, 3, **options), Config(), 255)
    monkeypatch.setattr(module, "log_live", lambda name, value: None)
    forward, seen = module.forward_model, []

    def noted(images: torch.Tensor) -> Any:
        seen.append(images)
        return forward(images)

    monkeypatch.setattr(module, "forward_model", noted)
    images = torch.zeros(2, 3, 33, 33, dtype=torch.uint8)
    with torch.no_grad():
        module.training_step(Batch(images, torch.zeros(2, 33, 33, dtype=torch.int64), ("a", "b")), 0)
    weights = [parameter for parameter in module.model.parameters() if parameter.ndim == 4]
    assert seen
    assert all(tensor.is_contiguous(memory_format=expected) for tensor in (*seen, *weights))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fcn32s_late_fusion_vgg16", "takes 6 channels; the images have 3 channels: red, green, blue in 8 bits"),
        ("fcn8s_two_heads_vgg16", "has 2 heads; the data have one label map"),
    ],
)
def test_networks_of_two_images_or_two_masks_need_both(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"--model\.name: {name} {expected}"):
        build_model(ModelConfig(name, {"width_mult": 1 / 16}), Taxonomy(("a", "b")))


def test_an_unreadable_validation_image_costs_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_dataset(tmp_path / "data")
    during(1, lambda module: (data / "images" / "val" / "p1.png").unlink(missing_ok=True), monkeypatch)
    config = tiny_config(data, train={"save_every": 100})
    with pytest.raises(ImageError, match=r"p1\.png"):
        train(config, tmp_path / "run")
    state, _ = read_newest_state(tmp_path / "run" / "checkpoints" / "last")
    assert state is not None
    assert state.progress.step == 3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_validation_runs_in_the_precision_of_the_training(data: Path, tmp_path: Path, precision: Precision) -> None:
    """Every convolution in training and in validation; only the score of the finished run is in float32."""
    seen: set[tuple[str, bool]] = set()
    phase = "run"

    def note(layer: nn.Module, _: Any) -> None:
        if isinstance(layer, nn.Conv2d):
            kind = f"{phase}, {'training' if layer.training else 'validation'}"
            seen.add((kind, torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16))

    config = tiny_config(data, train={"precision": precision, "steps": 2, "validate_every": 1})
    hook = nn.modules.module.register_module_forward_pre_hook(note)
    try:
        scores = train(config, tmp_path / "run")
        phase = "after it"
        finish_run(config, tmp_path / "run")
    finally:
        hook.remove()
    half = precision == "bfloat16"
    assert seen == {("run, training", half), ("run, validation", half), ("after it, validation", False)}
    segmenter = pixelwise.load(tmp_path / "run" / "checkpoints" / "last", device="cpu", precision=precision)
    assert evaluate_model(segmenter, open_dataset(data).split("val"), boundary=False).scores == scores
    (measurement,) = load_checkpoint(tmp_path / "run" / "checkpoints" / "last").card["scores"]
    assert measurement["precision"] == precision


def test_validation_fails_on_all_ranks_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("compact", 3, **TINY_COMPACT)
    split = open_dataset(data).split("val")
    monkeypatch.setattr(validation, "max_over_ranks", lambda value, device: 1)
    with pytest.raises(InputError, match="another rank has ended"):
        validate(model, split, torch.device("cpu"))


def test_validation_leaves_out_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "data", num_val=3)
    model = create_model("compact", 3, **TINY_COMPACT)
    whole = open_dataset(data).split("val")
    expected = validate(model, whole[1:], torch.device("cpu"))
    (data / "images" / "val" / "p0.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"p0\.png"):
        validate(model, whole, torch.device("cpu"))
    assert validate(model, whole, torch.device("cpu"), on_read_error="skip").means() == expected.means()
    assert "validation skipped 1 of 3 images" in capsys.readouterr().err


def test_unreadable_validation_images_are_skipped_to_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data")
    (data / "images" / "val" / "p1.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"p1\.png"):
        train(tiny_config(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = tiny_config(data, train={"on_read_error": "skip"})
    train(config, tmp_path / "run")
    assert "warning: 1 images or masks cannot be used and are skipped: p1" in capsys.readouterr().err
    finish_run(config, tmp_path / "run")
    assert [image["key"] for image in json.loads((tmp_path / "run" / "scores.json").read_text())["images"]] == [
        "p0",
        "p2",
    ]


@pytest.mark.parametrize("weights_", [[0, 0, 0], [0, 0, 0.5]])
def test_weights_of_which_nothing_is_learned_are_refused(tmp_path: Path, weights_: list[float]) -> None:
    data = write_dataset(tmp_path / "data")
    for path in (data / "masks" / "train").iterdir():
        # No mask contains class 2, the bar.
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 2, 0, mask).astype(np.uint8)).save(path)
    with pytest.raises(ConfigError, match=r"--loss\.class_weights: expected a weight above 0"):
        train(tiny_config(data, loss={"class_weights": weights_}), tmp_path / "run")


def test_every_file_is_read_once_before_the_first_step(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def reading(path: Path, **options: Any) -> Any:
            read.append(path)
            return function(path, **options)

        return reading

    for name in ("read_image_file", "read_mask_file"):
        monkeypatch.setattr(inspection, name, noted(getattr(inspection, name)))
    whole = open_dataset(data)
    train_split, val_split = whole.split("train"), whole.split("val")
    found = check_dataset(whole, train_split, val_split)
    config = tiny_config(data, loss={"class_weights": "log"}, augment={"tiled_crops": True})
    make_class_weights(config.loss, train_split, found=found)
    assert len(read) == len(set(read)) == 2 * (7 + 3)


def test_wandb_stays_offline_unless_its_own_variable_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline: list[bool] = []
    monkeypatch.setattr(loggers, "WandbLogger", lambda **options: offline.append(options["offline"]))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    make_loggers(["wandb"], tmp_path)
    monkeypatch.setenv("WANDB_MODE", "online")
    make_loggers(["wandb"], tmp_path)
    assert offline == [True, False]


@pytest.mark.parametrize(
    ("network", "loss"),
    [
        ("compact", {}),
        ("compact", {"class_weights": [1.0, 20.0, 3.0]}),
        ("compact", {"border_weight": 10.0}),
        ("compact", {"resolution": "logits"}),
        ("compact", {"reduction": "sum"}),
        ("compact", {"name": "bootstrapped", "bootstrap_top_k": 100}),
        ("compact", {"name": "focal", "class_weights": [1.0, 20.0, 3.0]}),
        ("compact", {"name": "ohem", "ohem_min_kept": 100, "class_weights": [1.0, 20.0, 3.0]}),
        ("compact", {"name": "ohem", "reduction": "sum"}),
        ("deeplabv2_resnet101", {"resolution": "logits", "class_weights": [1.0, 20.0, 3.0]}),
    ],
)
def test_accumulated_batches_are_one_batch(data: Path, tmp_path: Path, network: str, loss: dict[str, Any]) -> None:
    """Loss and weights of one batch of four, two of two and four of one; most pixels of most images are void."""
    for number in range(5):
        mask = np.full((32, 48), 255, np.uint8)
        mask[:4, : 4 * number] = 1
        Image.fromarray(mask).save(data / "masks" / "train" / f"p{number}.png")
    found = []
    for batch_size in (4, 2, 1):
        config = tiny_config(
            data,
            data={"batch_size": batch_size},
            augment={"scale": [1, 1], "flip": 0},
            model={"name": network, "options": TINY_COMPACT if network == "compact" else {"width_mult": 0.0625}},
            loss=loss,
            optimizer={"grad_accum_steps": 4 // batch_size, "lr": 1e-5 if "reduction" in loss else 0.01},
            train={"steps": 2, "freeze_norm": "all"},
        )
        train(config, out := tmp_path / str(batch_size))
        losses = [float(row["loss"]) for row in rows(out) if row["split"] == "train"]
        found.append((losses, torch.cat([tensor.double().flatten() for tensor in weights(out).values()])))
    for losses, values in found[1:]:
        assert losses == pytest.approx(found[0][0], rel=1e-4)
        torch.testing.assert_close(values, found[0][1], rtol=1e-4, atol=1e-5)
