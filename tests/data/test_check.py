"""The check of a dataset: each kind of problem is found in a set that has it, and nothing in a set that has none."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.broken_sets import MadeSet, as_jpeg, clean_set, labels, rewrite, scene, with_orientation
from helpers.channel_data import write_two_maps
from pixelwise.data import diagnose, open_dataset
from pixelwise.data.check.diagnosis import Diagnosis
from pixelwise.data.check.fix import write_fixed
from pixelwise.errors import DatasetError

GRAY = np.array([0, 128, 255], np.uint8)
BINARY = np.array([0, 255, 0], np.uint8)


def look(root: Path) -> Diagnosis:
    return diagnose(open_dataset(root, check=False))


def kinds(diagnosis: Diagnosis, severity: str) -> set[str]:
    return {finding.kind for finding in diagnosis.findings if finding.severity == severity}


def missing_mask(root: Path) -> MadeSet:
    made = clean_set(root)
    made.mask("train/t1").unlink()
    made.broken = {"train/t1"}
    return made


def near_miss(root: Path) -> MadeSet:
    made = clean_set(root)
    made.mask("train/t1").rename(made.mask("train/T1"))
    return made


def other_size(root: Path) -> MadeSet:
    made = clean_set(root)
    keys = ["train/t0", "train/t3", "val/v0"]
    rewrite(made, keys, lambda mask: np.asarray(cv2.resize(mask, None, fx=0.5, fy=0.5, interpolation=0)))
    return made


def unreadable_image(root: Path) -> MadeSet:
    made = clean_set(root)
    made.image("train/t2").write_bytes(b"")
    made.broken = {"train/t2"}
    return made


def unreadable_mask(root: Path) -> MadeSet:
    made = clean_set(root)
    made.mask("val/v1").write_bytes(made.mask("val/v1").read_bytes()[:60])
    made.broken = {"val/v1"}
    return made


def unknown_values(root: Path) -> MadeSet:
    made = clean_set(root)

    def with_7(mask: np.ndarray) -> np.ndarray:
        mask = mask.copy()
        mask[60:90, 90:120] = 7
        return mask

    rewrite(made, ["train/t0", "train/t1"], with_7)
    return made


def binary_masks(root: Path) -> MadeSet:
    """0/255 under two named classes: 255 would be ignored."""
    made = clean_set(root, classes="classes: [ground, disc]\n")
    made.truth = {key: (mask == 1).astype(np.uint8) for key, mask in made.truth.items()}
    rewrite(made, made.keys(), lambda mask: mask * np.uint8(255))
    return made


def gray_masks(root: Path) -> MadeSet:
    """0, 128 and 255 under three named classes: 128 is unknown, and 255 would be ignored."""
    made = clean_set(root, classes="classes: [ground, disc, bar]\n")
    rewrite(made, made.keys(), lambda mask: GRAY[mask])
    return made


def two_codings(root: Path) -> MadeSet:
    made = clean_set(root, classes=None)
    made.truth = {key: (mask == 1).astype(np.uint8) for key, mask in made.truth.items()}
    rewrite(made, made.keys(), lambda mask: mask)
    rewrite(made, made.keys()[::2], lambda mask: mask * np.uint8(255))
    return made


def color_masks(root: Path) -> MadeSet:
    made = clean_set(root)
    palette = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
    rewrite(made, ["train/t0", "train/t5"], lambda mask: palette[mask])
    return made


def lossy_masks(root: Path) -> MadeSet:
    made = clean_set(root, values=(0, 128, 255))
    for key in made.keys("train"):
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(GRAY[made.truth[key]]))
    made.broken = set(made.keys("train"))
    return made


def lossy_masks_without_classes(root: Path) -> MadeSet:
    made = lossy_masks(root)
    (root / "classes.yaml").unlink()
    return made


def lossy_colors(root: Path) -> MadeSet:
    palette = np.array([(0, 0, 0), (230, 30, 30), (40, 60, 220)], np.uint8)
    made = clean_set(root, classes=None)
    for key, mask in made.truth.items():
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(palette[mask], quality=85))
    made.broken = set(made.truth)
    return made


def mixed(mask: np.ndarray) -> np.ndarray:
    """Resized there and back with mixing, as an editor does that does not know that it is a mask."""
    small = cv2.resize(GRAY[mask], None, fx=0.7, fy=0.7, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR))


def values_in_between(root: Path) -> MadeSet:
    made = clean_set(root, values=(0, 128, 255))
    rewrite(made, ["train/t0", "train/t2"], mixed)
    return made


def values_in_between_without_classes(root: Path) -> MadeSet:
    made = clean_set(root, values=(0, 128, 255), classes=None)
    rewrite(made, made.keys(), mixed)
    return made


def turned_image(root: Path) -> MadeSet:
    """The labels fit the stored pixels; a viewer turns the image by 90 degrees."""
    made = clean_set(root)
    made.image("train/t0").unlink()
    made.image("train/t0").with_suffix(".jpg").write_bytes(with_orientation(scene(50), 6))
    made.truth["train/t0"] = np.rot90(made.truth["train/t0"], -1)
    made.broken = {"train/t0"}
    return made


ERRORS: dict[Callable[[Path], MadeSet], str] = {
    missing_mask: "missing files",
    near_miss: "missing files",
    other_size: "sizes",
    unreadable_image: "unreadable images",
    unreadable_mask: "unreadable masks",
    unknown_values: "unknown values",
    gray_masks: "unknown values",
    binary_masks: "0/255 masks",
    two_codings: "mixed codings",
    color_masks: "color masks",
    lossy_masks: "lossy masks",
    values_in_between: "values in between",
    values_in_between_without_classes: "classes",
    turned_image: "EXIF orientation",
}


def test_a_clean_set_has_no_error_and_no_warning(tmp_path: Path) -> None:
    diagnosis = look(clean_set(tmp_path).root)
    assert not kinds(diagnosis, "error") | kinds(diagnosis, "warning"), diagnosis.lines()
    assert {"images", "frequencies", "objects"} <= kinds(diagnosis, "note")
    assert diagnosis.lines()[-1].endswith("ready to train")
    truth = clean_set(tmp_path / "again").truth
    share = np.mean([(mask == 1).mean() for key, mask in truth.items() if key.startswith("train")])
    (frequencies,) = (f for f in diagnosis.findings if f.kind == "frequencies" and f.subject == "split train")
    assert f"disc {share:.2%}" in frequencies.what


@pytest.mark.parametrize("make", ERRORS, ids=lambda make: make.__name__)
def test_each_error_is_found_with_its_files_and_no_other(make: Callable[[Path], MadeSet], tmp_path: Path) -> None:
    made = make(tmp_path)
    diagnosis = look(made.root)
    assert kinds(diagnosis, "error") == {ERRORS[make]}, diagnosis.lines()
    named = [finding for finding in diagnosis.findings if finding.kind == ERRORS[make]]
    words = " ".join([*(str(finding) for finding in named), *(name for f in named for name in f.names)])
    if ERRORS[make] not in ("classes", "0/255 masks", "mixed codings"):
        assert all(Path(key).name in words for key in made.broken), words
    assert sum(finding.count for finding in named) >= 1
    assert len(named) <= 2, "equal problems are one line"


def test_lossy_masks_without_classes_are_one_finding(tmp_path: Path) -> None:
    diagnosis = look(lossy_masks_without_classes(tmp_path).root)
    assert kinds(diagnosis, "error") == {"lossy masks"}
    assert any(
        "classes inferred from 10 masks: 0 = class0, 128 = class128, 255 = class255" in line
        for line in diagnosis.lines()
    )


@pytest.mark.parametrize(
    "make",
    [*ERRORS, lossy_masks_without_classes, lossy_colors],
    ids=lambda make: make.__name__,
)
def test_the_fixed_copy_is_clean_and_unbroken_labels_stay(make: Callable[[Path], MadeSet], tmp_path: Path) -> None:
    made = make(tmp_path / "data")
    before = digests(made.root)
    done = write_fixed(look(made.root), tmp_path / "fixed")
    assert digests(made.root) == before, "the source was changed"
    assert done == (tmp_path / "fixed/fixes.txt").read_text().splitlines()
    copy = look(tmp_path / "fixed")
    assert not copy.has_errors, copy.lines()
    dataset = open_dataset(tmp_path / "fixed")
    assert dataset.taxonomy.ignored in ((), (255,))
    written = {f"{name}/{sample.key}": sample for name, split in dataset.splits.items() for sample in split}
    lost = set(made.truth) - set(written)
    can_be_lost = made.broken if make in (missing_mask, unreadable_image, unreadable_mask) else set()
    assert lost == can_be_lost
    for key, sample in written.items():
        truth = made.truth[key] if key in made.truth else made.truth[key.lower()]
        assert sample.mask is not None
        if key not in made.broken or make in (binary_masks, gray_masks, two_codings, turned_image, color_masks):
            np.testing.assert_array_equal(sample.mask, truth)
        elif make is unknown_values:
            assert dataset.taxonomy.names[3] == "class7"
            np.testing.assert_array_equal(sample.mask[60:90, 90:120], 3)
        elif make is lossy_colors:
            # Colors are inferred in the order of their numbers: black, blue, red.
            assert (np.array([0, 2, 1])[truth] == sample.mask).mean() > 0.99
        else:
            assert (sample.mask == truth).mean() > 0.97
            assert set(np.unique(sample.mask)) <= {0, 1, 2}


def test_files_of_one_name_are_named_with_their_folders(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / f"data/case{number}"
        folder.mkdir(parents=True)
        Image.fromarray(scene(number)).save(folder / "image.png")
        Image.fromarray(labels(number)).save(folder / "mask.png")
        if number < 2:
            Image.fromarray(labels(number)[::2, ::2]).save(folder / "mask.png")
    diagnosis = look(tmp_path / "data")
    (sizes,) = (finding for finding in diagnosis.findings if finding.kind == "sizes")
    assert sizes.names == ("case0/mask.png", "case1/mask.png")
    lines = write_fixed(diagnosis, tmp_path / "fixed")
    assert any(line.startswith("masks resized") and "case0/mask.png" in line for line in lines)


def test_numbers_of_other_zeros_are_one_number(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(8, 13):
        Image.fromarray(scene(number)).save(tmp_path / f"data/images/{number}.png")
        Image.fromarray(labels(number)).save(tmp_path / f"data/masks/{number:04}.png")
    diagnosis = look(tmp_path / "data")
    assert kinds(diagnosis, "error") == {"missing files"}
    assert any("other zeros in its number" in line for line in diagnosis.lines())
    write_fixed(diagnosis, tmp_path / "fixed")
    written = {path.stem: path for path in (tmp_path / "fixed/masks").rglob("*.png")}
    assert len(written) == 5
    for name, path in written.items():
        np.testing.assert_array_equal(np.array(Image.open(path)), labels(int(name)))


def test_copies_of_one_name_are_named_from_where_they_differ(tmp_path: Path) -> None:
    made = clean_set(tmp_path)
    Image.open(made.image("train/t0")).save(made.image("test/t0"), compress_level=0)
    (line,) = (str(f) for f in look(tmp_path).findings if f.kind == "equal images")
    assert "train/t0.png = test/t0.png" in line


@pytest.mark.parametrize("shared", [6, 4, 3])
def test_a_training_split_is_kept_that_the_validation_split_repeats(shared: int, tmp_path: Path) -> None:
    """If less than half of the training images would remain, they leave val; otherwise they leave train."""
    made = clean_set(tmp_path / "data")
    for key in made.keys("train")[:shared]:
        for path in (made.image(key), made.mask(key)):
            shutil.copy(path, path.parents[1] / "val")
    if shared == 6:
        for key in made.keys("val"):
            made.image(key).unlink()
            made.mask(key).unlink()
    diagnosis = look(made.root)
    assert kinds(diagnosis, "error") == {"shared images"}
    assert "equal images" not in kinds(diagnosis, "warning"), "they are named once"
    write_fixed(diagnosis, tmp_path / "fixed")
    copy = open_dataset(tmp_path / "fixed")
    sizes = {6: (5, 1), 4: (6, 2), 3: (3, 5)}
    assert (len(copy.splits["train"]), len(copy.splits["val"])) == sizes[shared]
    assert not look(tmp_path / "fixed").has_errors


def test_equal_images_of_one_file_are_named(tmp_path: Path) -> None:
    """Two lists name one file under other keys."""
    made = clean_set(tmp_path)
    dataset = open_dataset(made.root, check=False)
    first = dataset.splits["train"].items[0]
    test = dataset.splits["test"].with_items([replace(first, key="other"), *dataset.splits["test"].items])
    diagnosis = diagnose(replace(dataset, splits={**dataset.splits, "test": test}))
    (finding,) = (f for f in diagnosis.findings if f.kind == "equal images")
    assert finding.names == (f"{first.image.name}",)


def test_a_dataset_without_a_training_split_is_an_error(tmp_path: Path) -> None:
    made = clean_set(tmp_path)
    for kind in ("images", "masks"):
        shutil.rmtree(made.root / kind / "train")
    diagnosis = look(made.root)
    (finding,) = (f for f in diagnosis.findings if f.kind == "no training split")
    assert finding.severity == "error"
    assert str(finding).endswith("existing splits: val, test; fix: put the images to train on into a split `train`")


def test_images_are_held_out_of_those_that_are_written(tmp_path: Path) -> None:
    """A mask that the copy leaves out, of an image that would be held out, is left out before the choice."""
    made = clean_set(tmp_path / "data")
    for split in ("val", "test"):
        for kind in ("images", "masks"):
            shutil.rmtree(made.root / kind / split)
    write_fixed(look(made.root), tmp_path / "whole")
    (key,) = (item.key for item in open_dataset(tmp_path / "whole").splits["val"].items)
    made.mask(f"train/{key}").write_bytes(b"")
    lines = write_fixed(look(made.root), tmp_path / "fixed")
    assert sum(f"{key}.png" in line and line.startswith("left out: ") for line in lines) == 1
    (held,) = (line for line in lines if line.startswith("split val made: "))
    splits = open_dataset(tmp_path / "fixed").splits
    assert (len(splits["train"]), len(splits["val"])) == (4, 1)
    assert held.endswith(
        f"1 of 5 images held out of split train for validation, chosen by their names: {splits['val'].items[0].key}"
    )


def test_lossy_colors_without_classes_are_warned_of(tmp_path: Path) -> None:
    made = lossy_colors(tmp_path)
    words = "a classes.yaml with all colors keeps them"
    (finding,) = (f for f in look(made.root).findings if f.kind == "lossy masks")
    assert words in finding.fix
    rows = "{name: a, color: [0, 0, 0]}, {name: b, color: [230, 30, 30]}, {name: c, color: [40, 60, 220]}"
    (made.root / "classes.yaml").write_text(f"masks: color\nclasses: [{rows}]\n")
    (finding,) = (f for f in look(made.root).findings if f.kind == "lossy masks")
    assert words not in finding.fix


def test_foreign_colors_among_numbers_are_left_out(tmp_path: Path) -> None:
    made = clean_set(tmp_path / "data")
    palette = np.array([(0, 0, 0), (128, 0, 0), (7, 8, 9)], np.uint8)
    rewrite(made, ["train/t0"], lambda mask: palette[mask])
    lines = write_fixed(look(made.root), tmp_path / "fixed")
    assert any("drawn in colors, while the classes are numbers" in line and "t0.png" in line for line in lines)
    assert not (tmp_path / "fixed/masks/train/t0.png").exists()
    assert not (tmp_path / "fixed/images/train/t0.png").exists()


def test_palette_files_among_color_masks_count_by_their_colors(tmp_path: Path) -> None:
    """Some masks were saved again as RGB: the indices of the others are no classes of their own."""
    made = clean_set(tmp_path / "data", classes=None)
    palette = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
    for number, (key, mask) in enumerate(made.truth.items()):
        image = Image.fromarray(mask, "P")
        image.putpalette(palette.ravel().tolist())
        (image.convert("RGB") if number % 3 == 0 else image).save(made.mask(key))
    diagnosis = look(made.root)
    assert not kinds(diagnosis, "error") | kinds(diagnosis, "warning"), diagnosis.lines()
    assert diagnosis.dataset.taxonomy.colors == ((0, 0, 0), (0, 128, 0), (128, 0, 0))
    write_fixed(diagnosis, tmp_path / "fixed")
    for split in open_dataset(tmp_path / "fixed").splits.values():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, np.array([0, 2, 1])[made.truth[f"{split.name}/{sample.key}"]])


def test_gif_masks_are_read_by_color_where_their_palettes_differ(tmp_path: Path) -> None:
    """Programs write the colors in use alone: in a mask without class 1, class 2 has the index 1."""
    made = clean_set(tmp_path / "data", classes=None)
    palette = [0, 0, 0, 128, 0, 0, 0, 128, 0]
    for number, (key, mask) in enumerate(made.truth.items()):
        if number % 2:
            mask[mask == 1] = 0
        image = Image.fromarray(mask, "P")
        image.putpalette(palette)
        made.mask(key).unlink()
        image.save(made.mask(key).with_suffix(".gif"))
    diagnosis = look(made.root)
    assert not diagnosis.has_errors, diagnosis.lines()
    assert diagnosis.dataset.taxonomy.colors == ((0, 0, 0), (0, 128, 0), (128, 0, 0))
    write_fixed(diagnosis, tmp_path / "fixed")
    for split in open_dataset(tmp_path / "fixed").splits.values():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, np.array([0, 2, 1])[made.truth[f"{split.name}/{sample.key}"]])


def test_gray_gif_masks_of_some_classes_each_are_read_by_gray_value(tmp_path: Path) -> None:
    """No mask has all of the five classes, so that there are more grays than indices."""
    made = clean_set(tmp_path / "data", classes=None)
    for number, (key, mask) in enumerate(made.truth.items()):
        lut = np.array([[0, 60, 120], [0, 180, 240], [60, 120, 240]][number % 3], np.uint8)
        made.truth[key] = lut[mask]
        made.mask(key).unlink()
        Image.fromarray(lut[mask]).save(made.mask(key).with_suffix(".gif"))
    diagnosis = look(made.root)
    assert diagnosis.dataset.taxonomy.num_classes == 5, diagnosis.lines()
    write_fixed(diagnosis, tmp_path / "fixed")
    for split in open_dataset(tmp_path / "fixed").splits.values():
        for sample in split:
            np.testing.assert_array_equal(sample.mask, made.truth[f"{split.name}/{sample.key}"] // 60)


def test_gif_masks_under_named_numbers_are_warned_of(tmp_path: Path) -> None:
    made = clean_set(tmp_path)
    for key in made.keys("train"):
        mask = made.truth[key]
        mask[mask == 1] *= int(key[-1]) % 3 == 0
        image = Image.fromarray(mask, "P")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        made.mask(key).unlink()
        image.save(made.mask(key).with_suffix(".gif"))
    assert "palettes" in kinds(look(tmp_path), "warning")


def test_a_drawn_border_is_a_class_and_an_antialiased_one_is_none(tmp_path: Path) -> None:
    """Both put 128 between 0 and 255 wherever it occurs; only the drawn one keeps them apart everywhere."""
    made = clean_set(tmp_path / "data", classes=None)

    def drawn(mask: np.ndarray) -> np.ndarray:
        disc = (mask == 1).astype(np.uint8)
        border = cv2.dilate(disc, np.ones((3, 3), np.uint8)) - disc
        return np.asarray((disc * 255 + border * 128).astype(np.uint8))

    rewrite(made, made.keys(), drawn)
    diagnosis = look(made.root)
    assert not diagnosis.has_errors, diagnosis.lines()
    assert diagnosis.dataset.taxonomy.values == (0, 128, 255)

    def antialiased(mask: np.ndarray) -> np.ndarray:
        fine = cv2.resize((mask == 1).astype(np.uint8) * 255, None, fx=2, fy=1, interpolation=cv2.INTER_LINEAR)
        value = fine[:, 1::2] // 2 + np.roll(fine[:, 1::2], 1, 1) // 2
        return np.asarray(GRAY[np.digitize(value, [64, 192])])

    rewrite(made, made.keys(), antialiased)
    diagnosis = look(made.root)
    assert kinds(diagnosis, "error") == {"classes"}, diagnosis.lines()
    assert any("128 occur only along edges" in line for line in diagnosis.lines())


def test_color_masks_that_were_shrunk_with_mixing_are_recognized_by_their_name(tmp_path: Path) -> None:
    """They have thousands of colors, as photos do. Colors and sizes are named at once, and the copy has both right."""
    made = clean_set(tmp_path / "data", classes=None)
    palette = np.array([(0, 0, 255), (255, 0, 0), (255, 255, 0)], np.uint8)
    for key, mask in made.truth.items():
        small = cv2.resize(palette[mask], None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA)
        place = made.root / "label" / f"{key.replace('/', '_')}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(small)).save(place)
        made.image(key).rename(made.root / "images" / place.name)
    shutil.rmtree(made.root / "masks")
    diagnosis = look(made.root)
    assert {"classes", "sizes"} <= kinds(diagnosis, "error"), diagnosis.lines()
    write_fixed(diagnosis, tmp_path / "fixed")
    truth = {key.replace("/", "_"): mask for key, mask in made.truth.items()}
    for split in open_dataset(tmp_path / "fixed").splits.values():
        for sample in split:
            assert sample.mask is not None
            assert (sample.mask == truth[sample.key]).mean() > 0.95


@pytest.mark.parametrize("classes", [None, "names"])
def test_a_thin_class_of_lossy_color_masks_does_not_vanish(classes: str | None, tmp_path: Path) -> None:
    """A line of three pixels never shows its own color in a JPEG: it is neither left out nor unsaid."""
    colors = [(0, 0, 0), (0, 255, 0), (255, 0, 0)]
    rows = ", ".join(f"{{name: c{k}, color: {list(color)}}}" for k, color in enumerate(colors))
    made = clean_set(tmp_path / "data", classes=classes and f"masks: color\nclasses: [{rows}]\n")
    for number, (key, mask) in enumerate(made.truth.items()):
        mask[mask == 2] = 0
        cv2.line(mask, (60, 4 + number), (120, 90 - number), 2, 2)
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(np.array(colors, np.uint8)[mask], quality=80))
    diagnosis = look(made.root)
    assert set(diagnosis.dataset.taxonomy.colors) == set(colors)
    lines = write_fixed(diagnosis, tmp_path / "fixed")
    assert any(line.startswith("pixels unlike the classes around them") for line in lines)
    dataset = open_dataset(tmp_path / "fixed")
    ids = np.array([dataset.taxonomy.colors.index(color) for color in colors])
    shares = []
    for split in dataset.splits.values():
        for sample in split:
            line = made.truth[f"{split.name}/{sample.key}"] == 2
            shares.append(((sample.mask == ids[2]) & line).sum() / line.sum())
            assert (
                (sample.mask == ids[2]) & ~cv2.dilate(line.astype(np.uint8), np.ones((3, 3))).astype(bool)
            ).sum() == 0
    assert min(shares) > 0.4


def test_thin_lines_alone_are_a_class_of_lossy_masks(tmp_path: Path) -> None:
    """Vessels of two pixels as JPEG: 255 fills no area."""
    made = clean_set(tmp_path / "data", classes=None)
    for number, (key, mask) in enumerate(made.truth.items()):
        mask[:] = 0
        cv2.line(mask, (4, 4 + number), (120, 90 - number), 1, 2)
        cv2.line(mask, (100 - number, 2), (30, 92), 1, 2)
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(mask * np.uint8(255), quality=85))
    diagnosis = look(made.root)
    assert diagnosis.dataset.taxonomy.values == (0, 255), diagnosis.lines()
    write_fixed(diagnosis, tmp_path / "fixed")
    for split in open_dataset(tmp_path / "fixed").splits.values():
        for sample in split:
            assert float(np.mean(sample.mask == made.truth[f"{split.name}/{sample.key}"])) > 0.98


def test_a_small_gray_object_of_a_lossy_mask_does_not_vanish(tmp_path: Path) -> None:
    made = clean_set(tmp_path / "data", values=(0, 128, 255))
    for mask in made.truth.values():
        mask[mask == 1] = 0
        mask[40:44, 70:74] = 1
    for key in made.truth:
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(GRAY[made.truth[key]]))
    write_fixed(look(made.root), tmp_path / "fixed")
    for key in made.truth:
        mask = np.array(Image.open(tmp_path / f"fixed/masks/{key}.png"))
        assert (mask[40:44, 70:74] == 128).mean() > 0.7
        assert set(np.unique(mask)) == {0, 128, 255}


def digests(root: Path) -> dict[str, bytes]:
    return {str(p): hashlib.sha256(p.read_bytes()).digest() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_mixture_never_becomes_a_class_that_lies_between_two_others(tmp_path: Path) -> None:
    """Between 0 and 255 there is 128, a class, in value; around a disc of 255 on 0 there is none of it."""
    made = clean_set(tmp_path / "data", values=(0, 255, 128))
    table = np.array([0, 255, 128], np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(table[made.truth["train/t0"]], (3, 3), 0))
    Image.fromarray(blurred).save(made.mask("train/t0"))
    write_fixed(look(made.root), tmp_path / "fixed")
    mask = np.array(Image.open(tmp_path / "fixed/masks/train/t0.png"))
    bar = made.truth["train/t0"] == 2
    near_bar = cv2.dilate(bar.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    # A pixel that happens to be exactly 128 cannot be distinguished from the class.
    assert ((mask == 128) & ~near_bar).sum() <= (blurred == 128).sum() - (bar & (blurred == 128)).sum()
    assert (mask == table[made.truth["train/t0"]]).mean() > 0.99


def test_lossy_masks_of_small_numbers_are_not_guessed(tmp_path: Path) -> None:
    """0, 1 and 2 are one in a JPEG: with names they are left out, without names nothing is written."""
    made = clean_set(tmp_path / "data")
    for key in made.keys("train")[:2]:
        made.mask(key).unlink()
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(made.truth[key]))
    done = write_fixed(look(made.root), tmp_path / "fixed")
    assert "left out" in done[0]
    assert "t0.jpg, t1.jpg" in done[0]
    assert len(list((tmp_path / "fixed/images/train").iterdir())) == 4
    for key in made.truth:
        made.mask(key).unlink(missing_ok=True)
        made.mask(key).with_suffix(".jpg").write_bytes(as_jpeg(made.truth[key]))
    (made.root / "classes.yaml").unlink()
    with pytest.raises(DatasetError, match="single class"):
        write_fixed(look(made.root), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_thin_lines_that_were_shrunk_are_no_classes(tmp_path: Path) -> None:
    """Vessels of one and of four pixels, at half size: the thin ones have no pixel of 255 left."""
    root = clean_set(tmp_path, values=(0, 1, 255), classes=None).root
    for split in ("train", "val", "test"):
        for number, path in enumerate(sorted((root / "masks" / split).iterdir())):
            lines = np.zeros((192, 256), np.uint8)
            for k in range(5):
                ends = (20 + 40 * k + number, 10), (60 + 35 * k, 180)
                cv2.line(lines, *ends, 255, thickness=(1, 4, 9)[k % 3])
            cv2.imwrite(str(path), cv2.resize(lines, (128, 96), interpolation=cv2.INTER_AREA))
    diagnosis = look(root)
    assert kinds(diagnosis, "error") == {"classes"}
    assert diagnosis.dataset.taxonomy.values == (0, 255)


def mixed_in_classes(root: Path) -> None:
    made = clean_set(root, classes="classes: [ground, disc]\n")
    rewrite(made, made.keys(), lambda mask: (mask == 1).astype(np.uint8))
    rewrite(made, ["train/t3"], lambda mask: BINARY[mask])


def odd_palette(root: Path) -> None:
    made = clean_set(root)
    for number, (key, mask) in enumerate(made.truth.items()):
        image = Image.fromarray(mask)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] if number else [0, 0, 0, 0, 128, 0, 128, 0, 0])
        image.save(made.mask(key))


def upside_down(root: Path) -> None:
    made = clean_set(root)
    made.image("val/v0").unlink()
    made.image("val/v0").with_suffix(".jpg").write_bytes(with_orientation(scene(50), 3))


def deep_image(root: Path) -> None:
    made = clean_set(root)
    Image.fromarray(scene(50)[..., 0].astype(np.uint16) * 257).save(made.image("train/t4"))


def gray_image(root: Path) -> None:
    Image.fromarray(scene(50)[..., 0]).save(clean_set(root).image("train/t4"))


def equal_image(root: Path) -> None:
    made = clean_set(root)
    shutil.copy(made.image("train/t4"), made.image("test/t0"))


def recompressed_image(root: Path) -> None:
    made = clean_set(root)
    made.image("val/v1").unlink()
    made.image("val/v1").with_suffix(".jpg").write_bytes(as_jpeg(scene(4)))


def twice_with_other_labels(root: Path) -> None:
    made = clean_set(root)
    shutil.copy(made.image("train/t4"), made.image("train/t5"))


def absent_in_val(root: Path) -> None:
    made = clean_set(root)
    rewrite(made, made.keys("val"), lambda mask: np.where(mask == 2, 0, mask).astype(np.uint8))


def hardly_ever_in_a_crop(root: Path) -> None:
    """A class in one corner of images of several crops."""
    made = clean_set(root)
    size = (600, 800)
    mask = np.where(labels(3, size) == 1, 1, 0).astype(np.uint8)
    mask[:, 400:] = 1
    mask[:12, :12] = 2
    for number, key in enumerate(made.truth):
        Image.fromarray(np.tile(scene(number, (60, 80)), (10, 10, 1))).save(made.image(key), compress_level=1)
        Image.fromarray(mask).save(made.mask(key))


def ignored_object(root: Path) -> None:
    made = clean_set(root)

    def with_255(mask: np.ndarray) -> np.ndarray:
        mask = mask.copy()
        mask[50:, 40:] = 255
        return mask

    rewrite(made, made.keys(), with_255)


def one_color(root: Path) -> None:
    rows = ", ".join(f"{{name: {name}, color: [9, 9, {k // 2}]}}" for k, name in enumerate(("ground", "disc", "bar")))
    clean_set(root, classes=f"classes: [{rows}]\n")


WARNINGS: dict[Callable[[Path], None], str] = {
    mixed_in_classes: "mixed codings",
    odd_palette: "palettes",
    upside_down: "EXIF orientation",
    deep_image: "bits per channel",
    gray_image: "channels",
    equal_image: "equal images",
    recompressed_image: "near-copies",
    twice_with_other_labels: "repeated images",
    absent_in_val: "absent classes",
    hardly_ever_in_a_crop: "crops",
    ignored_object: "ignored objects",
    one_color: "colors",
}


@pytest.mark.parametrize("make", WARNINGS, ids=lambda make: make.__name__)
def test_each_warning_is_found_and_no_other(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    diagnosis = look(tmp_path)
    expected = {WARNINGS[make]} | ({"channels"} if make is deep_image else set())
    assert kinds(diagnosis, "warning") == expected, diagnosis.lines()
    assert not diagnosis.has_errors


def test_two_label_maps_cannot_be_fixed(tmp_path: Path) -> None:
    two_maps = write_two_maps(tmp_path / "two")
    with pytest.raises(DatasetError, match="has two label maps per image, which are checked but not fixed"):
        write_fixed(look(two_maps), tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def test_several_labels_per_pixel_are_fixed(tmp_path: Path) -> None:
    """A JPEG mask, masks of half the size, an image without masks; the others stay as they are."""
    sample = Path(__file__).parent.parent / "samples" / "overlaps"
    root = tmp_path / "data"
    shutil.copytree(sample, root)
    truth = {f"{name}/{each.key}": each.mask for name, split in open_dataset(sample).splits.items() for each in split}
    disc = next((root / "masks/train/p0").glob("disc.*"))
    gray = np.array(Image.open(disc).convert("L"))
    disc.unlink()
    disc.with_suffix(".jpg").write_bytes(as_jpeg((gray > 0).astype(np.uint8) * 255))
    for path in (root / "masks/train/p1").iterdir():
        Image.fromarray(np.array(Image.open(path))[::2, ::2]).save(path)
    shutil.rmtree(root / "masks/train/p2")
    diagnosis = look(root)
    assert {"unreadable masks", "sizes", "missing files"} <= kinds(diagnosis, "error"), diagnosis.lines()
    lines = write_fixed(diagnosis, tmp_path / "fixed")
    assert any("set to its label or none" in line for line in lines)
    assert not look(tmp_path / "fixed").has_errors
    fixed = open_dataset(tmp_path / "fixed")
    assert fixed.taxonomy == open_dataset(sample).taxonomy
    written = {f"{name}/{each.key}": each.mask for name, split in fixed.splits.items() for each in split}
    assert written.keys() == truth.keys() - {"train/p2"}
    for key, mask in written.items():
        share = float(np.mean(mask == truth[key]))
        assert share > 0.95 if key == "train/p1" else share == 1, key
