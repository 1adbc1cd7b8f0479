"""Labels for other programs: what pycocotools, a loop and polygons by hand make of the files of `predict`."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from helpers.bad_inputs import encoded, photo
from helpers.command_line import TAXONOMY, call, files_below, refused, save_tiny
from pixelwise.core import Prediction, Taxonomy
from pixelwise.data import open_dataset
from pixelwise.inference.exports import Exports, export_files, write_geojson
from pixelwise.inference.jobs import Job

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
ALL = "--geojson", "--coco", "--shares", "--submission"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def _masks(folder: Path, out: Path) -> dict[str, np.ndarray]:
    """The masks of the images, as the numbers in their PNG."""
    names = sorted(path.stem for path in folder.iterdir() if path.suffix == ".png")
    masks = {}
    for name in names:
        with Image.open(out / f"{name}.png") as image:
            masks[name] = np.array(image)
    return masks


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_says_what_the_masks_say(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last image is labeled by a second run with --resume; one that cannot be read is in no file."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for k, name in enumerate("ba"):
        (folder / f"{name}.png").write_bytes(encoded(np.roll(photo(), k, axis=0), "PNG"))
    (folder / "broken.jpg").write_bytes(b"no image")
    assert call(capsys, "predict", folder, "--out", out, "--model", checkpoint, *ALL).code == 1
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (folder / "c.png").write_bytes(encoded(np.roll(photo(), 2, axis=0), "PNG"))
    assert call(capsys, "predict", folder, "--out", out, "--model", checkpoint, "--resume", *ALL).code in (1, 0)
    masks = _masks(folder, out)
    assert list(masks) == ["a", "b", "c"]
    assert all((out / name).read_bytes() == before[name] for name in ("a.png", "a.geojson"))
    shares, submission = _rows(out / "class_shares.csv"), _rows(out / "submission.csv")
    assert [row["image"] for row in shares] == list(masks)
    data = json.loads((out / "predictions.coco.json").read_text())
    names = {row["id"]: row["file_name"][:-4] for row in data["images"]}
    assert list(names.values()) == list(masks)
    categories = {row["id"]: row["name"] for row in data["categories"]}
    for name, mask in masks.items():
        share = next(row for row in shares if row["image"] == name)
        drawn, decoded, filled = (np.zeros_like(mask) for _ in range(3))
        for row in data["annotations"]:
            if names[row["image_id"]] == name:
                region = coco_mask.decode(row["segmentation"]) > 0
                drawn[region] = TAXONOMY.values[TAXONOMY.names.index(categories[row["category_id"]])]
                assert (row["area"], row["bbox"]) == (region.sum(), coco_mask.toBbox(row["segmentation"]).tolist())
        for entry in submission:
            if entry["ImageId"] == name:
                flat, numbers = np.zeros(mask.size, bool), list(map(int, entry["EncodedPixels"].split()))
                for start, length in zip(numbers[::2], numbers[1::2], strict=True):
                    flat[start - 1 : start - 1 + length] = True
                decoded[flat.reshape(mask.shape[::-1]).T] = int(entry["ClassId"])
        for feature in json.loads((out / f"{name}.geojson").read_text())["features"]:
            region = _polygon(feature["geometry"]["coordinates"], mask.shape)
            assert region.sum() == feature["properties"]["pixels"]
            filled[region] = feature["properties"]["value"]
        for k, value in enumerate(TAXONOMY.values):
            assert float(share[TAXONOMY.names[k]]) == pytest.approx((mask == value).mean())
        for found in (drawn, decoded, filled):
            np.testing.assert_array_equal(found, mask)


def _polygon(rings: list[list[list[int]]], size: tuple[int, ...]) -> np.ndarray:
    """The pixels inside an odd number of rings, by the edges to the left of each center."""
    inside = np.zeros(size, bool)
    for ring in rings:
        assert ring[0] == ring[-1]
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:
                inside[min(y0, y1) : max(y0, y1), x0:] ^= True
    return inside


def test_polygons_have_holes_and_leave_the_background_out(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("background", "ring"), values=(0, 9))
    mask = np.zeros((9, 9), np.uint8)
    cv2.rectangle(mask, (1, 1), (7, 7), 1, 2)
    write_geojson(tmp_path / "a.geojson", Prediction(mask, taxonomy, np.zeros((9, 9, 3), np.uint8)))
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"] == {"class": "ring", "value": 9, "pixels": int(mask.sum())}
    exterior, hole = feature["geometry"]["coordinates"]
    np.testing.assert_array_equal(_polygon([exterior, hole], mask.shape), mask > 0)


def test_several_labels_per_pixel_overlap(tmp_path: Path) -> None:
    taxonomy = Taxonomy(("a", "b"), kind="multilabel")
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :2], masks[1, :, 3:] = True, True
    files = export_files(tmp_path, coco=True, shares=True, submission=True)
    exports, job = Exports(taxonomy, files), Job(Path("x.png"), "x", (Path("x.png"),))
    exports.add(job, Prediction(masks, taxonomy, np.zeros((4, 6, 3), np.uint8)))
    exports.write([job], [job])
    data: dict[str, Any] = json.loads((tmp_path / "predictions.coco.json").read_text())
    for row, mask in zip(data["annotations"], masks, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(row["segmentation"]), mask)
    assert _rows(tmp_path / "class_shares.csv") == [{"image": "x", "a": "0.5", "b": "0.5"}]
    assert [row["EncodedPixels"] for row in _rows(tmp_path / "submission.csv")] == [
        "1 2 5 2 9 2 13 2 17 2 21 2",
        "13 12",
    ]


def test_predictions_can_be_opened_as_a_dataset(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(photo(), "PNG"))
    assert (
        call(capsys, "predict", tmp_path / "a.png", "--out", tmp_path / "out", "--model", checkpoint, "--coco").code
        == 0
    )
    mask = _masks(tmp_path, tmp_path / "out")["a"]
    (tmp_path / "set").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "set/a.png")
    (tmp_path / "out/predictions.coco.json").rename(tmp_path / "set/labels.json")
    dataset = open_dataset(tmp_path / "set")
    sample = dataset.split("train")[0]
    assert dataset.taxonomy.names == ("background", *TAXONOMY.names)
    assert sample.mask is not None
    np.testing.assert_array_equal(np.array((0, *TAXONOMY.values))[sample.mask], mask)


def test_existing_files_are_kept(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(encoded(photo(), "PNG"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/submission.csv").write_text("mine")
    argv = "predict", tmp_path / "a.png", "--out", tmp_path / "out", "--model", checkpoint, "--submission"
    refused(capsys, *argv, names="submission.csv: exists already")
    assert files_below(tmp_path / "out") == ["submission.csv"]
    assert (tmp_path / "out/submission.csv").read_text() == "mine"
