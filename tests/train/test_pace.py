"""When a run will be done: by hand, and the same figures in a pipe and on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helpers.terminal import run_on_terminal
from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.config import TrainConfig
from pixelwise.files import write_text
from pixelwise.train.pace import Pace, clock_text, duration_text, num_due


@pytest.mark.parametrize("every", [1, 3, 4, 7, 100])
def test_what_is_due_is_counted_as_it_is_done(every: int) -> None:
    steps = 20
    for step in range(steps + 1):
        done = [number for number in range(step + 1, steps + 1) if number % every == 0 or number == steps]
        assert num_due(step, steps, every) == len(done) + (step == steps and steps % every > 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (45, "45 s"),
        (600, "10 min"),
        (5400, "1 h 30 min"),
        (89, "89 s"),
        (90, "2 min"),
        (59 * 60, "59 min"),
        (3600 + 5 * 60, "1 h 5 min"),
        (47 * 3600, "47 h 0 min"),
        (48 * 3600, "2 days 0 h"),
        (86400 * 11 + 4 * 3600, "11 days 4 h"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_the_date_is_printed_if_it_is_another_day() -> None:
    now = time.time()
    assert clock_text(now) == time.strftime("%H:%M", time.localtime(now))
    assert clock_text(now + 864000).endswith(time.strftime(" on %Y-%m-%d", time.localtime(now + 864000)))


class Clock:
    """A clock that the test sets, and a run of 100 steps with a validation every 10 and a save every 5."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("pixelwise.train.pace.time.monotonic", lambda: self.now)
        self.pace = Pace(TrainConfig(steps=100, validate_every=10, save_every=5))
        self.module = cast(Any, SimpleNamespace(step=0))
        self.trainer = cast(Any, SimpleNamespace(accumulate_grad_batches=2))
        self.pace.on_train_start(self.trainer, self.module)

    def step(self, seconds: float) -> None:
        for batch in (0, 1):
            self.now += seconds / 2
            self.module.step += batch
            self.pace.on_train_batch_end(self.trainer, self.module, None, None, batch)


def test_what_is_left_counts_steps_validations_and_saves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    clock.step(8)
    assert clock.pace.seconds_per_step == 8
    assert clock.pace.seconds_left(1) == 99 * 8
    assert capsys.readouterr().out == "", "a short first step is not believed"
    clock.step(2)
    assert clock.pace.seconds_per_step == 2, "the first step, with the start of the workers, is left out"
    out = capsys.readouterr().out
    assert re.fullmatch(
        r"about 2 s per step, 98 steps left, done at about \d\d:\d\d.* \(in 3 min\); validations come on top\n", out
    )
    with clock.pace.measured("saving"):
        clock.now += 7
    with clock.pace.measured("validation"):
        clock.now += 30
    clock.step(2)
    assert clock.pace.seconds_per_step == 2, "neither is part of a step"
    # 97 steps, 20 saves, 10 validations and the one that scores the best checkpoint.
    assert clock.pace.seconds_left(3) == 97 * 2 + 20 * 7 + 11 * 30
    assert "come on top" not in clock.pace.forecast(3)


def test_a_long_first_step_is_printed_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    clock.step(120)
    assert capsys.readouterr().out.startswith("about 120 s per step, 99 steps left, done at about ")
    clock.step(120)
    assert capsys.readouterr().out == ""


FIGURES = re.compile(r"loss:? \d\.\d{4} s/step:? [\d.e+-]+ left:? \d+ s")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_text(tmp_path / "run.yaml", tiny_config(write_dataset(tmp_path / "data")).to_yaml())
    return [sys.executable, "-m", "pixelwise", "train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]


def test_a_pipe_shows_what_is_trained_then_how_long(words: list[str]) -> None:
    out = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout
    lines = out.splitlines()
    assert lines[0].endswith(": starting")
    assert lines[1] == "compact on cpu, 6 steps: 7 images of split train, 3 of val"
    assert re.fullmatch(r"compact has [\d,]+ parameters; 2 crops of 32x48 per batch, float32; steps 1 to 6", lines[2])
    steps = [line for line in lines if re.match(r"step \d/6 loss", line)]
    assert len(steps) == 6
    assert all(FIGURES.search(line) for line in steps), steps
    assert lines.index(next(line for line in lines if line.startswith("about "))) < lines.index(steps[2])


def test_a_terminal_shows_the_same_figures(words: list[str]) -> None:
    code, text = run_on_terminal(words, {**os.environ, "COLUMNS": "120", "TERM": "xterm"})
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert re.search(r"step: \d/6 " + FIGURES.pattern, plain), plain
    assert re.search(r"about [\d.]+ s per step, \d steps left, done at about", plain)
