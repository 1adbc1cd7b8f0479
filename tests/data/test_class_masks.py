"""Several labels per pixel: mask files per class, arrays, what is refused, and how they are augmented."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers.overlaps import FILE_NAMES, NAMES, make_overlap, write_overlaps
from pixelwise.config import AugmentConfig
from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.data.inspection import inspect_item
from pixelwise.data.loader import AugmentedDataset, collate
from pixelwise.data.shapes.drawing import Shape, draw_shapes
from pixelwise.data.shapes.fill import Region
from pixelwise.data.transforms import Augment, warp
from pixelwise.errors import ConfigError, DatasetError, InputError, MaskError, PixelwiseError

TAXONOMY = Taxonomy(NAMES, kind="multilabel")
SAMPLE = Path(__file__).parents[1] / "samples" / "overlaps"


@pytest.mark.parametrize("layout", ["folder", "suffix", "array"])
def test_three_layouts_hold_the_same_masks(tmp_path: Path, layout: str) -> None:
    dataset = open_dataset(write_overlaps(tmp_path, layout=layout))
    assert dataset.taxonomy == TAXONOMY
    for number, sample in enumerate(dataset.split("train")):
        image, masks = make_overlap(1 + number)
        assert sample.mask is not None
        np.testing.assert_array_equal(sample.mask, masks.astype(np.uint8))
        np.testing.assert_array_equal(sample.image, image)
    inspected = inspect_item(dataset.split("train"), dataset.split("train").items[2])
    expected = make_overlap(3)[1].sum((1, 2))
    assert inspected.pixels == {k: count for k, count in enumerate(expected.tolist()) if count}
    # Files that a class lacks are counted, not passed over.
    lacking = "thin frame in 2 of 8 images"
    assert any(lacking in note for note in dataset.notes) == (layout != "array")


def test_the_committed_sample_is_that_of_its_generator() -> None:
    sample = open_dataset(SAMPLE).split("val")[0]
    image, masks = make_overlap(101)
    np.testing.assert_array_equal(sample.image, image)
    assert sample.mask is not None
    np.testing.assert_array_equal(sample.mask, masks)


def test_lists_name_images_of_one_folder(tmp_path: Path) -> None:
    write_overlaps(tmp_path / "parts")
    for kind in ("images", "masks"):
        (tmp_path / "parts" / kind / "train").rename(tmp_path / kind)
    (tmp_path / "classes.yaml").write_bytes((tmp_path / "parts" / "classes.yaml").read_bytes())
    (tmp_path / "train.txt").write_text("p0\np1.png\n")
    (tmp_path / "val.txt").write_text("images/p2.png\n")
    dataset = open_dataset(tmp_path)
    assert [item.key for item in dataset.split("train").items] == ["p0", "p1"]
    mask = dataset.split("val")[0].mask
    assert mask is not None
    np.testing.assert_array_equal(mask, make_overlap(3)[1])
    (tmp_path / "val.txt").write_text("images/p2.png masks/p2\n")
    listed = open_dataset(tmp_path).split("val")[0].mask
    assert listed is not None
    np.testing.assert_array_equal(listed, mask)


def test_the_mask_of_an_only_class_needs_no_name_of_it(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind / "train").mkdir(parents=True)
    image, masks = make_overlap(1)
    Image.fromarray(image).save(tmp_path / "images" / "train" / "a.png")
    Image.fromarray(masks[0]).save(tmp_path / "masks" / "train" / "a.png")
    (tmp_path / "classes.yaml").write_text("kind: multilabel\nclasses: [disc]\n")
    for place in (tmp_path, tmp_path / "flat"):
        mask = open_dataset(place).split("train")[0].mask
        assert mask is not None
        np.testing.assert_array_equal(mask, masks[:1])
        if place == tmp_path:
            for kind in ("images", "masks"):
                shutil.copytree(tmp_path / kind / "train", tmp_path / "flat" / kind)
            (tmp_path / "flat" / "classes.yaml").write_text("kind: multilabel\nclasses: [disc]\n")
            (tmp_path / "flat" / "train.txt").write_text("images/a.png masks/a.png\n")


def test_ignored_pixels_of_a_class_and_of_all(tmp_path: Path) -> None:
    write_overlaps(tmp_path)
    (tmp_path / "classes.yaml").write_text(f"kind: multilabel\nignore: [128]\nclasses: [{', '.join(NAMES)}]\n")
    folder = tmp_path / "masks" / "train" / "p0"
    disc = np.array(Image.open(folder / "disc.png")).astype(np.uint8) * 255
    disc[0, :5] = 128
    Image.fromarray(disc).save(folder / "disc.png")
    everywhere = np.zeros(disc.shape, bool)
    everywhere[-1] = True
    Image.fromarray(everywhere).save(folder / "ignore.png")
    split = open_dataset(tmp_path).split("train")
    expected = make_overlap(1)[1].astype(np.uint8)
    expected[0, 0, :5] = 255
    expected[:, -1] = 255
    mask = split[0].mask
    assert mask is not None
    np.testing.assert_array_equal(mask, expected)
    assert inspect_item(split, split.items[0]).pixels[255] == disc.shape[1]


def test_an_empty_folder_means_that_all_classes_are_absent(tmp_path: Path) -> None:
    write_overlaps(tmp_path)
    folder = tmp_path / "masks" / "train" / "p0"
    for path in folder.iterdir():
        path.unlink()
    mask = open_dataset(tmp_path).split("train")[0].mask
    assert mask is not None
    assert mask.shape == (3, 40, 48)
    assert not mask.any()
    folder.rmdir()
    with pytest.raises(DatasetError, match=r"missing: masks/train/p0/disc\.png \(mask\)"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("p0/dics.png", "1 files belong to no image and class: p0/dics.png"),
        ("p9/disc.png", "1 files belong to no image and class: p9/disc.png"),
        ("p0.png", "1 files belong to no image and class: p0.png"),
        ("p0_disc.png", "several files hold one class of p0"),
        ("p0.npy", "several files hold one class of p0"),
    ],
)
def test_a_file_that_fits_no_class_is_refused(tmp_path: Path, name: str, match: str) -> None:
    write_overlaps(tmp_path)
    mask = np.zeros((40, 48), bool)
    path = tmp_path / "masks" / "train" / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, mask)
    else:
        Image.fromarray(mask).save(path)
    with pytest.raises(DatasetError, match=match):
        open_dataset(tmp_path)


def test_a_file_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    write_overlaps(tmp_path)
    (tmp_path / "classes.yaml").write_text("kind: multilabel\nclasses: [disc, bar, thin frame, x_disc]\n")
    source = tmp_path / "images" / "train"
    Image.open(source / "p0.png").save(source / "p0_x.png")
    Image.fromarray(np.zeros((40, 48), bool)).save(tmp_path / "masks" / "train" / "p0_x_disc.png")
    with pytest.raises(DatasetError, match=r"1 files fit several images and classes: p0_x_disc\.png"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("values", [(0, 1, 255), (0, 7), (0, 128, 255)])
def test_a_mask_of_a_class_has_two_values(values: tuple[int, ...]) -> None:
    raw = np.resize(np.array(values, np.uint8), (6, 7))
    with pytest.raises(MaskError, match=r"expected a mask of 0 and 1, or of 0 and 255, got also"):
        TAXONOMY.encode_class(raw, "a.png")


def test_arrays_have_a_plane_per_class(tmp_path: Path) -> None:
    dataset = write_overlaps(tmp_path, layout="array")
    path = tmp_path / "masks" / "train" / "p0.npy"
    masks = make_overlap(1)[1]
    for array in (masks, masks.transpose(1, 2, 0), masks.astype(np.int64), masks.astype(np.uint8) * 255):
        np.save(path, array)
        mask = open_dataset(dataset).split("train")[0].mask
        assert mask is not None
        np.testing.assert_array_equal(mask, masks)
    for array, match in (
        (masks[:2], r"expected an array \(3, height, width\), got 2x40x48"),
        (masks[:, :, :3], "expected an array"),
        (masks.astype(float), "of 0 and 1"),
        (np.array([{}]), "is not a whole npy file"),
    ):
        np.save(path, array)
        with pytest.raises(InputError, match=match):
            open_dataset(dataset).split("train")[0]
    # A header of zeros, which NumPy repeats in its error.
    path.write_bytes(b"\x93NUMPY\x01\x00\xf0\x00" + bytes(240))
    with pytest.raises(InputError, match="is not a whole npy file") as raised:
        open_dataset(dataset).split("train")[0]
    assert len(str(raised.value)) < 500
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(MaskError, match="is no npy file"):
        open_dataset(dataset).split("train")[0]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{kind: multi, classes: [a]}", "expected `kind: exclusive` or `kind: multilabel`"),
        ("{kind: multilabel, classes: [{name: a, value: 3}]}", "leave out `value`"),
        ("{kind: multilabel, classes: [a], ignore: [0]}", "0 is no label"),
        ("{kind: multilabel, classes: [Ignore]}", "cannot have the name 'ignore'"),
        ("{kind: multilabel, classes: [a], masks: color}", "has `masks: color`"),
    ],
)
def test_a_classes_file_that_contradicts_itself(tmp_path: Path, text: str, match: str) -> None:
    write_overlaps(tmp_path)
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        open_dataset(tmp_path)


def test_a_taxonomy_comes_back_from_its_json_form() -> None:
    assert Taxonomy.from_dict(TAXONOMY.to_dict()) == TAXONOMY
    # One label per pixel is written as before there was a choice.
    assert "kind" not in Taxonomy(NAMES).to_dict()
    with pytest.raises(MaskError, match="kind: multilabel"):
        TAXONOMY.encode(np.zeros((2, 2), np.uint8))


@given(seed=st.integers(0, 10_000), flip=st.booleans(), elastic=st.sampled_from([0.0, 4.0]))
def test_each_class_is_warped_as_a_mask_of_its_own(seed: int, flip: bool, elastic: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (20, 24, 3), np.uint8)
    masks = rng.choice(np.array([0, 1, 255], np.uint8), (3, 20, 24))
    angle, zoom = rng.uniform(-1, 1), rng.uniform(0.5, 2)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 3], [np.sin(angle), np.cos(angle), -2]]) * zoom
    matrix[0] *= -1 if flip else 1
    displacement = rng.normal(0, elastic, (2, 16, 18)) if elastic else None
    _, together = warp(image, masks, matrix, (16, 18), ignore_id=255, displacement=displacement)
    for k in range(3):
        _, alone = warp(image, masks[k], matrix, (16, 18), ignore_id=255, displacement=displacement)
        np.testing.assert_array_equal(together[k], alone)


def test_batches_hold_bytes_and_balanced_crops_show_the_rare_class(tmp_path: Path) -> None:
    write_overlaps(tmp_path, num_train=1)
    tiny = np.zeros((40, 48), bool)
    tiny[33:35, 41:43] = True
    Image.fromarray(tiny).save(tmp_path / "masks" / "train" / "p0" / "thin_frame.png")
    split = open_dataset(tmp_path).split("train")
    settings = AugmentConfig(crop=[17, 17], scale=[1.0, 1.0], class_balanced_prob=1.0)
    samples = AugmentedDataset(split, Augment(settings, 255), seed=1)
    crops = [samples[n] for n in range(60)]
    shown = [k for crop in crops for k in range(3) if (crop.mask[k] == 1).any()]
    # Drawn evenly, a third of the crops are centered near it; at random about a tenth show it.
    assert shown.count(2) > 60 / 4
    batch = collate(crops[:2])
    assert batch.masks.shape == (2, 3, 17, 17)
    assert str(batch.masks.dtype) == "torch.uint8"
    whole = AugmentedDataset(
        split, Augment(AugmentConfig(crop=[16, 16], tiled_crops=True), 255), seed=1, tile_size=(16, 16)
    )
    assert whole[0].mask.shape == (3, 16, 16)


def test_shapes_of_an_annotation_file_overlap() -> None:
    region = np.ones((4, 4), bool)
    shapes = [
        Shape("disc", Region(0, 0, region)),
        Shape("bar", Region(2, 2, region)),
        Shape("ignored", Region(5, 5, region[:1, :1])),
        Shape("background", Region(0, 0, region)),
    ]
    mask = draw_shapes((8, 8), shapes, TAXONOMY, "a.json")
    expected = np.zeros((3, 8, 8), np.uint8)
    expected[0, :4, :4] = 1
    expected[1, 2:6, 2:6] = 1
    expected[:, 5, 5] = 255
    np.testing.assert_array_equal(mask, expected)
    with pytest.raises(PixelwiseError, match="has the label 'x'"):
        draw_shapes((8, 8), [Shape("x", Region(0, 0, region))], TAXONOMY, "a.json")


def test_a_coco_file_with_overlaps_needs_one_line(tmp_path: Path) -> None:
    """`kind: multilabel` is all that classes.yaml must hold; the regions are encoded by pycocotools."""
    for split, first in (("train", 1), ("val", 101)):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        content: dict[str, list[Any]] = {"images": [], "annotations": []}
        for number in range(3):
            image, masks = make_overlap(first + number)
            Image.fromarray(image).save(tmp_path / "images" / split / f"p{number}.png")
            content["images"].append({"id": number, "file_name": f"p{number}.png", "height": 40, "width": 48})
            for k in np.flatnonzero(masks.any((1, 2))).tolist():
                rle = pycocotools.mask.encode(np.asfortranarray(masks[k].astype(np.uint8)))
                row = {"id": len(content["annotations"]), "image_id": number, "category_id": 20 - k, "iscrowd": 0}
                area = int(masks[k].sum())
                rle["counts"] = rle["counts"].decode()
                content["annotations"].append({**row, "segmentation": rle, "area": area, "bbox": [0, 0, 48, 40]})
        categories = [{"id": 20 - k, "name": name} for k, name in enumerate(NAMES)]
        file = tmp_path / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps({**content, "categories": categories}))
    (tmp_path / "classes.yaml").write_text("kind: multilabel\n")
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.multilabel
    order = [dataset.taxonomy.names.index(name) for name in NAMES]
    for number, sample in enumerate(dataset.split("val")):
        assert sample.mask is not None
        np.testing.assert_array_equal(sample.mask[order], make_overlap(101 + number)[1])
    (tmp_path / "masks").mkdir()
    shutil.rmtree(tmp_path / "annotations")
    with pytest.raises(DatasetError, match="`kind: multilabel` without `classes`"):
        open_dataset(tmp_path)


def test_class_names_become_file_names() -> None:
    assert Taxonomy(NAMES, kind="multilabel").file_names == FILE_NAMES
    assert Taxonomy(("a b", "a/b", "c"), kind="multilabel").file_names == ("a_b_0", "a_b_1", "c")
