"""No command writes over its inputs, over files of others or into the data, and a refused one leaves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command_line import call, files_below, refused, save_tiny
from helpers.tiny_data import NAMES, write_dataset
from pixelwise.core import Taxonomy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset d with predictions p, and a model m of its classes."""
    write_dataset(tmp_path / "d", num_train=1, num_val=2)
    (tmp_path / "p").mkdir()
    for k in range(2):
        Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / f"p/p{k}.png")
    save_tiny(tmp_path / "m", Taxonomy(NAMES))
    (tmp_path / "foreign.json").write_text("precious")
    (tmp_path / "foreign.png").write_text("precious")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize(
    "out",
    ["d/classes.yaml", "d/masks/val/p0.png", "d/images/train/p0.png", "d/new.json", "p/p1.png", "m/config.json", "d"],
)
def test_evaluate_writes_over_no_input(
    folder: Path, capsys: pytest.CaptureFixture[str], out: str, overwrite: tuple[str, ...]
) -> None:
    before = contents(folder)
    source = ("--model", folder / "m") if out.startswith("m") else ("--predictions", folder / "p")
    common = "evaluate", "--data", folder / "d", "--split", "val", *source, *overwrite
    refused(capsys, *common, "--out", folder / out, names=folder / out)
    assert contents(folder) == before


def test_evaluate_replaces_a_file_only_if_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = "evaluate", "--data", folder / "d", "--split", "val", "--predictions", folder / "p"
    line = refused(capsys, *common, "--out", folder / "foreign.json", names="foreign.json")
    assert "--overwrite" in line
    assert (folder / "foreign.json").read_text() == "precious"
    assert call(capsys, *common, "--out", folder / "foreign.json", "--overwrite").code == 0
    assert (folder / "foreign.json").read_text().startswith("{")
    assert "is empty" in refused(capsys, *common, "--out", "")


def test_a_failed_evaluation_leaves_no_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p/p0.png").unlink()
    before = sorted(folder.rglob("*"))
    common = "evaluate", "--data", folder / "d", "--split", "val", "--predictions", folder / "p"
    refused(capsys, *common, "--out", folder / "new/deep/scores.json")
    assert sorted(folder.rglob("*")) == before


def test_compare_writes_over_no_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, truth = folder / "d/images/val/p0.png", folder / "d/masks/val/p0.png"
    (folder / "link.png").symlink_to(image)
    before = contents(folder)
    common = "compare", image, "--truth", truth, "--model", folder / "m"
    for out in (image, truth, folder / "link.png", folder / "d/images/val/../val/p0.png"):
        refused(capsys, *common, "--overwrite", "--out", out, names=out)
    assert "--overwrite" in refused(capsys, *common, "--out", folder / "foreign.png")
    assert contents(folder) == before
    assert call(capsys, *common, "--out", folder / "foreign.png", "--overwrite").code == 0
    with Image.open(folder / "foreign.png") as sheet:
        assert sheet.format == "PNG"


def test_scoring_passes_over_the_other_products_of_predict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = folder / "d/images/val", folder / "o"
    products = "--color", "--overlay", "--probs"
    assert call(capsys, "predict", images, "--model", folder / "m", "--out", out, *products).code == 0
    common = "evaluate", "--data", folder / "d", "--split", "val", "--predictions", out
    assert call(capsys, *common).code == 0
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(out / "stray_color.png")
    refused(capsys, *common, names="1 masks belong to no image of val: stray_color.png")
