"""Several labels per pixel from the command line: train, resume, evaluate, predict; what is refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pixelwise
from helpers.command_line import call, refused
from helpers.overlaps import FILE_NAMES, NAMES, make_overlap
from helpers.tiny_data import tiny_config
from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.errors import ConfigError, Interrupted
from pixelwise.evaluation.multilabel_scores import MultilabelScores
from pixelwise.evaluation.result import read_scores
from pixelwise.inference.label_map import low_res_logits
from pixelwise.models import create_model
from pixelwise.train.finish import finish_run
from pixelwise.train.module import TrainingModule
from pixelwise.train.run import train
from pixelwise.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*:FutureWarning")
SAMPLE = Path(__file__).parents[1] / "samples" / "overlaps"
TAXONOMY = Taxonomy(NAMES, kind="multilabel")
SETTINGS = {
    "augment": {"crop": [40, 48], "scale": [1.0, 1.0]},
    "loss": {"dice": 1.0},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "train": {"steps": 30, "validate_every": 10, "save_every": 10, "log_every": 10},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps on the committed sample."""
    out = tmp_path_factory.mktemp("multilabel") / "run"
    config = tiny_config(SAMPLE, **SETTINGS)  # type: ignore[arg-type]
    train(config, out)
    finish_run(config, out)
    return out


def test_a_run_learns_and_its_scores_are_those_of_its_masks(run: Path) -> None:
    result = read_scores(run / "scores.json")
    scores = result.scores
    assert isinstance(scores, MultilabelScores)
    assert scores.mean_dice > 0.6
    assert scores.thresholds == load_checkpoint(run / "checkpoints" / "best").thresholds
    segmenter = pixelwise.load(run, device="cpu")
    dice: dict[str, list[float]] = {name: [] for name in NAMES}
    for sample, image in zip(open_dataset(SAMPLE).split("val"), result.images, strict=True):
        assert sample.mask is not None
        low_res = low_res_logits(segmenter.model, sample.image, torch.device("cpu"))
        probs = low_res.upsample(low_res.logits, (40, 48)).sigmoid()[0].detach().numpy()
        masks = probs > np.array(scores.thresholds)[:, None, None]
        np.testing.assert_array_equal(segmenter(sample.image).masks, masks)
        for name, mask, truth in zip(NAMES, masks, sample.mask, strict=True):
            if mask.any() or truth.any():
                dice[name].append(2 * (mask & (truth == 1)).sum() / (mask.sum() + truth.sum()))
        assert image.key == sample.key
    per_image = json.loads((run / "scores.json").read_text())["images"]
    for k, name in enumerate(NAMES):
        assert [row["dice"][k] for row in per_image if row["dice"][k] is not None] == pytest.approx(dice[name])
    page = (run / "report.html").read_text()
    assert "Confusion" not in page
    assert "mean of per-image Dice" in page
    assert "threshold" in page


def test_a_resumed_run_keeps_the_thresholds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stops after step 7 has the thresholds of step 4, also if it was resumed after that step."""
    settings = {**SETTINGS, "train": {"steps": 30, "validate_every": 4, "save_every": 30}}
    config = tiny_config(SAMPLE, **settings)  # type: ignore[arg-type]

    def train_until(step: int, out: Path, *, resume: bool = False) -> Checkpoint:
        def stop(trend: object, module: TrainingModule, batch: object) -> str:
            # The step after it is finished, unless a validation is due.
            if module.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return ""

        monkeypatch.setattr("pixelwise.train.after_step.loss_warning", stop)
        with pytest.raises(Interrupted):
            train(config, out, resume=resume)
        return load_checkpoint(out / "checkpoints" / "last")

    whole = train_until(6, tmp_path / "whole")
    train_until(4, tmp_path / "stopped")
    resumed = train_until(6, tmp_path / "stopped", resume=True)
    assert resumed.thresholds == whole.thresholds != (0.5,) * 3
    for one, other in zip(resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_predicted_masks_score_as_the_model_and_come_with_a_submission(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "masks"
    images = SAMPLE / "images" / "val"
    options = ("--overlay", "--probs", "--submission", "--submission-order", "rows")
    assert call(capsys, "predict", images, "--model", run, "--out", out, *options).code == 0
    segmenter = pixelwise.load(run, device="cpu")
    rows = list(csv.reader((out / "submission.csv").read_text().splitlines()))[1:]
    # A row per image and class, also of classes that an image lacks.
    assert [(row[0], row[1]) for row in rows] == [(f"p{n}", str(k)) for n in range(3) for k in range(3)]
    for number in range(3):
        masks = segmenter(images / f"p{number}.png").masks
        for k, name in enumerate(FILE_NAMES):
            file = np.asarray(Image.open(out / f"p{number}" / f"{name}.png"))
            np.testing.assert_array_equal(file, masks[k])
            # The Kaggle definition, by hand: starts count from 1, here along the rows.
            decoded = np.zeros(40 * 48, bool)
            words = [int(word) for word in rows[3 * number + k][2].split()]
            for start, length in zip(words[::2], words[1::2], strict=True):
                decoded[start - 1 : start - 1 + length] = True
            np.testing.assert_array_equal(decoded.reshape(40, 48), masks[k])
        probs = np.load(out / f"p{number}_probs.npy").astype(float)
        clear = np.abs(probs - np.array(segmenter.thresholds)[:, None, None]) > 1e-3
        np.testing.assert_array_equal((probs > np.array(segmenter.thresholds)[:, None, None])[clear], masks[clear])
    arguments = ("evaluate", "--data", SAMPLE, "--split", "val", "--json")
    by_model = json.loads(call(capsys, *arguments, "--model", run).out)
    by_folder = json.loads(call(capsys, *arguments, "--predictions", out).out)
    assert by_model["images"] == by_folder["images"]
    assert by_model["scores"]["counts"] == by_folder["scores"]["counts"]
    (out / "p1" / "bar.png").unlink()
    refused(capsys, *arguments[:-1], "--predictions", out, names="1 of 9 predictions are missing: p1/bar.png")
    again = call(capsys, "predict", images, "--model", run, "--out", out, *options[:2], "--resume")
    assert again.code == 0
    assert "1 labeled" in again.out


def test_an_image_without_any_class_has_empty_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = create_model("compact", 3, tiny=True)
    save_checkpoint(tmp_path / "model", model, TAXONOMY, thresholds=(1 - 1e-15, 1 - 1e-15, 1e-30))
    Image.fromarray(make_overlap(3)[0]).save(tmp_path / "a.png")
    image, out = tmp_path / "a.png", tmp_path / "m"
    assert call(capsys, "predict", image, "--model", tmp_path / "model", "--out", out, "--submission").code == 0
    rows = list(csv.reader((tmp_path / "m" / "submission.csv").read_text().splitlines()))[1:]
    assert [row[2] for row in rows] == ["", "", f"1 {40 * 48}"]
    assert not np.asarray(Image.open(tmp_path / "m" / "a" / "disc.png")).any()


def test_a_damaged_scores_file_is_named(run: Path, tmp_path: Path) -> None:
    text = (run / "scores.json").read_text()
    data = json.loads(text)
    for damage in ([[1, 2, 3]], [[1, 1, 2, 9]] * 3, "x", [[0, 0, 0, 1920]] * 2, [[1.5, 1, 1, 9]] * 3):
        data["images"][0]["counts"] = damage
        (tmp_path / "scores.json").write_text(json.dumps(data))
        with pytest.raises(ConfigError, match="is not a scores file"):
            read_scores(tmp_path / "scores.json")


def test_views_are_averaged_before_the_threshold(run: Path) -> None:
    image = make_overlap(101)[0]
    segmenter = pixelwise.load(run, device="cpu")
    both = segmenter.with_augmentation(flip=True).predict(image, probs=True)
    plain, mirrored = (segmenter.predict(pixels, probs=True).probs for pixels in (image, image[:, ::-1].copy()))
    assert plain is not None
    assert mirrored is not None
    assert both.probs is not None
    mean = (plain + mirrored[..., ::-1]) / 2
    np.testing.assert_allclose(both.probs, mean, atol=1e-5)
    limits = np.array(segmenter.thresholds)[:, None, None]
    clear = np.abs(mean - limits) > 1e-4
    np.testing.assert_array_equal(both.masks[clear], (mean > limits)[clear])


def test_figures_and_comparisons(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, truth = SAMPLE / "images" / "val" / "p0.png", SAMPLE / "masks" / "val" / "p0"
    prediction = pixelwise.load(run, device="cpu")(image)
    fractions = prediction.class_fractions()
    assert fractions == pytest.approx({name: prediction.masks[k].mean() for k, name in enumerate(NAMES)})
    assert prediction.overlay().size == prediction.colorize().size == (48, 40)
    out = tmp_path / "c.png"
    assert call(capsys, "compare", image, "--model", run, "--truth", truth, "--out", out).code == 0
    refused(
        capsys, "compare", image, "--model", run, "--truth", image, "--out", tmp_path / "d.png", names="or an .npy file"
    )
    assert call(capsys, "explain", image, "--model", run, "--class", "bar", "--out", tmp_path / "e").code == 0
    assert (tmp_path / "e" / "heatmap_bar.png").is_file()


def test_what_needs_one_label_per_pixel_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = SAMPLE / "images" / "val" / "p0.png"
    names = "works on one label per pixel"
    score = ("evaluate", "--data", SAMPLE, "--split", "val", "--model", run)
    refused(capsys, "predict", image, "--model", run, "--out", tmp_path / "m", "--crf", "deeplabv2", names=names)
    refused(capsys, *score, "--crf", "deeplabv2", names=names)
    refused(capsys, *score, "--calibration", names=names)
    refused(capsys, "crf-search", "--data", SAMPLE, "--model", run, names=names)
    refused(capsys, "evaluate", "--data", SAMPLE, "--split", "val", names="kind: exclusive")
    refused(
        capsys,
        "train",
        SAMPLE,
        "--out",
        tmp_path / "r",
        "--model",
        "compact",
        "--loss.name",
        "ohem",
        names="--loss.name",
    )
    assert not (tmp_path / "r").exists()
    damaged = tmp_path / "damaged"
    shutil.copytree(run / "checkpoints" / "best", damaged)
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "thresholds": [0.5, 2.0, 0.5]}))
    refused(capsys, "predict", image, "--model", damaged, "--out", tmp_path / "m", names="`thresholds`")
