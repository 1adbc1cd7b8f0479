"""`pixelwise predict`: what it writes, under which names, and what it leaves when something goes wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from helpers.bad_inputs import encoded, make_bad_images, photo
from helpers.command_line import TAXONOMY, call, files_below, refused, save_tiny
from pixelwise.cli import main
from pixelwise.core import Taxonomy
from pixelwise.errors import InputError
from pixelwise.images import Listing, read_image, read_mask, write_mask
from pixelwise.inference import jobs as job_planning
from pixelwise.inference import predict_files
from pixelwise.inference.jobs import LONGEST_ENDING, Job, plan
from pixelwise.inference.predict_files import OutputOptions
from pixelwise.models import create_model
from pixelwise.weights.checkpoint import save_checkpoint

DATA = Path(__file__).parents[1] / "samples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def put(path: Path, seed: int = 0) -> Path:
    """A small image of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(path.suffix.lower(), "PNG")
    path.write_bytes(encoded(np.roll(photo(), seed, axis=0), kind))
    return path


def test_a_name_of_dots_keeps_its_suffix(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = put(tmp_path / "..png")
    assert call(capsys, "predict", image, "--out", tmp_path / "out", "--model", checkpoint).code == 0
    assert files_below(tmp_path / "out") == ["..png.png"]


def test_every_product_is_what_its_name_says(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in/a.png")
    options = "--overlay", "--color", "--confidence", "--probs", "--opacity", "0.25"
    result = call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint, *options)
    assert result.code == 0
    assert files_below(tmp_path / "out") == ["a.png", "a_color.png", "a_confidence.png", "a_overlay.jpg", "a_probs.npy"]
    ids = pixelwise.load(checkpoint)(photo()).mask
    values = read_mask(tmp_path / "out/a.png")
    assert (values == np.array(TAXONOMY.values)[ids]).all()
    assert len(np.unique(values)) > 1
    with Image.open(tmp_path / "out/a.png") as mask:
        palette = np.array(mask.getpalette()).reshape(-1, 3)
    colors = np.array(TAXONOMY.colors)
    assert (palette[list(TAXONOMY.values)] == colors).all()
    assert (read_image(tmp_path / "out/a_color.png") == colors[ids]).all()
    # Two of the three colors are too dark on a photo.
    drawn = np.array([(0xD5, 0x5E, 0x00), (0x56, 0xB4, 0xE9), (0x55, 0x22, 0xFF)])
    overlay = read_image(tmp_path / "out/a_overlay.jpg").astype(float)
    assert np.abs(overlay[:24, :40] - (0.75 * photo() + 0.25 * drawn[ids])).mean() < 3
    below = overlay[24:].reshape(-1, 3)
    for k in range(3):
        # The legend has a square of 12 pixels, without its outline, of each class that occurs.
        assert ((np.abs(below - drawn[k]).max(1) < 12).sum() > 100) == (k in ids)
    probs = np.load(tmp_path / "out/a_probs.npy")
    assert probs.shape == (3, 24, 40)
    assert np.abs(probs.astype(float).sum(0) - 1).max() < 2e-3
    with Image.open(tmp_path / "out/a_confidence.png") as confidence:
        assert confidence.mode == "L"
        assert np.abs(np.asarray(confidence) / 255 - probs.max(0)).max() < 0.5 / 255 + 1e-3
    assert "road & <b>" in result.out or "[car]" in result.out or "sky" in result.out
    assert "1 labeled into" in result.out


def test_brackets_in_names_are_text(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("[red]x.png", "[/nothing].png", "<img src=x onerror=alert(1)>.png", "ünï ☃.png", "a\nb.png", "-x.png"):
        put(tmp_path / "in" / name)
    result = call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "[o]", "--model", checkpoint)
    assert result.code == 0
    for shown in ("[red]x", "[/nothing]", "ünï ☃", "[o]"):
        assert shown in result.out
    assert len(files_below(tmp_path / "[o]")) == 6


def test_sub_folders_stay_and_equal_stems_keep_their_suffix(tmp_path: Path) -> None:
    names = ["day/a.png", "night/a.png", "b.png", "b.jpg", "b.png.jpg", "C.png", "c.jpg", "archive.tar.png"]
    for name in names:
        put(tmp_path / "in" / name)
    jobs, _ = plan([tmp_path / "in"], tmp_path / "out", [".png"])
    outputs = {str(job.source.relative_to(tmp_path / "in")): job.name for job in jobs}
    assert outputs["day/a.png"] == "day/a"
    assert outputs["night/a.png"] == "night/a"
    assert outputs["archive.tar.png"] == "archive.tar"
    assert outputs["b.jpg"] == "b.jpg"
    assert outputs["C.png"] == "C.png"
    assert len({name.casefold() for name in outputs.values()}) == len(names)


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, "☃" * 83])
def test_names_of_255_bytes_get_all_their_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stem: str
) -> None:
    put(tmp_path / "in" / f"{stem}.png")
    put(tmp_path / "in" / f"{stem[:-1]}.png", 3)
    products = "--overlay", "--color", "--confidence"
    assert (
        call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint, *products).code == 0
    )
    names = files_below(tmp_path / "out")
    assert len(names) == 8
    assert max(len(os.fsencode(name)) for name in names) <= 255
    endings = OutputOptions(overlay=True, color=True, confidence=True, probs=True, geojson=True).endings
    assert max(endings, key=len) == LONGEST_ENDING


def test_clashes_of_products_are_refused(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "in/a.png")
    put(tmp_path / "in/a_color.png")
    arguments = "predict", tmp_path / "in", "--out", tmp_path / "o", "--model", checkpoint
    assert "both be written" in refused(capsys, *arguments, "--color", names="a_color.png")
    assert not (tmp_path / "o").exists()
    assert call(capsys, *arguments).code == 0


def test_no_output_is_written_over_an_input(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = put(tmp_path / "in/a.png")
    put(tmp_path / "in/b_overlay.jpg")
    put(tmp_path / "in/b.jpg")
    (tmp_path / "alias").symlink_to(tmp_path / "in")
    common = "--model", checkpoint, "--overwrite"
    before = {path: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    assert "would be written over" in refused(
        capsys, "predict", image, "--out", tmp_path / "in", *common, names="a.png"
    )
    assert "would be written over" in refused(capsys, "predict", image, "--out", tmp_path / "alias", *common)
    jpegs = tmp_path / "in/b.jpg", tmp_path / "in/b_overlay.jpg"
    assert "would be written over" in refused(capsys, "predict", *jpegs, "--out", tmp_path / "in", *common, "--overlay")
    for folder in ("in", "alias"):
        assert "folder of the images" in refused(
            capsys, "predict", tmp_path / "in", "--out", tmp_path / folder, *common
        )
    assert {path: path.read_bytes() for path in (tmp_path / "in").iterdir()} == before


def test_a_link_to_an_image_in_the_output_folder_is_not_its_end(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = put(tmp_path / "out/a.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").symlink_to(real)
    refused(capsys, "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint, "--overwrite")
    assert (read_image(real) == photo()).all()


def test_masks_below_the_input_are_not_taken_for_images(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in/a.jpg")
    arguments = "predict", tmp_path / "in", "--out", tmp_path / "in/masks", "--model", checkpoint
    assert call(capsys, *arguments).code == 0
    assert call(capsys, *arguments, "--overwrite").code == 0
    assert files_below(tmp_path / "in") == ["a.jpg", "masks/a.png"]
    refused(capsys, "predict", tmp_path / "in/masks", "--out", tmp_path / "in/masks", "--model", checkpoint)


def test_what_is_there_is_kept_done_again_or_gone_on_with(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in/a.png")
    arguments = "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint
    call(capsys, *arguments)
    put(tmp_path / "in/b.png", 5)
    (tmp_path / "out/a.png").write_bytes(b"mine")
    assert "--resume" in refused(capsys, *arguments, names="a.png")
    assert files_below(tmp_path / "out") == ["a.png"]
    assert "1 labeled" in call(capsys, *arguments, "--resume").out
    assert (tmp_path / "out/a.png").read_bytes() == b"mine"
    assert "0 labeled" in call(capsys, *arguments, "--resume").out
    assert "2 labeled" in call(capsys, *arguments, "--overwrite").out
    assert read_mask(tmp_path / "out/a.png").shape == (24, 40)
    assert "2 labeled" in call(capsys, *arguments, "--resume", "--color").out


def test_the_same_image_named_twice_is_one(tmp_path: Path) -> None:
    image = put(tmp_path / "a.png")
    assert plan([image, image], tmp_path / "out", [".png"])[0] == [Job(image, "a", (tmp_path / "out/a.png",))]
    other = put(tmp_path / "other/a.png")
    with pytest.raises(InputError, match="label them into different --out folders"):
        plan([image, other], tmp_path / "out", [".png"])


def test_ten_thousand_images_are_planned_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [tmp_path / f"in/p{n:05}.png" for n in range(10_000)]
    (tmp_path / "in").mkdir()
    monkeypatch.setattr(job_planning, "list_images", lambda path, endings: Listing(images, []))
    started = time.thread_time()
    jobs, _ = plan([tmp_path / "in"], tmp_path / "out", [".png"])
    assert len(jobs) == 10_000
    assert jobs[-1].mask == tmp_path / "out/p09999.png"
    assert time.thread_time() - started < 5


def test_bad_images_are_named_and_the_rest_is_done(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    words = make_bad_images(folder)
    put(folder / "good.jpg")
    put(folder / "deep/good.png")
    assert main(["predict", str(folder), "--out", str(tmp_path / "out"), "--model", str(checkpoint)]) == 1
    out, err = capsys.readouterr()
    assert files_below(tmp_path / "out") == ["deep/good.png", "good.png"]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    skipped = [line for line in err.splitlines() if line.startswith("skipped: ")]
    assert len(errors) + len(skipped) == len(err.splitlines())
    read = [name for name in words if name not in ("folder.png", "link.png", "pipe.png", "gone.png")]
    for name in read:
        # Those of one kind share a line.
        line = next(line for line in errors if name in line)
        assert all(word in line for word in words[name])
        assert "; fix: " in line
    assert all("pipe" in line or "link" in line for line in skipped)
    assert f"2 labeled into {tmp_path / 'out'}, {len(read)} failed" in out


def test_masks_beside_their_images_are_left_out_and_named(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b", "c"):
        put(folder / f"{name}.jpg")
        write_mask(folder / f"{name}_mask.png", np.eye(40, dtype=np.uint8))
    command = "--out", str(tmp_path / "out"), "--model", str(checkpoint)
    assert main(["predict", str(folder), *command]) == 0
    err = capsys.readouterr().err
    assert files_below(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    names = "a_mask.png, b_mask.png, c_mask.png"
    assert [line for line in err.splitlines() if line.startswith("skipped: ")] == [
        f"skipped: {folder}: 3 masks of other images: {names}; "
        "to label them as well, name the files, or a folder of masks alone"
    ]
    assert main(["predict", *map(str, sorted(folder.iterdir())), *command, "--resume"]) == 0
    assert files_below(tmp_path / "out") == [f"{n}{word}.png" for n in "abc" for word in ("", "_mask")]


@pytest.mark.parametrize("command", ["predict", "demo"])
def test_equal_failures_are_one_line_with_a_count(
    command: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "in/good.png")
    for number in range(40):
        (tmp_path / f"in/bad{number:02}.png").write_bytes(b"")
    result = call(capsys, command, tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint)
    assert result.code == 1
    (line,) = result.err
    assert line.startswith(f"error: {tmp_path / 'in/bad00.png'}: ")
    names = "bad01.png, bad02.png, bad03.png, bad04.png, bad05.png"
    assert line.endswith(f" (and 39 more: {names}, ... (39 in total))")
    assert "1 labeled into" in result.out


@pytest.mark.parametrize("command", ["predict", "demo", "compare", "evaluate", "train", "report", "profile"])
def test_no_bad_file_breaks_a_command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Given where each command expects its image, data or name."""
    names = [
        "cut.jpg",
        "empty.png",
        "bomb.png",
        "lfs.png",
        "pipe.png",
        "folder.png",
        "link.png",
        "gone.png",
        "text.png",
    ]
    (tmp_path / "in").mkdir()
    make_bad_images(tmp_path / "in")
    out = tmp_path / "out"
    for name in names:
        bad = tmp_path / "in" / name
        arguments = {
            "predict": (bad, "--out", out, "--model", checkpoint),
            "demo": (bad, "--out", out, "--model", checkpoint),
            "compare": (bad, "--out", out / "sheet.png", "--model", checkpoint),
            "evaluate": ("--data", bad, "--model", checkpoint),
            "train": (bad, "--out", out),
            "report": (bad,),
            "profile": (bad,),
        }[command]
        refused(capsys, command, *arguments, names=name)
        assert not out.exists() or files_below(out) == []


def test_all_bad_is_exit_2(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    result = call(capsys, "predict", tmp_path / "bad.png", "--out", tmp_path / "out", "--model", checkpoint)
    assert result.code == 2
    assert "0 labeled" in result.out
    assert files_below(tmp_path / "out") == []


def test_turned_photo_gives_the_mask_of_the_turned_png(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    (tmp_path / "in/phone.tif").write_bytes(encoded(photo(), "TIFF", exif=exif))
    (tmp_path / "in/upright.png").write_bytes(encoded(np.rot90(photo(), -1), "PNG"))
    call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint)
    phone, upright = (read_mask(tmp_path / "out" / f"{name}.png") for name in ("phone", "upright"))
    assert phone.shape == (40, 24)
    assert (phone == upright).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (17, 3)])
def test_any_size_keeps_its_size(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int]
) -> None:
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / "p.png")
    assert call(capsys, "predict", tmp_path / "p.png", "--out", tmp_path / "out", "--model", checkpoint).code == 0
    assert read_mask(tmp_path / "out/p.png").shape == size


def test_300_classes_make_16_bit_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taxonomy = Taxonomy(tuple(f"c{k}" for k in range(300)), values=tuple(range(1000, 1300)))
    segmenter = pixelwise.load(save_tiny(tmp_path / "small ids", taxonomy))
    segmenter.model.get_parameter("score.bias").data[256:] += 1e5
    checkpoint = tmp_path / "model"
    segmenter.save_pretrained(checkpoint)
    put(tmp_path / "a.png")
    assert (
        call(capsys, "predict", tmp_path / "a.png", "--out", tmp_path / "out", "--model", checkpoint, "--overlay").code
        == 0
    )
    ids = pixelwise.load(checkpoint)(photo()).mask
    assert ids.min() > 255
    assert len(np.unique(ids)) > 1
    assert (read_mask(tmp_path / "out/a.png") == ids + 1000).all()


@pytest.mark.parametrize("position", [1, 2, 3, 4])
def test_full_disk_is_exit_3_and_every_file_is_whole(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    for n in range(2):
        put(tmp_path / f"in/{n}.png", n)
    real = os.fsync
    calls: list[int] = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) > position:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    arguments = "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint, "--color"
    refused(capsys, *arguments, code=3, names="No space left")
    for name in files_below(tmp_path / "out"):
        assert not name.startswith(".")
        assert read_image(tmp_path / "out" / name).shape == (24, 40, 3)


def test_interrupted_is_exit_4_and_can_go_on(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        put(tmp_path / f"in/{n}.png", n)
    arguments = "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint
    written: list[Path] = []

    def write(path: Path, *rest: Any, **options: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_mask(path, *rest, **options)

    monkeypatch.setattr(predict_files, "write_mask", write)
    result = call(capsys, *arguments)
    assert result.code == 4
    what = f"error: {tmp_path / 'out'}: interrupted: 2 of 3 images are labeled, no file is half written"
    assert result.err == [f"{what}; fix: run the same command again with --resume"]
    assert files_below(tmp_path / "out") == ["0.png", "1.png"]
    monkeypatch.undo()
    assert "1 labeled" in call(capsys, *arguments, "--resume").out


def test_leftovers_of_a_killed_process_are_swept(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    left_over = tmp_path / "out/.a.png.tmp-00000000-pod-a-999999999"
    left_over.write_bytes(b"half")
    # Of another host, and much older than a write can take.
    os.utime(left_over, (1, 1))
    call(capsys, "predict", tmp_path / "a.png", "--out", tmp_path / "out", "--model", checkpoint)
    assert files_below(tmp_path / "out") == ["a.png"]


def test_an_image_that_vanishes_is_a_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        put(tmp_path / f"in/{n}.png", n)
    real = job_planning.plan

    def plan_and_lose(*arguments: Any) -> tuple[list[Job], list[str]]:
        found = real(*arguments)
        (tmp_path / "in/0.png").unlink()
        return found

    monkeypatch.setattr("pixelwise.inference.jobs.plan", plan_and_lose)
    result = call(capsys, "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint)
    assert result.code == 1
    assert "0.png: does not exist" in result.err[0]
    assert files_below(tmp_path / "out") == ["1.png"]


def test_masks_score_as_the_model_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """EV05: the same numbers to the last digit, by way of files or not."""
    from pixelwise.data import open_dataset

    dataset = shutil.copytree(DATA / "camvid", tmp_path / "camvid")
    checkpoint = save_tiny(tmp_path / "model", open_dataset(dataset).taxonomy)
    call(capsys, "predict", dataset / "test", "--out", tmp_path / "masks", "--model", checkpoint)
    common = "evaluate", "--data", dataset, "--json", "--no-boundary"
    by_model = json.loads(call(capsys, *common, "--model", checkpoint).out)
    by_files = json.loads(call(capsys, *common, "--predictions", tmp_path / "masks").out)
    assert by_model["scores"] == by_files["scores"]
    assert by_model["images"] == by_files["images"]
    assert "0001TP_009930" in by_model["images"][0]["key"]


def test_tiles_give_the_labels_of_the_whole_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = create_model("unet", len(TAXONOMY.names), 3, width_mult=1 / 16).eval()
    save_checkpoint(tmp_path / "unet", network, TAXONOMY)
    put(tmp_path / "in/a.png")
    for out, options in (("whole", ()), ("tiled", ("--tile", "20"))):
        result = call(
            capsys, "predict", tmp_path / "in", "--out", tmp_path / out, "--model", tmp_path / "unet", *options
        )
        assert result.code == 0
    assert (read_mask(tmp_path / "whole/a.png") == read_mask(tmp_path / "tiled/a.png")).mean() > 0.999
    wrong = refused(
        capsys, "predict", tmp_path / "in", "--out", tmp_path / "x", "--model", tmp_path / "unet", "--tile", 21
    )
    assert "must be 20 + a multiple of 16, got 21" in wrong
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_no_overlay_without_its_mask(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        put(tmp_path / f"in/{name}.png")
    real, count = os.replace, 0

    def fail_at_the_second_mask(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", fail_at_the_second_mask)
        products = "--overlay", "--color"
        arguments = "predict", tmp_path / "in", "--out", tmp_path / "out", "--model", checkpoint, *products
        assert "No space left" in refused(capsys, *arguments, code=3, names="b.png")
    assert files_below(tmp_path / "out") == ["a.png", "a_color.png", "a_overlay.jpg"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["photos", "--out", "~/masks"], "--out: expected a path, got '~/masks', in which the shell has replaced noth"),
        (["photos", "--out", "$HOME/masks"], "--out: expected a path, got '$HOME/masks', in which the shell"),
        (["photos", "--out", "${x}"], "--out: expected a path, got '${x}', in which the shell"),
        (["~/photos", "--out", "masks"], "path: expected a path, got '~/photos', in which the shell"),
        (["photos", "", "--out", "masks"], "path: is empty; fix: name a file or a folder, or . for the current folder"),
    ],
)
def test_paths_of_which_the_shell_left_something(
    argv: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise masks would be written into a folder named ~, and nothing would mean the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo()).save(tmp_path / "photos" / "a.png")
    assert refused(capsys, "predict", *argv).startswith(f"error: {words}")
    assert files_below(tmp_path) == ["photos/a.png"]
