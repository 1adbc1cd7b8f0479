"""The command line starts fast: help, listings and slips import nothing heavy. No test measures time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pixelwise.cli import COMMANDS

SECONDS = {"torch", "lightning", "numba", "huggingface_hub", "scipy", "matplotlib", "torchvision", "safetensors"}
HEAVY = SECONDS | {"numpy", "PIL", "cv2", "jinja2", "importlib.metadata"}
"""What costs a tenth of a second and more, or brings it."""

# Children forked from one interpreter that has imported the command line; each writes the exit code of a command line
# and the names of all that is imported then.
PROGRAM = """
import json, os, sys
from pixelwise.cli import main
for line in sys.argv[2:]:
    if os.fork() == 0:
        code = main(line.split())
        with open(sys.argv[1], "a") as file:
            file.write(json.dumps([line, code, list(sys.modules)]) + "\\n")
        os._exit(0)
    os.wait()
"""


def imported_by(folder: Path, lines: list[str], unwanted: set[str]) -> dict[str, tuple[int, list[str]]]:
    """The exit code of each command line, and what it imports of `unwanted`."""
    notes = folder / "notes"
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(notes), *lines]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=100, check=True)
    rows = [json.loads(row) for row in notes.read_text().splitlines()]
    return {line: (code, sorted(unwanted & set(modules))) for line, code, modules in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_help_imports_nothing_heavy(folder: Path) -> None:
    lines = ["--version", "--help", *(f"{command} --help" for command in COMMANDS), "train -h"]
    assert imported_by(folder, lines, HEAVY | {"yaml"}) == dict.fromkeys(lines, (0, []))


def test_listings_import_nothing_heavy(folder: Path) -> None:
    """`python tools/write_index.py` tells the indexes of a new network, or what it registers will be imported here."""
    lines = ["models", "models compact", "models fcn8s_vgg16", "backbones", "recipes"]
    assert imported_by(folder, lines, HEAVY) == dict.fromkeys(lines, (0, []))
    formats = imported_by(folder, ["datasets"], SECONDS | {"cv2", "jinja2"})
    assert formats["datasets"] == (0, [])


def test_a_slip_is_found_before_anything_heavy_is_imported(folder: Path) -> None:
    lines = [f"{command} --no-such-option 1" for command in COMMANDS]
    lines += ["predcit photo.png", "train", "train empty --trian.steps 2 --out run", "train nowhere --out run"]
    lines += ["predict --out out", "evaluate", "compare photo.png --out out.txt", "crf-search --model no --data no"]
    assert imported_by(folder, lines, HEAVY) == dict.fromkeys(lines, (2, []))


def test_a_missing_file_is_found_before_anything_slow_is_imported(folder: Path) -> None:
    lines = ["predict gone.png --out out", "demo gone --out out", "check gone", "evaluate --data gone", "train empty"]
    lines += ["convert gone --to coco --out out", "report gone"]
    assert imported_by(folder, lines, SECONDS) == dict.fromkeys(lines, (2, []))


# The shipped model labels a small image.
LABEL = """
import sys
import numpy as np
import pixelwise
labels = pixelwise.load(device="cpu")(np.zeros((32, 32, 3), np.uint8)).mask
print(*labels.shape, *(name for name in sys.modules if name.partition(".")[0] in ("lightning", "huggingface_hub")))
print(*sorted(name for name in sys.modules if name.startswith(("pixelwise.models.", "pixelwise.backbones."))))
"""


def test_a_model_is_loaded_with_its_own_network_alone() -> None:
    child = subprocess.run([sys.executable, "-c", LABEL], capture_output=True, text=True, timeout=100, check=True)
    shape, modules = child.stdout.splitlines()
    assert shape == "32 32"
    networks = {name for name in modules.split() if not name.endswith(".base")}
    assert networks == {"pixelwise.models.compact", "pixelwise.backbones.compact"}
