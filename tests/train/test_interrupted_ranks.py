"""Two ranks, of which one is killed, frozen or starved: both end within a minute, and resume in the same bits."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers import forked_cli
from helpers.same_run import assert_same_run
from helpers.tiny_data import TINY_COMPACT, tiny_config, write_dataset

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="kills and stops as Linux knows them"),
    pytest.mark.timeout(600),
]

SECONDS = 60
CHANGES: dict[str, Any] = {
    "model": {"name": "compact", "options": TINY_COMPACT},
    "data": {"batch_size": 1, "workers": 1},
    "optimizer": {"lr": 0.002, "schedule": "poly"},
    "train": {"devices": 2, "ema": 0.9, "steps": 8, "save_every": 3, "validate_every": 4, "log_every": 1},
}
# Run by every rank before the command. The rank of the fault gets it at the given call of a function that belongs to
# a moment: the fifth loss, the first labeled image of the first validation, the write of the second state.
FAULT = """
import json, os, signal, sys
fault = json.loads(os.environ.get("TEST_FAULT", "{}"))
rank = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
if fault and rank == str(fault["rank"]):
    import multiprocessing
    from pixelwise.train import losses, run, state, validation
    module, name, number = {
        "start": (run, "open_training_splits", 1),
        "step": (losses, "pixel_cross_entropy", 5),
        "validation": (validation, "label_map", 1),
        "save": (state, "read_state", 2),
    }[fault["moment"]]
    called, function = 0, getattr(module, name)

    def faulty(*args, **options):
        global called
        called += 1
        if called == number:
            with open(os.environ["TEST_MARK"], "w") as mark:
                mark.write(str(os.getpid()))
            act(fault["act"])
        return function(*args, **options)

    def act(what):
        if what == "fail":
            from pixelwise.errors import DatasetError
            raise DatasetError("the data", "cannot be read on this node", "mount it")
        elif what == "full disk":
            import resource
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            # More than what is printed, which goes to a file as well, and less than a state.
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        elif what.startswith("reader "):
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, getattr(signal, what.split()[1]))
        elif what == "slow":
            import time
            time.sleep(40)
        else:
            os.kill(os.getpid(), getattr(signal, what))

    setattr(module, name, faulty)
"""


class TwoRanks:
    """A dataset, a configuration, and runs of it by two ranks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(tiny_config(write_dataset(folder / "data"), **CHANGES).to_yaml())
        (folder / "script.py").write_text(f"{FAULT}\nfrom pixelwise.cli import main\nsys.exit(main())\n")

    def forked(
        self, name: str, *options: str, fault: dict[str, Any] | None = None, before: str = ""
    ) -> list[forked_cli.Forked]:
        """Start both ranks with the variables of torchrun, but no agent that ends one when the other has ended."""
        port = free_port()
        return [self.one(rank, name, *options, fault=fault, port=port, before=before) for rank in (0, 1)]

    def one(
        self,
        rank: int,
        name: str,
        *options: str,
        port: int,
        fault: dict[str, Any] | None = None,
        before: str = "",
    ) -> forked_cli.Forked:
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {key: str(value) for key, value in variables.items()} | self.environment(name, fault)
        environment |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
        command = ("train", self.config, "--out", self.folder / name, *options)
        output = self.folder / f"{name}.{rank}.txt"
        return forked_cli.start(*command, output=output, environment=environment, before=before + FAULT)

    def launched(
        self, launcher: str, name: str, *options: str, fault: dict[str, Any] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start both ranks by torchrun, or by `--train.devices` alone."""
        words = (
            ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if launcher == "torchrun" else []
        )
        words += [str(self.folder / "script.py"), "train", str(self.config), "--out", str(self.folder / name), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment(name, fault)}
        with open(self.folder / f"{name}.txt", "w", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def environment(self, name: str, fault: dict[str, Any] | None) -> dict[str, str]:
        return {"TEST_FAULT": json.dumps(fault or {}), "TEST_MARK": str(self.mark(name))}

    def mark(self, name: str) -> Path:
        return self.folder / f"{name}.mark"

    def finish(self, name: str, *options: str) -> Path:
        ranks = self.forked(name, *options)
        codes = [rank.wait() for rank in ranks]
        assert codes == [0, 0], [rank.text() for rank in ranks]
        return self.folder / name


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def processes_with(text: str) -> list[int]:
    """All processes in whose environment a text stands, which readers inherit from their rank."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes() and not forked_cli.is_gone(int(folder.name)):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_all(ranks: Sequence[forked_cli.Forked], seconds: float = SECONDS) -> float:
    """Wait until all processes have ended, readers too; return the seconds that it took."""
    started = time.monotonic()
    readers = [reader for rank in ranks for reader in forked_cli.children(rank.pid)]
    pids = [*(rank.pid for rank in ranks), *readers]
    forked_cli.poll(lambda: all(map(forked_cli.is_gone, pids)), "not all have ended", seconds)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> TwoRanks:
    return TwoRanks(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def whole(two: TwoRanks) -> Path:
    return two.finish("whole")


def interrupt(two: TwoRanks, name: str, fault: dict[str, Any], before: str = "") -> tuple[float, list[int], list[str]]:
    """Run with a fault; return the seconds from the fault to the last end, exit codes, and what was printed."""
    ranks = two.forked(name, fault=fault, before=before)
    forked_cli.poll(two.mark(name).exists, "the fault did not come", 120)
    seconds = wait_all(ranks)
    codes, texts = [rank.wait() for rank in ranks], [rank.text() for rank in ranks]
    print(f"{name}: {seconds:.1f} seconds, exit codes {codes}", *texts, sep="\n")
    return seconds, codes, texts


KILLED = [
    {"rank": rank, "moment": moment, "act": "SIGKILL"}
    for rank in (0, 1)
    for moment in ("start", "step", "validation", "save")
    if (rank, moment) != (1, "save")
]
# A rank that is stopped before it has joined is ended by its launcher, which forked ranks lack.
FROZEN = [{**fault, "act": "SIGSTOP"} for fault in KILLED if fault["moment"] != "start"]
ASKED = [
    {"rank": rank, "moment": moment, "act": act}
    for rank, moment, act in (
        (0, "step", "SIGTERM"),
        (1, "step", "SIGINT"),
        (1, "validation", "SIGTERM"),
        (0, "save", "SIGINT"),
    )
]
STARVED = [
    {"rank": 1, "moment": "step", "act": "reader SIGKILL"},
    {"rank": 0, "moment": "step", "act": "reader SIGSTOP"},
    {"rank": 1, "moment": "step", "act": "reader SIGSTOP"},
]
FAILED = [
    {"rank": 0, "moment": "step", "act": "full disk"},
    {"rank": 0, "moment": "start", "act": "fail"},
    {"rank": 1, "moment": "start", "act": "fail"},
]


def named(fault: dict[str, Any]) -> str:
    return f"{fault['act']}-{fault['moment']}-{fault['rank']}".replace(" ", "-")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*KILLED, *FROZEN, *ASKED, *STARVED, *FAILED], ids=named)
def test_both_end_within_a_minute_and_resume_in_the_same_bits(
    two: TwoRanks, whole: Path, fault: dict[str, Any]
) -> None:
    name = named(fault)
    seconds, codes, texts = interrupt(two, name, fault)
    assert seconds < SECONDS
    other = 1 - fault["rank"]
    killed = fault["act"] in ("SIGKILL", "SIGSTOP")
    assert codes[fault["rank"]] == (
        -signal.SIGKILL if killed else {"SIGTERM": 4, "SIGINT": 4, "fail": 2}.get(fault["act"], 3)
    )
    assert codes[other] == (4 if fault in ASKED else 3)
    for rank in (0, 1):
        errors = [line for line in texts[rank].splitlines() if line.startswith("error: ")]
        assert len(errors) == (not (killed and rank == fault["rank"])), texts
        assert "itself failed" not in texts[rank]
        assert "Traceback" not in texts[rank]
    if fault["moment"] == "start":
        assert f"rank {fault['rank']}" in texts[other]
    elif killed:
        assert f"rank {fault['rank']} (process {two.mark(name).read_text()} on " in texts[other]
    assert_same_run(whole, two.finish(name, "--resume"))


# Launcher, fault, or in its place a signal to the launcher or the whole group; the exit codes that it may have.
LaunchedCase = tuple[str, dict[str, Any], str, int, set[int]]
SHORT = """
from pixelwise.train import watch
watch.SECONDS_SILENT, watch.SECONDS_TO_JOIN = 5, 5
"""


@pytest.mark.parametrize("act", ["SIGKILL", "SIGSTOP"])
def test_a_rank_that_is_gone_ends_the_other(two: TwoRanks, act: str) -> None:
    fault = {"rank": 0, "moment": "validation", "act": act}
    seconds, codes, texts = interrupt(two, f"short-{act}", fault, SHORT)
    assert codes == [-signal.SIGKILL, 3]
    assert seconds < SECONDS / 2
    last = texts[1].splitlines()[-1]
    what = "was killed, or has crashed" if act == "SIGKILL" else "has shown no sign of life for 5 seconds"
    assert last.startswith(
        f"error: training: rank 0 (process {two.mark(f'short-{act}').read_text()} on {socket.gethostname()}) {what}"
    )
    assert last.endswith("go on with --resume")


def test_a_rank_says_why_it_ends_although_torchrun_ends_it(two: TwoRanks) -> None:
    """SIGTERM comes after the handlers of the run are gone, and before the error is printed."""
    before = f"""{SHORT}
import os, signal
leave = watch.RankWatch.__exit__
def leave_on_sigterm(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return leave(*arguments)
watch.RankWatch.__exit__ = leave_on_sigterm
"""
    fault = {"rank": 0, "moment": "step", "act": "SIGKILL"}
    _, codes, texts = interrupt(two, "sigterm", fault, before)
    assert codes == [-signal.SIGKILL, 3]
    assert "error: training: rank 0" in texts[1]


def test_a_rank_that_was_never_started_is_not_waited_for(two: TwoRanks) -> None:
    rank = two.one(0, "alone", port=free_port(), before=SHORT)
    wait_all([rank])
    assert rank.wait() == 3
    assert "error: training: rank 1 did not start within 5 seconds; fix: start all ranks at once" in rank.text()
    assert not (two.folder / "alone").exists(), "a start that failed leaves no folder"


def test_ranks_that_see_different_states_do_not_train_together(two: TwoRanks, whole: Path) -> None:
    """Two nodes without a common disk: one would go on with step 9, the other start with step 1."""
    port = free_port()
    longer = ("--resume", "--train.steps", "9")
    copy = two.folder / "step8"
    copy.mkdir()
    for name in ("config.yaml", "metrics.csv", "checkpoints"):
        (copy / name).symlink_to(whole / name)
    ranks = [two.one(0, "step8", *longer, port=port), two.one(1, "elsewhere", *longer, port=port)]
    wait_all(ranks)
    assert [rank.wait() for rank in ranks] == [3, 3]
    line = ranks[0].text().splitlines()[-1]
    assert re.search(r"the ranks see another state or other data \(step and hash of the data: 0 (\w+) and 8 \1\)", line)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["step", "validation", "save"])
def test_a_slow_rank_is_waited_for(two: TwoRanks, whole: Path, moment: str) -> None:
    """It stands still for longer than a dead rank would be waited for."""
    name = f"slow-{moment}"
    ranks = two.forked(name, fault={"rank": 0, "moment": moment, "act": "slow"})
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.text() for rank in ranks]
    assert_same_run(whole, two.folder / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        ("torchrun", {"rank": 1, "moment": "step", "act": "SIGKILL"}, "", 0, {1}),
        ("torchrun", {"rank": 0, "moment": "save", "act": "SIGSTOP"}, "", 0, {1}),
        ("torchrun", {"rank": 1, "moment": "validation", "act": "SIGSTOP"}, "", 0, {1}),
        ("torchrun", {"rank": 0, "moment": "start", "act": "SIGSTOP"}, "", 0, {1}),
        ("torchrun", {"rank": 1, "moment": "start", "act": "SIGSTOP"}, "", 0, {1}),
        ("torchrun", {}, "launcher", signal.SIGTERM, {1, -signal.SIGTERM, 128 + signal.SIGTERM}),
        ("torchrun", {}, "launcher", signal.SIGINT, {1, -signal.SIGINT, 128 + signal.SIGINT}),
        ("torchrun", {}, "launcher", signal.SIGKILL, {-signal.SIGKILL}),
        ("devices", {"rank": 0, "moment": "step", "act": "SIGKILL"}, "", 0, {-signal.SIGKILL}),
        ("devices", {"rank": 1, "moment": "step", "act": "SIGKILL"}, "", 0, {3}),
        ("devices", {"rank": 0, "moment": "step", "act": "SIGSTOP"}, "", 0, {-signal.SIGKILL}),
        ("devices", {"rank": 1, "moment": "validation", "act": "SIGSTOP"}, "", 0, {3}),
        ("devices", {"rank": 0, "moment": "save", "act": "full disk"}, "", 0, {3}),
        ("devices", {"rank": 1, "moment": "start", "act": "SIGSTOP"}, "", 0, {3}),
        ("devices", {}, "group", signal.SIGINT, {4}),
        ("devices", {}, "launcher", signal.SIGTERM, {4}),
    ],
)
def test_launched_ranks_end_and_leave_no_process(two: TwoRanks, whole: Path, case: LaunchedCase) -> None:
    launcher, fault, to, number, codes = case
    name = f"{launcher}-{named(fault) if fault else f'{to}-{number}'}"
    process = two.launched(launcher, name, fault=fault)
    metrics = two.folder / name / "metrics.csv"
    mark = str(two.mark(name))
    try:
        if fault:
            forked_cli.poll(two.mark(name).exists, "the fault did not come", 200)
        else:
            forked_cli.poll(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 2, "no step came", 200)
            (os.killpg if to == "group" else os.kill)(process.pid, number)
        started = time.monotonic()
        code = process.wait(SECONDS)
        forked_cli.poll(lambda: not processes_with(mark), "a process was left", SECONDS - time.monotonic() + started)
    finally:
        for pid in processes_with(mark):
            os.kill(pid, signal.SIGKILL)
    text = (two.folder / f"{name}.txt").read_text()
    print(f"{name}: {time.monotonic() - started:.1f} seconds, exit code {code}", text, sep="\n")
    assert code in codes, text
    assert "error: " in text
    assert "itself failed" not in text
    assert "--resume" in text or fault.get("act") == "full disk"
    if launcher == "devices" and fault.get("act") in ("SIGKILL", "SIGSTOP"):
        assert f"error: training: rank {fault['rank']}" in text, "the rank that is gone is named"
    assert_same_run(whole, two.finish(name, "--resume"))
