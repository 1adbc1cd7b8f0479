"""Run made cases one after another in one child process, and check after each what the toolkit promises.

A kind of case is a function `make(rng, folder) -> Attempt`: it writes files into the empty folder and says what to call
and how a result is judged. The promise: the call ends in time and within the memory, with a right result or with one
`PixelwiseError` of subject, what and fix; the files of the case are as before, and no temporary file stays.

The parent starts the child again after a case that hangs or ends the process. A case is a function of seed and number.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pixelwise.errors import PixelwiseError

# Characters of an error without its subject, which may be a long path.
MAX_LINE = 400
# Seconds of computing that a case may take, and seconds of waiting after which it counts as hanging.
MAX_CPU_SECONDS = 20.0
MAX_SECONDS = 120.0
MIB = 2**20
OUT = "out"


@dataclass(frozen=True)
class Attempt:
    """What a case calls, and how its result is judged.

    act      the call; a PixelwiseError that it raises is checked, any other exception is a fault
    judge    called with the result; an AssertionError is a fault
    mib      address space that the call may take, in MiB
    is_good  the call must succeed: its input is not damaged
    """

    act: Callable[[], Any]
    judge: Callable[[Any], None] = lambda result: None
    mib: int = 512
    is_good: bool = False


Make = Callable[[Random, Path], Attempt]


@dataclass
class Summary:
    """What was run: the number of cases and of refused ones per kind, the faults, and the largest memory in MiB."""

    seed: str
    seconds: float = 0.0
    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_mib: int = 0

    def line(self) -> str:
        """Return all of it on one line."""
        kinds = ", ".join(f"{kind} {n} ({self.refused[kind]} refused)" for kind, n in sorted(self.cases.items()))
        total = sum(self.cases.values())
        return (
            f"fuzz: {total} cases in {self.seconds:.0f} s, {len(self.faults)} faults, seed {self.seed}, "
            f"memory {self.peak_mib} MiB: {kinds}"
        )


def run_case(make: Make, rng: Random, folder: Path) -> tuple[str, bool]:
    """Run one case in an empty folder. Return the fault in words, "" for none, and whether the input was refused."""
    attempt = make(rng, folder)
    before = snapshot(folder)
    started, refused = time.process_time(), False
    try:
        with limited_memory(attempt.mib):
            result = attempt.act()
    except PixelwiseError as error:
        refused = True
        fault = f"refused a good input: {error}" if attempt.is_good else fault_of(error)
    except (Exception, SystemExit):  # noqa: BLE001, any other exception is a fault to be reported
        fault = traceback.format_exc()
    else:
        fault = judged(attempt, result)
        refused = getattr(result, "code", 0) != 0
    seconds = time.process_time() - started
    after = snapshot(folder)
    if not fault and seconds > MAX_CPU_SECONDS:
        fault = f"took {seconds:.1f} s of computing"
    if not fault and (changed := changes(before, after)):
        fault = "changed or left over: " + ", ".join(changed)
    return fault, refused


def judged(attempt: Attempt, result: Any) -> str:
    """Return what is wrong with a result."""
    try:
        attempt.judge(result)
    except (Exception, SystemExit):  # noqa: BLE001, what a judge cannot take is wrong, too
        return "wrong result: " + traceback.format_exc()
    return ""


def fault_of(error: PixelwiseError) -> str:
    """Return what is wrong with an error that was raised on purpose."""
    line = str(error)
    if not (error.subject and error.what and error.fix):
        return f"an error without subject, what or fix: {line!r}"
    # A proposed classes.yaml has all classes, and a dataset may have a problem of each kind.
    is_list = "write classes.yaml as" in error.fix or " problems: (1) " in error.what
    is_short = is_list or len(error.what) + len(error.fix) < MAX_LINE
    if not is_short or "\n" in line:
        return f"an error of {len(line)} characters: {line!r}"
    if error.exit_code not in (2, 3, 4):
        return f"exit code {error.exit_code}: {line!r}"
    return ""


def snapshot(folder: Path) -> dict[str, str]:
    """Return the digest, the target or the kind of every file below a folder, and whether there is a folder `out`."""
    found = {}
    for root, folders, names in os.walk(os.fsencode(folder)):
        for name in (*folders, *names):
            path = os.path.join(root, name)
            key = os.fsdecode(os.path.relpath(path, os.fsencode(folder)))
            if os.path.islink(path):
                found[key] = "link to " + os.fsdecode(os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[key] = hashlib.sha256(file.read()).hexdigest()
            else:
                found[key] = "folder" if os.path.isdir(path) else "special"
    return found


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the files that changed, went, or came outside of `out`, and the temporary files anywhere."""
    wrong = [name for name, value in before.items() if after.get(name) != value]
    new = [name for name in after if name not in before]
    return wrong + [name for name in new if ".tmp-" in name or (name != OUT and not name.startswith(OUT + os.sep))]


@contextmanager
def limited_memory(mib: int) -> Iterator[None]:
    """Let the process take at most that much further address space."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * MIB, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


@dataclass(frozen=True)
class Order:
    """What a child runs: the cases first, first + 1, ... below `end`, until the time `deadline`.

    table        the module whose `KINDS` gives each kind's `make`
    turns        the kinds, in turn
    work         a folder for the files of the cases
    max_seconds  after which a case counts as hanging
    """

    table: str
    turns: list[str]
    seed: str
    first: int
    end: int
    deadline: float
    work: str
    max_seconds: float


def child(order: Order) -> None:
    """Run the cases, and print a line of JSON before and after each. A case that hangs ends the process."""
    kinds: Mapping[str, Make] = importlib.import_module(order.table).KINDS
    report = os.fdopen(os.dup(1), "w")
    # What the toolkit and the libraries print goes into a file, which a case may read.
    capture = os.open(Path(order.work) / "streams", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(capture, number)
    stacks = open(Path(order.work) / "stacks", "w")  # noqa: SIM115, open as long as the process
    number = order.first
    while number < order.end and time.time() < order.deadline:
        kind = order.turns[number % len(order.turns)]
        folder = Path(order.work) / f"case{number}"
        folder.mkdir()
        print(json.dumps({"number": number, "kind": kind}), file=report, flush=True)
        faulthandler.dump_traceback_later(order.max_seconds, exit=True, file=stacks)
        fault, refused = run_case(kinds[kind], Random(f"{order.seed}/{kind}/{number}"), folder)
        faulthandler.cancel_dump_traceback_later()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"fault": fault, "refused": refused, "peak": peak}), file=report, flush=True)
        if not fault:
            remove(folder)
        number += 1


def remove(folder: Path) -> None:
    """Remove a case's folder, folders without rights included."""
    for root, _, _ in os.walk(os.fsencode(folder)):
        os.chmod(root, 0o700)
    shutil.rmtree(os.fsencode(folder))


def fuzz(
    table: str,
    turns: Sequence[str],
    *,
    seed: str,
    first: int = 0,
    cases: int = 2**62,
    seconds: float = 2**31,
    saved: Path,
    max_seconds: float = MAX_SECONDS,
) -> Summary:
    """Run cases until one of the two limits. The files of a case with a fault are moved to `saved`; see `Order`."""
    summary, started = Summary(seed), time.time()
    end, deadline = first + cases, started + seconds
    while first < end and time.time() < deadline:
        with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as work:
            order = Order(table, list(turns), seed, first, end, deadline, work, max_seconds)
            first = follow(order, summary, saved)
    summary.seconds = time.time() - started
    return summary


def follow(order: Order, summary: Summary, saved: Path) -> int:
    """Run a child, count its cases, and return the number of the case after its last one."""
    command = [sys.executable, "-m", "fuzz", "--order", json.dumps(asdict(order))]
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    case: dict[str, Any] = {}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=order.work, env={**os.environ, **variables}
    ) as process:
        for line in process.stdout or ():
            row = json.loads(line)
            if "kind" in row:
                case = row
                summary.cases[case["kind"]] += 1
                continue
            summary.refused[case["kind"]] += row["refused"]
            summary.peak_mib = max(summary.peak_mib, row["peak"])
            if row["fault"]:
                save_fault(case, row["fault"], order, summary, saved)
            case = {}
    if process.returncode == 0:
        return order.end
    printed = (Path(order.work) / "streams").read_text(errors="backslashreplace")
    if not case:
        raise RuntimeError(f"the child ended with {process.returncode} outside of a case: {printed[-2000:]}")
    stacks = (Path(order.work) / "stacks").read_text()
    ending = f"hung:\n{stacks}" if stacks else f"ended the process ({process.returncode}): {printed[-2000:]}"
    save_fault(case, ending, order, summary, saved)
    return int(case["number"]) + 1


def save_fault(case: Mapping[str, Any], fault: str, order: Order, summary: Summary, saved: Path) -> None:
    """Save the files of a case with a fault, and print it with the command that repeats it."""
    folder = saved / f"{case['kind']}-{order.seed}-{case['number']}"
    saved.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        remove(folder)
    shutil.move(Path(order.work) / f"case{case['number']}", folder)
    again = f"python dev.py fuzz --seed {order.seed} --kind {case['kind']} --case {case['number']}"
    text = f"{case['kind']}, case {case['number']}: {fault.strip()}\nfiles: {folder}\nrepeat: {again}"
    text = text.encode("ascii", "backslashreplace").decode()
    folder.with_name(f"{folder.name}.txt").write_text(text + "\n", encoding="utf-8")
    print(text, flush=True)
    summary.faults.append(text)
