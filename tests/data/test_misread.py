"""What is never read wrongly in silence: palettes, colors, values, classes files, names, links and folders."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.bad_inputs import encoded, packed_rows, png
from pixelwise.core import Taxonomy
from pixelwise.data import MaskEncoding, Split, check_classes, check_masks, open_dataset
from pixelwise.errors import ConfigError, DatasetError, InputError, MaskError
from pixelwise.images import list_images, walk_files

GRAY = np.full((8, 10, 3), 90, np.uint8)
CORNER = np.zeros((8, 10), np.uint8)
CORNER[:4, :5] = 1


def _put(path: Path, pixels: np.ndarray | None = None, kind: str = "PNG", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(GRAY if pixels is None else pixels, kind, **options))
    return path


def _folder(
    root: Path, classes: str = "classes: [ground, crack]\n", masks: tuple[np.ndarray, ...] = (CORNER,) * 3
) -> Path:
    """Two images in train, one in val."""
    for name, mask in zip(("train/a", "train/b", "val/c"), masks, strict=True):
        _put(root / f"images/{name}.png")
        _put(root / f"masks/{name}.png", mask)
    (root / "classes.yaml").write_text(classes)
    return root


def _palette_png(indices: np.ndarray, colors: list[int]) -> bytes:
    return png(indices.shape[1], indices.shape[0], 8, 3, packed_rows(indices, 8), palette=bytes(colors))


def _ids(split: Split, index: int = 0) -> list[list[int]]:
    mask = split[index].mask
    assert mask is not None
    return [[int(k) for k in row] for row in mask]


def _line(root: Path, error: type[Exception] = DatasetError) -> str:
    with pytest.raises(error) as caught:
        open_dataset(root)
    return str(caught.value)


TWO_COLORS = "masks: color\nclasses: [{name: bg, color: [0, 0, 0]}, {name: car, color: [128, 0, 0]}]\n"


def test_color_masks_with_a_palette_are_read_by_the_palettes_colors(tmp_path: Path) -> None:
    root = _folder(tmp_path, TWO_COLORS)
    (root / "masks/train/a.png").write_bytes(_palette_png(CORNER, [0, 0, 0, 128, 0, 0]))
    (root / "masks/train/b.png").write_bytes(_palette_png(CORNER, [128, 0, 0, 0, 0, 0]))
    split = open_dataset(root).split("train")
    assert _ids(split, 0) == CORNER.tolist()
    assert _ids(split, 1) == (1 - CORNER).tolist()
    assert check_masks(split) == []


def test_palettes_that_differ_are_named_where_masks_are_indices(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    colors = [0, 0, 0, 128, 0, 0, 7, 7, 7]
    for name, palette in (("train/a", colors), ("train/b", [128, 0, 0, 0, 0, 0]), ("val/c", colors)):
        (root / f"masks/{name}.png").write_bytes(_palette_png(CORNER, palette))
    dataset = open_dataset(root)
    (line,) = check_masks(dataset.split("train"))
    assert line.startswith("split train: 1 of 2 masks have other palettes than the rest: ")
    assert "masks/train/b.png; if their numbers mean other classes, save all with one palette" in line
    assert check_classes(dataset.split("train")) == [line]
    # Programs leave out unused colors at the end, and some masks have no palette.
    (root / "masks/train/b.png").write_bytes(_palette_png(CORNER, colors[:6]))
    _put(root / "masks/val/c.png", CORNER)
    dataset = open_dataset(root)
    assert check_masks(dataset.split("train")) == check_masks(dataset.split("val")) == []


def test_masks_of_0_and_255_among_masks_of_0_and_1_are_named(tmp_path: Path) -> None:
    split = open_dataset(_folder(tmp_path, masks=(CORNER, CORNER * 255, CORNER))).split("train")
    (line,) = check_classes(split)
    assert line.startswith("split train: 1 of 2 masks contain 255, which is ignored, but not class 'crack' (1): ")
    assert line.endswith("b.png; if 255 means 'crack' there, save them with 1 in its place")


def test_a_border_of_255_beside_the_class_is_no_fault(tmp_path: Path) -> None:
    border = CORNER.copy()
    border[4] = 255
    assert check_classes(open_dataset(_folder(tmp_path, masks=(CORNER, border, CORNER))).split("train")) == []


def test_an_explicit_ignore_of_a_class_is_refused(tmp_path: Path) -> None:
    names = ", ".join(f"c{k}" for k in range(300))
    root = _folder(tmp_path, f"classes: [{names}]\nignore: [255]\n")
    assert "value 255 is both a class and ignored; fix: remove it from one of the two" in _line(root, ConfigError)
    with pytest.raises(ConfigError, match="value 255 is both a class and ignored"):
        Taxonomy(tuple(f"c{k}" for k in range(300)), ignored=(255,))
    assert Taxonomy(tuple(f"c{k}" for k in range(300))).ignored == ()
    (root / "classes.yaml").write_text(f"classes: [{names}]\n")
    assert open_dataset(root).taxonomy.ignored == ()


def test_values_out_of_range_are_named_with_a_fix(tmp_path: Path) -> None:
    root = _folder(tmp_path, "classes: [{name: a, value: 0}, {name: b, value: 70000}]\nignore: [-1]\n")
    line = _line(root, ConfigError)
    assert "classes.yaml: values must be in 0..65535, the range of a 16-bit mask file, got 70000, -1; fix: " in line


@pytest.mark.parametrize(
    "text",
    [
        f"classes: [a, b]\nignore: [{'x' * 5000}]\n",
        f"classes: [a, {{name: b, {'x' * 1000}: 1}}]\n",
        f"classes: [a, {{name: b, color: [{'x' * 5000}]}}]\n",
        f"classes: [a, b]\n{'x' * 1000}: 1\n",
        f"classes: [a, b]\nmasks: {'x' * 5000}\n",
        f"classes: [a, b]\nmasks: color\nignore_colors: [{'x' * 5000}]\n",
    ],
)
def test_what_a_classes_file_says_is_cut_in_errors(tmp_path: Path, text: str) -> None:
    line = _line(_folder(tmp_path, text), ConfigError)
    assert "xxx..." in line
    assert len(line) < 500


TWINS = "classes: [{name: a, color: [9, 9, 9]}, {name: b, color: [9, 9, 9]}]\n"


def test_two_classes_of_one_color(tmp_path: Path) -> None:
    """Refused where masks are read by color; otherwise only overlays cannot tell them apart."""
    root = _folder(tmp_path, "masks: color\n" + TWINS)
    words = "masks are read by color, but 'a' and 'b' have the same color [9, 9, 9]; fix: give each class"
    assert words in _line(root, ConfigError)
    (root / "classes.yaml").write_text(TWINS)
    assert check_classes(open_dataset(root).split("train")) == [
        "split train: one color stands for several classes: 'a', 'b'; overlays cannot tell them apart"
    ]
    (root / "classes.yaml").write_text(TWO_COLORS + "ignore_colors: [[128, 0, 0]]\n")
    assert "'car' and ignore_colors have the same color [128, 0, 0]" in _line(root, ConfigError)
    with pytest.raises(ConfigError, match="have the same color"):
        Split("x", [], Taxonomy(("a", "b"), colors=((1, 1, 1), (1, 1, 1))), MaskEncoding(by_color=True))


def test_a_single_class_cannot_be_learned(tmp_path: Path) -> None:
    split = open_dataset(_folder(tmp_path, "classes: [crack]\nignore: [1]\n")).split("train")
    with pytest.raises(DatasetError, match="has the single class 'crack': every pixel would get it"):
        check_classes(split)


def test_absent_classes_are_one_line(tmp_path: Path) -> None:
    names = ", ".join(f"c{k}" for k in range(1000))
    (line,) = check_classes(open_dataset(_folder(tmp_path, f"classes: [{names}]\n")).split("train"))
    assert line == (
        "split train: no mask contains 998 of the 1000 classes: 'c2', 'c3', 'c4', 'c5', 'c6', ... (998 in total); "
        "they cannot be learned"
    )


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 63, 192, 255)])
def test_an_object_is_never_taken_as_ignored(tmp_path: Path, values: tuple[int, ...]) -> None:
    """255 covers a quarter or more."""
    mask = np.resize(np.array(values, np.uint8), (8, 10))
    root = _folder(tmp_path, masks=(mask,) * 3)
    (root / "classes.yaml").unlink()
    dataset = open_dataset(root)
    assert dataset.taxonomy.values == values
    assert dataset.taxonomy.ignored == ()


def test_an_unknown_value_that_covers_an_object_is_not_proposed_as_ignored() -> None:
    raw = np.zeros((10, 10), np.uint8)
    raw[:1] = 9
    with pytest.raises(MaskError, match=r"fix: give the value to a class in classes\.yaml, or correct the mask"):
        Taxonomy(("a", "b")).encode(raw)
    with pytest.raises(MaskError, match=r"fix: give the color to a class in classes\.yaml, or correct the mask"):
        MaskEncoding(by_color=True).encode(
            np.repeat(raw[..., None], 3, axis=2), Taxonomy(("a", "b"), ((0, 0, 0), (1, 1, 1))), "m"
        )


def _voc(root: Path) -> Path:
    for name in "ab":
        _put(root / f"JPEGImages/{name}.jpg", kind="JPEG")
        colors = np.zeros((8, 10, 3), np.uint8)
        colors[:4, :5] = (250, 50, 83)
        _put(root / f"SegmentationClass/{name}.png", colors)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("b\n")
    return root


def _camvid(root: Path) -> Path:
    for name in ("train", "val"):
        _put(root / name / "a.png", GRAY if name == "train" else GRAY + 1)
        colors = np.zeros((8, 10, 3), np.uint8)
        colors[:4, :5] = (250, 50, 83)
        _put(root / f"{name}annot/a.png", colors)
    return root


def _cityscapes(root: Path) -> Path:
    for name in ("train", "val"):
        _put(root / f"leftImg8bit/{name}/ulm/{name}_leftImg8bit.png")
        colors = np.zeros((8, 10, 3), np.uint8)
        colors[:4, :5] = (250, 50, 83)
        _put(root / f"gtFine/{name}/ulm/{name}_gtFine_labelIds.png", colors)
    return root


CAT_YAML = "masks: color\nclasses: [{name: background, color: [0, 0, 0]}, {name: cat, color: [250, 50, 83]}]\n"
CAT_LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\nignored:224,224,192::\n"


@pytest.mark.parametrize("make", [_voc, _camvid, _cityscapes])
@pytest.mark.parametrize(("file", "text"), [("classes.yaml", CAT_YAML), ("labelmap.txt", CAT_LABELMAP)])
def test_a_classes_file_counts_in_every_format(tmp_path: Path, make: Any, file: str, text: str) -> None:
    """The first error's advice is followed to the letter, and works."""
    root = make(tmp_path)
    with pytest.raises(MaskError, match=r"got a color image; fix: write `masks: color` in classes\.yaml"):
        open_dataset(root).split("train")[0]
    (root / file).write_text(text)
    dataset = open_dataset(root)
    assert dataset.taxonomy.names == ("background", "cat")
    assert _ids(dataset.split("train")) == CORNER.tolist()


def test_a_classes_file_without_classes_keeps_those_of_the_format(tmp_path: Path) -> None:
    root = _voc(tmp_path)
    (root / "classes.yaml").write_text("ignore: [255, 77]\n")
    taxonomy = open_dataset(root).taxonomy
    assert taxonomy.names[1] == "aeroplane"
    assert taxonomy.ignored == (255, 77)


def test_a_wrong_labelmap_is_named(tmp_path: Path) -> None:
    root = _voc(tmp_path)
    (root / "labelmap.txt").write_text("background:0,0,0::\ncat:::\n")
    assert "labelmap.txt: expected `name:red,green,blue:parts:actions`, got 'cat:::'; fix: " in _line(root, ConfigError)
    (root / "labelmap.txt").write_text("background:0,0,0::\ncat:0,0,0::\n")
    assert "'background' and 'cat' have the same color" in _line(root, ConfigError)


def test_voc_ids_with_dots_blanks_and_folders(tmp_path: Path) -> None:
    root = _voc(tmp_path)
    for key in ("a.b", "c d", "e/f"):
        _put(root / f"JPEGImages/{key}.jpg", kind="JPEG")
        _put(root / f"SegmentationClass/{key}.png", CORNER)
    (root / "ImageSets/Segmentation/train.txt").write_text(
        "a.b\nc d\ne/f\n/JPEGImages/a.jpg /SegmentationClass/a.png\n"
    )
    assert [item.key for item in open_dataset(root).split("train").items] == ["a.b", "c d", "e/f", "a"]


def test_a_mask_of_an_image_turned_by_exif_says_so(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    exif = Image.Exif()
    exif[274] = 6
    _put(root / "images/train/a.png", exif=exif)
    with pytest.raises(MaskError) as caught:
        open_dataset(root).split("train")[0]
    assert "expected 10x8, the size of its image " in str(caught.value)
    assert "got 8x10 (height x width); the EXIF orientation 6 of a.png turns it by 90 degrees" in str(caught.value)
    _put(root / "masks/train/a.png", CORNER, exif=exif)
    assert _ids(open_dataset(root).split("train")) == np.rot90(CORNER, -1).tolist()


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "名" * 99, "a" * 5000, "..png", "b/...png"])
def test_a_name_of_a_list_that_no_file_can_have_is_missing(tmp_path: Path, name: str) -> None:
    _put(tmp_path / "images/a.png")
    _put(tmp_path / "masks/a.png", CORNER)
    (tmp_path / "classes.yaml").write_text("classes: [ground, crack]\n")
    (tmp_path / "train.txt").write_text(name + "\n", encoding="utf-8")
    assert "2 of the files of 1 pairs are missing" in _line(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("masks/train/a.png", "masks/train/a_mask.png", "masks/train/a_mask.png ('_mask' more in its name)"),
        ("masks/train/a.png", "masks/train/a.jpg.png", "masks/train/a.jpg.png ('.jpg' more in its name)"),
        ("masks/train/a.png", "masks/train/a.ppm", "masks/train/a.ppm (another ending, a PNG image)"),
        ("masks/train/a.png", "masks/train/a.npz", "masks/train/a.npz (another ending, a PNG image)"),
        ("masks/train/a.png", "masks/train/A.png", "masks/train/A.png (upper and lower case)"),
    ],
)
def test_a_missing_file_names_the_near_one(tmp_path: Path, old: str, new: str, words: str) -> None:
    root = _folder(tmp_path)
    (root / old).rename(root / new)
    line = _line(root)
    assert "masks/train/a.png (mask)" in line
    assert words in line.partition("similar names exist: ")[2]


def test_unicode_forms_of_one_name_are_distinguished(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    composed, decomposed = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")
    (root / "images/train/a.png").rename(root / "images/train" / f"{composed}.png")
    (root / "masks/train/a.png").rename(root / "masks/train" / f"{decomposed}.png")
    line = _line(root)
    assert "masks/train/cafe\\u0301.png (another Unicode normalization)" in line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "images/val",
            "images/validation",
            "images/validation: is not read: the split is named val; fix: rename it",
        ),
        ("masks/val", "masks/Val", "masks/Val: is not read: the split is named val; fix: rename it"),
    ],
)
def test_a_folder_under_another_name_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    root = _folder(tmp_path)
    (root / old).rename(root / new)
    assert words in _line(root)


def test_absolute_names_inside_the_folder_are_inside(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in "ab":
        _put(root / f"images/{name}.png")
        _put(root / f"masks/{name}.png", CORNER)
    (root / "classes.yaml").write_text("classes: [ground, crack]\n")
    (root / "train.txt").write_text(f"{root}/images/a.png {root}/masks/a.png\n{root}/images/b.png\n")
    assert [item.key for item in open_dataset(root).split("train").items] == ["a", "b"]
    (root / "train.txt").write_text(f"{root}/../x.png\n")
    assert "which is outside of the dataset" in _line(root)


def test_two_images_for_one_name_of_a_list_are_both_named(tmp_path: Path) -> None:
    _put(tmp_path / "images/001.png")
    _put(tmp_path / "images/001.jpg", kind="JPEG")
    _put(tmp_path / "masks/001.png", CORNER)
    (tmp_path / "classes.yaml").write_text("classes: [ground, crack]\n")
    (tmp_path / "train.txt").write_text("001\n")
    assert f"{tmp_path / 'images'}: has 001.png and 001.jpg, and a list names 001; fix: keep one" in _line(tmp_path)


def test_two_images_for_one_mask_are_both_named(tmp_path: Path) -> None:
    root = _folder(tmp_path)
    _put(root / "images/train/a.jpg", kind="JPEG")
    assert "split train names a twice (images/train/a.jpg, masks/train/a.png, images/train/a.png)" in _line(root)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of folders that cannot be opened; root could open any."""
    names: set[str] = set()
    scandir = os.scandir

    def refuse(path: Any = ".") -> Any:
        if os.path.basename(os.fspath(path)) in names:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return names


def test_a_folder_without_rights_is_named(tmp_path: Path, closed: set[str]) -> None:
    root = _folder(tmp_path)
    _put(root / "images/train/secret/z.png")
    _put(root / "masks/train/secret/z.png", CORNER)
    closed.add("secret")
    for read in (list_images, walk_files, open_dataset):
        with pytest.raises(InputError, match="secret: cannot be opened: Permission denied; fix: give yourself"):
            read(root)


def test_links_to_folders_are_followed_and_cycles_end(tmp_path: Path) -> None:
    _put(tmp_path / "far/x.png")
    _put(tmp_path / "set/near/y.png")
    (tmp_path / "set/away").symlink_to(tmp_path / "far")
    (tmp_path / "set/near/up").symlink_to(tmp_path / "set")
    listing = list_images(tmp_path / "set")
    assert listing.images == [tmp_path / "set/away/x.png", tmp_path / "set/near/y.png"]
    assert listing.skipped == [(tmp_path / "set/near/up", "a link to a folder that is listed already")]
    root = _folder(tmp_path / "own")
    for kind, pixels in (("images", GRAY), ("masks", CORNER)):
        _put(tmp_path / f"more/{kind}/z.png", pixels)
        (root / kind / "train/linked").symlink_to(tmp_path / "more" / kind)
    assert [item.key for item in open_dataset(root).split("train").items] == ["a", "b", "linked/z"]


def test_a_listed_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    """Longer than a file system allows, and in two lists."""
    root = _folder(tmp_path)
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            for path in (root / kind / split).iterdir():
                path.rename(root / kind / path.name)
            (root / kind / split).rmdir()
    for split, name in (("train", "a"), ("val", "c")):
        (root / f"{split}.txt").write_text(f"{name}\n{'x' * 300}.png\n")
    assert "2 of the files of 3 pairs are missing" in _line(root)
