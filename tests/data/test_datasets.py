"""Datasets: formats recognized by looking, pairs complete, samples right; and one line for everything that is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.bad_inputs import encoded
from pixelwise.data import DATASETS, Dataset, Item, Split, open_dataset
from pixelwise.errors import ConfigError, DatasetError, ImageError, MaskError, UnknownNameError

DATA = Path(__file__).parents[1] / "samples"
GRAY = np.full((4, 6, 3), 90, np.uint8)


def _put(path: Path, pixels: np.ndarray | None = None, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(GRAY if pixels is None else pixels, kind))


def _mask(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (4, 6))


def labels(split: Split, index: int = 0) -> list[list[int]]:
    """The class ids of a sample."""
    mask = split[index].mask
    assert mask is not None
    return [list(map(int, row)) for row in mask]


def _own_folder(root: Path, parts: tuple[str, ...] = ("train", "val")) -> Path:
    for number, part in enumerate(parts):
        for name in ("a", "b"):
            _put(root / "images" / part / f"{name}{number}.jpg", kind="JPEG")
            _put(root / "masks" / part / f"{name}{number}.png", _mask(0, 1, 1))
    (root / "classes.yaml").write_text("classes: [ground, crack]\n")
    return root


def _message(root: Path, error: type[Exception] = DatasetError) -> str:
    with pytest.raises(error) as caught:
        open_dataset(root)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_camvid_with_its_original_absolute_lists() -> None:
    dataset = open_dataset(DATA / "camvid")
    assert dataset.name == "camvid"
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "val": 1, "test": 1}
    sample = dataset.split("train")[1]
    assert sample.key == "0006R0_f03480"
    assert sample.image.shape == (180, 240, 3)
    raw = np.asarray(Image.open(DATA / "camvid/trainannot/0006R0_f03480.png"))
    np.testing.assert_array_equal(sample.mask, np.where(raw == 11, 255, raw))
    assert (raw == 11).any()


def test_camvid_taxonomy_is_the_tutorials() -> None:
    """Colors of `test_segmentation_camvid.py`, by name."""
    taxonomy = open_dataset(DATA / "camvid").taxonomy
    table = dict(zip(taxonomy.names, taxonomy.colors, strict=True))
    assert len(table) == 11
    assert table["sky"] == (128, 128, 128)
    assert table["road"] == (128, 64, 128)
    assert table["pavement"] == (60, 40, 222)
    assert table["bicyclist"] == (0, 128, 192)
    assert taxonomy.ignored == (11,)


def test_camvid_as_recompressed_images_and_without_lists(tmp_path: Path) -> None:
    """The lists say .png, the images are .webp; without lists the folders tell."""
    root = tmp_path / "CamVid"
    shutil.copytree(DATA / "camvid", root)
    for path in root.glob("*/*.png"):
        if not path.parent.name.endswith("annot"):
            Image.open(path).save(path.with_suffix(".webp"), lossless=True)
            path.unlink()
    listed = open_dataset(tmp_path)
    assert listed.root == root
    assert listed.split("val").items[0].image.suffix == ".webp"
    keys = [item.key for item in listed.split("train").items]
    for path in root.glob("*.txt"):
        path.unlink()
    assert [item.key for item in open_dataset(root).split("train").items] == sorted(keys)


def test_nuclei_with_255_as_a_class_and_lists_of_stems() -> None:
    dataset = open_dataset(DATA / "nuclei")
    sample = dataset.split("train")[0]
    raw = np.asarray(Image.open(DATA / "nuclei/masks" / f"{sample.key}.png"))
    np.testing.assert_array_equal(sample.mask, raw // 255)
    assert set(np.unique(raw)) == {0, 255}
    assert len(dataset.split("val")) == 1


def test_road_defects_by_folders() -> None:
    dataset = open_dataset(DATA / "road_defects")
    assert dataset.taxonomy.names == ("background", "lane", "crack", "pothole")
    keys = {name: [item.key for item in split.items] for name, split in dataset.splits.items()}
    assert keys == {"train": ["941928"], "val": ["1014765"]}


def test_a_split_is_a_sequence() -> None:
    split = open_dataset(DATA / "camvid").split("train")
    assert [sample.key for sample in split] == [item.key for item in split.items]
    assert split[-1].key == split[1].key
    assert len(split[:1]) == 1
    assert split[:1][0].key == split[0].key
    assert split.has_masks
    with pytest.raises(IndexError):
        split[2]


def test_lists_with_two_names_tabs_and_blanks(tmp_path: Path) -> None:
    _put(tmp_path / "images/a b.png")
    _put(tmp_path / "masks/a b_1st.png", _mask(0, 1))
    _put(tmp_path / "images/c.png")
    _put(tmp_path / "masks/other name.png", _mask(0, 1))
    (tmp_path / "classes.txt").write_text("ground\ncrack\n")
    (tmp_path / "train.txt").write_text("images/a b.png masks/a b_1st.png\n\nimages/c.png\tmasks/other name.png\n")
    split = open_dataset(tmp_path).split("train")
    assert [item.key for item in split.items] == ["a b", "c"]
    assert labels(split, 1) == _mask(0, 1).tolist()
    (tmp_path / "train.txt").write_text("images/a b.png masks/x.png\n")
    words = "expected `image mask`, got line 'images/a b.png masks/x.png'; fix: separate the two names by one tab"
    assert _message(tmp_path) == f"{tmp_path / 'train.txt'}: {words}"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd"])
def test_a_list_cannot_lead_out_of_the_dataset(tmp_path: Path, name: str) -> None:
    root = _own_folder(tmp_path / "set")
    shutil.move(root / "images/train", root / "images_train")
    shutil.rmtree(root / "images/val")
    (root / "train.txt").write_text(f"{name} ../x.png\n")
    assert f"a list names '{name}', which is outside of the dataset; fix: name files relative to" in _message(root)


def test_test_split_without_masks(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    _put(root / "images/test/z.png")
    dataset = open_dataset(root)
    assert dataset.split("test")[0].mask is None
    assert not dataset.split("test").has_masks


def test_all_missing_files_are_reported_together(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    (root / "masks/train/a0.png").unlink()
    (root / "images/val/b1.jpg").unlink()
    assert _message(root) == (
        f"{root}: 2 of the files of 4 pairs are missing: masks/train/a0.png (mask), images/val/b1.* (image); "
        "fix: add the files, or take their partners out of the split"
    )
    for number in range(9):
        _put(root / f"images/train/x{number}.png")
    assert "11 of the files of 13 pairs are missing" in _message(root)
    assert "(11 in total)" in _message(root)


def test_several_problems_make_one_error(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    shutil.copy(root / "images/train/a0.jpg", root / "images/val/a0.jpg")
    message = _message(root)
    assert message.startswith(f"{root}: 2 problems: (1) 1 of the files")
    assert "(2) train and val share a0" in message
    assert [type(problem) for problem in open_dataset(root, check=False).problems()] == [DatasetError, DatasetError]


def test_an_image_in_two_splits_is_refused(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    for kind in ("images", "masks"):
        file = next((root / kind / "train").glob("b0.*"))
        shutil.copy(file, root / kind / "val" / file.name)
    assert _message(root) == f"{root}: train and val share b0; fix: keep each image in one split"


def test_numbering_that_restarts_in_each_split_is_allowed(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    for split, gray in (("train", 10), ("val", 200)):
        Image.fromarray(np.full((8, 8, 3), gray, np.uint8)).save(root / f"images/{split}/0001.png")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / f"masks/{split}/0001.png")
    dataset = open_dataset(root)
    assert "0001" in {item.key for item in dataset.split("train").items} & {
        item.key for item in dataset.split("val").items
    }


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    _put(root / "images/train/a0.png")
    assert "split train names a0 twice" in _message(root)


def test_two_masks_of_one_name_are_refused(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    _put(root / "masks/train/a0.tif", _mask(0), "TIFF")
    assert "split train names a0 twice" in _message(root)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    (root / "images/test").mkdir()
    assert _message(root) == f"{root}: split test is empty; fix: fill it or remove it"


def test_an_unknown_split_lists_those_there_are() -> None:
    with pytest.raises(
        DatasetError, match=r"unknown split 'trian'; existing splits: train, val, test; fix: did you mean train"
    ):
        open_dataset(DATA / "camvid").split("trian")


def test_a_missing_split_can_be_added_or_replaced(tmp_path: Path) -> None:
    """With one split there is nothing to choose from, so the message says how to make one or name another."""
    with pytest.raises(DatasetError) as caught:
        open_dataset(_own_folder(tmp_path, ("train",))).split("val", option="--data.val_split")
    assert caught.value.what == "unknown split 'val'; existing splits: train"
    assert caught.value.fix == "add images to a split 'val', or set --data.val_split to one of train"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes: [", "invalid YAML: expected"),
        ("[road, car]", "expected a mapping, got list"),
        ("{classes: [a, b], masks: colour}", "expected masks: `value` or `color`, got 'colour'"),
        ("{classes: [a, b], ignore_colors: [[0, 0, 0]]}", "has ignore_colors, but its masks contain numbers"),
        (
            "{classes: [a, b], masks: color, ignore_colors: [[0, 0, 256]]}",
            "expected ignore_colors as a list of [r, g, b] of 0..255, got [[0, 0, 256]]; fix: ",
        ),
        (
            "{classes: [a, b], masks: color, ignore_colors: [3]}",
            "expected ignore_colors as a list of [r, g, b] of 0..255, got [3]; fix: ",
        ),
        ("{clases: [a, b]}", "clases"),
        ("{}", "classes"),
    ],
)
def test_a_wrong_classes_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    root = _own_folder(tmp_path)
    (root / "classes.yaml").write_text(text)
    message = _message(root, ConfigError)
    assert message.startswith(f"{root / 'classes.yaml'}: ")
    assert words in message


def test_sizes_that_differ_name_both_files(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    _put(root / "masks/train/a0.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(MaskError) as caught:
        open_dataset(root).split("train")[0]
    assert str(caught.value) == (
        f"{root / 'masks/train/a0.png'}: expected 4x6, the size of its image {root / 'images/train/a0.jpg'}, "
        "got 5x6 (height x width); "
        "fix: export both at one size; masks are never resized silently"
    )


def test_an_unknown_value_names_the_mask(tmp_path: Path) -> None:
    root = _own_folder(tmp_path)
    _put(root / "masks/train/b0.png", _mask(0, 0, 7))
    with pytest.raises(MaskError, match=r"b0\.png: unknown mask value 7 \(8 px\), first at row 0, column 2"):
        open_dataset(root).split("train")[1]


def test_a_file_that_vanished_or_broke_is_named(tmp_path: Path) -> None:
    split = open_dataset(_own_folder(tmp_path)).split("train")
    split.items[0].image.unlink()
    split.items[1].image.write_bytes(b"")
    with pytest.raises(ImageError, match=r"a0\.jpg: does not exist"):
        split[0]
    with pytest.raises(ImageError, match=r"b0\.jpg: is empty"):
        split[1]


def test_unknown_folders_and_formats(tmp_path: Path) -> None:
    start = f"{tmp_path}: unrecognized dataset layout; it holds no files; fix: put images/"
    assert _message(tmp_path).startswith(start)
    assert _message(tmp_path / "no") == f"{tmp_path / 'no'}: does not exist; fix: name the folder of a dataset"
    (tmp_path / "file").touch()
    assert "file: is not a folder" in _message(tmp_path / "file")
    with pytest.raises(UnknownNameError, match=r"vok: no such dataset format; fix: did you mean voc"):
        open_dataset(tmp_path, "vok")
    with pytest.raises(DatasetError, match=r"expected voc: JPEGImages/"):
        open_dataset(DATA / "camvid", "voc")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert "images/ and masks/ hold no images" in _message(tmp_path)


def _voc(folder: Path) -> Path:
    root = folder / "VOCdevkit" / "VOC2012"
    for key in ("2007_000032", "2007_000033", "2008_000001"):
        _put(root / "JPEGImages" / f"{key}.jpg", kind="JPEG")
        image = Image.fromarray(_mask(0, 15, 255))
        image.putpalette(bytes(range(256)) * 3)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        image.save(root / "SegmentationClass" / f"{key}.png")
    _put(root / "SegmentationClassAug/2007_000032.png", _mask(20))
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    train, val = "2007_000032\n", "2007_000033\n"
    for name, keys in {"train": train, "val": val, "trainval": train + val, "test": "2008_000001\n"}.items():
        (lists / f"{name}.txt").write_text(keys)
    (lists / "trainaug.txt").write_text("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n")
    return root


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_found_at_any_of_its_levels(tmp_path: Path, below: str) -> None:
    root = _voc(tmp_path)
    dataset = open_dataset(tmp_path / below)
    assert dataset.root == root
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"test": 1, "train": 1, "trainaug": 1, "trainval": 2, "val": 1}
    assert labels(dataset.split("train")) == _mask(0, 15, 255).tolist()
    assert labels(dataset.split("trainaug")) == _mask(20).tolist()
    assert dataset.split("test")[0].mask is None


def test_voc_leaks_and_absent_test_images(tmp_path: Path) -> None:
    root = _voc(tmp_path)
    (root / "JPEGImages/2008_000001.jpg").unlink()
    assert "test" not in open_dataset(root).splits
    (root / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000033\n")
    _put(root / "SegmentationClassAug/2007_000033.png", _mask(1))
    assert "trainaug and val share 2007_000033" in _message(root)


def test_voc_lists_may_lie_in_one_another_but_not_in_test(tmp_path: Path) -> None:
    root = _voc(tmp_path)
    lists = root / "ImageSets/Segmentation"
    (lists / "seg11valid.txt").write_text("2007_000033\n")
    (lists / "trainval_aug.txt").write_text("2007_000033\n")
    _put(root / "SegmentationClassAug/2007_000033.png", _mask(1))
    assert {"seg11valid", "trainval_aug"} <= set(open_dataset(root).splits)
    (lists / "seg11valid.txt").write_text("2007_000032\n")
    assert "seg11valid and train share 2007_000032; seg11valid and trainaug share 2007_000032" in _message(root)
    (lists / "seg11valid.txt").unlink()
    (lists / "test.txt").write_text("2007_000033\n")
    message = _message(root)
    assert all(
        f"{pair} share 2007_000033" in message
        for pair in ("test and val", "test and trainval", "test and trainval_aug")
    )


def test_voc_names_in_their_order(tmp_path: Path) -> None:
    names = open_dataset(_voc(tmp_path)).taxonomy.names
    order = (
        "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
        "pottedplant sheep sofa train tvmonitor"
    )
    assert names == tuple(order.split())


def test_cityscapes_maps_its_34_labels_to_19(tmp_path: Path) -> None:
    for part, city in (("train", "ulm"), ("val", "bonn"), ("test", "bern")):
        _put(tmp_path / f"leftImg8bit/{part}/{city}/{city}_000000_000019_leftImg8bit.png")
        values = _mask(*range(24)) if part == "train" else _mask(*range(24, 34))
        _put(tmp_path / f"gtFine/{part}/{city}/{city}_000000_000019_gtFine_labelIds.png", values)
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.num_classes == 19
    # cityscapesScripts: id -> trainId, 255 where it is not scored.
    train_ids = "0 1 255 255 2 3 4 255 255 255 5 255 6 7 8 9 10 11 12 13 14 15 255 255 16 17 18"
    official = [255] * 7 + [int(word) for word in train_ids.split()]
    assert len(official) == 34
    sample = dataset.split("train")[0]
    assert sample.key == "ulm_000000_000019"
    assert np.ravel(labels(dataset.split("train"))).tolist() == official[:24]
    assert np.ravel(labels(dataset.split("val"))).tolist() == np.resize(official[24:], 24).tolist()
    assert dataset.split("test")[0].mask is None


def test_every_format_says_what_it_needs() -> None:
    names = "ade20k camvid cityscapes coco cvat folder label_studio labelme objects pairs sbd supervisely voc yolo"
    assert sorted(DATASETS) == names.split()
    for name in DATASETS:
        assert DATASETS[name].summary.endswith(".")
        assert "\n" not in DATASETS.create(name).needs


def test_a_dataset_can_be_put_together_by_hand(tmp_path: Path) -> None:
    _put(tmp_path / "x.png")
    taxonomy = open_dataset(DATA / "road_defects").taxonomy
    dataset = Dataset(
        "mine", tmp_path, taxonomy, {"all": Split("all", [Item("x", tmp_path / "x.png")], taxonomy)}
    ).check()
    assert dataset.split("all")[0].image.shape == (4, 6, 3)
    with pytest.raises(DatasetError, match=r"has no splits; fix: make a `train` and a `val` part"):
        Dataset("mine", tmp_path, taxonomy, {}).check()
