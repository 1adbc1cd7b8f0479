"""What a run says when something looks wrong, once, and the end of a run that gets no better."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.same_run import assert_same_run
from helpers.tiny_data import TINY_FCN, tiny_config, write_dataset
from pixelwise.config import Config
from pixelwise.core import Batch
from pixelwise.data import open_dataset
from pixelwise.errors import Interrupted
from pixelwise.evaluation.metrics import Scores
from pixelwise.train.build import build_model
from pixelwise.train.loss_trend import LossTrend
from pixelwise.train.module import TrainingModule
from pixelwise.train.run import train
from pixelwise.train.run_checks import loss_warning, one_class_warning
from pixelwise.train.run_folder import RunFolder
from pixelwise.train.state import read_state
from pixelwise.visualization.report import render_report

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def test_one_predicted_class_is_named() -> None:
    names = ("road", "tree", "sign")
    one = Scores.from_matrix(np.array([[0, 5, 0], [0, 7, 0], [0, 0, 0]]), names)
    assert one_class_warning(one, "val", 40).startswith(
        "after step 40, the network predicts 'tree' for every pixel of split val; "
    )
    two = Scores.from_matrix(np.array([[0, 5, 0], [0, 7, 1], [0, 0, 0]]), names)
    # One class in the masks as well: nothing is wrong.
    right = Scores.from_matrix(np.array([[0, 0, 0], [0, 7, 0], [0, 0, 0]]), names)
    assert one_class_warning(two, "val", 40) == one_class_warning(right, "val", 40) == ""


def warning_of(data: Path, losses: list[float], **loss: Any) -> str:
    """The warning of a run of twice as many steps, 20 of them warm-up, after these losses."""
    config = tiny_config(
        data, loss=loss, optimizer={"warmup_steps": 20}, train={"steps": 2 * len(losses), "validate_every": 1000}
    )
    dataset = open_dataset(data)
    model = build_model(config.model, dataset.taxonomy)
    module = TrainingModule(model, config, dataset.taxonomy.ignore_id)
    masks = torch.arange(3).repeat(2, 4, 4)
    batch = Batch(torch.zeros(2, 3, 4, 12), masks, keys=("a", "b"))
    trend, lines = LossTrend(), []
    for step, value in enumerate(losses, 1):
        trend.add(value, step, config)
        module.step = step
        lines.append(loss_warning(trend, module, batch))
    assert not any(lines[:-1])
    return lines[-1]


def test_a_loss_that_does_not_fall_is_named_at_half_of_the_steps(data: Path) -> None:
    """Of 220 steps to half, 20 are warm-up: tenths of 20 steps, from 21 on and up to 220. Three classes: log 3."""
    flat = [9.0] * 20 + [1.1] * 180 + [1.2] * 20
    line = warning_of(data, flat)
    assert "has not fallen: 1.1 in steps 21 to 40, 1.2 in steps 201 to 220 (equal probabilities: 1.099)" in line
    assert "try another --optimizer.lr, such as 0.001 or 0.1" in line
    # It falls, if only a little; the warm-up does not count.
    assert warning_of(data, [1.0] * 20 + [1.1] * 180 + [1.09] * 20) == ""
    # It was low from the start.
    assert warning_of(data, [0.5] * 200 + [0.52] * 20) == ""
    # Tenths of less than 10 steps are noise.
    assert warning_of(data, [1.1] * 110 + [1.2] * 9) == ""


def test_a_low_start_is_low_for_the_loss_in_use(data: Path) -> None:
    """At equal probabilities, the focal loss is (2/3)^2 log 3 = 0.488; Dice of equal classes 1 - 2/9 / (1/9 + 1/3)."""
    assert "equal probabilities: 0.4883)" in warning_of(data, [0.3] * 220, name="focal")
    assert warning_of(data, [0.24] * 220, name="focal") == ""
    assert "equal probabilities: 0.5)" in warning_of(data, [0.3] * 220, name="none", dice=1.0)


# Score layers start at zero, so that class 0 is predicted everywhere; and nothing is learned.
FROZEN: dict[str, dict[str, Any]] = {
    "model": {"name": "fcn32s_vgg16", "options": {**TINY_FCN, "dropout": 0.0}},
    "optimizer": {"lr": 1e-30, "weight_decay": 0.0},
}


def frozen_config(data: Path, **train_settings: Any) -> Config:
    settings = {"steps": 14, "validate_every": 2, "save_every": 3, **train_settings}
    return tiny_config(data, **FROZEN, train=settings)


def test_a_run_stops_early_and_says_why(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first validation, after step 2, is never beaten: three more, and the run ends after step 8 of 14."""
    run, config = tmp_path / "run", frozen_config(data, early_stop=3)
    train(config, run)
    out, err = capsys.readouterr()
    assert "stopped early after step 8 of 14: no mean IoU above" in out
    assert "(step 2) in 3 validations" in out
    # Four validations, one warning; both stand in the report.
    assert err.count("the network predicts 'ground' for every pixel of split val") == 1
    notes = json.loads((run / "environment.json").read_text())["notes"]
    assert list(notes) == ["one_class", "early_stop"]
    assert all(note.split(";")[0].split("'")[0] in render_report(run) for note in notes.values())
    assert read_state(run / "checkpoints" / "last" / "state.safetensors").progress.step == 8

    train(config, run, resume=True)
    assert (
        "ended early after step 8, as --train.early_stop 3 asks (0 goes on): nothing is left" in capsys.readouterr().out
    )
    train(frozen_config(data), run, resume=True)
    assert read_state(run / "checkpoints" / "last" / "state.safetensors").progress.step == 14
    assert list(json.loads((run / "environment.json").read_text())["notes"]) == ["one_class"]
    assert "warning" not in capsys.readouterr().err


def test_a_resumed_run_stops_at_the_same_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = frozen_config(data, early_stop=3)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config, whole)
    log = RunFolder.log
    with monkeypatch.context() as patch:

        def log_and_stop(folder: RunFolder, row: dict[str, Any]) -> None:
            log(folder, row)
            if row["step"] == 5:
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(RunFolder, "log", log_and_stop)
        with pytest.raises(Interrupted, match=r"after step [56]"):
            train(config, broken)
    train(config, broken, resume=True)
    assert_same_run(whole, broken)
    assert capsys.readouterr().out.count("stopped early after step 8 of 14") == 2
