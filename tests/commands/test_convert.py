"""`pixelwise convert` on the command line: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command_line import call, files_below, refused
from pixelwise.data import open_dataset

DATA = Path(__file__).parents[1] / "samples"


def test_a_dataset_is_converted_and_opened_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "convert", DATA / "camvid", "--to", "cvat", "--out", tmp_path / "out")
    assert result.code == 0
    assert result.out.startswith(f"{tmp_path / 'out'}: cvat, 11 classes; images: ")
    back = call(capsys, "convert", tmp_path / "out", "--to", "folder", "--out", tmp_path / "back", "--link")
    assert back.code == 0
    names = open_dataset(DATA / "camvid").taxonomy.names
    assert open_dataset(tmp_path / "back").taxonomy.names == names


def test_wrong_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    refused(capsys, "convert", DATA / "camvid", "--to", "cocco", "--out", out, names="did you mean coco")
    refused(capsys, "convert", DATA / "camvid", "--out", out, names="--to is missing")
    refused(capsys, "convert", tmp_path / "no", "--to", "coco", "--out", out, names="does not exist")
    refused(
        capsys, "convert", DATA / "camvid", "--to", "coco", "--out", DATA / "camvid" / "x", names="lies in the dataset"
    )
    assert files_below(tmp_path) == []
