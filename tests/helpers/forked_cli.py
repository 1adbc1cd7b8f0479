"""The real command line in processes forked from one that has imported everything, so that a start takes no seconds."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SERVER = """
import json, os, sys, traceback
import pixelwise.cli, pixelwise.commands.train, pixelwise.train.run, pixelwise.train.finish

def child(order):
    os.setsid()
    out = os.open(order["output"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for number in (1, 2):
        os.dup2(out, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["pixelwise", *order["argv"]]
    os.environ.update(order["environment"])
    code = 99
    try:
        exec(order["before"], {})
        code = pixelwise.cli.main(order["argv"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        child(order)
    print(pid, flush=True)
"""


@dataclass
class Forked:
    """One running command."""

    pid: int
    output: Path
    server: subprocess.Popen[str]

    def wait(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return int(_ask(self.server, {"wait": self.pid}))

    def text(self) -> str:
        """What it has printed so far, on both streams."""
        return self.output.read_text(encoding="utf-8")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Poll until the condition holds, or the command has ended."""
        poll(lambda: condition() or is_gone(self.pid), "nothing came", seconds)

    def kill(self, number: int) -> int:
        """Send a signal, and wait for the end."""
        os.kill(self.pid, number)
        return self.wait()


def poll(condition: Callable[[], bool], otherwise: str, seconds: float = 15) -> None:
    """Wait for a condition; fail with the sentence `otherwise` when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.002)


def start(*argv: object, output: Path, environment: dict[str, str] | None = None, before: str = "") -> Forked:
    """Start `pixelwise ARGV`; its streams go to the file `output`.

    environment  variables that it has besides those of this process
    before       Python code that it runs first
    """
    server = _server()
    order = {"argv": [str(word) for word in argv], "output": str(output)}
    pid = int(_ask(server, {**order, "environment": environment or {}, "before": before}))
    return Forked(pid, output, server)


def is_gone(pid: int) -> bool:
    """True when the process has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def children(pid: int) -> list[int]:
    """Processes that `pid` has started."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@functools.cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    atexit.register(_stop, server)
    return server


def _stop(server: subprocess.Popen[str]) -> None:
    """End the server; its commands end by themselves."""
    with server:
        server.kill()


def _ask(server: subprocess.Popen[str], order: dict[str, object]) -> str:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()
    return server.stdout.readline()
