"""Each format goes out and comes in again with equal pixels, and other programs' readers see the same masks."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.data.conversion import TARGETS, convert_dataset
from pixelwise.data.dataset import Dataset, Item, Split
from pixelwise.errors import ConfigError, DatasetError, InputError, MaskError
from pixelwise.strict_yaml import to_yaml

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
# With a background and a void value; with neither a background nor consecutive values; with values of 16 bits.
TAXONOMIES = {
    "background": Taxonomy(("background", "car & <b>", "tree"), values=(0, 1, 2), ignored=(255,)),
    "no background": Taxonomy(("sky", "road", "Straße"), ((9, 8, 7), (0, 0, 0), (0, 0, 255)), (7, 11, 250), ()),
    "16 bits": Taxonomy(("unlabeled", "a", "b"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (0, 300, 65535), (4,)),
}


def _noise(seed: int, size: tuple[int, int], classes: int) -> np.ndarray:
    """Blocks and single pixels, with holes and diagonals; the fourth part of the pixels is ignored or noise."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, classes, (4, 5)), np.ones((6, 7)))[: size[0], : size[1]].astype(np.uint8)
    noise = rng.choice([*range(classes), 255], size)
    return np.where(rng.random(size) < 0.25, noise, blocks).astype(np.uint8)


def _dataset(root: Path, taxonomy: Taxonomy) -> Dataset:
    """Two images in train, one of them in a folder and JPEG, and one in val."""
    splits: dict[str, list[Item]] = {"train": [], "val": []}
    for seed, (split, name) in enumerate([("train", "a b.png"), ("train", "drive 1/c.jpg"), ("val", "é.png")]):
        mask = _noise(seed, (22 + seed, 31), 3)
        image, values = root / "images" / split / name, (root / "masks" / split / name).with_suffix(".png")
        for path in (image, values):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3)).astype(np.uint8)).save(image)
        raw = taxonomy.decode(mask, 4 if 4 in taxonomy.ignored else 255)
        Image.fromarray(raw).save(values)
        splits[split].append(Item(name.rpartition(".")[0], image, values))
    known = Taxonomy(taxonomy.names, taxonomy.colors, taxonomy.values, taxonomy.ignored or (255,))
    return Dataset("made", root, known, {name: Split(name, items, known) for name, items in splits.items()})


@pytest.fixture(params=sorted(TAXONOMIES))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    """A made dataset of each taxonomy."""
    return _dataset(tmp_path / "made", TAXONOMIES[request.param])


def _samples(dataset: Dataset) -> Iterator[tuple[str, str, np.ndarray, bytes]]:
    for name, split in dataset.splits.items():
        for k, item in enumerate(split.items):
            mask = split[k].mask
            assert mask is not None
            yield name, item.key, mask, item.image.read_bytes()


# `objects` holds one class alone: see test_further_formats.
@pytest.mark.parametrize("target", sorted(TARGETS.keys() - {"objects"}))
def test_every_format_comes_back_equal(dataset: Dataset, tmp_path: Path, target: str) -> None:
    """Split, key, pixels of the mask, bytes of the image, names, colors, values."""
    done = convert_dataset(dataset, target, tmp_path / "out")
    assert done.counts == {"train": 2, "val": 1}
    back = open_dataset(tmp_path / "out")
    assert back.name == TARGETS[target]
    assert back.taxonomy.to_dict()["classes"] == dataset.taxonomy.to_dict()["classes"]
    expected, found = list(_samples(dataset)), list(_samples(back))
    assert len(expected) == len(found)
    for (split, key, mask, image), (own_split, own_key, own_mask, own_image) in zip(expected, found, strict=True):
        assert (own_split, own_key.replace("/", "_")) == (split, key.replace("/", "_"))
        np.testing.assert_array_equal(own_mask, mask)
        assert own_image == image


def _masks_by_key(dataset: Dataset) -> dict[str, np.ndarray]:
    return {key: mask for _, key, mask, _ in _samples(dataset)}


@pytest.mark.parametrize("target", ["coco", "coco-rle"])
def test_pycocotools_reads_what_is_written(tmp_path: Path, target: str) -> None:
    dataset = _dataset(tmp_path / "made", TAXONOMIES["no background"])
    convert_dataset(dataset, target, tmp_path / "out")
    seen = 0
    for split in ("train", "val"):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(tmp_path / "out" / "annotations" / f"instances_{split}.json")
        names = {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())}
        for row in coco.loadImgs(coco.getImgIds()):
            mask = _masks_by_key(dataset)[row["file_name"].rpartition(".")[0]]
            drawn = np.full(mask.shape, 255)
            for annotation in coco.loadAnns(coco.getAnnIds(row["id"])):
                region = coco.annToMask(annotation) > 0
                assert (drawn[region] == 255).all(), "no two annotations overlap"
                drawn[region] = dataset.taxonomy.names.index(names[annotation["category_id"]])
                box = coco_mask.toBbox(coco.annToRLE(annotation)).tolist()
                assert (annotation["area"], annotation["bbox"]) == (int(region.sum()), box)
                seen += 1
            np.testing.assert_array_equal(drawn, mask)
    assert seen > 8


def test_labelme_draws_what_is_written(tmp_path: Path) -> None:
    """Drawn as `shapes_to_label` of labelme 6.3.1 does, with Pillow; parts with holes are masks, others polygons."""
    dataset = _dataset(tmp_path / "made", TAXONOMIES["no background"])
    convert_dataset(dataset, "labelme", tmp_path / "out")
    kinds = set()
    for split, key, mask, _ in _samples(dataset):
        data = json.loads((tmp_path / "out" / split / f"{key}.json").read_text())
        drawn = np.full(mask.shape, 255)
        for shape in data["shapes"]:
            kinds.add(shape["shape_type"])
            points = [tuple(point) for point in shape["points"]]
            canvas = Image.new("1", (data["imageWidth"], data["imageHeight"]))
            if shape["shape_type"] == "mask":
                pixels = Image.open(io.BytesIO(base64.b64decode(shape["mask"])))
                (left, top), (right, bottom) = points
                assert pixels.size == (right - left + 1, bottom - top + 1)
                canvas.paste(pixels, (left, top))
            else:
                ImageDraw.Draw(canvas).polygon(points, outline=1, fill=1)
            drawn[np.asarray(canvas)] = dataset.taxonomy.names.index(shape["label"])
        np.testing.assert_array_equal(drawn, mask)
        assert (tmp_path / "out" / split / key).with_name(data["imagePath"]).is_file()
    assert kinds == {"polygon", "mask"}


def test_cvat_and_supervisely_and_label_studio_hold_the_same_regions(tmp_path: Path) -> None:
    """CVAT's runs by a loop, Supervisely's bitmaps by zlib and Pillow, Label Studio's addresses."""
    dataset = _dataset(tmp_path / "made", TAXONOMIES["background"])
    masks = _masks_by_key(dataset)
    for target in ("cvat", "supervisely", "label-studio"):
        convert_dataset(dataset, target, tmp_path / target)
    tree = ElementTree.parse(tmp_path / "cvat" / "annotations.xml")
    labels = [label.text for label in tree.iter("name")]
    assert labels == ["car & <b>", "tree", "ignored"]
    for image in tree.iter("image"):
        mask = masks[image.attrib["name"].rpartition(".")[0]]
        drawn = np.zeros(mask.shape, int)
        for row in image.iter("mask"):
            left, top, width, height = (int(row.attrib[name]) for name in ("left", "top", "width", "height"))
            flat: list[int] = []
            for k, run in enumerate(row.attrib["rle"].split(",")):
                flat += [k % 2] * int(run)
            region = np.array(flat).reshape(height, width) > 0
            id_ = 255 if row.attrib["label"] == "ignored" else dataset.taxonomy.names.index(row.attrib["label"])
            drawn[top : top + height, left : left + width][region] = id_
        np.testing.assert_array_equal(drawn, mask)
    meta = json.loads((tmp_path / "supervisely" / "meta.json").read_text())
    assert [row["title"] for row in meta["classes"]] == ["car & <b>", "tree", "ignored"]
    data = json.loads((tmp_path / "supervisely" / "train" / "ann" / "drive 1_c.jpg.json").read_text())
    drawn = np.zeros(masks["drive 1/c"].shape, int)
    for row in data["objects"]:
        (left, top), text = row["bitmap"]["origin"], row["bitmap"]["data"]
        region = np.asarray(Image.open(io.BytesIO(zlib.decompress(base64.b64decode(text)))).convert("L")) > 0
        id_ = 255 if row["classTitle"] == "ignored" else dataset.taxonomy.names.index(row["classTitle"])
        drawn[top : top + region.shape[0], left : left + region.shape[1]][region] = id_
    np.testing.assert_array_equal(drawn, masks["drive 1/c"])
    (task,) = json.loads((tmp_path / "label-studio" / "val.json").read_text())
    assert task["data"] == {"image": "/data/local-files/?d=images/val/%C3%A9.png"}


def test_masks_are_what_pillow_and_numpy_read(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "made", TAXONOMIES["no background"])
    taxonomy = dataset.taxonomy
    for target in ("folder", "voc", "color", "npy"):
        convert_dataset(dataset, target, tmp_path / target)
    for split, key, mask, _ in _samples(dataset):
        values = np.array([*taxonomy.values, *[0] * 252, 255], np.uint8)[mask]
        colors = np.array([*taxonomy.colors, *[(0, 0, 0)] * 252, taxonomy.ignore_color], np.uint8)[mask]
        for path in (
            tmp_path / "folder/masks" / split / f"{key}.png",
            tmp_path / "voc/SegmentationClass" / f"{key}.png",
        ):
            with Image.open(path) as image:
                assert image.mode == "P"
                np.testing.assert_array_equal(np.asarray(image), values)
                np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colors)
        with Image.open(tmp_path / "color/masks" / split / f"{key}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), colors)
        np.testing.assert_array_equal(np.load(tmp_path / "npy/masks" / split / f"{key}.npy"), values)
    lists = (tmp_path / "voc/ImageSets/Segmentation/train.txt").read_text()
    assert lists == "a b\ndrive 1/c\n"


def test_images_are_linked_on_demand(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "made", TAXONOMIES["background"])
    convert_dataset(dataset, "voc", tmp_path / "out", link=True)
    link = tmp_path / "out/JPEGImages/drive 1/c.jpg"
    assert link.is_symlink()
    assert link.resolve() == (tmp_path / "made/images/train/drive 1/c.jpg").resolve()
    assert len(open_dataset(tmp_path / "out").split("train")) == 2


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "made", TAXONOMIES["background"])
    photo = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 3
    Image.new("RGB", (31, 22)).save(photo, exif=exif)
    items = dataset.split("train").items
    splits = {
        "train": Split("train", (*items, Item("x", photo)), dataset.taxonomy),
        "trainaug": Split("trainaug", items, dataset.taxonomy),
        "val": Split("val", [Item("y", photo, items[0].mask)], dataset.taxonomy),
    }
    done = convert_dataset(Dataset("made", dataset.root, dataset.taxonomy, splits), "folder", tmp_path / "out")
    assert done.notes[0] == "not written: split trainaug; the format holds train, val and test"
    assert done.notes[1] == "not written: images without a mask (1 of split train)"
    assert done.notes[2].startswith("1 images have an EXIF orientation, and stay as they are")
    assert (tmp_path / "out/images/val/y.jpg").read_bytes() == photo.read_bytes()


def test_bad_targets_and_folders(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "made", TAXONOMIES["background"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    for out, words in ((tmp_path / "made/new", "lies in the dataset"), (tmp_path / "full", "is no empty folder")):
        with pytest.raises(InputError, match=words):
            convert_dataset(dataset, "coco", out)
    assert os.listdir(tmp_path / "full") == ["x"]
    # A mask that cannot be read: nothing stays, not even half of the dataset.
    mask = dataset.split("val").items[0].mask
    assert mask is not None
    mask.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"is not an image"):
        convert_dataset(dataset, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match=r"is not an image"):
        convert_dataset(dataset, "folder", tmp_path / "link")
    assert os.listdir(tmp_path / "disk") == []
    assert (tmp_path / "link").is_symlink()
    unlabeled = [Item(item.key, item.image) for item in dataset.split("train").items]
    splits = {"train": Split("train", unlabeled, dataset.taxonomy)}
    with pytest.raises(DatasetError, match="has no image with a mask"):
        convert_dataset(Dataset("made", dataset.root, dataset.taxonomy, splits), "coco", tmp_path / "out")
    alike = Taxonomy(("a", "b", "c"), ((1, 1, 1), (1, 1, 1), (2, 2, 2)))
    splits = {"train": Split("train", dataset.split("train").items, alike)}
    with pytest.raises(ConfigError, match="have the same color"):
        convert_dataset(Dataset("made", dataset.root, alike, splits), "color", tmp_path / "out")


def _overlapping(root: Path, ignored: tuple[int, ...] = ()) -> Dataset:
    """Two images of three classes that overlap, one of them without any label; noise, and unknown pixels."""
    taxonomy = Taxonomy(("bone & <b>", "background", "thin frame"), ignored=ignored, kind="multilabel")
    rng = np.random.default_rng(5)
    for k, key in enumerate(("a b", "s 1/é")):
        image, folder = root / "images/train" / f"{key}.png", root / "masks/train" / key
        image.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (22, 31, 3)).astype(np.uint8)).save(image)
        for name in taxonomy.file_names if k == 0 else ():
            mask = (_noise(int(rng.integers(100)), (22, 31), 2) % 2).astype(np.uint8) * 255
            if ignored:
                mask[rng.random(mask.shape) < 0.1] = ignored[0]
            Image.fromarray(mask).save(folder / f"{name}.png")
        unknown = np.zeros((22, 31), bool)
        unknown[3:9, 4:9] = k == 0
        Image.fromarray(unknown).save(folder / "ignore.png")
    (root / "classes.yaml").write_text(to_yaml(taxonomy.to_dict()))
    return open_dataset(root)


@pytest.mark.parametrize(
    "target", ["folder", "coco", "coco-rle", "labelme", "cvat", "label-studio", "supervisely", "yolo"]
)
def test_overlapping_labels_come_back_equal(tmp_path: Path, target: str) -> None:
    dataset = _overlapping(tmp_path / "made")
    expected = list(_samples(dataset))
    assert (expected[0][2].sum(0) % 255 > 1).any(), "labels overlap"
    done = convert_dataset(dataset, target, tmp_path / "out")
    back = open_dataset(tmp_path / "out")
    assert (back.name, back.taxonomy) == (TARGETS[target], dataset.taxonomy)
    if target == "label-studio":
        # It keeps no size of an image without a shape.
        assert done.notes[0].startswith("1 images have no shape")
        expected = expected[:1]
    found = list(_samples(back))
    for (split, key, mask, image), (own_split, own_key, own_mask, own_image) in zip(expected, found, strict=True):
        assert (own_split, own_key.replace("/", "_"), own_image) == (split, key.replace("/", "_"), image)
        np.testing.assert_array_equal(own_mask, mask)
    # And back to mask files.
    convert_dataset(back, "folder", tmp_path / "again")
    for one, other in zip(expected, _samples(open_dataset(tmp_path / "again")), strict=True):
        np.testing.assert_array_equal(one[2], other[2])


def test_labels_unknown_for_one_class_alone_stay_in_mask_files(tmp_path: Path) -> None:
    """Shapes cannot hold them; one mask of class numbers holds no overlaps."""
    dataset = _overlapping(tmp_path / "made", ignored=(128,))
    for target in ("folder", "npy"):
        convert_dataset(dataset, target, tmp_path / target)
        for one, other in zip(_samples(dataset), _samples(open_dataset(tmp_path / target)), strict=True):
            np.testing.assert_array_equal(one[2], other[2])
    mask = np.load(tmp_path / "npy/masks/train/a b.npy")
    assert mask.shape == (3, 22, 31)
    assert set(np.unique(mask)) == {0, 128, 255}
    with pytest.raises(MaskError, match="unknown for some classes alone"):
        convert_dataset(dataset, "coco", tmp_path / "coco")
    for target in ("voc", "color"):
        with pytest.raises(
            DatasetError, match=f"several labels per pixel, and {target} holds one; fix: convert to one"
        ):
            convert_dataset(dataset, target, tmp_path / target)
    with pytest.raises(MaskError, match="for which the classes have no value"):
        convert_dataset(_overlapping(tmp_path / "other"), "npy", tmp_path / "array")
