"""Any folder: which images and masks belong together, and which folders are refused rather than paired by a guess."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.config import DataConfig
from pixelwise.data import open_dataset
from pixelwise.data.formats.mask_words import may_hold_pairs
from pixelwise.data.formats.pairs import find_mask_files
from pixelwise.data.held_out import training_data
from pixelwise.errors import DatasetError

SIZE = (12, 16)
# In its names: * is the name of a pair; image and mask.
LAYOUTS = {
    "two folders": ("photos/*.jpg", "gt/*.png"),
    "images and labels": ("images/*.png", "labels/*.png"),
    "a word more": ("images/*.png", "masks/*_mask.png"),
    "a word in both": ("images/*_training.tif", "1st_manual/*_manual1.gif"),
    "words before": ("imgs/img_*.png", "segs/seg_*.png"),
    "words before numbers": ("imgs/image*.png", "segs/mask*.png"),
    "side by side by suffix": ("*.jpg", "*.png"),
    "side by side by word": ("*.png", "*_mask.png"),
    "side by side by two words": ("*_sat.jpg", "*_mask.png"),
    "side by side, an observer": ("Image_*.jpg", "Image_*_1stHO.png"),
    "bmp and png": ("all/*.bmp", "all/*.png"),
    "no suffix": ("photos/*", "annotations/*"),
    "a folder deeper": ("images/*.jpg", "annotations/trimaps/*.png"),
    "masks below": ("*.png", "masks/*.png"),
    "an unknown suffix": ("*.jpg", "*.mask"),
    "a word and an unknown suffix": ("*.jpg", "*_seg.png2"),
    "unknown suffixes": ("images/*.jfif", "masks/*.lbl"),
    "npy": ("images/*.png", "masks_of_it/*.npy"),
    "gif": ("images/*.tif", "manual/*.gif"),
    "a folder per patient": ("p*/scan.png", "p*/scan_mask.png"),
    "a folder per image": ("p*/image.png", "p*/mask.png"),
    "a folder per image, without a usual word": ("p*/t1.jpg", "p*/tumor.png"),
    "upper case": ("Images/*.PNG", "Masks/*.PNG"),
}
FORMATS = {"": "PNG", ".jfif": "JPEG", ".tif": "TIFF", ".jpg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF"}


def _put(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, format=FORMATS.get(path.suffix.lower(), "PNG"))
    return path


def _image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def _mask(number: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[: number + 1] = 1
    return mask


def _write(root: Path, layout: tuple[str, str], names: tuple[str, ...], split: str = "") -> dict[Path, Path]:
    """A pair per name; return the mask of each image."""
    pairs = {}
    for number, name in enumerate(names):
        image, mask = (root / split / part.replace("*", name) for part in layout)
        pairs[_put(image, _image(number + 7 * sum(split.encode())))] = _put(mask, _mask(number))
    return pairs


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_layouts_without_splits(tmp_path: Path, layout: str) -> None:
    pairs = _write(tmp_path, LAYOUTS[layout], ("07", "08", "21", "113"))
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train"]
    split = dataset.split("train")
    assert {item.image: item.mask for item in split.items} == pairs
    assert len({item.key for item in split.items}) == 4
    sample = split[[item.image for item in split.items].index(list(pairs)[2])]
    assert sample.mask is not None
    np.testing.assert_array_equal(sample.mask, _mask(2))
    assert dataset.taxonomy.names == ("background", "foreground")


@pytest.mark.parametrize("layout", ["two folders", "a word in both", "side by side by word"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "valid")])
def test_folders_of_splits(tmp_path: Path, layout: str, names: tuple[str, ...]) -> None:
    expected: dict[Path, Path] = {}
    for name in names:
        expected |= _write(tmp_path, LAYOUTS[layout], ("1", "2"), name)
    dataset = open_dataset(tmp_path)
    splits = ["train", "test", "val"] if len(names) == 3 else ["train", "val"]
    assert list(dataset.splits) == splits
    assert {i.image: i.mask for split in dataset.splits.values() for i in split.items} == expected


@pytest.mark.parametrize(
    "layout",
    [
        ("{}/image/*.png", "{}/label/*.png"),
        ("image/{}/*.png", "label/{}/*.png"),
        ("{}/*.png", "{}_masks/*.png"),
        ("{}_images/*.png", "{}_labels/*.png"),
        ("{}/images/*_{}.png", "{}/manual/*_manual1.png"),
    ],
)
def test_places_of_splits(tmp_path: Path, layout: tuple[str, str]) -> None:
    expected: dict[Path, Path] = {}
    for k, split in enumerate(("train", "test")):
        for number in range(2):
            image, mask = (tmp_path / part.format(split, split).replace("*", f"a{number}") for part in layout)
            expected[_put(image, _image(10 * k + number))] = _put(mask, _mask(number))
    dataset = open_dataset(tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "test": 2}
    assert {i.image: i.mask for split in dataset.splits.values() for i in split.items} == expected


def test_a_split_by_groups_is_made_and_stays(tmp_path: Path) -> None:
    names = tuple(f"drive{d}_{frame:03d}" for d in range(5) for frame in range(4))
    _write(tmp_path, LAYOUTS["side by side by word"], names)
    dataset, _ = training_data(open_dataset(tmp_path), DataConfig(path=str(tmp_path)))
    again, _ = training_data(open_dataset(tmp_path), DataConfig(path=str(tmp_path)))
    held = {item.key for item in dataset.split("val").items}
    assert held == {item.key for item in again.split("val").items}
    assert len({key.split("_")[0] for key in held}) == 1
    assert len(held) == 4
    assert "groups held out of split train" in dataset.notes[-1]


@pytest.mark.parametrize("layout", [("images/train/*.png", "masks/train/*.png"), ("x/*.jpg", "x/*_mask.png")])
def test_the_one_folder_of_an_unpacked_archive_is_opened(tmp_path: Path, layout: tuple[str, str]) -> None:
    expected = _write(tmp_path / "archive-main/my data", layout, ("a", "b", "c"))
    (tmp_path / "archive-main/my data/classes.txt").write_text("sky\nsea\n")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".DS_Store").write_bytes(b"")
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("sky", "sea")
    assert {item.image: item.mask for item in dataset.split("train").items} == expected


@pytest.mark.parametrize("name", ["사진 {}번", "scan ({})", "50%_{}#", "é{}ü", "a.b {}!"])
@pytest.mark.parametrize("word", ["_mask", "-gt", "_마스크"])
def test_words_after_names_of_any_letters(tmp_path: Path, name: str, word: str) -> None:
    expected = _write(tmp_path, ("imgs/*.png", f"x/*{word}.png"), tuple(name.format(k) for k in range(4)))
    assert {item.image: item.mask for item in open_dataset(tmp_path).split("train").items} == expected


@pytest.mark.parametrize("layout", ["two folders", "a word more", "side by side by word"])
def test_equal_names_go_before_equal_numbers(tmp_path: Path, layout: str) -> None:
    """The numbers of p0 and q0 agree, too: neither is the mask of the other."""
    expected = _write(tmp_path, LAYOUTS[layout], ("p0", "p1", "p2", "q0", "q1"))
    items = open_dataset(tmp_path).split("train").items
    assert {item.image: item.mask for item in items} == expected


def test_images_without_a_mask_are_named_and_masks_without_an_image_refused(tmp_path: Path) -> None:
    _write(tmp_path, LAYOUTS["two folders"], ("a", "b", "c"))
    _put(tmp_path / "photos/d.jpg", _image(9))
    dataset = open_dataset(tmp_path)
    assert [item.key for item in dataset.split("train").items] == ["a", "b", "c"]
    assert f"{tmp_path}: 1 images without a mask are left out: photos/d.jpg" in dataset.notes
    _put(tmp_path / "gt/e.png", _mask(1))
    with pytest.raises(DatasetError, match=r"1 masks have no image: gt/e\.png"):
        open_dataset(tmp_path)


def test_two_masks_of_an_image_are_both_named(tmp_path: Path) -> None:
    for name in ("01L", "01R"):
        _put(tmp_path / f"{name}.jpg", _image(1))
        _put(tmp_path / f"{name}_mask.png", _mask(1))
        _put(tmp_path / f"{name}_label.png", _mask(2))
    words = r"01L\.jpg has two masks: 01L_(label|mask)\.png and 01L_(label|mask)\.png; fix: take the files"
    with pytest.raises(DatasetError, match=words):
        open_dataset(tmp_path)


def test_a_second_folder_of_masks_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, ("photos/*.jpg", "labels/*.png"), ("a", "b", "c"))
    _put(tmp_path / "labels_new/b.png", _mask(2))
    with pytest.raises(DatasetError, match=r"photos/b\.jpg has two masks: labels/b\.png and labels_new/b\.png"):
        open_dataset(tmp_path)


CLASS_LAYOUTS = {
    "words": ("{0}_RAW.jpg", "{0}_CRACK.png", "{0}_POT_HOLE.png"),
    "words with a common one": ("imgs/{0}.png", "masks/{0}_mask_crack.png", "masks/{0}_mask_pot_hole.png"),
    "folders": ("photos/{0}.jpg", "Crack/{0}.png", "Pot hole/{0}.png"),
    "a folder per image": ("{0}/raw.jpg", "{0}/crack.png", "{0}/pot hole.png"),
}


def _write_classes(root: Path, layout: str, second: int = 4) -> list[Path]:
    """Four images; the crack covers the rows of `_mask`, the other class rows from `second` on, and is absent once."""
    images = []
    for number in range(4):
        image, crack, hole = (root / part.format(f"a{number}") for part in CLASS_LAYOUTS[layout])
        images.append(_put(image, _image(number)))
        _put(crack, _mask(number % 2) * np.uint8(255))
        if number:
            _put(hole, np.roll(_mask(number % 2), second, 0) * np.uint8(255))
    return images


@pytest.mark.parametrize("layout", CLASS_LAYOUTS)
def test_a_mask_per_class(tmp_path: Path, layout: str) -> None:
    images = _write_classes(tmp_path, layout)
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.multilabel
    assert dataset.taxonomy.names == ("crack", "pot_hole")
    split = dataset.split("train")
    assert [item.image for item in split.items] == images
    for number, sample in enumerate(split):
        hole = np.roll(_mask(number % 2), 4, 0) if number else np.zeros(SIZE, np.uint8)
        np.testing.assert_array_equal(sample.mask, np.stack([_mask(number % 2), hole]))
    assert any("pot_hole in 1 of 4 images" in note for note in dataset.notes)


def test_masks_that_agree_are_those_of_observers(tmp_path: Path) -> None:
    _write_classes(tmp_path, "words", second=0)
    with pytest.raises(
        DatasetError, match=r"has two masks: .*; where each class has masks of its own, write `kind: mul"
    ):
        open_dataset(tmp_path)
    (tmp_path / "classes.yaml").write_text("kind: multilabel\n")
    assert open_dataset(tmp_path).taxonomy.names == ("crack", "pot_hole")


def test_the_first_observer_counts(tmp_path: Path) -> None:
    """As in CHASE_DB1."""
    pairs = _write(tmp_path, LAYOUTS["side by side, an observer"], ("01L", "01R"))
    for name in ("01L", "01R"):
        _put(tmp_path / f"Image_{name}_2ndHO.png", _mask(3))
    dataset = open_dataset(tmp_path)
    assert {item.image: item.mask for item in dataset.split("train").items} == pairs
    assert dataset.notes[0] == f"{tmp_path}: *_2ndHO.png are not used: they are another observer's than *_1stHO.png"


def test_the_field_of_view_does_not_count(tmp_path: Path) -> None:
    """As in DRIVE, where the second observer has labeled the test images alone."""
    expected: dict[Path, Path] = {}
    for split in ("training", "test"):
        for number in ("21", "22"):
            image = _put(tmp_path / split / f"images/{number}_{split}.tif", _image(int(number) + len(split)))
            expected[image] = _put(tmp_path / split / f"1st_manual/{number}_manual1.gif", _mask(1))
            _put(tmp_path / split / f"mask/{number}_{split}_mask.gif", _mask(2))
            if split == "test":
                _put(tmp_path / split / f"2nd_manual/{number}_manual2.gif", _mask(3))
    dataset = open_dataset(tmp_path)
    assert {i.image: i.mask for split in dataset.splits.values() for i in split.items} == expected
    assert [note.rpartition(": ")[2] for note in dataset.notes[:2]] == [
        "beside 1st_manual/*_manual1.gif, they are the field of view",
        "they are another observer's than 1st_manual/*_manual1.gif",
    ]


def test_observers_and_fields_of_view_in_folders_of_their_own(tmp_path: Path) -> None:
    """As copies of CHASE_DB1 are laid out."""
    expected: dict[Path, Path] = {}
    for number, name in enumerate(("01L", "01R", "02L")):
        image = _put(tmp_path / f"images/Image_{name}.jpg", _image(number))
        expected[image] = _put(tmp_path / f"masks/Image_{name}_1stHO.png", _mask(1))
        _put(tmp_path / f"masks_observer2/Image_{name}_2ndHO.png", _mask(2))
        _put(tmp_path / f"fov/mask_{name}.png", _mask(3))
    dataset = open_dataset(tmp_path)
    assert {i.image: i.mask for split in dataset.splits.values() for i in split.items} == expected
    assert {note.rpartition(": ")[2] for note in dataset.notes[:2]} == {
        "beside masks/*_1stHO.png, they are the field of view",
        "they are another observer's than masks/*_1stHO.png",
    }


def test_pixels_against_names(tmp_path: Path) -> None:
    """Photos in masks/ and drawings in images/ are no dataset; two folders of photos are none either."""
    for name in ("a", "b"):
        _put(tmp_path / f"one/images_/{name}.png", _mask(1))
        _put(tmp_path / f"one/masks_/{name}.png", _image(1))
        _put(tmp_path / f"within/images/{name}.png", (_mask if name == "a" else _image)(1))
        _put(tmp_path / f"within/raw/{name}.png", (_mask if name == "a" else _image)(2))
        _put(tmp_path / f"two/left/{name}.png", _image(2))
        _put(tmp_path / f"two/right/{name}.png", _image(3))
        # Both have few values, and the names say nothing.
        _put(tmp_path / f"three/first/{name}.png", _mask(2))
        _put(tmp_path / f"three/second/{name}.png", _mask(3))
    with pytest.raises(DatasetError, match=r"by their names masks_/\*\.png are the masks, but their pixels are those"):
        open_dataset(tmp_path / "one")
    # a.png and b.png of a folder are not the mask and the image of one pair either, as tumor.png and t1.jpg are.
    with pytest.raises(DatasetError, match=r"which are the masks does not show"):
        open_dataset(tmp_path / "within")
    with pytest.raises(
        DatasetError, match=r"left/\*\.png and right/\*\.png have equal names, but the pixels of neither"
    ):
        open_dataset(tmp_path / "two")
    with pytest.raises(DatasetError, match=r"have equal names; which are the masks does not show"):
        open_dataset(tmp_path / "three")


def test_an_unknown_folder_is_described(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        _put(tmp_path / f"x/{name}1.png", _image(1))
        (tmp_path / f"x/{name}1.xml").write_text("<a/>")
        (tmp_path / f"x/{name}2.csv").write_text("1")
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path)
    assert "it holds 4 .png in x/, 4 .xml in x/, 4 .csv in x/; 4 names are equal in x/*.png (4) and x/*.xml (4)" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        (".mat", b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), "a MATLAB file"),
        (".dcm", bytes(128) + b"DICM" + bytes(60), "a DICOM image"),
        (".nii", struct.pack("<i", 348) + bytes(340) + b"n+1\0", "a NIfTI volume"),
        (".pgm", b"P5\n2 2\n255\n" + bytes(4), "a PBM, PGM or PPM image"),
        (".xyz", b"\x7f\x02\x03\x04" + bytes(9), "an unknown kind of file, first bytes 7f 02 03 04"),
    ],
)
def test_masks_of_another_kind_of_file_are_named(tmp_path: Path, suffix: str, content: bytes, words: str) -> None:
    """Also a backup of a mask is none."""
    for k in range(3):
        for folder in ("two/photos", "own/images"):
            _put(tmp_path / folder / f"{k}.png", _image(k))
        for name in ("two/gt", "own/masks"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{k}{suffix}").write_bytes(content)
        (tmp_path / f"two/gt/{k}.png.bak").write_bytes((tmp_path / f"two/photos/{k}.png").read_bytes())
    with pytest.raises(DatasetError, match=rf"3 \{suffix} \(the first: {words}\) in gt/"):
        open_dataset(tmp_path / "two")
    for first in (0, 1):
        with pytest.raises(DatasetError, match=rf"masks/{first}\{suffix} \(another ending, {words}\)"):
            open_dataset(tmp_path / "own")
        _put(tmp_path / "own/masks/0.png", _mask(2))
    for path in (tmp_path / "own/masks").iterdir():
        path.rename(path.with_name(f"{path.stem}th{suffix}"))
    with pytest.raises(DatasetError, match=rf"has no masks for images/: it holds 3 \{suffix} \(the first: "):
        open_dataset(tmp_path / "own")


def test_two_files_of_one_folder_are_no_pair_for_that(tmp_path: Path) -> None:
    for name, values in (("train/a0mask", 256), ("train/x1mask", 256), ("labels/a0-seg", 2), ("labels/x1-seg", 2)):
        path = tmp_path / f"{name}.gif"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(values).integers(0, values, (6, 7)).astype(np.uint8)).save(path)
    with pytest.raises(DatasetError):
        open_dataset(tmp_path)


def test_a_dot_within_a_name_without_suffix_cuts_nothing(tmp_path: Path) -> None:
    """Cut at their dots, the images scan.1, scan.2 and scan.3 would have one name."""
    rng = np.random.default_rng(0)
    for folder, ending, top in (("photos", "", 256), ("gt", ".png", 2)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            values = rng.integers(0, top, SIZE).astype(np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"scan.{number}{ending}", format="PNG")
    items = open_dataset(tmp_path).split("train").items
    names = [(item.image.name, item.mask.name) for item in items if item.mask is not None]
    assert names == [(f"scan.{number}", f"scan.{number}.png") for number in range(4)]


@pytest.mark.parametrize("top", [2, 256])
def test_one_pair_needs_a_word_that_says_which_is_the_mask(tmp_path: Path, top: int) -> None:
    """The two parts of a name that a.png1_mask and a_overlay2_mask share are by chance, whatever their pixels say."""
    rng = np.random.default_rng(0)
    for name in ("a.png1", "a_overlay2", "b3", "e0"):
        for folder, suffix, kind, most in (("train", "", "PNG", 256), ("p1", ".jpg", "JPEG", top)):
            values = rng.integers(0, 2 if name == "a_overlay2" else most, SIZE).astype(np.uint8)
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / folder / f"{name}_mask{suffix}", format=kind)
    with pytest.raises(DatasetError):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "layout", [*LAYOUTS.values(), ("train/*.png", "trainannot/*.png"), ("i/*.png", "masks/0*.png")]
)
def test_the_masks_among_images_are_found(tmp_path: Path, layout: tuple[str, str]) -> None:
    pairs = _write(tmp_path, layout, ("1a", "2a", "3a"))
    alone = _put(tmp_path / layout[0].replace("*", "4a"), _image(4))
    files = [*pairs, *pairs.values(), alone]
    assert may_hold_pairs([path.relative_to(tmp_path).as_posix() for path in files])
    assert find_mask_files(tmp_path, files) == set(pairs.values())
    if len({path.parent for path in pairs}) == 1:
        # Images alone, as beside an output folder with masks of the same names.
        assert not find_mask_files(tmp_path, pairs)


def test_images_alone_are_no_masks(tmp_path: Path) -> None:
    numbered = [f"set{k % 2}/img_{k}.png" for k in range(30)]
    photos = ["street.jpg", "house by night.JPG", "img7.jpeg"]
    assert not may_hold_pairs(numbered)
    assert not may_hold_pairs(photos)
    drawn = [_put(tmp_path / f"{name}.png", _mask(3)) for name in ("a", "b", "a_2", "b_2", "a_night", "b_night")]
    files = [_put(tmp_path / f"{name}.jpg", _image(3)) for name in ("a_night", "c", "c_gray")] + drawn
    copies = [_put(path.with_suffix(".bmp"), _image(5)) for path in files[1:3]]
    assert not find_mask_files(tmp_path, [*files, *copies])
    # Words of masks in the names of photos.
    called = [_put(tmp_path / f"photos/{name}.jpg", _image(6)) for name in ("cat", "cat_target", "dog", "dog_target")]
    assert not find_mask_files(tmp_path / "photos", called)
