"""Ctrl-C in every command: exit 4, and a line that is true of what lies on the disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import call, files_below, save_tiny
from helpers.tiny_data import NAMES, tiny_config, write_dataset
from pixelwise.cli import main
from pixelwise.core import Taxonomy
from pixelwise.files import write_text

NOTHING = "error: interrupted; nothing was written; fix: run the command again"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    save_tiny(folder / "model", Taxonomy(NAMES))
    write_dataset(folder / "data")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "photo.png")
    return folder


def interrupt(*args: Any, **options: Any) -> None:
    """Stand for a function that is running when Ctrl-C comes."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("pixelwise.evaluation.evaluator.evaluate_model", ["evaluate", "--data", "data", "--model", "model"]),
        ("pixelwise.visualization.compare.draw_comparison", ["compare", "photo.png", "--model", "model"]),
        ("pixelwise.commands.explain._explain_model", ["explain", "photo.png", "--model", "model"]),
        ("pixelwise.weights.importing.import_model", ["import", "photo.png", "--as", "fcn8s_vgg16"]),
    ],
)
def test_a_command_stopped_before_its_end_has_written_nothing(
    function: str,
    words: list[str],
    *,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(function, interrupt)
    monkeypatch.chdir(folder)
    if words[0] == "evaluate":
        words = [*words, "--split", "val"]
    result = call(capsys, *words, "--out", tmp_path / ("out" if words[0] in ("explain", "import") else "out.png"))
    assert (result.code, result.err) == (4, [NOTHING])
    assert files_below(tmp_path) == []


def test_what_was_written_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C after the scores were written, while they are printed."""
    monkeypatch.setattr("pixelwise.commands.evaluate.print_result", interrupt)
    out = tmp_path / "scores.json"
    result = call(
        capsys, "evaluate", "--data", folder / "data", "--split", "val", "--model", folder / "model", "--out", out
    )
    assert result.code == 4
    fix = "run the command again, with --overwrite if it refuses to replace them"
    assert result.err == [f"error: interrupted; written: {out}; fix: {fix}"]
    assert files_below(tmp_path) == ["scores.json"]


def test_a_demo_counts_its_images(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}.png").write_bytes((folder / "photo.png").read_bytes())
    done: list[object] = []

    def interrupt_the_second(*args: object) -> None:
        done.append(args)
        if len(done) == 2:
            interrupt()

    monkeypatch.setattr("pixelwise.visualization.gallery.gallery_image", interrupt_the_second)
    result = call(capsys, "demo", tmp_path / "in", "--out", tmp_path / "out", "--model", folder / "model")
    assert result.code == 4
    assert result.err[0].startswith(f"error: {tmp_path / 'out'}: interrupted: 2 of 3 images are labeled")
    assert "index.html is not written yet" in result.err[0]
    assert not (tmp_path / "out/index.html").exists()


def test_the_end_of_a_training_can_be_made_up_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "run.yaml", tiny_config(write_dataset(tmp_path / "data")).to_yaml())
    words = "train", tmp_path / "run.yaml", "--out", tmp_path / "run"
    monkeypatch.setattr("pixelwise.train.finish.write_examples", interrupt)
    result = call(capsys, *words)
    assert result.code == 4
    assert "every step is trained and saved" in result.err[-1]
    assert result.err[-1].endswith("fix: run the command again with --resume to write them")
    monkeypatch.undo()
    assert call(capsys, *words, "--resume").code == 0
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("times", [1, 2])
def test_a_second_interrupt_ends_at_once(times: int, tmp_path: Path) -> None:
    """Whatever the first one waits for: here, a thread that sleeps."""
    mark = tmp_path / "running"
    code = f"""
import pathlib, sys, threading, time
from pixelwise import cli
import pixelwise.visualization.report as report
def slow(run):
    thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
    thread.start()
    pathlib.Path({str(mark)!r}).touch()
    try:
        time.sleep(60)
    finally:
        thread.join({3 if times == 1 else 60})
report.write_report = slow
sys.exit(cli.main(["report", "x"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    _wait(mark.exists)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(1)
    error = process.communicate(timeout=20)[1]
    if times == 1:
        assert (process.returncode, error) == (4, NOTHING + "\n")
    else:
        assert process.returncode == -signal.SIGINT


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert main(["recipes"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
