"""Images of five channels of 12 bits, and color with depth, from the command line."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import pixelwise
from helpers.channel_data import BANDS, CLASSES, five_channels, write_color_depth, write_five_channels
from helpers.command_line import call, refused
from helpers.tiny_data import TINY_COMPACT, TINY_FCN
from pixelwise.cli import main
from pixelwise.data import open_dataset
from pixelwise.images import read_image, read_mask
from pixelwise.weights.checkpoint import load_checkpoint

LATE_FUSION = "fcn32s_late_fusion_vgg16"


def command(data: Path, out: Path, *options: object, network: str = "compact", steps: int = 1) -> list[object]:
    """The words of a short training."""
    sizes = TINY_COMPACT if network == "compact" else TINY_FCN | {"width_mult": 0.03125}
    settings: dict[str, object] = {
        "train.steps": steps,
        "train.validate_every": steps,
        "augment.crop": "[32, 48]",
        "data.batch_size": 4,
        "data.workers": 0,
        "optimizer.lr": 0.1,
        "model.options": json.dumps(sizes),
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return ["train", data, "--model", network, "--out", out, *words, *options]


def train(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    result = call(capsys, *words)
    assert result.code == 0, result
    return result.out + "\n".join(result.err)


@pytest.fixture(scope="module")
def five_channel_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A dataset of five channels, a run on it, and what the training printed."""
    folder = tmp_path_factory.mktemp("five")
    data, said = write_five_channels(folder / "data"), io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        assert main([str(word) for word in command(data, folder / "run", steps=12)]) == 0
    return data, folder / "run", said.getvalue()


def test_five_channels_of_12_bits_are_trained_scored_and_predicted(
    five_channel_run: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, said = five_channel_run
    assert (
        "5 channels: blue, green, red, red_edge, nir in 12 bits, as classes.yaml says; figures show red, green" in said
    )
    # The normalization is that of the training images, by numpy.
    files = sorted((data / "images" / "train").iterdir())
    stacked = np.stack([tifffile.imread(file) for file in files]).reshape(-1, 5).astype(np.float64)
    checkpoint = load_checkpoint(run / "checkpoints" / "last")
    normalization = checkpoint.model.spec.options["preprocessing"]
    np.testing.assert_allclose(normalization["mean"], stacked.mean(0), rtol=1e-5)
    np.testing.assert_allclose(normalization["std"], stacked.std(0), rtol=1e-5)
    assert checkpoint.pixels.channels == BANDS
    assert checkpoint.pixels.parts[0].bits == 12
    assert (
        "5 channels: blue, green, red, red\\_edge, nir in 12 bits" in (run / "checkpoints/last/README.md").read_text()
    )

    assert call(capsys, "evaluate", "--model", run, "--data", data, "--split", "val").code == 0
    out = tmp_path / "masks"
    predicted = call(capsys, "predict", data / "images" / "val", "--model", run, "--out", out, "--overlay", "--probs")
    assert predicted.code == 0
    assert {path.name for path in out.iterdir()} >= {"p0.png", "p1_overlay.jpg", "p1_probs.npy"}
    # From Python, the file and the array of its numbers have the labels of the mask.
    segmenter = pixelwise.load(run)
    image = five_channels(100)[0]
    np.testing.assert_array_equal(segmenter(image).mask, read_mask(out / "p0.png"))
    np.testing.assert_array_equal(segmenter(data / "images/val/p0.tif").mask, segmenter(image).mask)
    assert segmenter(image).image.dtype == np.uint8
    assert segmenter.with_crf()(image).mask.shape == (32, 48)

    for words in (("compare", "--out", tmp_path / "x.png"), ("explain", "--out", tmp_path / "why")):
        assert call(capsys, words[0], data / "images/val/p0.tif", "--model", run, *words[1:]).code == 0


def test_a_checkpoint_refuses_images_of_other_channels_or_bits_in_one_line(
    five_channel_run: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, _ = five_channel_run
    image = five_channels(0)[0]
    photo, more_bits, other = tmp_path / "photo.png", tmp_path / "bits.npy", tmp_path / "other"
    Image.fromarray(image[..., :3].astype(np.uint8)).save(photo)
    np.save(more_bits, image * 2)
    predict = ("predict", "--model", run, "--out", tmp_path / "out")
    assert "expected 5 channels" in refused(capsys, *predict, photo, names=photo)
    assert "expected 12 bits" in refused(capsys, *predict, more_bits, names=more_bits)
    # The other way around, and from a dataset to a model.
    shipped = ("predict", "--out", tmp_path / "out")
    assert "5 samples per pixel" in refused(capsys, *shipped, data / "images/val/p0.tif")
    write_color_depth(other)
    evaluate = ("evaluate", "--model", run, "--data", other, "--split", "val")
    assert "takes 5 channels: blue, green, red, red_edge, nir" in refused(capsys, *evaluate)


def test_bits_and_channels_that_nobody_declares_are_measured_printed_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_five_channels(tmp_path / "data", classes=CLASSES)
    largest = max(int(tifffile.imread(file).max()) for file in (data / "images").rglob("*.tif"))
    said = train(capsys, *command(data, tmp_path / "run"))
    assert f"channel5 in 12 bits: the largest number in 6 of them is {largest}" in said
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last").pixels.parts[0].bits == 12
    options = ("predict", data / "images" / "val", "--model", tmp_path / "run", "--out", tmp_path / "out")
    assert "name three in `show`" in refused(capsys, *options, "--crf", "deeplabv2")


def test_colors_do_not_change_where_no_channel_is_a_color(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_five_channels(tmp_path / "data")
    words = ("train", data, "--model", "compact", "--out", tmp_path / "run", "--augment.gamma", 0.3)
    assert "5 channels: blue, green, red, red_edge, nir" in refused(capsys, *words, names="--augment.gamma")


def test_color_with_depth_trains_late_fusion_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_color_depth(tmp_path / "data"), tmp_path / "run"
    said = train(capsys, *command(data, run, "--augment.brightness", 0.3, network=LATE_FUSION))
    assert "4 channels: red, green, blue in 8 bits; depth in 16 bits, as classes.yaml says" in said
    checkpoint = load_checkpoint(run / "checkpoints" / "last")
    assert checkpoint.model.in_channels == 4
    assert checkpoint.pixels.parts[1].folder == "depth"
    resumed = call(capsys, "train", data, "--out", run, "--resume", "--train.steps", 2)
    assert resumed.code == 0, resumed
    again = load_checkpoint(run / "checkpoints" / "last").model.spec.options
    assert again["preprocessing"] == checkpoint.model.spec.options["preprocessing"]

    assert call(capsys, "evaluate", "--model", run, "--data", data, "--split", "val").code == 0
    # The whole folder: the files of the depth are no images of their own.
    predicted = call(capsys, "predict", data / "images", "--model", run, "--out", tmp_path / "out")
    assert predicted.code == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6
    (data / "depth" / "val" / "p0.png").unlink()
    missing = refused(capsys, "predict", data / "images/val/p0.jpg", "--model", run, "--out", tmp_path / "out2")
    assert "has no file with depth" in missing
    # Figures show the photo.
    photo = data / "images" / "val" / "p1.jpg"
    np.testing.assert_array_equal(pixelwise.load(run)(photo).image, read_image(photo))


@pytest.mark.parametrize("target", ["folder", "coco", "cvat"])
def test_a_converted_dataset_keeps_its_pixel_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    data, out = write_five_channels(tmp_path / "data", num_val=0), tmp_path / "out"
    (data / "images" / "val").rmdir()
    (data / "masks" / "val").rmdir()
    assert call(capsys, "convert", data, "--to", target, "--out", out).code == 0
    before, after = open_dataset(data).split("train"), open_dataset(out).split("train")
    assert after.pixels == before.pixels
    np.testing.assert_array_equal(after[0].image, before[0].image)
    depth = write_color_depth(tmp_path / "depth")
    assert "images in several files" in refused(capsys, "convert", depth, "--to", target, "--out", tmp_path / "x")
