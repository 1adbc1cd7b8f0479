"""A new network is one new file: the registry, the tests, the checks, the command line and training find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tiny_data import make_image, tiny_config, write_dataset

ROOT = Path(__file__).parents[2]

TOY = '''"""Toy: two convolutions.

Paper: https://example.org/toy

Deviations: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..core import LowResLogits
from ..nn.upsampling import Bilinear
from . import MODELS
from .base import SegmentationModel


@MODELS.register("toy", tiny={"width": 2}, paper="https://example.org/toy", year=2026)
class Toy(SegmentationModel):
    """Two convolutions."""

    logits_stride = 2

    def __init__(
        self,
        num_classes: int = 3,
        in_channels: int = 3,
        *,
        width: int = 8,
        preprocessing: str | Mapping[str, Any] = "torchvision",
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.conv = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.score = nn.Conv2d(width, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute the logits at stride 2."""
        return LowResLogits(self.score(self.conv(self.preprocess(images)).relu()), Bilinear())
'''

# One process runs everything that needs the copy's package: a start takes seconds.
PROGRAM = """
import sys
import pytest
import pixelwise
from pixelwise.cli import main

assert pixelwise.__file__.startswith({root!r}), pixelwise.__file__
tests = ["tests/models/test_models.py", "tests/analysis/test_profile.py", "tests/project"]
chosen = "toy or test_docs or stay_short or dangerous"
failed = pytest.main([*tests, "-k", chosen, "-p", "no:cacheprovider", "-q", "-rA"])
print("pytest ended with", int(failed))
for argv in {commands!r}:
    print("pixelwise", argv[0], "ended with", main(argv), flush=True)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository, with one file more."""
    root = tmp_path_factory.mktemp("repository")
    for name in ("src", "tests", "docs", "tools", "benchmarks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "samples"))
    for name in ("README.md", "pyproject.toml", "constraints.txt", "dev.py", "LICENSE", "Makefile"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "samples", root / "samples")
    (root / "src" / "pixelwise" / "models" / "toy.py").write_text(TOY)
    return root


def run(root: Path, *command: str) -> str:
    """Run a program on the copy and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_network_in_one_file_passes_the_checks(copy: Path) -> None:
    run(copy, sys.executable, "-m", "ruff", "check", ".")
    run(copy, sys.executable, "-m", "ruff", "format", "--check", "src/pixelwise/models/toy.py")
    assert "0 broken" in run(copy, sys.executable, "-c", "from importlinter.cli import lint_imports_command as l; l()")


@pytest.mark.timeout(300)
def test_a_network_in_one_file_passes_the_tests_trains_and_predicts(copy: Path, tmp_path: Path) -> None:
    config = tiny_config(write_dataset(tmp_path / "data"), model={"name": "toy", "options": {}}, train={"steps": 2})
    (tmp_path / "toy.yaml").write_text(config.to_yaml())
    Image.fromarray(make_image(3, (21, 34))[0]).save(tmp_path / "photo.png")
    commands = [
        ["models"],
        ["models", "toy"],
        ["train", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "run")],
        ["predict", str(tmp_path / "photo.png"), "--model", str(tmp_path / "run"), "--out", str(tmp_path / "out")],
    ]
    output = run(copy, sys.executable, "-c", PROGRAM.format(root=str(copy), commands=commands))
    assert "pytest ended with 0" in output, output
    passed = [line for line in output.splitlines() if line.startswith("PASSED tests/models/test_models.py")]
    assert len(passed) >= 12, "the contract tests run on the new network"
    assert "PASSED tests/project/test_house.py::test_a_network_opens_with_its_paper[toy.py]" in output
    row = ["toy", "example.org/toy", "2026", "-", "-", "-", "-"]
    assert row in [line.split() for line in output.splitlines()], "a network without a row in the table of costs"
    assert output.count("ended with 0") == 1 + len(commands), output
    assert np.asarray(Image.open(tmp_path / "out" / "photo.png")).shape == (21, 34)
