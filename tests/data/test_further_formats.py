"""YOLO segmentation, a mask per object, Label Studio's JSON-MIN: as their programs leave them, and out and in again.

YOLO's text is read by loops and filled by pycocotools, its data.yaml by PyYAML; masks of objects are read by Pillow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from helpers.annotated_folders import HEIGHT, WIDTH
from helpers.annotated_folders import make_photo as _photo
from helpers.annotated_folders import read_mask_of as _mask
from helpers.annotated_folders import write_content as _write
from pixelwise.core import Taxonomy
from pixelwise.data import Dataset, Item, Split, diagnose, open_dataset
from pixelwise.data.conversion import TARGETS, convert_dataset
from pixelwise.errors import DatasetError, InputError, MaskError, PixelwiseError
from pixelwise.images import image_size, read_image

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
TRIANGLE = "1 0.25 0.05 0.93 0.45 0.3 0.925"
SQUARE = "0 0.07 0.15 0.41 0.15 0.41 0.55 0.07 0.55"


def _yolo_mask(lines: list[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Class numbers + 1, the smallest object on top, each filled by pycocotools."""
    regions = []
    for line in lines:
        number, *words = line.split()
        xy = [float(word) * size[1 - k % 2] for k, word in enumerate(words)]
        regions.append((int(number) + 1, coco_mask.decode(coco_mask.frPyObjects([xy], *size))[..., 0] > 0))
    mask = np.zeros(size, int)
    for value, region in sorted(regions, key=lambda pair: -int(pair[1].sum())):
        mask[region] = value
    return mask


YAMLS = {
    "ultralytics": "path: ../datasets/coco8-seg\ntrain: images/train\nval: images/val\ntest: # optional\n"
    "names:\n  0: no\n  1: car\ndownload: https://example.org/a.zip\n",
    "roboflow": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['no', 'car']\n",
    "absolute": "train: /home/me/sets/x/images/train\nval: [C:\\sets\\x\\images\\val]\nnames: ['no', car]\n",
    "lists": "train: train.txt\nval: val.txt\nnames: ['no', car]\n",
}


@pytest.mark.parametrize("kind", sorted(YAMLS))
def test_yolo_in_the_folders_of_its_programs(tmp_path: Path, kind: str) -> None:
    is_roboflow = kind == "roboflow"
    for split, folder in (("train", "train"), ("val", "valid" if is_roboflow else "val")):
        images, labels = ((f"{folder}/{word}" if is_roboflow else f"{word}/{folder}") for word in ("images", "labels"))
        for name in ("a.b", "c"):
            _photo(tmp_path / images / f"{split}{name}.jpg")
        _write(tmp_path / labels / f"{split}a.b.txt", f"{SQUARE}\n\n{TRIANGLE}\r\n")
        # An image without a text file shows no object; one without an object has an empty file.
        if split == "val":
            _write(tmp_path / labels / "valc.txt", "")
        _write(tmp_path / f"{split}.txt", f"./{images}/{split}a.b.jpg\n/content/x/{images}/{split}c.jpg\n")
    path = _write(tmp_path / "data.yaml", YAMLS[kind])
    names = yaml.safe_load(path.read_text())["names"]
    dataset = open_dataset(tmp_path)
    # YAML 1.1 makes a boolean of the class `no`.
    theirs = ["no" if name is False else name for name in (names.values() if isinstance(names, dict) else names)]
    assert dataset.taxonomy.names == ("background", *theirs)
    assert {name: [item.key for item in split.items] for name, split in dataset.splits.items()} == {
        "train": ["traina.b", "trainc"],
        "val": ["vala.b", "valc"],
    }
    expected = _yolo_mask([SQUARE, TRIANGLE])
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(_mask(tmp_path), expected)
    assert not _mask(tmp_path, index=1).any()
    assert dataset.notes[0].endswith("1 images without a text file show no object")
    assert not diagnose(dataset).has_errors


def test_yolo_without_a_yaml_numbers_its_classes(tmp_path: Path) -> None:
    _photo(tmp_path / "images/a.jpg")
    _write(tmp_path / "labels/a.txt", SQUARE.replace("0 ", "7 ", 1))
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("background", *(f"class{k}" for k in range(8)))
    np.testing.assert_array_equal(_mask(tmp_path) == 8, _yolo_mask([SQUARE]) == 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.2 0.2", r"a\.txt:2: is a box, not a polygon"),
        ("2 0 0 1 0 1 1", r"a\.txt:2: expected the number of a class, 0 to 1, got '2'"),
        ("-1 0 0 1 0 1 1", "expected the number of a class"),
        ("1.0 0 0 1 0 1 1", "expected the number of a class"),
        ("0 0 0 1 0 1 1 1", "expected `class x y x y x y"),
        ("0 0 0 1 0 1 nan", "far outside of its image"),
        ("0 0 0 1 0 1 900", "far outside of its image"),
        ("0 0 0 1 0 1 x", "expected `class x y x y x y"),
        ("0 0 0 1 0 1 \u00bd", "expected numbers, got other text"),
    ],
)
def test_lines_that_are_no_polygons_are_refused(tmp_path: Path, line: str, words: str) -> None:
    _photo(tmp_path / "images/a.jpg")
    _write(tmp_path / "data.yaml", "names: [tree, car]\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(f"{TRIANGLE}\n{line}\n", encoding="utf-8")
    with pytest.raises(MaskError, match=words):
        _mask(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: {0: a, 2: b}\ntrain: images\n", "expected `names` as a list, or by number"),
        ("names: [a, [b]]\ntrain: images\n", "expected `names` as a list, or by number"),
        ("names: [a, b]\ntrain: photos\n", "names 'photos' for split train, which does not exist"),
        ("names: a\ntrain: images\n", "expected `names` as a list"),
    ],
)
def test_a_data_yaml_that_does_not_fit_is_refused(tmp_path: Path, text: str, words: str) -> None:
    _photo(tmp_path / "images/a.jpg")
    _write(tmp_path / "labels/a.txt", TRIANGLE)
    _write(tmp_path / "data.yaml", text)
    with pytest.raises(DatasetError, match=words):
        open_dataset(tmp_path)


def _objects(root: Path) -> dict[str, np.ndarray]:
    """Two images of the Data Science Bowl with three objects each, which touch, one without masks, a CSV."""
    rng = np.random.default_rng(0)
    unions = {}
    for name in ("0a1b", "ff02"):
        _photo(root / f"stage1_train/{name}/images/{name}.png")
        unions[name] = np.zeros((HEIGHT, WIDTH), bool)
        for k in range(3):
            mask = np.zeros((HEIGHT, WIDTH), bool)
            top, left = rng.integers(0, (14, 22))
            mask[top : top + 6, left : left + 8] = True
            path = root / f"stage1_train/{name}/masks/{k}{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(path)
            unions[name] |= mask
    _photo(root / "stage1_test/99/images/99.png")
    _write(root / "stage1_train_labels.csv", "ImageId,EncodedPixels\n")
    return unions


def test_masks_of_objects_are_joined(tmp_path: Path) -> None:
    unions = _objects(tmp_path)
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.taxonomy.names) == ("objects", ("background", "object"))
    assert [item.mask for item in dataset.split("test").items] == [None]
    for sample in dataset.split("train"):
        np.testing.assert_array_equal(sample.mask, unions[sample.key])
    # Their folder alone is such a dataset, too, and classes.yaml names the class.
    _write(tmp_path / "stage1_train/classes.yaml", "classes: [nucleus, background]\n")
    dataset = open_dataset(tmp_path / "stage1_train")
    for sample in dataset.split("train"):
        np.testing.assert_array_equal(sample.mask, ~unions[sample.key])
    _write(tmp_path / "stage1_train/classes.yaml", "classes: [a, b, c]\n")
    with pytest.raises(MaskError, match="one mask per object, all of one class, but there are 3 classes"):
        _mask(tmp_path / "stage1_train")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda mask: mask.resize((30, 21), Image.Resampling.NEAREST),
            "expected 20x30, the size of 0ff02.png, got 21x30",
        ),
        (lambda mask: mask.point(lambda value: value // 2), "expected a mask of 0 and 1, or of 0 and 255"),
    ],
)
def test_masks_of_objects_that_do_not_fit_are_refused(
    tmp_path: Path, spoil: Callable[[Image.Image], Image.Image], words: str
) -> None:
    _objects(tmp_path)
    path = tmp_path / "stage1_train/ff02/masks/2ff02.png"
    with Image.open(path) as mask:
        spoil(mask.copy()).save(path)
    with pytest.raises(MaskError, match=words):
        _mask(tmp_path, index=1)
    errors = [finding for finding in diagnose(open_dataset(tmp_path)).findings if finding.severity == "error"]
    assert [item.key for finding in errors for item in finding.items] == ["ff02"]
    _photo(tmp_path / "stage1_train/ff02/images/other.png")
    with pytest.raises(DatasetError, match="holds 2 images; fix: keep one image per folder"):
        open_dataset(tmp_path)


def _two_classes(root: Path) -> Dataset:
    """Noise of background and cell, without ignored pixels, in train and val."""
    taxonomy = Taxonomy(("background", "cell"), values=(0, 255), ignored=())
    splits = {}
    for seed, split in enumerate(("train", "val")):
        mask = np.random.default_rng(seed).random((21, 30)) < 0.4
        image = _photo(root / f"images/{split}/a {split}.png", (30, 21))
        path = root / f"masks/{split}/a {split}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        splits[split] = Split(split, [Item(f"a {split}", image, path)], taxonomy)
    return Dataset("made", root, taxonomy, splits)


def test_masks_of_objects_come_back_equal(tmp_path: Path) -> None:
    dataset = _two_classes(tmp_path / "made")
    convert_dataset(dataset, "objects", tmp_path / "out")
    back = open_dataset(tmp_path / "out")
    assert (back.name, back.taxonomy) == ("objects", dataset.taxonomy)
    for split in ("train", "val"):
        (sample,), (own,) = dataset.split(split), back.split(split)
        assert sample.mask is not None
        np.testing.assert_array_equal(own.mask, sample.mask)
        np.testing.assert_array_equal(own.image, sample.image)
        files = sorted((tmp_path / f"out/{split}/a {split}/masks").iterdir())
        parts = [np.asarray(Image.open(path)) for path in files]
        np.testing.assert_array_equal(np.sum(parts, 0), sample.mask)
    three = Taxonomy(("a", "b", "c"))
    others = {"train": Split("train", dataset.split("train").items, three)}
    with pytest.raises(MaskError, match="there are 3 classes"):
        convert_dataset(Dataset("made", dataset.root, three, others), "objects", tmp_path / "three")


def test_yolo_is_written_as_its_programs_read_it(tmp_path: Path) -> None:
    """The text by loops and pycocotools, data.yaml by PyYAML."""
    dataset = _two_classes(tmp_path / "made")
    convert_dataset(dataset, "yolo", tmp_path / "out")
    data = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/val", "names": ["cell"]}
    for split in ("train", "val"):
        (sample,) = dataset.split(split)
        lines = (tmp_path / f"out/labels/{split}/a {split}.txt").read_text().splitlines()
        assert all(0 <= float(word) <= 1 for line in lines for word in line.split()[1:])
        np.testing.assert_array_equal(_yolo_mask(lines, (21, 30)), sample.mask)


def _min_task(name: str, number: int, **more: Any) -> dict[str, Any]:
    """A task as the converter writes it: the values of its results, each with the size of the image."""
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    polygon = {"points": [[7, 15], [41, 15], [41, 55]], "closed": True, "polygonlabels": ["car"], **size}
    box = {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["tree"], **size}
    return {
        "image": f"/data/upload/3/0123abcd-{name}",
        "id": number,
        "label": [polygon, box],
        "annotator": 1,
        "annotation_id": number,
        "created_at": "2024-01-02T03:04:05.49Z",
        "updated_at": "2024-01-02T03:04:05.49Z",
        "lead_time": 3.5,
        **more,
    }


def test_label_studio_json_min(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        _photo(tmp_path / name)
    tasks = [_min_task("a.jpg", 1), _min_task("b.jpg", 2, choice="good", label=[])]
    _write(tmp_path / "project-3.json", tasks)
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.taxonomy.names) == ("label_studio", ("background", "car"))
    assert [item.image.name for item in dataset.split("train").items] == ["a.jpg"]
    assert "1 rectanglelabels" in " ".join(dataset.notes)
    corners = np.array([[7, 15], [41, 15], [41, 55]]) * [WIDTH, HEIGHT] / 100
    region = coco_mask.decode(coco_mask.frPyObjects([corners.ravel().tolist()], HEIGHT, WIDTH))[..., 0]
    np.testing.assert_array_equal(_mask(tmp_path), region)
    _write(tmp_path / "project-3.json", [*tasks, _min_task("a.jpg", 1, annotation_id=9)])
    with pytest.raises(DatasetError, match=r"\(task 3\): annotates '.*a\.jpg' again; fix: keep one annotation"):
        open_dataset(tmp_path)


def test_json_min_holds_the_brushes_of_the_full_export(tmp_path: Path) -> None:
    dataset = _two_classes(tmp_path / "made")
    for target in ("label-studio", "label-studio-min"):
        convert_dataset(dataset, target, tmp_path / target)
    (full,), (small,) = (
        json.loads((tmp_path / target / "val.json").read_text()) for target in ("label-studio", "label-studio-min")
    )
    (result,), (value,) = full["annotations"][0]["result"], small["label"]
    size = {key: result[key] for key in ("original_width", "original_height")}
    assert value == {**result["value"], **size}
    assert small["image"] == full["data"]["image"]


def test_sizes_are_those_of_the_decoded_images(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(20 * 30).reshape(20, 30).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    paths = [tmp_path / f"a.{suffix}" for suffix in ("png", "jpg", "tif", "bmp", "gif", "webp")]
    for path in paths:
        image.save(path)
    for suffix in ("png", "jpg", "tif"):
        image.save(tmp_path / f"turned.{suffix}", exif=exif)
        paths.append(tmp_path / f"turned.{suffix}")
    np.save(tmp_path / "a.npy", np.zeros((20, 30, 5), np.uint16))
    for path in paths:
        assert image_size(path) == read_image(path).shape[:2]
    assert image_size(tmp_path / "a.npy") == (20, 30)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError):
        image_size(tmp_path / "a.png")


def test_the_error_of_an_unknown_folder_names_the_forms(tmp_path: Path) -> None:
    _write(tmp_path / "a.txt", "x")
    with pytest.raises(PixelwiseError) as caught:
        open_dataset(tmp_path)
    assert {*TARGETS.values()} <= set(str(caught.value).replace(";", ",").replace(":", ",").split(", "))
