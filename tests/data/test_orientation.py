"""Images that EXIF turns or mirrors: what their masks were drawn on is found, and the fixed copy is upright."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.mask import encode

from helpers.broken_sets import labels, scene, with_orientation
from helpers.command_line import call
from helpers.tiny_data import tiny_config
from pixelwise.data import diagnose, open_dataset
from pixelwise.data.check import Finding, check_dataset
from pixelwise.data.check.fix import write_fixed
from pixelwise.errors import DatasetError
from pixelwise.train.build import open_training_splits

# What a viewer does, by the tag. Source: Pillow, `ImageOps.exif_transpose`.
BY_90 = (5, 6, 7, 8)
SAME_SIZE = (2, 3, 4)


def write(root: Path, orientations: list[int], drawn_on: str, *, visible: bool = True) -> dict[str, np.ndarray]:
    """Write photos with the tag, with masks drawn on the "stored" or the "shown" pixels; return the upright masks.

    visible  whether the objects have colors of their own
    """
    truth = {}
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, orientation in enumerate(orientations):
        stored = labels(number)
        pixels = scene(number) // 2
        if visible:
            pixels += np.array([20, 90, 60], np.uint8)[stored][..., None]
        photo = root / f"images/p{number}.jpg"
        photo.write_bytes(with_orientation(pixels, orientation))
        # The mask goes through the same turn as a photo without a loss does.
        tagged = Image.fromarray(stored)
        tagged.getexif()[0x0112] = orientation
        truth[f"p{number}"] = np.array(ImageOps.exif_transpose(tagged))
        Image.fromarray(stored if drawn_on == "stored" else truth[f"p{number}"]).save(root / f"masks/p{number}.png")
    (root / "classes.yaml").write_text("classes: [ground, disc, bar]\n")
    return truth


def findings(root: Path) -> list[Finding]:
    found = diagnose(open_dataset(root, check=False)).findings
    assert not [finding for finding in found if finding.kind == "sizes"], "a turn is said once"
    return [finding for finding in found if finding.kind == "EXIF orientation"]


@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
@pytest.mark.parametrize("orientations", [[1, *SAME_SIZE, *BY_90], [*SAME_SIZE, *SAME_SIZE]])
def test_masks_and_images_of_the_fixed_copy_are_upright(drawn_on: str, orientations: list[int], tmp_path: Path) -> None:
    root = tmp_path / "data"
    truth = write(root, orientations, drawn_on)
    (finding,) = findings(root)
    assert finding.severity == ("error" if drawn_on == "stored" else "note")
    assert finding.count == len(orientations) - orientations.count(1)
    write_fixed(diagnose(open_dataset(root, check=False)), tmp_path / "fixed")
    assert not findings(tmp_path / "fixed")
    dataset = open_dataset(tmp_path / "fixed")
    samples = {sample.key: sample for split in dataset.splits.values() for sample in split}
    assert samples.keys() == truth.keys()
    for key, sample in samples.items():
        np.testing.assert_array_equal(sample.mask, truth[key])
        with Image.open(root / f"images/{key}.jpg") as photo:
            upright = np.array(ImageOps.exif_transpose(photo))
        assert np.abs(sample.image.astype(int) - upright).max() <= 4


def as_class_files(root: Path, layout: str) -> None:
    """Turn the masks into one per class: DISC and BAR."""
    (root / "classes.yaml").write_text("kind: multilabel\n" + "classes: [disc, bar]\n" * ("folders" in layout))
    for path in sorted((root / "masks").iterdir()):
        mask = np.array(Image.open(path))
        for k, name in ((1, "disc"), (2, "bar")):
            target = root / f"masks/{path.stem}/{name}" if "folders" in layout else root / f"all/{path.stem}_{name}"
            target.parent.mkdir(exist_ok=True)
            plane = Image.fromarray((mask == k).astype(np.uint8) * 255)
            if layout == "lossy folders":
                plane.save(f"{target}.jpg", quality=95)
            else:
                plane.save(f"{target}.png")
        path.unlink()
        if layout == "families":
            (root / f"images/{path.stem}.jpg").rename(root / f"all/{path.stem}_raw.jpg")
    if layout == "families":
        shutil.rmtree(root / "masks")
        shutil.rmtree(root / "images")


@pytest.mark.parametrize("layout", ["folders", "families", "lossy folders"])
@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
@pytest.mark.parametrize("orientations", [[1, *SAME_SIZE, *BY_90], [*SAME_SIZE, *SAME_SIZE]])
def test_masks_of_a_class_each_are_turned_together(
    drawn_on: str, orientations: list[int], layout: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    truth = write(root, orientations, drawn_on)
    as_class_files(root, layout)
    (finding,) = findings(root)
    assert finding.severity == ("error" if drawn_on == "stored" else "note")
    assert finding.count == len(orientations) - orientations.count(1)
    write_fixed(diagnose(open_dataset(root, check=False)), tmp_path / "fixed")
    assert "value" not in (tmp_path / "fixed/classes.yaml").read_text(), "a mask file per class holds 0 and 1"
    dataset = open_dataset(tmp_path / "fixed")
    samples = {sample.key.removesuffix("_raw"): sample for split in dataset.splits.values() for sample in split}
    assert samples.keys() == truth.keys()
    for key, sample in samples.items():
        assert sample.mask is not None
        for name, plane in zip(dataset.taxonomy.names, sample.mask, strict=True):
            differ = plane != (truth[key] == {"disc": 1, "bar": 2}[name])
            assert differ.mean() <= (0.002 if layout == "lossy folders" else 0)


@pytest.mark.parametrize("drawn_on", ["stored", "shown"])
def test_annotations_are_turned_like_masks(drawn_on: str, tmp_path: Path) -> None:
    """COCO's shapes have the size of the image that the annotator saw, which only tells at 90 degrees."""
    root = tmp_path / "data"
    truth = write(root, [*SAME_SIZE, *SAME_SIZE, 6, 1], drawn_on)
    images: list[dict[str, object]] = []
    shapes: list[dict[str, object]] = []
    for path in sorted((root / "masks").iterdir()):
        mask = np.array(Image.open(path))
        number = len(images) + 1
        images.append({"id": number, "file_name": f"{path.stem}.jpg", "height": mask.shape[0], "width": mask.shape[1]})
        for k in (1, 2):
            run_lengths = encode(np.asfortranarray((mask == k).astype(np.uint8)))
            shape = {"size": list(mask.shape), "counts": run_lengths["counts"].decode()}
            area = int((mask == k).sum())
            box = {"bbox": [0, 0, 1, 1], "area": area, "iscrowd": 1, "id": len(shapes) + 1}
            shapes.append({"image_id": number, "category_id": k, "segmentation": shape, **box})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "bar"}]
    data = {"images": images, "annotations": shapes, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(data))
    shutil.rmtree(root / "masks")
    (root / "classes.yaml").unlink()
    (finding,) = findings(root)
    assert finding.severity == ("error" if drawn_on == "stored" else "note")
    write_fixed(diagnose(open_dataset(root, check=False)), tmp_path / "fixed")
    written = list((tmp_path / "fixed/masks").rglob("*.png"))
    assert len(written) == len(truth)
    for path in written:
        np.testing.assert_array_equal(np.array(Image.open(path)), truth[path.stem])


def test_half_size_masks_of_a_turned_image_are_turned_before_they_are_resized(tmp_path: Path) -> None:
    truth = write(tmp_path / "data", [6, 8, 1, 1], "stored")
    for path in (tmp_path / "data/masks").iterdir():
        Image.fromarray(np.array(Image.open(path))[::2, ::2]).save(path)
    write_fixed(diagnose(open_dataset(tmp_path / "data", check=False)), tmp_path / "fixed")
    for path in (tmp_path / "fixed/masks").rglob("*.png"):
        assert (np.array(Image.open(path)) == truth[path.stem]).mean() > 0.97


def test_nothing_is_turned_where_neither_sizes_nor_edges_tell(tmp_path: Path) -> None:
    truth = write(tmp_path / "data", [3, 3, 2, 4], "shown", visible=False)
    (finding,) = findings(tmp_path / "data")
    assert finding.severity == "warning"
    assert "unclear whether their masks fit the turned images or the pixels as stored: p0.jpg" in finding.what
    lines = write_fixed(diagnose(open_dataset(tmp_path / "data", check=False)), tmp_path / "fixed")
    assert any("it is unclear whether the EXIF tag turns them" in line for line in lines)
    for path in (tmp_path / "fixed/masks").rglob("*.png"):
        np.testing.assert_array_equal(np.array(Image.open(path)), truth[path.stem])


def test_sizes_that_contradict_one_another_are_said_of_each_group(tmp_path: Path) -> None:
    """Some masks were drawn on the stored pixels, some on the turned image; those of the rest may fit either."""
    write(tmp_path, [6, 8, 5, 3], "stored")
    other = write(tmp_path / "other", [6, 8, 5, 3], "shown")
    Image.fromarray(other["p2"]).save(tmp_path / "masks/p2.png")
    shutil.rmtree(tmp_path / "other")
    by_severity = {finding.severity: finding for finding in findings(tmp_path)}
    assert {severity: finding.names for severity, finding in by_severity.items()} == {
        "error": ("p0.jpg", "p1.jpg"),
        "note": ("p2.jpg",),
        "warning": ("p3.jpg",),
    }
    assert "the sizes of 2 that are" in by_severity["error"].what
    assert "the sizes of 1 that are" in by_severity["note"].what
    assert "but not their masks" not in by_severity["warning"].what


def test_the_last_lines_of_a_fix_say_what_stays_unclear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "data", [3, 3, 2, 4], "shown", visible=False)
    result = call(capsys, "check", tmp_path / "data", "--fix", tmp_path / "fixed")
    lines = result.out.splitlines()
    copied = lines[lines.index(next(line for line in lines if line.startswith(f"{tmp_path / 'fixed'}: format"))) :]
    (line,) = (line for line in copied if line.startswith("warning: ") and "EXIF" in line)
    assert "unclear" in line
    assert "4 images" in line
    assert " warning" in copied[-1]
    assert "0 warnings" not in copied[-1]


def test_a_training_on_masks_that_the_tag_does_not_turn_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [3, 3, 2, 4, 2, 3], "stored")
    splits = open_training_splits(tiny_config(tmp_path).data)
    with pytest.raises(DatasetError, match="the masks fit the pixels as stored, as the edges of"):
        check_dataset(splits.dataset, splits.train, splits.val)
