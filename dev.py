"""Set up a private environment and run one of the project's tasks in it: `python dev.py test`.

Needs Python 3.11 or newer and nothing else; the Makefile and the continuous integration call this file, Windows users do it by
hand. The packages go to `.venv`, pinned by `constraints.txt`, and are installed again only when one of the two files changes.
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
LEFTOVERS = (
    "build",
    "dist",
    "demo",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".import_linter_cache",
    ".hypothesis",
)

# Each task: the extra that its packages come from, and the commands that it runs; all of them run, the first failure is the result.
TASKS = {
    "setup": ("dev", ()),
    "demo": ("", (("pixelwise", "demo", "samples", "--out", "demo"),)),
    "test": ("dev", ((*PYTEST, "-m", "not slow"),)),
    "test-all": ("dev", (PYTEST,)),
    "lint": ("dev", (("ruff", "check", "."), ("mypy",), ("lint-imports",))),
    "wheel": ("dev", (("python", "-m", "build", "--wheel"),)),
}


def main() -> int:
    """Read the task's name from the command line and run it; the exit code is that of its first failing command."""
    parser = argparse.ArgumentParser(description="Set up .venv and run one of the project's tasks in it.")
    parser.add_argument("task", choices=[*TASKS, "clean"])
    task = parser.parse_args().task
    if task == "clean":
        return clean()
    extra, commands = TASKS[task]
    prepare(extra)
    codes = [run(command) for command in commands]
    return next((code for code in codes if code), 0)


def clean() -> int:
    """Remove what the tasks made; `.venv` stays, since making it again takes minutes."""
    for name in LEFTOVERS:
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ("src", "tests", "benchmarks"):
        for cache in (ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(cache, ignore_errors=True)
    return 0


def prepare(extra: str) -> None:
    """Make `.venv` hold the package and the extra's packages; a stamp of both files' digest says that it does."""
    digest = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    ).hexdigest()
    wanted = VENV / f".stamp-{extra or 'core'}"
    # The larger installation holds the smaller one.
    if runs(str(SCRIPTS / "python")) and digest in (read(wanted), read(VENV / ".stamp-dev")):
        return
    if not runs(str(SCRIPTS / "python")):
        create_environment()
    print("installing the packages into .venv (once; this takes minutes)", flush=True)
    target = f".[{extra}]" if extra else "."
    if run(("python", "-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", "--editable", target)):
        sys.exit("dev.py: pip could not install the packages; its last lines above say why")
    wanted.write_text(digest, encoding="utf-8")


def create_environment() -> None:
    """Make an empty `.venv`, also over the remains of one that was cut short."""
    python = find_python()
    if subprocess.run([python, "-m", "venv", "--clear", str(VENV)], check=False).returncode:
        sys.exit(
            f"dev.py: {python} cannot make a virtual environment; fix: install its venv module (Debian: python3-venv)"
        )


def find_python() -> str:
    """The first interpreter that is new enough; the one that runs this file is asked first."""
    for name in (sys.executable, "python3.11", "python3.12", "python3.13", "python3.14", "python3", "python"):
        path = shutil.which(name)
        if path and runs(path):
            return path
    oldest, found = ".".join(map(str, OLDEST)), sys.version.split()[0]
    sys.exit(f"dev.py: needs Python {oldest} or newer, found {found}; fix: install one, or call it by name")


def runs(python: str) -> bool:
    """Whether this interpreter exists, starts and is new enough."""
    try:
        test = f"import sys; sys.exit(sys.version_info < {OLDEST})"
        return subprocess.run([python, "-c", test], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def run(command: tuple[str, ...]) -> int:
    """Run a program of `.venv` in the project's folder, one thread for each process: the tests' workers share the cores."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ} if "pytest" in command else None
    return subprocess.run([str(SCRIPTS / command[0]), *command[1:]], cwd=ROOT, env=environment, check=False).returncode


def read(stamp: Path) -> str:
    """What the stamp holds; nothing when there is none."""
    return stamp.read_text(encoding="utf-8") if stamp.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
