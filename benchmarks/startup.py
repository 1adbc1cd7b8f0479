"""What the command line costs before it does anything: processor seconds of help, of listings, of slips.

    python -m benchmarks.startup [--rounds 5] [COMMAND LINE ...]

Each command line runs in a process of its own, `--rounds` times; the least of its processor seconds, user and system,
is printed, which other load on the machine changes least. The first two lines are what Python alone and NumPy cost.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys

from pixelwise.cli import COMMANDS

LISTINGS = ("models", "models compact", "backbones", "datasets", "recipes")
SLIPS = ("predict nofile.jpg --out nowhere", "train nowhere --out run", "evaluate --data nowhere", "predcit photo.jpg")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Processor seconds of command lines that have little to do.")
    parser.add_argument("lines", nargs="*", metavar="COMMAND LINE", help='such as "models compact"; all by default')
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for program in ("pass", "import numpy"):
        print(f"{processor_seconds(['-c', program], arguments.rounds):.2f} cpu-s  python -c {program!r}", flush=True)
    every = ("--version", "--help", *(f"{command} --help" for command in COMMANDS), *LISTINGS, *SLIPS)
    for line in arguments.lines or every:
        seconds = processor_seconds(["-m", "pixelwise", *shlex.split(line)], arguments.rounds)
        print(f"{seconds:.2f} cpu-s  pixelwise {line}", flush=True)


def processor_seconds(words: list[str], rounds: int) -> float:
    """Return the least processor seconds of a Python process; its exit code and output do not matter."""
    return min(_spent_by([sys.executable, *words]) for _ in range(rounds))


def _spent_by(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
