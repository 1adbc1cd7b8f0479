"""Killed at any moment and resumed: the same bits as a run that was not, through the real command line."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers import forked_cli
from helpers.same_run import assert_same_run
from helpers.tiny_data import TINY_COMPACT, TINY_FCN, tiny_config, write_dataset
from pixelwise.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX knows them")

AVERAGED = {
    "data": {"workers": 1},
    "model": {"name": "compact", "options": TINY_COMPACT},
    "optimizer": {
        "name": "adamw",
        "lr": 0.002,
        "grad_accum_steps": 2,
        "schedule": "cosine",
        "warmup_steps": 2,
        "clip_norm": 1.0,
    },
    "loss": {"class_weights": "log", "lovasz": 0.2, "border_weight": 5.0},
    "augment": {"rotate": 10, "class_balanced_prob": 0.3, "brightness": 0.2, "hue": 5, "saturation": 0.1},
    "train": {"ema": 0.9},
}
WITH_DROPOUT = {
    "data": {"workers": 0, "sampling": "replacement"},
    "model": {"name": "fcn32s_vgg16", "options": {**TINY_FCN, "batch_norm": True}},
    "optimizer": {"name": "sgd", "lr": 0.01, "bias_lr_factor": 2.0},
    "loss": {"patch_keep_prob": 0.7},
}
BFLOAT16 = {**AVERAGED, "train": {"ema": 0.9, "precision": "bfloat16"}, "data": {"workers": 2, "cache_mib": 0}}


class Runs:
    """A dataset, a configuration, and runs of it in folders beside."""

    def __init__(self, folder: Path, changes: dict[str, Any], steps: int) -> None:
        self.folder = folder
        config = tiny_config(write_dataset(folder / "data"), **changes)
        config = config.updated({"train": {"steps": steps, "save_every": 3, "validate_every": 4}})
        self.config = folder / "config.yaml"
        self.config.write_text(config.to_yaml())

    def start(self, name: str, *options: object) -> forked_cli.Forked:
        return forked_cli.start(
            "train", self.config, "--out", self.folder / name, *options, output=self.folder / f"{name}.txt"
        )

    def finish(self, name: str, *options: object) -> Path:
        run = self.start(name, *options)
        assert run.wait() == 0, run.text()
        return self.folder / name

    def num_lines(self, name: str) -> int:
        path = self.folder / name / "metrics.csv"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def has_lines(self, name: str, number: int) -> bool:
        return self.num_lines(name) >= number


def all_gone(processes: list[int]) -> bool:
    return all(map(forked_cli.is_gone, processes))


def kill_often(runs: Runs, name: str, kills: int, steps: int) -> int:
    """Start, kill at some moment, resume; the number of kills that met a running process."""
    chance, met = random.Random(name), 0
    for number in range(kills):
        run = runs.start(name, "--resume")
        lines = chance.randint(0, 1 + (steps + steps // 4) * (number + 1) // kills)
        run.wait_until(partial(runs.has_lines, name, lines + 1))
        workers = forked_cli.children(run.pid)
        met += run.kill(signal.SIGKILL) == -signal.SIGKILL
        forked_cli.poll(partial(all_gone, workers), "a loader's process outlived the run")
    return met


@pytest.mark.timeout(300)
@pytest.mark.parametrize("changes", [AVERAGED, WITH_DROPOUT], ids=["averaged", "dropout"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = Runs(tmp_path, changes, steps=10)
    whole = runs.finish("whole")
    assert kill_often(runs, "killed", kills=3, steps=10) >= 1
    assert_same_run(whole, runs.finish("killed", "--resume"))
    assert not list((tmp_path / "killed").rglob(".*.tmp-*")), "leftovers of killed writers"
    assert not (tmp_path / "killed" / "run.holder.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("changes", [AVERAGED, WITH_DROPOUT, BFLOAT16], ids=["averaged", "dropout", "bfloat16"])
def test_killed_twenty_times(tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = Runs(tmp_path, changes, steps=40)
    whole = runs.finish("whole")
    assert kill_often(runs, "killed", kills=20, steps=40) >= 10
    assert_same_run(whole, runs.finish("killed", "--resume"))


@pytest.mark.timeout(300)
def test_a_signal_saves_the_step_and_exits_4(tmp_path: Path) -> None:
    runs = Runs(tmp_path, AVERAGED, steps=7)
    whole = runs.finish("whole")
    for number in (signal.SIGTERM, signal.SIGINT):
        run = runs.start("stopped", "--resume")
        before = runs.num_lines("stopped")
        run.wait_until(partial(runs.has_lines, "stopped", before + 2))
        assert run.kill(number) == 4, run.text()
        line = run.text().splitlines()[-1]
        assert line.startswith(f"error: {tmp_path / 'stopped'}: stopped by {number.name} after step")
        again = f"pixelwise train {tmp_path / 'data'} --out {tmp_path / 'stopped'} --resume"
        assert line.endswith(f"fix: go on with `{again}`")
        assert load_checkpoint(tmp_path / "stopped" / "checkpoints" / "last").model is not None
    assert_same_run(whole, runs.finish("stopped", "--resume"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(None, marks=pytest.mark.slow, id="finished"),
        pytest.param(signal.SIGINT, id="SIGINT"),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow, id="SIGTERM"),
    ],
)
def test_the_process_ends_with_its_training(tmp_path: Path, number: signal.Signals | None) -> None:
    """Through the interpreter's own end, which waits for workers; a forked command leaves it out."""
    runs = Runs(tmp_path, {"data": {"workers": 2}}, steps=3 if number is None else 5000)
    command = [sys.executable, "-m", "pixelwise", "train", str(runs.config), "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        if number is not None:
            forked_cli.poll(lambda: runs.num_lines("run") > 1, "no step was made", 120)
            process.send_signal(number)
        try:
            assert process.wait(60) == (0 if number is None else 4)
        finally:
            process.kill()


@pytest.mark.timeout(300)
def test_a_killed_worker_is_explained(tmp_path: Path) -> None:
    runs = Runs(tmp_path, {"data": {"workers": 1}}, steps=5000)
    run = runs.start("run")
    run.wait_until(lambda: runs.num_lines("run") > 1)
    for worker in forked_cli.children(run.pid):
        os.kill(worker, signal.SIGKILL)
    assert run.wait() == 3, run.text()
    assert "lower --data.workers" in run.text().splitlines()[-1]


@pytest.mark.timeout(300)
def test_one_folder_holds_one_run_at_a_time(tmp_path: Path) -> None:
    runs = Runs(tmp_path, {}, steps=5000)
    first = runs.start("run")
    first.wait_until(lambda: runs.num_lines("run") > 1)
    text = (tmp_path / "run" / "config.yaml").read_text()
    held = f"is held by process {first.pid} on {socket.gethostname()}"
    for options, reason in (((), held), (("--resume",), held)):
        second = forked_cli.start(
            "train", runs.config, "--out", tmp_path / "run", *options, output=tmp_path / "second.txt"
        )
        assert second.wait() == 2
        assert reason in second.text()
        assert second.text().count("error: ") == 1
    assert first.kill(signal.SIGKILL) == -signal.SIGKILL
    assert json.loads((tmp_path / "run" / "run.holder.json").read_text())["pid"] == first.pid
    assert (tmp_path / "run" / "config.yaml").read_text() == text
    done = runs.num_lines("run")
    third = runs.start("run", "--resume")
    third.wait_until(lambda: runs.num_lines("run") > done)
    assert third.kill(signal.SIGTERM) == 4, "the lock of a process that is gone is taken over"
