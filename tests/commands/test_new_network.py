"""A new network is one new file: the registry, the command line, training, checkpoints and prediction find it by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import pixelwise
from helpers.tiny_data import make_image, tiny_config, write_dataset
from pixelwise.analysis.model_table import measure, read_table
from pixelwise.models import list_models

TOY = '''"""Toy: two convolutions.

Paper: none.

Deviations: none.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..core import LowResLogits
from ..nn.upsampling import Bilinear
from .base import MODELS, SegmentationModel


class Toy(SegmentationModel):
    """Two convolutions; logits at stride 2."""

    logits_stride = 2

    def __init__(
        self, num_classes: int = 3, in_channels: int = 3, *, width: int = 8, preprocessing: str = "torchvision"
    ) -> None:
        super().__init__(num_classes, in_channels, preprocessing)
        self.features = nn.Sequential(nn.Conv2d(in_channels, width, 3, 2, 1), nn.ReLU())
        self.score = nn.Conv2d(width, num_classes, 1)

    def forward_low_res(self, images: Tensor) -> LowResLogits:
        """Compute logits at stride 2."""
        return LowResLogits(self.score(self.features(self.preprocess(images))), Bilinear())


MODELS.register("toy", summary="Two convolutions.", tiny={"width": 2}, paper="https://example.org", year=2026)(Toy)
'''


def run(package: Path, *argv: object) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "COLUMNS": "200"}
    command = [sys.executable, "-m", "pixelwise", *map(str, argv)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_network_in_one_file_trains_and_predicts(tmp_path: Path) -> None:
    package = tmp_path / "source" / "pixelwise"
    shutil.copytree(Path(pixelwise.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    (package / "models" / "toy.py").write_text(TOY)
    assert any(line.startswith("toy ") and "example.org" in line for line in run(package, "models").splitlines())
    config = tiny_config(write_dataset(tmp_path / "data"), model={"name": "toy", "options": {}}, train={"steps": 2})
    (tmp_path / "toy.yaml").write_text(config.to_yaml())
    run(package, "train", tmp_path / "toy.yaml", "--out", tmp_path / "run")
    Image.fromarray(make_image(3, (21, 34))[0]).save(tmp_path / "photo.png")
    run(package, "predict", tmp_path / "photo.png", "--model", tmp_path / "run", "--out", tmp_path / "out")
    assert np.asarray(Image.open(tmp_path / "out" / "photo.png")).shape == (21, 34)


def test_the_table_of_costs_is_of_these_networks() -> None:
    """`python -m pixelwise.analysis.model_table` writes it anew."""
    table = read_table()
    assert set(table) == set(list_models())
    for name in ("compact", "deeplabv1_largefov_vgg16"):
        assert measure(name) == table[name]
