"""Two ranks over gloo, started by torchrun: the numbers of one rank with the whole batch, and one hand that writes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.tiny_data import TINY_FCN, tiny_config, write_dataset
from pixelwise.train.run import train
from pixelwise.train.state import read_newest_state
from pixelwise.weights.checkpoint import load_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="gloo and signals as POSIX knows them"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning"),
]

# Neither batch norm nor dropout: what they do depends on how a batch is shared out.
CHANGES: dict[str, Any] = {
    "model": {"name": "fcn16s_vgg16", "options": {**TINY_FCN, "dropout": 0.0}},
    "loss": {"class_weights": [1.0, 2.0, 3.0]},
    "optimizer": {"lr": 1e-4, "grad_accum_steps": 2},
    "train": {"ema": 0.5, "validate_every": 2, "steps": 4},
}

# Every rank tells what it wrote, what its parameters are, and in the end its exit code; `spoil` breaks one of them.
SCRIPT = """
import hashlib, os, sys
import lightning
from pathlib import Path
from pixelwise.cli import main
from pixelwise.errors import MaskError
from pixelwise.train import losses, validation

notes, spoil, *argv = sys.argv[1:]
rank = os.environ["RANK"]

def hook(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.append(str(arguments[0]))

written = []
sys.addaudithook(hook)
fit = lightning.Trainer.fit

def noted(self, module, loader):
    fit(self, module, loader)
    total = hashlib.sha256()
    for parameter in module.model.parameters():
        total.update(parameter.detach().numpy().tobytes())
    Path(notes, f"parameters.{rank}").write_text(total.hexdigest())

lightning.Trainer.fit = noted
if spoil == "nan" and rank == "1":
    cross_entropy = losses.pixel_cross_entropy
    losses.pixel_cross_entropy = lambda *args, **options: cross_entropy(*args, **options) * float("nan")
if spoil == "mask" and rank == "1":
    def fail(*args, **options):
        raise MaskError("p1.png", "unknown mask value 7", "name it")

    validation.label_map = fail
code = main(argv)
Path(notes, f"written.{rank}").write_text("\\n".join(written))
Path(notes, f"code.{rank}").write_text(str(code))
sys.exit(code)
"""


def dataset(folder: Path) -> Path:
    """Seven images; of two not a single pixel counts, so that a rank's share of a batch can be empty."""
    write_dataset(folder)
    for number in (2, 5):
        Image.fromarray(np.full((32, 48), 255, np.uint8)).save(folder / "masks" / "train" / f"p{number}.png")
    return folder


class Launch:
    """`torchrun` with two processes over one configuration."""

    def __init__(self, folder: Path, changes: dict[str, Any], *options: str, spoil: str = "no") -> None:
        config = tiny_config(folder / "data", **changes).updated({"train": {"devices": 2}, "data": {"batch_size": 1}})
        (folder / "two.yaml").write_text(config.to_yaml())
        (folder / "script.py").write_text(SCRIPT)
        self.folder = folder
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        words += [str(folder / "script.py"), str(folder), spoil]
        words += ["train", str(folder / "two.yaml"), "--out", str(folder / "two"), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.log = folder / "log.txt"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, env=environment)

    def wait(self) -> tuple[str, str]:
        """The ranks' exit codes."""
        self.process.wait(timeout=600)
        return self.note("code", 0), self.note("code", 1)

    def note(self, name: str, rank: int) -> str:
        path = self.folder / f"{name}.{rank}"
        return path.read_text() if path.exists() else self.log.read_text()


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_two_ranks_are_one_with_the_whole_batch(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    launch = Launch(tmp_path, CHANGES)
    assert launch.wait() == ("0", "0")
    train(tiny_config(tmp_path / "data", **CHANGES), tmp_path / "one")
    ours, theirs = rows(tmp_path / "two"), rows(tmp_path / "one")
    assert [row["split"] for row in ours] == ["train", "train", "val", "train", "train", "val"]
    for row, expected in zip(ours, theirs, strict=True):
        for name in ("loss", "miou", "pixel_accuracy", "mean_accuracy", "fw_iou"):
            # Six digits are written.
            assert float(row[name] or 0) == pytest.approx(float(expected[name] or 0), rel=1.1e-5), (row["step"], name)
    for name in ("last", "best"):
        two, one = (load_checkpoint(tmp_path / run / "checkpoints" / name).model.state_dict() for run in ("two", "one"))
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-6, atol=1e-7)
    assert launch.note("parameters", 0) == launch.note("parameters", 1)
    assert not any(str(tmp_path / "two") in line for line in launch.note("written", 1).splitlines())
    assert any(str(tmp_path / "two") in line for line in launch.note("written", 0).splitlines())
    assert (tmp_path / "two" / "scores.json").exists()


def test_a_signal_stops_both_in_the_same_step(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    changes = {**CHANGES, "train": {"steps": 3000, "validate_every": 3000, "save_every": 3000}}
    launch = Launch(tmp_path, changes)
    while len(rows(tmp_path / "two") if (tmp_path / "two" / "metrics.csv").exists() else []) < 3:
        assert launch.process.poll() is None, launch.log.read_text()
        time.sleep(0.05)
    launch.process.send_signal(signal.SIGTERM)
    assert launch.wait() == ("4", "4")
    stopped = int(rows(tmp_path / "two")[-1]["step"])
    lines = [line for line in launch.log.read_text().splitlines() if "stopped by SIGTERM after step" in line]
    assert len(lines) == 2
    assert all(f"after step {stopped}, state saved" in line for line in lines)
    # A resumed run goes by its own settings; what is to change is said on the command line.
    again = Launch(tmp_path, changes, "--resume", "--train.steps", str(stopped + 2))
    assert again.wait() == ("0", "0")
    steps = [row["step"] for row in rows(tmp_path / "two") if row["split"] == "train"]
    assert steps == [str(n) for n in range(1, stopped + 3)]


def test_no_number_on_one_rank_stops_both(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    launch = Launch(tmp_path, {**CHANGES, "train": {"steps": 4}}, spoil="nan")
    started = time.monotonic()
    codes = launch.wait()
    assert launch.process.returncode != 0
    # The launcher may end the slower rank before it has written its note.
    assert "2" in codes
    assert "the loss of step 1 is not finite" in launch.log.read_text()
    assert time.monotonic() - started < 300


def test_a_mask_that_one_rank_cannot_read_stops_both_and_saves(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    launch = Launch(tmp_path, {**CHANGES, "train": {"validate_every": 2, "save_every": 100, "steps": 4}}, spoil="mask")
    started = time.monotonic()
    assert "2" in launch.wait()
    assert time.monotonic() - started < 300
    assert launch.log.read_text().count("unknown mask value 7") == 1
    state, _ = read_newest_state(tmp_path / "two" / "checkpoints" / "last")
    assert state is not None
    assert state.progress.step == 2
