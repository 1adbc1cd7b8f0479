"""`pixelwise check`: exit codes, JSON, the page, and a fixed copy that trains."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.broken_sets import as_jpeg, clean_set
from helpers.command_line import call
from helpers.overlaps import write_overlaps
from pixelwise.cli import main


def broken(root: Path) -> Path:
    """An unreadable image, a missing mask, lossy masks of 0, 128 and 255, and an image in two splits, all at once."""
    made = clean_set(root, values=(0, 128, 255))
    made.image("train/t0").write_bytes(b"<html>")
    made.mask("train/t1").unlink()
    for key in ("train/t2", "train/t3"):
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(np.array([0, 128, 255], np.uint8)[made.truth[key]]))
    shutil.copy(made.image("train/t4"), made.image("val/v0"))
    return root


def test_everything_is_said_at_once_and_the_exit_code_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = broken(tmp_path / "data")
    result = call(capsys, "check", data)
    assert result.code == 2
    lines = result.out.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 3
    for word in ("t1.png (mask)", "t0.png: is an HTML page", "lossy JPEG"):
        assert sum(word in line for line in errors) == 1, word
    assert any(line.startswith("warning: splits train and val: 1 images have equal pixels") for line in lines)
    assert lines[-1].startswith("3 errors, 1 warning, ")
    assert call(capsys, "check", clean_set(tmp_path / "clean").root).code == 0


def test_json_holds_what_the_lines_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = broken(tmp_path / "data")
    assert main(["check", str(data), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["splits"]) == (False, {"train": 6, "val": 2, "test": 2})
    assert found["classes"] == ["ground", "disc", "bar"]
    lossy = next(finding for finding in found["findings"] if finding["kind"] == "lossy masks")
    assert (lossy["severity"], lossy["count"], lossy["names"]) == ("error", 2, ["t2.jpg", "t3.jpg"])


def test_the_page_is_one_file_with_thumbnails_of_each_problem(tmp_path: Path) -> None:
    data = broken(tmp_path / "data")
    (data / "classes.yaml").write_text(
        "classes: [{name: <b>g, value: 0}, {name: disc, value: 128}, {name: bar, value: 255}]\n"
    )
    page = tmp_path / "report.html"
    assert main(["check", str(data), "--out", str(page)]) == 2
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text), "it loads no other file"
    assert "<script" not in text
    assert "<b>g" not in text
    assert "&lt;b&gt;g" in text
    parts = {part.split("<small>")[0]: part for part in re.split(r"<h3>", text)[1:]}
    for kind in ("missing files", "lossy masks", "equal images"):
        assert "data:image/" in parts[kind].split("</h3>")[1].split('<div class="finding')[0], kind
    sheet = text.split("Overlays of split val")[1]
    assert sheet.count("<figure>") >= 2
    assert main(["check", str(data), "--out", str(page)]) == 2, "exists already"
    assert main(["check", str(data), "--out", str(data / "report.html")]) == 2
    assert not (data / "report.html").exists()


def test_the_page_of_several_labels_per_pixel(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["check", str(write_overlaps(tmp_path / "data")), "--out", str(page)]) == 0
    assert page.read_text().split("Overlays of split train")[1].count("<figure>") >= 2


def test_the_fixed_copy_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = broken(tmp_path / "data"), tmp_path / "fixed"
    result = call(capsys, "check", data, "--fix", out)
    assert result.code == 0, result
    assert "left out: images without a mask: 1, t1.png" in result.out
    assert "left out: images that cannot be read: 1, t0.png" in result.out
    assert "left out of train: images that are in val as well: 1, t4.png" in result.out
    assert "JPEG masks saved as PNG: 2, t2.jpg, t3.jpg" in result.out
    assert sorted(path.stem for path in (out / "masks/train").iterdir()) == ["t2", "t3", "t5"]
    assert set(np.unique(np.array(Image.open(out / "masks/train/t2.png")))) == {0, 128, 255}
    assert call(capsys, "train", out, "--model", "compact", "--dry-run").code == 0
    again = call(capsys, "check", data, "--fix", out)
    assert again.code == 2
    assert "exists already and is no empty folder" in again.err[-1]
    assert call(capsys, "check", data, "--fix", data / "fixed").code == 2
    assert not (data / "fixed").exists()
