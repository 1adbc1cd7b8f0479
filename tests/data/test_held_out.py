"""Images held out for validation: no class goes with them, the run keeps their names, and a score finds them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from helpers.scenes import drive, scene
from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.cli import main
from pixelwise.config import DataConfig
from pixelwise.data import diagnose, open_dataset
from pixelwise.data.check.fix import write_fixed
from pixelwise.data.held_out import HeldOut, training_data
from pixelwise.evaluation.result import read_scores
from pixelwise.train.callbacks import silence_lightning
from pixelwise.train.finish import finish_run
from pixelwise.train.run import train

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")


def write_masks(root: Path, classes: dict[str, tuple[int, ...]]) -> Path:
    """A folder whose mask of each name shows the given classes, of four."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, ids in classes.items():
        Image.fromarray(rng.integers(0, 255, (8, 12, 3)).astype(np.uint8)).save(root / f"images/{name}.png")
        Image.fromarray(np.resize(np.array(ids, np.uint8), (8, 12))).save(root / f"masks/{name}.png")
    (root / "classes.yaml").write_text("classes: [a, b, c, d]\n")
    return root


def held_out_of_folder(root: Path) -> HeldOut:
    held_out = training_data(open_dataset(root), DataConfig(path=str(root)))[1]
    assert held_out is not None
    return held_out


@pytest.mark.parametrize("names", ["drive{}_{:02}", "photo{1:02}{0}x"], ids=["groups", "images"])
def test_no_class_is_held_out_with_all_of_its_images(names: str, tmp_path: Path) -> None:
    """Whichever group or image would be held out is the only one with class d: another one is."""
    keys = {names.format(drive, frame): drive for drive in range(5) for frame in range(4)}
    root = write_masks(tmp_path / "before", dict.fromkeys(keys, (0, 1, 2)))
    before = held_out_of_folder(root)
    only = [key for key in keys if key in before.keys]
    only = only if before.groups else only[:1]
    root = write_masks(tmp_path / "after", {key: (0, 1, 2, 3) if key in only else (0, 1, 2) for key in keys})
    after = held_out_of_folder(root)
    assert after.keys
    assert not set(after.keys) & set(only)
    # The check says the same, and the fixed copy is made by it.
    diagnosis = diagnose(open_dataset(root))
    (note,) = (finding for finding in diagnosis.findings if finding.kind == "hold-out")
    assert after.why in note.what
    assert not [finding for finding in diagnosis.findings if "split train: no mask contains" in str(finding)]
    write_fixed(diagnosis, tmp_path / "fixed")
    assert sorted(path.stem for path in (tmp_path / "fixed/images/val").iterdir()) == sorted(after.keys)


def test_groups_that_leave_no_class_are_not_chosen(tmp_path: Path) -> None:
    """Each of two groups has a class of its own: images are held out instead."""
    root = write_masks(tmp_path, {f"{g}_{k:02}": (0, 1) if g == "x" else (0, 2) for g in "xy" for k in range(8)})
    held_out = held_out_of_folder(root)
    assert held_out.groups == ()
    assert 1 <= len(held_out.keys) <= 6, "a fifth of 16, by chance"


def write_frames(root: Path, images: dict[str, NDArray[np.uint8]], classes: dict[str, int]) -> Path:
    """A folder of images whose masks show the classes 0 and 1, and another one where `classes` says so."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for name, image in images.items():
        mask = (image[..., 0] > 128).astype(np.uint8)
        mask[0, 0] = classes.get(name, 0)
        Image.fromarray(image).save(root / f"images/{name}.png")
        Image.fromarray(mask).save(root / f"masks/{name}.png")
    return root


@pytest.mark.parametrize("num", [10, 30])
def test_of_a_numbered_sequence_a_block_is_held_out(tmp_path: Path, num: int) -> None:
    """The last fifth; in the check and its copy as well. Frames of one camera, numbered without leading zeros."""
    frames = {f"t{3 * k}": drive(1, 3 * k) for k in range(num)}
    last = [f"t{3 * k}" for k in range(num - num // 5, num)]
    root = write_frames(tmp_path / "data", frames, {"t0": 2, last[-1]: 2})
    held_out = held_out_of_folder(root)
    assert held_out.keys == tuple(sorted(last))
    assert f"a block of a numbered sequence whose neighbors look alike: {last[0]} to {last[-1]}" in held_out.why
    diagnosis = diagnose(open_dataset(root))
    assert [finding.what for finding in diagnosis.findings if finding.kind == "hold-out"] == [
        f"`train` makes it: {held_out.why}"
    ]
    assert "near-copies" not in [finding.kind for finding in diagnosis.findings]
    write_fixed(diagnosis, tmp_path / "fixed")
    assert sorted(path.stem for path in (tmp_path / "fixed/images/val").iterdir()) == sorted(last)
    by_image = training_data(open_dataset(root), DataConfig(path=str(root), split_by="image"))[1]
    assert by_image is not None
    assert "chosen by their names" in by_image.why


def test_another_block_is_held_out_if_the_last_alone_has_a_class(tmp_path: Path) -> None:
    """Of two sequences, with photos beside them that belong to neither."""
    frames = {f"{way}_x{k:03}_y": drive(seed, 3 * k) for seed, way in enumerate("ab") for k in range(15)}
    photos = {f"p{k}{'q' * k}": scene(90 + k) for k in range(5)}
    held_out = held_out_of_folder(write_frames(tmp_path, frames | photos, {"a_x014_y": 2}))
    expected = {f"{way}_x{k:03}_y" for way in "ab" for k in range(3)}
    assert {key for key in held_out.keys if not key.startswith("p")} == expected
    assert len([key for key in held_out.keys if key.startswith("p")]) in (1, 2)
    assert "a_x000_y to a_x002_y, b_x000_y to b_x002_y" in held_out.why


def test_a_block_without_what_must_be_trained_on_stays_a_block(tmp_path: Path) -> None:
    """Each of the frames 2, 7, 12, 17 and 22 alone has a class of its own, so it is trained on; all of 12 have one."""
    frames = {f"t{k:02}": drive(1, 3 * k) for k in range(25)}
    alone = {f"t{k:02}": 2 + number for number, k in enumerate(range(2, 25, 5))}
    keys = held_out_of_folder(write_frames(tmp_path / "some", frames, alone)).keys
    numbers = [int(key[1:]) for key in keys]
    assert len(numbers) >= 2
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert not set(keys) & set(alone)
    few = dict(list(frames.items())[:12])
    held_out = held_out_of_folder(write_frames(tmp_path / "all", few, {name: 2 + k for k, name in enumerate(few)}))
    assert held_out.keys


def test_numbers_of_unlike_photos_show_no_sequence(tmp_path: Path) -> None:
    photos = {f"t{k}": scene(k) for k in range(30)}
    assert "chosen by their names" in held_out_of_folder(write_frames(tmp_path, photos, {})).why


@pytest.fixture
def data(tmp_path: Path) -> Path:
    silence_lightning()
    folder = write_dataset(tmp_path / "data", num_train=8, num_val=0)
    for kind in ("images", "masks"):
        shutil.rmtree(folder / kind / "val")
    return folder


def test_a_run_keeps_the_names_and_evaluate_finds_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = tiny_config(data, train={"steps": 2, "validate_every": 2})
    train(config, run)
    saved = json.loads((run / "held_out.json").read_text("utf-8"))
    printed = "".join(capsys.readouterr())
    assert all(name in printed for name in saved["images"])
    assert f"{run / 'held_out.json'} names the {len(saved['images'])} images" in printed
    finish_run(config, run)
    scored = [image.key for image in read_scores(run / "scores.json").images]
    assert scored == saved["images"]

    # Images that come later, whatever their names, change nothing.
    for number in range(20):
        for kind in ("images", "masks"):
            shutil.copy(data / kind / "train/p0.png", data / kind / f"train/new{number}.png")
    for model in (run, run / "checkpoints/best"):
        out = tmp_path / f"{model.name}.json"
        command = ["evaluate", "--model", str(model), "--data", str(data), "--split", "val", "--out", str(out)]
        assert main(command) == 0
        assert [image.key for image in read_scores(out).images] == scored
        assert read_scores(out).scores.mean_iou == pytest.approx(read_scores(run / "scores.json").scores.mean_iou)

    (data / f"images/train/{scored[0]}.png").unlink()
    (data / f"masks/train/{scored[0]}.png").unlink()
    assert main(command[:-2]) == 2
    assert f"images that were held out are missing: {scored[0]}; fix: restore them" in capsys.readouterr().err


def test_a_model_that_held_nothing_out_says_what_to_do(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--model", str(tmp_path), "--data", str(data), "--split", "val"]) == 2
    error = capsys.readouterr().err
    assert "has no split val; existing splits: train; fix: set --split to one of them, or name a run that held" in error


def test_a_stopped_run_goes_on_with_the_same_images(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = tiny_config(data, train={"steps": 2, "validate_every": 2})
    train(config, run)
    saved = json.loads((run / "held_out.json").read_text("utf-8"))
    # As an earlier version may have chosen them.
    other = [f"p{k}" for k in range(8) if f"p{k}" not in saved["images"]][: len(saved["images"])]
    shutil.rmtree(run)
    held_out = HeldOut("hold-out images", tuple(other), (), "chosen before")
    train(config, run, chosen=None)
    held_out.write(run / "held_out.json")
    shutil.rmtree(run / "checkpoints")
    train(config, run, resume=True)
    finish_run(config, run)
    assert [image.key for image in read_scores(run / "scores.json").images] == other
