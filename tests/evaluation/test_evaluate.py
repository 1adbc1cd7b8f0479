"""Evaluation of a model and of a folder: the same numbers, nothing left out in silence, one line for each mistake."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.command_line import call, refused, save_tiny
from pixelwise.commands.evaluate import evaluate as command
from pixelwise.core import Prediction, Taxonomy
from pixelwise.data.dataset import Item, MaskEncoding, Split
from pixelwise.errors import ConfigError, DatasetError, InputError, MaskError
from pixelwise.evaluation.bootstrap import Spread
from pixelwise.evaluation.evaluator import evaluate_folder, evaluate_model
from pixelwise.evaluation.metrics import Scores
from pixelwise.evaluation.result import Evaluation, read_scores, write_scores
from pixelwise.images import RGB, read_mask, write_image, write_mask
from pixelwise.inference.temperature import read_temperature

# Class values that differ from the class ids, two ignored values: a mistake in either direction changes the scores.
TAXONOMY = Taxonomy(("road", "car", "sky", "boat"), values=(10, 20, 30, 40), ignored=(0, 255))
SIZES = [(20, 30), (24, 16), (20, 30), (31, 17), (9, 40)]


def truth_of(index: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(index)
    coarse = rng.choice([0, 10, 20, 30, 255], (4, 5), p=[0.1, 0.3, 0.2, 0.3, 0.1])
    rows, columns = (np.arange(length) * cells // length for length, cells in zip(SIZES[index], (4, 5), strict=True))
    return coarse[np.ix_(rows, columns)].astype(np.uint8)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Five images of unequal sizes; pixel (0, 0) of each holds its number, which `label` reads."""
    folder = tmp_path_factory.mktemp("data")
    items = []
    for index, size in enumerate(SIZES):
        key = f"seq/{index}" if index == 1 else f"frame {index}"
        image, mask = folder / f"{index}.png", folder / f"{index}_mask.png"
        write_image(image, np.full((*size, 3), index, np.uint8))
        write_mask(mask, truth_of(index))
        items.append(Item(key, image, mask))
    return Split("test", items, TAXONOMY)


def label(image: NDArray[np.uint8]) -> Prediction:
    """A segmenter that is right in most places: class ids 0..2, never the fourth class."""
    truth = truth_of(int(image[0, 0, 0]))
    shifted = np.roll(truth, 2, axis=1)
    mask = np.select([shifted == 20, shifted == 30], [1, 2], 0).astype(np.uint8)
    return Prediction(mask, TAXONOMY, image)


@pytest.fixture
def predictions(split: Split, tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    for index, item in enumerate(split.items):
        path = folder / f"{item.key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mask(path, TAXONOMY.decode(label(split[index].image).mask))
    return folder


def test_counts_are_those_of_loops_over_the_files(split: Split) -> None:
    result = evaluate_model(label, split, dataset="toy", model="shifted")
    matrix = [[0] * 4 for _ in range(4)]
    ignored = 0
    for index in range(5):
        truth, predicted = truth_of(index), label(np.full((1, 1, 3), index, np.uint8)).mask
        for value, k in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if value in (0, 255):
                ignored += 1
            else:
                matrix[value // 10 - 1][k] += 1
    assert isinstance(result.scores, Scores)
    assert [list(row) for row in result.scores.matrix] == matrix
    assert result.scores.absent == ("boat",)
    assert result.protocol.ignored_pixels == ignored > 0
    assert result.scores.num_pixels + ignored == sum(height * width for height, width in SIZES)
    lines = result.protocol_lines()
    assert lines[0] == "toy test: 5 images at native resolution (9x40 to 31x17, height x width), 4 classes"
    assert lines[1] == "predictions: shifted, float32"
    assert lines[3].endswith("left out of the means: boat")
    assert "2.0%" in lines[4]


def test_rows_of_images_are_their_own_scores(split: Split) -> None:
    result = evaluate_model(label, split, boundary=False)
    assert [row.key for row in result.images] == [item.key for item in split.items]
    assert sum(row.num_pixels for row in result.images) == result.scores.num_pixels
    for index, row in enumerate(result.images):
        alone = evaluate_model(label, split[index : index + 1]).scores
        ious = {c.name: c.iou for c in alone.classes if c.iou is not None}
        assert row.mean_iou == pytest.approx(alone.mean_iou, abs=1e-12)
        assert isinstance(alone, Scores)
        assert row.pixel_accuracy == alone.pixel_accuracy
        assert (row.worst, row.worst_iou) == min(ious.items(), key=lambda pair: pair[1])


def test_model_and_folder_give_the_same_numbers(split: Split, predictions: Path) -> None:
    by_model = evaluate_model(label, split)
    by_folder = evaluate_folder(predictions, split)
    assert by_model.scores == by_folder.scores
    assert by_model.images == by_folder.images
    assert by_model.scores.boundary == by_folder.scores.boundary != ()
    assert by_folder.protocol.predicted_by == str(predictions)


def test_order_of_the_images_does_not_matter(split: Split) -> None:
    turned = Split("test", split.items[::-1], TAXONOMY)
    assert evaluate_model(label, turned).scores == evaluate_model(label, split).scores


def test_boundaries_can_be_left_out(split: Split) -> None:
    result = evaluate_model(label, split, boundary=False)
    assert result.scores.boundary == ()
    assert isinstance(result.scores, Scores)
    assert result.scores.mean_boundary_iou is None
    assert len(result.protocol_lines()) == 4


def test_progress_counts_every_image(split: Split, predictions: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_model(label, split, progress=lambda done, total: seen.append((done, total)))
    evaluate_folder(predictions, split, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)] * 2


def test_an_image_that_is_all_ignored_is_listed_and_changes_nothing(split: Split, tmp_path: Path) -> None:
    mask = tmp_path / "void.png"
    write_mask(mask, np.full(SIZES[0], 255, np.uint8))
    longer = Split("test", [*split.items, Item("void", split.items[0].image, mask)], TAXONOMY)
    result = evaluate_model(label, longer)
    assert result.scores == evaluate_model(label, split).scores
    assert result.images[-1] == ("void", 0, None, None, None, None)
    assert result.protocol.num_images == 6


def test_the_worst_class_is_one_that_the_image_holds(split: Split, tmp_path: Path) -> None:
    mask = tmp_path / "cars.png"
    write_mask(mask, np.full(SIZES[0], 20, np.uint8))
    image = split.items[0].image

    def half(pixels: NDArray[np.uint8]) -> Prediction:
        labels = np.ones(pixels.shape[:2], np.uint8)
        labels[:15] = 2
        return Prediction(labels, TAXONOMY, pixels)

    (row,) = evaluate_model(half, Split("test", [Item("cars", image, mask)], TAXONOMY)).images
    # Road does not occur; of car a quarter is found, and sky is invented.
    assert row == ("cars", 600, 0.125, 0.25, "sky", 0.0)


def test_scores_file_reads_back(split: Split, tmp_path: Path) -> None:
    result = evaluate_model(label, split, dataset="toy")
    write_scores(tmp_path / "scores.json", result)
    assert read_scores(tmp_path / "scores.json") == result
    data = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    assert data["scores"]["mean_iou"] == result.scores.mean_iou
    assert data["protocol"]["num_images"] == 5


@pytest.mark.parametrize(
    "text", ["", "[]", '{"protocol": {}}', '{"protocol": {"sizes": [], "x": 1}, "images": [], "scores": {}}']
)
def test_damaged_scores_files_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"scores\.json: .*fix: write it again"):
        read_scores(path)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("images", "mean_iou", "0.5"),
        ("images", "mean_iou", 7.5),
        ("images", "num_pixels", True),
        ("images", "key", 5),
        ("protocol", "boundary_ratio", "x"),
        ("protocol", "num_images", 2.5),
        ("protocol", "ignored_pixels", -1),
        ("trimap", "mean_iou", float("inf")),
        ("spread", "mean_iou", [0.5, 7]),
    ],
)
def test_numbers_of_another_type_or_range_are_named(
    split: Split, part: str, field: str, value: object, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    write_scores(path, evaluate_model(label, split, dataset="toy"))
    data = json.loads(path.read_text("utf-8"))
    data["spread"] = data["spread"] or {"unit": "image", "rule": "", "num_units": 5, "groups": [], "trained": []}
    data["spread"] |= {"mean_iou": None, "mean_image_iou": None}
    data["trimap"] = [{"width": 1, "num_pixels": 5, "mean_iou": 0.5}]
    path.write_text(json.dumps(data))
    assert read_scores(path).trimap[0].mean_iou == 0.5
    row = data[part] if part in ("protocol", "spread") else data[part][0]
    row[field] = value
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"scores\.json: is not a scores file: .*expected .*fix: write it again"):
        read_scores(path)


@pytest.mark.parametrize("interval", ["0", "", [], [0.1], [0.1, 0.2, 0.3], 0.5, {"low": 0.1}])
def test_an_interval_of_another_form_is_named(interval: object) -> None:
    groups = [{"name": "a", "num_images": 1, "mean_iou": 0.5, "mean_image_iou": 0.5}]
    data = {"unit": "group", "rule": "r", "num_units": 1, "groups": groups, "trained": [], "mean_image_iou": None}
    with pytest.raises((KeyError, TypeError, ValueError)):
        Spread.from_dict({**data, "mean_iou": interval})
    assert Spread.from_dict({**data, "mean_iou": [0.1, 0.2]}).mean_iou == (0.1, 0.2)


def test_missing_and_extra_predictions_are_listed(split: Split, predictions: Path) -> None:
    shutil.copy(predictions / "frame 0.png", predictions / "other.png")
    with pytest.raises(DatasetError, match=r"predictions: 1 masks belong to no image of test: other\.png; fix: "):
        evaluate_folder(predictions, split)
    (predictions / "seq" / "1.png").unlink()
    (predictions / "frame 3.png").unlink()
    with pytest.raises(DatasetError, match=r"2 of 5 predictions are missing: seq/1\.png, frame 3\.png; fix: "):
        evaluate_folder(predictions, split)


def test_predictions_may_be_named_by_their_images(split: Split, predictions: Path, tmp_path: Path) -> None:
    """`predict` writes x_sat.png for x_sat.jpg, whose key is x beside x_mask.png."""
    (tmp_path / "images").mkdir()
    items = []
    for item in split.items:
        name = item.key.replace("/", "-")
        assert item.image is not None
        image = shutil.copy(item.image, tmp_path / "images" / f"{name}_sat.png")
        items.append(Item(item.key, Path(image), item.mask))
        (predictions / f"{item.key}.png").rename(predictions / f"{name}_sat.png")
    shutil.copy(predictions / "frame 0_sat.png", predictions / "frame 0_sat_confidence.png")
    named = Split("test", items, TAXONOMY)
    assert evaluate_folder(predictions, named).scores == evaluate_model(label, split).scores
    (predictions / "frame 0_sat.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of 5 predictions are missing: frame 0_sat\.png; fix: "):
        evaluate_folder(predictions, named)


def test_other_size_and_unknown_values_name_the_file(split: Split, predictions: Path) -> None:
    path = predictions / "frame 2.png"
    good = path.read_bytes()
    write_mask(path, np.full((10, 15), 10, np.uint8))
    with pytest.raises(MaskError, match=r"frame 2\.png: truth is 20x30, prediction 10x15 \(height x width\)"):
        evaluate_folder(predictions, split)
    write_mask(path, np.full((20, 30), 7, np.uint8))
    with pytest.raises(MaskError, match=r"frame 2\.png: unknown mask value 7 \(600 px\), first at row 0, column 0"):
        evaluate_folder(predictions, split)
    write_mask(path, np.full((20, 30), 255, np.uint8))
    with pytest.raises(MaskError, match=r"frame 2\.png: .*in the prediction, got 255 \(600 px\)"):
        evaluate_folder(predictions, split)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"frame 2\.png"):
        evaluate_folder(predictions, split)
    with pytest.raises(InputError, match="none: is not a folder"):
        evaluate_folder(predictions / "none", split)


def test_color_predictions_follow_the_data(split: Split, predictions: Path) -> None:
    colors = np.vstack([TAXONOMY.palette()[:4]])
    for path in predictions.rglob("*.png"):
        index = int(path.stem.split()[-1])
        write_image(path, colors[label(np.full((1, 1, 3), index, np.uint8)).mask])
    with pytest.raises(MaskError, match="got a color image"):
        evaluate_folder(predictions, split)
    drawn = []
    for item in split.items:
        assert item.mask is not None
        mask = item.mask.with_suffix(".color.png")
        write_image(
            mask, np.vstack([colors, [[9, 9, 9]]]).astype(np.uint8)[np.minimum(np.asarray(split.read_labels(item)), 4)]
        )
        drawn.append(Item(item.key, item.image, mask))
    colored = Split("test", drawn, TAXONOMY, MaskEncoding(by_color=True, ignored=((9, 9, 9),)))
    assert evaluate_folder(predictions, colored).scores == evaluate_model(label, split).scores


def test_nothing_to_score_is_an_error(split: Split) -> None:
    with pytest.raises(DatasetError, match="test: 0 images to evaluate"):
        evaluate_model(label, split[:0])
    bare = Split("test", [split.items[0], *(Item(item.key, item.image) for item in split.items[1:])], TAXONOMY)
    with pytest.raises(DatasetError, match="4 of 5 images have no mask: seq/1, frame 2, frame 3, frame 4;"):
        evaluate_model(label, bare)
    with pytest.raises(DatasetError, match="4 of 5 images have no mask"):
        evaluate_folder("anywhere", bare)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("road", "car", "sky"), "toy test: has 4 classes, net has 3; not in both: boat"),
        (("road", "sky", "car", "boat"), "toy test: class 1 is 'car', but 'sky' in net"),
    ],
)
def test_models_of_other_classes_are_refused(split: Split, names: tuple[str, ...], message: str) -> None:
    def other(image: NDArray[np.uint8]) -> Prediction:
        return Prediction(np.zeros(image.shape[:2], np.uint8), Taxonomy(names), image)

    with pytest.raises(DatasetError) as caught:
        evaluate_model(other, split, dataset="toy", model="net")
    assert str(caught.value).startswith(message)


def test_a_mask_of_another_size_names_the_image(split: Split) -> None:
    def small(image: NDArray[np.uint8]) -> Prediction:
        return Prediction(np.zeros((5, 5), np.uint8), TAXONOMY, image)

    with pytest.raises(MaskError, match="frame 0: truth is 20x30, prediction 5x5"):
        evaluate_model(small, split)


# --- the command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An ordinary dataset folder of two test images, and right predictions but for the upper half of the second."""
    for name in ("images/test", "masks/test", "found"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "classes.yaml").write_text("classes: [road, car, boat]\nignore: [255]\n")
    for index in range(2):
        truth = np.zeros((8, 10), np.uint8)
        truth[:, 5:] = 1
        write_image(tmp_path / f"images/test/{index}.png", np.full((8, 10, 3), index, np.uint8))
        write_mask(tmp_path / f"masks/test/{index}.png", truth)
        truth[: 4 * index] = 0
        write_mask(tmp_path / f"found/{index}.png", truth)
    return tmp_path


def test_command_prints_protocol_classes_and_means(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = data.with_name(f"{data.name}-new") / "scores.json"
    assert command(data=data, predictions=data / "found", out=out) == 0
    text = " ".join(capsys.readouterr().out.split())
    # 80 pixels each; 20 of car taken for road.
    for part in (
        "folder test: 2 images at native resolution (8x10, height x width), 3 classes",
        "left out of the means: boat",
        f"road {8000 / 100:.2f}",
        "boat - - - - - 0.00",
        f"pixel accuracy {14000 / 160:.2f}",
        f"mean accuracy {(100 + 75) / 2:.2f}",
        f"mean IoU over the set {(80 + 75) / 2:.2f}",
        # The first image is right; of the second, road has 40 of 60 and car 20 of 40.
        f"mean of per-image IoU {(100 + 100 * (40 / 60 + 20 / 40) / 2) / 2:.2f}",
        f"frequency weighted IoU {(80 + 75) / 2:.2f}",
    ):
        assert part in text, part
    scores = read_scores(out).scores
    assert isinstance(scores, Scores)
    assert scores.matrix == ((80, 0, 0), (20, 60, 0), (0, 0, 0))


def test_command_prints_json_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(data=data, predictions=data / "found", boundary=False, json=True) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["pixel_accuracy"] == 140 / 160


def test_command_scores_a_model(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Fake:
        taxonomy = Taxonomy(("road", "car", "boat"))
        pixels, thresholds = RGB, ()

        def __call__(self, image: NDArray[np.uint8]) -> Prediction:
            return Prediction(read_mask(data / "found" / f"{image[0, 0, 0]}.png"), self.taxonomy, image)

    def load(
        path: str | None = None, precision: str = "float32", device: str = "auto", options: dict[str, Any] | None = None
    ) -> Fake:
        asked.append((path, precision))
        return Fake()

    monkeypatch.setitem(sys.modules, "pixelwise.inference.segmenter", SimpleNamespace(load=load))
    assert command(data=data, model="runs/a", precision="bfloat16") == 0
    out = capsys.readouterr().out
    assert "predictions: runs/a, bfloat16" in out
    assert "87.50" in out
    assert asked == [("runs/a", "bfloat16")]
    Fake.taxonomy = Taxonomy(("road", "car"))
    with pytest.raises(DatasetError, match="folder test: has 3 classes, the shipped model has 2; not in both: boat"):
        command(data=data)
    assert asked[1] == (None, "float32")


def test_command_refuses_two_sources_and_unknown_splits(data: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate --model: --predictions are finished labels"):
        command(data=data, model="a", predictions=data / "found")
    with pytest.raises(DatasetError, match="unknown split 'tset'"):
        command(data=data, split="tset", predictions=data / "found")


def test_both_means_stand_in_the_file(split: Split) -> None:
    result = evaluate_model(label, split)
    own = [row.mean_iou for row in result.images if row.mean_iou is not None]
    assert result.mean_image_iou == pytest.approx(sum(own) / 5)
    data = result.to_dict()
    assert data["mean_image_iou"] == result.mean_image_iou != data["scores"]["mean_iou"]
    assert data["spread"]["unit"] == "image"
    assert len(data["trimap"]) == 6
    # Files of before have neither spread nor curve.
    old = {key: data[key] for key in ("protocol", "scores", "images")}
    assert Evaluation.from_dict(old).scores == result.scores


def test_intervals_by_group_come_from_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "classes.yaml").write_text("classes: [road, car, boat]\nignore: [255]\n")
    rng = np.random.default_rng(0)
    for folder in ("images/train", "masks/train", "images/test", "masks/test", "found", "unused"):
        (tmp_path / folder).mkdir(parents=True)
    for split, drives in (("train", "AB"), ("test", "BCDEFG")):
        for drive in drives:
            for frame in range(2):
                name = f"drive{drive}_{split}{frame:04d}.png"
                truth = rng.integers(0, 3, (8, 10)).astype(np.uint8)
                write_image(tmp_path / "images" / split / name, np.zeros((8, 10, 3), np.uint8))
                write_mask(tmp_path / "masks" / split / name, truth)
                found = "found" if split == "test" else "unused"
                write_mask(tmp_path / found / name, np.where(rng.random((8, 10)) < 0.8, truth, 0).astype(np.uint8))
    out = tmp_path.with_name(f"{tmp_path.name}-new") / "scores.json"
    assert command(data=tmp_path, predictions=tmp_path / "found", out=out) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "6 groups: a group is the part of the name before its last number" in text
    assert "not unseen, as images of them lie in split train: driveB" in text
    spread = read_scores(out).spread
    assert spread is not None
    assert spread.mean_iou is not None
    low, high = (f"{100 * value:.2f}" for value in spread.mean_iou)
    assert f"{low} to {high}" in text
    assert float(low) < 100 * read_scores(out).scores.mean_iou < float(high)
    # Two groups alone: their scores, and no interval.
    for path in (tmp_path / "found").glob("*"):
        if path.stem[5] not in "BC":
            path.unlink()
    assert command(data=tmp_path, only="driveC, driveB", predictions=tmp_path / "found") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "folder test (driveB, driveC): 4 images" in text
    assert "an interval by group of 2 groups would be unreliable; the scores of each:" in text
    groups = tmp_path / "groups.csv"
    names = [path.stem for path in (tmp_path / "images").rglob("*.png")]
    groups.write_text("name,group\n" + "".join(f"{name},{'BC' if name[5] in 'BC' else 'rest'}\n" for name in names))
    assert command(data=tmp_path, only="BC", groups=groups, predictions=tmp_path / "found") == 0
    assert "all images are of one group (BC)" in capsys.readouterr().out


def test_folds_pool_runs_that_held_out_other_groups(
    split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [
        Split(f"hold-out {name}", split.items[start:stop], TAXONOMY) for name, start, stop in (("a", 0, 2), ("b", 2, 5))
    ]
    results = [evaluate_model(label, part) for part in parts]
    for name, result in zip("ab", results, strict=True):
        (tmp_path / name).mkdir()
        write_scores(tmp_path / name / "scores.json", result)
    assert command(folds=[tmp_path / "a", tmp_path / "b"], out=tmp_path / "new" / "folds.json") == 0
    text = " ".join(capsys.readouterr().out.split())
    ious = [100 * result.scores.mean_iou for result in results]
    assert f"mean of the 2 folds {sum(ious) / 2:.2f}" in text
    assert f"standard deviation {abs(ious[0] - ious[1]) / 2**0.5:.2f}" in text
    whole = evaluate_model(label, split)
    assert f"one confusion matrix over all folds: mean IoU {100 * whole.scores.mean_iou:.2f}" in text
    assert f"mean of per-image IoU, all images: {100 * (whole.mean_image_iou or 0):.2f}" in text
    written = json.loads((tmp_path / "new" / "folds.json").read_text("utf-8"))
    assert [fold["split"] for fold in written["folds"]] == ["hold-out a", "hold-out b"]
    with pytest.raises(ConfigError, match="2 images are scored by more than one run: frame 0, seq/1; fix: hold out"):
        command(folds=[tmp_path / "a", tmp_path / "a"])
    with pytest.raises(ConfigError, match="evaluate --model: --folds compares the scores that runs have"):
        command(folds=[tmp_path / "a"], model="runs/a")
    with pytest.raises(ConfigError, match=r"none/scores\.json: cannot be read as scores"):
        command(folds=[tmp_path / "none"])
    other = Taxonomy(("road", "car", "sky", "ship"), values=(10, 20, 30, 40), ignored=(0, 255))
    named = evaluate_model(
        lambda image: Prediction(label(image).mask, other, image), Split("test", split.items[2:], other)
    )
    (tmp_path / "c").mkdir()
    write_scores(tmp_path / "c" / "scores.json", named)
    with pytest.raises(ConfigError, match=r"c: was scored on .*; fix: compare runs on one dataset"):
        command(folds=[tmp_path / "a", tmp_path / "c"])


def test_a_temperature_is_fitted_on_one_split_and_reported_on_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taxonomy = Taxonomy(("sky", "road", "car"))
    model = save_tiny(tmp_path / "model", taxonomy)
    data = tmp_path / "data"
    for folder in ("images/val", "masks/val", "images/test", "masks/test"):
        (data / folder).mkdir(parents=True)
    (data / "classes.yaml").write_text("classes: [sky, road, car]\n")
    rng = np.random.default_rng(0)
    for name in ("val", "test"):
        for number in range(2):
            write_image(data / "images" / name / f"{number}{name}.png", rng.integers(0, 256, (24, 32, 3), np.uint8))
            write_mask(data / "masks" / name / f"{number}{name}.png", rng.integers(0, 3, (24, 32)).astype(np.uint8))
    result = call(capsys, "evaluate", "--data", data, "--model", model, "--calibration", "--json", "--device", "cpu")
    before = json.loads(result.out)["calibration"]
    assert before["temperature"] == 1
    assert before["ece"] > 0.3  # a network with random weights is sure, and wrong
    options = ("--fit-temperature", "val", "--json", "--device", "cpu", "--flip")
    result = call(capsys, "evaluate", "--data", data, "--model", model, *options)
    after = json.loads(result.out)
    assert after["calibration"]["scaled_ece"] < after["calibration"]["ece"] / 2
    assert after["calibration"]["fitted_on"] == "folder val"
    assert "mean over mirror" in after["protocol"]["predicted_by"]
    assert read_temperature(model) == (after["calibration"]["temperature"], "folder val")
    plain = call(capsys, "evaluate", "--data", data, "--model", model, "--calibration", "--json", "--device", "cpu")
    assert (
        json.loads(plain.out)["scores"]
        == json.loads(call(capsys, "evaluate", "--data", data, "--model", model, "--json", "--device", "cpu").out)[
            "scores"
        ]
    )
    for split in ("test", "val"):
        refused(
            capsys,
            *("evaluate", "--data", data, "--model", model, "--fit-temperature", split, "--split", split),
            names="would flatter it",
        )


def test_command_needs_data_or_folds(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--data is missing" in refused(capsys, "evaluate")
    assert "evaluate --data: --folds compares" in refused(capsys, "evaluate", "--folds", "a", "--data", "b")
    line = refused(capsys, "evaluate", "--predictions", "a", "--data", "b", "--flip")
    assert "evaluate --flip: --predictions are finished labels" in line
