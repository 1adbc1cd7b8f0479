"""What Ctrl-C says: at once, even while a step is in C code for minutes; and what it says is true of the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.errors import Interrupted
from pixelwise.files import write_text
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.run import train
from pixelwise.train.state import newest_step, read_newest_state

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning"),
]

# In the step of that number, 200 million rounds of a hash: C code that lets other threads run and heeds no signal.
LONG_STEP = """
import hashlib, sys
from pathlib import Path
from pixelwise.cli import main
from pixelwise.train.module import TrainingModule

step_of, words = int(sys.argv[1]), sys.argv[3:]
forward = TrainingModule._forward

def slow(module, images):
    if module.step + 1 == step_of:
        Path(sys.argv[2]).touch()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
    return forward(module, images)

TrainingModule._forward = slow
sys.exit(main(words))
"""


class SlowRun:
    """A run whose step of a given number takes minutes; its standard error goes into a file."""

    def __init__(self, folder: Path, step: int) -> None:
        config = tiny_config(write_dataset(folder / "data"))
        write_text(folder / "run.yaml", config.to_yaml())
        self.errors, self._mark, self.out = folder / "errors", folder / "in the step", folder / "run"
        argv = [str(step), str(self._mark), "train", str(folder / "run.yaml"), "--out", str(self.out)]
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LONG_STEP, *argv], stdout=subprocess.DEVNULL, stderr=errors
            )

    def wait_for_step(self) -> None:
        """Return once the process is in the long step."""
        self._wait(self._mark.exists, 240)

    def wait_for(self, words: str, seconds: float) -> None:
        """Return once standard error has the words."""
        self._wait(lambda: words in self.errors.read_text(), seconds)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self.errors.read_text()
            assert self.process.poll() is None, self.errors.read_text()
            time.sleep(0.02)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[SlowRun]]:
    runs: list[SlowRun] = []
    yield runs
    for run in runs:
        run.process.kill()
        run.process.wait()


@pytest.mark.parametrize(("step", "saved"), [(1, None), (4, 2)])
def test_a_step_of_minutes_delays_neither_the_answer_nor_the_end(
    step: int, saved: int | None, tmp_path: Path, started: list[SlowRun]
) -> None:
    run = SlowRun(tmp_path, step)
    started.append(run)
    run.wait_for_step()
    run.process.send_signal(signal.SIGINT)
    # A second is promised; a loaded machine gets more.
    run.wait_for("SIGINT: stopping after this step; Ctrl-C again ends at once\n", 5)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(20) == Interrupted.exit_code
    line = run.errors.read_text().splitlines()[-1]
    again = f"pixelwise train {tmp_path / 'data'} --out {run.out} --resume"
    assert newest_step(run.out / "checkpoints/last") == saved
    if saved is None:
        assert (
            line
            == f"error: {run.out}: stopped at once by SIGINT; nothing was saved yet; fix: run the same command again"
        )
    else:
        what = "stopped at once by SIGINT; checkpoints/last is of step 2, 1 later step lost"
        assert line == f"error: {run.out}: {what}; fix: go on with `{again}`"
    # What it says can be done.
    words = again.split()[1:] if saved else ["train", str(tmp_path / "run.yaml"), "--out", str(run.out)]
    subprocess.run([sys.executable, "-m", "pixelwise", *words], check=True, capture_output=True, timeout=300)
    assert newest_step(run.out / "checkpoints/last") == 6


def test_the_step_of_a_state_is_read_from_its_header(tmp_path: Path) -> None:
    silence_lightning()
    config = tiny_config(write_dataset(tmp_path / "data"), train={"steps": 3, "validate_every": 3})
    last = tmp_path / "run/checkpoints/last"
    assert newest_step(last) is None
    train(config, tmp_path / "run")
    state, _ = read_newest_state(last)
    assert state is not None
    assert newest_step(last) == state.progress.step == 3
    # A damaged file is passed over, as it is when the run resumes.
    os.truncate(last / "state.safetensors", 50)
    assert newest_step(last) == 2
