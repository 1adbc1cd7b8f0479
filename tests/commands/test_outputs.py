"""No command writes over its inputs, over files of others or into the data, and a refused one leaves nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.command_line import call, files_below, refused, save_tiny
from helpers.tiny_data import NAMES, write_dataset
from pixelwise.core import Taxonomy
from pixelwise.errors import InputError
from pixelwise.visualization.report import write_report


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


def test_evaluate_replaces_a_file_only_with_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = "evaluate", "--data", folder / "d", "--split", "val", "--predictions", folder / "p"
    line = refused(capsys, *common, "--out", folder / "foreign.json", names="foreign.json")
    assert "--overwrite" in line
    assert (folder / "foreign.json").read_text() == "precious"
    assert call(capsys, *common, "--out", folder / "foreign.json", "--overwrite").code == 0
    assert (folder / "foreign.json").read_text().startswith("{")
    assert "is empty" in refused(capsys, *common, "--out", "")


def test_a_prediction_of_bad_images_alone_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "bad.png").write_bytes(b"x")
    model = save_tiny(tmp_path / "model")
    result = call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "new" / "out", "--model", model)
    assert result.code == 2
    assert not (tmp_path / "new").exists()


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


def test_explain_writes_over_no_input_and_no_file_of_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = folder / "x/activations.png"
    image.parent.mkdir()
    image.write_bytes((folder / "d/images/val/p0.png").read_bytes())
    before = contents(folder)
    common = "explain", image, "--model", folder / "m"
    for overwrite in ((), ("--overwrite",)):
        assert "over an input" in refused(capsys, *common, "--out", folder / "x", *overwrite)
    assert contents(folder) == before
    (folder / "y").mkdir()
    (folder / "y/receptive_field.png").write_text("precious")
    assert "--overwrite" in refused(capsys, *common, "--out", folder / "y", names="receptive_field.png")
    assert files_below(folder / "y") == ["receptive_field.png"]
    assert call(capsys, *common, "--out", folder / "y", "--overwrite").code == 0
    assert len(files_below(folder / "y")) == 3


def test_explain_cuts_long_names_and_keeps_equal_ones_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(folder / "long", Taxonomy(("é" * 300, "a b", "a_b")))
    arguments = "explain", folder / "d/images/val/p0.png", "--model", folder / "long", "--out", folder / "x"
    assert call(capsys, *arguments, "--class", "0", "--class", "1", "--class", "2").code == 0
    names = [name for name in files_below(folder / "x") if name.startswith("heatmap")]
    assert len(names) == 3
    assert {"heatmap_a_b_1.png", "heatmap_a_b_2.png"} < set(names)
    assert max(len(name.encode()) for name in names) in (254, 255)


def test_import_writes_over_no_checkpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({}, folder / "net.pth")
    before = contents(folder)
    common = "import", folder / "net.pth", "--as", "fcn32s_vgg16"
    assert "--overwrite" in refused(capsys, *common, "--out", folder / "m", names="m/model.safetensors: exists already")
    (folder / "mine").mkdir()
    (folder / "mine/README.md").write_text("precious")
    refused(capsys, *common, "--out", folder / "mine", names="mine/README.md: exists already")
    own = "import", folder / "m/model.safetensors", "--as", "fcn32s_vgg16", "--out", folder / "m", "--overwrite"
    refused(capsys, *own, names="would be written over an input")
    assert {name: text for name, text in contents(folder).items() if not name.startswith("mine")} == before


def test_pages_replace_only_their_own_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = "demo", folder / "d/images/val", "--model", folder / "m", "--out"
    (folder / "site").mkdir()
    for name in ("index.html", "p0.png"):
        (folder / "site" / name).write_text("precious")
        refused(capsys, *common, folder / "site", names=f"{name}: exists already")
        assert files_below(folder / "site") == [name]
        (folder / "site" / name).unlink()
    assert call(capsys, *common, folder / "site").code == 0
    assert call(capsys, *common, folder / "site").code == 0
    (folder / "run").mkdir()
    (folder / "run/metrics.csv").write_text("step,split,loss\n")
    (folder / "run/report.html").write_text("precious")
    with pytest.raises(InputError, match="not a report of a run"):
        write_report(folder / "run")
    (folder / "run/report.html").unlink()
    assert write_report(folder / "run") == write_report(folder / "run")


SETTINGS = "--model", "unet_padded", "--model.options", "{width_mult: 0.0625}", "--augment.crop", "[32, 32]"
FEW_STEPS = *SETTINGS, "--data.batch_size", "1", "--data.workers", "0", "--train.steps", "1", "--train.device", "cpu"


@pytest.mark.parametrize("resume", [(), ("--resume",)])
@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "report.html", "notes.txt", "checkpoints/a.pth"])
def test_train_takes_no_folder_of_others(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, resume: tuple[str, ...]
) -> None:
    path = folder / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text("train: {steps: 1}\n" if name == "config.yaml" else "precious")
    before = contents(folder)
    line = refused(capsys, "train", folder / "d", *FEW_STEPS, "--out", folder / "mine", *resume, names="not a run")
    assert ("nothing to resume" in line) == bool(resume)
    assert contents(folder) == before


def test_a_run_and_its_data_lie_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    (folder / "alias").symlink_to(folder / "d")
    for out in ("d", "d/images/train", "d/run", ".", "alias/masks/new"):
        refused(capsys, "train", folder / "d", *FEW_STEPS, "--out", folder / out, names="cannot lie in one another")
    refused(capsys, "train", folder / "d", *FEW_STEPS, "--out", "", names="--out: is empty")
    (folder / "alias").unlink()
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("fault", ["mask", "image", "init_from", "option"])
def test_a_start_that_fails_leaves_no_folder(folder: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    changes: tuple[object, ...] = ()
    if fault == "mask":
        (folder / "d/masks/train/p0.png").write_bytes(b"x")
    elif fault == "image":
        (folder / "d/images/train/p0.png").write_bytes(b"x")
    elif fault == "init_from":
        changes = ("--model.init_from", folder / "p")
    else:
        changes = ("--model.options", "{width_mult: none}")
    before = sorted(folder.rglob("*"))
    refused(capsys, "train", folder / "d", *FEW_STEPS, *changes, "--out", folder / "new/deep/run")
    assert sorted(folder.rglob("*")) == before


def test_a_start_on_a_full_disk_leaves_an_empty_folder_empty(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "run").mkdir()

    def fail(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    refused(capsys, "train", folder / "d", *FEW_STEPS, "--out", folder / "run", code=3, names="No space left")
    assert list((folder / "run").iterdir()) == []


DiskUsage = namedtuple("DiskUsage", "total used free")


def test_a_save_must_fit_on_the_disk_before_the_first_step(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smallest disk on which a run starts is as large as what the run's first save writes."""
    whole = folder / "whole"
    assert call(capsys, "train", folder / "d", *FEW_STEPS, "--out", whole).code == 0
    last = whole / "checkpoints" / "last"
    written = sum((last / name).stat().st_size for name in ("state.safetensors", "model.safetensors"))
    for free, fits in ((written // 2, False), (written, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: DiskUsage(10**12, 0, free))
        words = "train", folder / "d", *FEW_STEPS, "--out", folder / f"run{free}"
        if fits:
            assert call(capsys, *words).code == 0
        else:
            refused(capsys, *words, code=3, names="MiB free, but a save needs")
            assert not (folder / f"run{free}").exists()
