"""Folders of annotation programs as they come: which image is meant, what covers what, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from helpers.annotated_folders import HEIGHT, WIDTH
from helpers.annotated_folders import make_photo as _photo
from helpers.annotated_folders import read_mask_of as _mask
from helpers.annotated_folders import write_content as _write
from pixelwise.data import open_dataset
from pixelwise.errors import DatasetError, InputError, PixelwiseError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SQUARE = [[2.0, 3.0], [12.5, 3.0], [12.5, 11.0], [2.0, 11.0]]
TRIANGLE = [[8.0, 1.0], [28.0, 9.0], [9.0, 18.5]]


def _filled(points: list[list[float]]) -> np.ndarray:
    """A polygon as pycocotools fills it."""
    region: np.ndarray = coco_mask.decode(coco_mask.frPyObjects([np.ravel(points).tolist()], HEIGHT, WIDTH))[..., 0] > 0
    return region


def _coco(**changes: Any) -> dict[str, Any]:
    """Two objects of one image that overlap, the smaller one first in the file."""
    objects = [
        {"id": 1, "image_id": 7, "category_id": 5, "segmentation": [np.ravel(SQUARE).tolist()], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "segmentation": [np.ravel(TRIANGLE).tolist()], "iscrowd": 0},
    ]
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": objects,
        "categories": [{"id": 3, "name": "tree"}, {"id": 5, "name": "car"}],
        **changes,
    }


def test_coco_draws_small_objects_over_large_ones(tmp_path: Path) -> None:
    _photo(tmp_path / "train2017/a.jpg")
    _photo(tmp_path / "val2017/a.jpg")
    for split in ("train", "val"):
        _write(tmp_path / f"annotations/instances_{split}2017.json", _coco())
        _write(tmp_path / f"annotations/person_keypoints_{split}2017.json", _coco())
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("background", "tree", "car")
    assert {name: split.items[0].image.parent.name for name, split in dataset.splits.items()} == {
        "train": "train2017",
        "val": "val2017",
    }
    expected = np.where(_filled(SQUARE), 2, np.where(_filled(TRIANGLE), 1, 0))
    assert _filled(SQUARE).sum() < _filled(TRIANGLE).sum()
    np.testing.assert_array_equal(_mask(tmp_path), expected)


def test_coco_in_the_folders_of_roboflow(tmp_path: Path) -> None:
    """A JSON in the folder of each split; boxes without a segmentation are named, other classes ignored on demand."""
    runs = {"size": [HEIGHT, WIDTH], "counts": [40, 20, HEIGHT * WIDTH - 60]}
    rows = _coco()["annotations"]
    rows[0]["segmentation"] = runs
    rows.append({"id": 3, "image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2], "segmentation": []})
    for folder in ("train", "valid"):
        _photo(tmp_path / folder / "a.jpg")
        _write(tmp_path / folder / "_annotations.coco.json", _coco(annotations=rows))
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "val"]
    assert "1 annotations without a segmentation are not drawn" in dataset.notes[0]
    columns = np.zeros((HEIGHT, WIDTH), bool)
    columns[:, 2] = True
    np.testing.assert_array_equal(_mask(tmp_path, "val") == 2, columns)
    (tmp_path / "classes.yaml").write_text("classes: [tree, car]\n")
    mask = _mask(tmp_path)
    assert set(np.unique(mask)) == {0, 1, 255}
    (tmp_path / "classes.yaml").write_text("classes: [background, tree]\n")
    with pytest.raises(InputError, match=r"_annotations\.coco\.json \(a\.jpg\): has the label 'car'; the classes are"):
        _mask(tmp_path)


def test_several_labels_per_pixel_are_drawn_apart(tmp_path: Path) -> None:
    _photo(tmp_path / "a.jpg")
    _write(tmp_path / "a.json", _coco())
    _write(tmp_path / "classes.yaml", "classes: [tree, car]\nkind: multilabel\n")
    dataset = open_dataset(tmp_path)
    drawing = dataset.split("train").items[0].drawing
    assert drawing is not None
    mask = drawing.draw(dataset.taxonomy)
    assert mask.shape == (2, HEIGHT, WIDTH)
    np.testing.assert_array_equal(mask, [_filled(TRIANGLE), _filled(SQUARE)])


def test_labelme_without_a_size_and_with_paths_of_windows(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        _photo(tmp_path / f"{name}.jpg")
    shapes = [
        {"label": "car", "points": [[2, 3], [12, 11]], "shape_type": "rectangle"},
        {"label": "__ignore__", "points": [[5, 5], [5, 5.5], [9, 9]], "shape_type": "polygon"},
        {"label": "_background_", "points": [[10, 10]], "shape_type": "point"},
    ]
    data = {"imagePath": "C:\\photos\\a.jpg", "imageData": None, "imageHeight": None, "shapes": shapes}
    _write(tmp_path / "a.json", data)
    _write(tmp_path / "b.json", {"imagePath": "b.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": []})
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("_background_", "car")
    assert dataset.notes[0] == f"{tmp_path}: 1 images without a JSON are left out: c.jpg"
    mask = _mask(tmp_path)
    assert (mask[3, 2], mask[11, 12], mask[6, 6], mask[10, 10]) == (1, 0, 255, 0)
    assert (mask[3:5, 2:5] == 1).all()
    _write(tmp_path / "a.json", {**data, "imageHeight": 10, "imageWidth": WIDTH, "shapes": shapes[2:]})
    with pytest.raises(InputError, match=r"a\.json: expected 20x30, the size of its image .*, got 10x30"):
        _mask(tmp_path)


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>
<label><name>car</name><color>#fa3253</color></label><label><name>tree</name><color>#33ddff</color></label>
</labels></task></meta>
<image id="0" name="day 1/a.jpg" subset="Validation" width="30" height="20">
<polygon label="car" z_order="1" points="2.0,3.0;12.5,3.0;12.5,11.0;2.0,11.0"></polygon>
<polygon label="tree" z_order="0" points="8.0,1.0;28.0,9.0;9.0,18.5"></polygon>
<box label="car" xtl="1" ytl="1" xbr="4" ybr="4"></box>
<mask label="tree" z_order="2" left="28" top="18" width="2" height="2" rle="1, 2, 1"></mask>
</image>
<image id="1" name="train/b.jpg" width="30" height="20"></image></annotations>"""


def test_cvat_draws_by_z_order(tmp_path: Path) -> None:
    _photo(tmp_path / "images/day 1/a.jpg")
    _photo(tmp_path / "images/train/b.jpg")
    _write(tmp_path / "annotations.xml", CVAT)
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("background", "car", "tree")
    assert dataset.taxonomy.colors[1:] == ((250, 50, 83), (51, 221, 255))
    assert [item.key for split in ("train", "val") for item in dataset.split(split).items] == ["b", "day 1/a"]
    assert "shapes without an area are not drawn: 1 box" in dataset.notes[0]
    expected = np.where(_filled(SQUARE), 1, np.where(_filled(TRIANGLE), 2, 0))
    expected[18:, 28:] = [[0, 2], [2, 0]]
    np.testing.assert_array_equal(_mask(tmp_path, "val"), expected)
    assert (_mask(tmp_path) == 0).all()


def test_label_studio_polygons_are_in_percent(tmp_path: Path) -> None:
    _photo(tmp_path / "images/0123abcd-a.jpg")
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in SQUARE]
    area = {"type": "polygonlabels", **size, "value": {"points": points, "polygonlabels": ["car"], "closed": True}}
    box = {"type": "rectanglelabels", **size, "value": {"rectanglelabels": ["car"], "x": 1}}
    tasks: list[dict[str, Any]] = [
        {"id": 1, "data": {"image": "/data/upload/3/0123abcd-a.jpg"}, "annotations": [{"result": [area, box]}]},
        {"id": 2, "data": {"image": "/data/upload/3/0123abcd-a.jpg"}, "annotations": []},
    ]
    _write(tmp_path / "export.json", tasks)
    dataset = open_dataset(tmp_path)
    assert "1 images without a brush or polygon are left out" in dataset.notes[0]
    assert "results without an area are not drawn: 1 rectanglelabels" in dataset.notes[1]
    np.testing.assert_array_equal(_mask(tmp_path), _filled(SQUARE))
    tasks[0]["annotations"] *= 2
    _write(tmp_path / "export.json", tasks)
    with pytest.raises(DatasetError, match=r"task 1\): has 2 annotations; fix: keep one annotation per task"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"data": 1}, {"data": {}}, {"data": {"image": "../../a.jpg"}}, {"data": {"image": "http://[a.jpg"}},
        {"annotations": 1}, {"annotations": [1]}, {"annotations": [{"result": [1]}]}, {"annotations": [{"result": 1}]},
        {"annotations": [{"result": [{"type": "brushlabels"}]}]},
        {"annotations": [{"result": [{"type": "brushlabels", "original_width": 30, "original_height": 1e9}]}]},
        {"annotations": [{"result": [{"type": "brushlabels", "original_width": WIDTH, "original_height": HEIGHT,
                                      "value": {"brushlabels": ["car"], "rle": [0, 0, 0, 9]}}]}]},
        {"annotations": [{"result": [{"type": "polygonlabels", "original_width": WIDTH, "original_height": HEIGHT,
                                      "value": {"polygonlabels": ["car", "bus"], "points": [[1, 2]] * 3}}]}]},
    ],
)  # fmt: skip
def test_hostile_label_studio_files_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    root = tmp_path / "set"
    _photo(root / "a.jpg")
    _write(root / "x.json", [{"data": {"image": "a.jpg"}, "annotations": [{"result": []}]} | change])
    with pytest.raises(InputError, match=r"^[^\n]{9,500}; fix: "):
        _mask(root)


def test_supervisely_polygons_have_holes(tmp_path: Path) -> None:
    _photo(tmp_path / "ds1/img/a.jpg")
    hole = [[4, 5], [8, 5], [8, 9]]
    figure = {"classTitle": "car", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": [hole]}}
    point = {"classTitle": "spot", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}}
    data = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": [figure, point]}
    _write(tmp_path / "ds1/ann/a.jpg.json", data)
    classes = [{"title": "car", "shape": "polygon", "color": "#102030"}, {"title": "spot", "shape": "point"}]
    _write(tmp_path / "meta.json", {"classes": classes})
    dataset = open_dataset(tmp_path)
    assert dataset.taxonomy.names == ("background", "car")
    assert "classes without an area are not drawn: spot" in dataset.notes[0]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(expected, [np.rint(SQUARE).astype(np.int32)], 1)
    cv2.fillPoly(expected, [np.array(hole, np.int32)], 0)
    np.testing.assert_array_equal(_mask(tmp_path), expected)


def test_the_voc_form_of_cvat(tmp_path: Path) -> None:
    """One list `default`, PNG images, masks in the colors of labelmap.txt."""
    _photo(tmp_path / "JPEGImages/a.png")
    colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colors[:5] = (250, 50, 83)
    (tmp_path / "SegmentationClass").mkdir()
    Image.fromarray(colors).save(tmp_path / "SegmentationClass/a.png")
    _write(tmp_path / "ImageSets/Segmentation/default.txt", "a\n")
    _write(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:250,50,83::\n")
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.taxonomy.names, list(dataset.splits)) == ("voc", ("background", "car"), ["train"])
    np.testing.assert_array_equal(_mask(tmp_path), (colors[..., 0] > 0).astype(int))


def test_ade20k_ignores_0(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        _photo(tmp_path / f"ADEChallengeData2016/images/{split}/ADE_{split}_1.jpg")
        path = tmp_path / f"ADEChallengeData2016/annotations/{split}/ADE_{split}_1.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.tile(np.arange(WIDTH, dtype=np.uint8) * 5, (HEIGHT, 1))).save(path)
    dataset = open_dataset(tmp_path)
    assert (dataset.name, dataset.taxonomy.num_classes, list(dataset.splits)) == ("ade20k", 150, ["train", "val"])
    assert [dataset.taxonomy.names[k] for k in (0, 11, 43, 149)] == ["wall", "sidewalk", "signboard", "flag"]
    np.testing.assert_array_equal(_mask(tmp_path, "val")[0], [255, *range(4, 5 * WIDTH - 5, 5)])


def _segmented(segmentation: Any) -> dict[str, Any]:
    return _coco(annotations=[_coco()["annotations"][0] | {"segmentation": segmentation}])


HOSTILE: dict[str, Any] = {
    "no categories": _coco(categories=None),
    "category without a name": _coco(categories=[{"id": 3}]),
    "id of text": _coco(categories=[{"id": "3", "name": "tree"}]),
    "unknown category": _coco(categories=[{"id": 3, "name": "tree"}]),
    "unknown image": _coco(images=[]),
    "image without a name": _coco(images=[{"id": 7, "height": HEIGHT, "width": WIDTH}]),
    "outside of the folder": _coco(images=[{"id": 7, "file_name": "../a.jpg", "height": HEIGHT, "width": WIDTH}]),
    "absolute": _coco(images=[{"id": 7, "file_name": "/etc/passwd", "height": HEIGHT, "width": WIDTH}]),
    "missing image": _coco(images=[{"id": 7, "file_name": "b.jpg", "height": HEIGHT, "width": WIDTH}]),
    "null byte": _coco(images=[{"id": 7, "file_name": "a\0.jpg", "height": HEIGHT, "width": WIDTH}]),
    "huge image": _coco(images=[{"id": 7, "file_name": "a.jpg", "height": 10**30, "width": WIDTH}]),
    "other size": _coco(images=[{"id": 7, "file_name": "a.jpg", "height": 5, "width": 5}]),
    "NaN": _coco(images=[{"id": 7, "file_name": "a.jpg", "height": float("nan"), "width": WIDTH}]),
    "two of one id": _coco(images=_coco()["images"] * 2),
    "list of texts": _coco(annotations=["x"]),
    "runs beyond": _segmented({"size": [20, 30], "counts": [9999]}),
    "runs of another size": _segmented({"size": [2, 2], "counts": [4]}),
    "odd polygon": _segmented([[1, 2, 3]]),
    "NaN polygon": _segmented([[1, 2, 3, float("nan"), 5, 6]]),
    "far polygon": _segmented([[1, 2, 3, 1e12, 5, 6]]),
    "text": "{" + '"images" "annotations" "categories"',
    "deep": '{"images": 1, "annotations": 1, "categories": ' + "[" * 99999,
    "huge number": '{"images": [], "annotations": [], "categories": ' + "9" * 9999 + "}",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_coco_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    root = tmp_path / "set"
    _photo(root / "a.jpg")
    _photo(tmp_path / "a.jpg")
    _write(root / "x.json", HOSTILE[name])
    with pytest.raises(PixelwiseError) as caught:
        _mask(root)
    line = str(caught.value)
    assert caught.value.exit_code == 2
    assert "; fix: " in line
    assert "\n" not in line
    assert len(line) < 400 + len(str(root)) * 2


@pytest.mark.parametrize(
    "change",
    [
        ("width=\"30\"", "width=\"x\""), ("points=\"2.0,3.0", "points=\"nan,3.0"), ("points=\"2.0,3.0", "points=\"2.0"),
        ("rle=\"1, 2, 1\"", "rle=\"1, 9\""), ("left=\"28\"", "left=\"99\""), ("left=\"28\"", "left=\"-1\""),
        ("name=\"day 1/a.jpg\"", "name=\"../../a.jpg\""), ("label=\"car\"", ""), ("</annotations>", ""),
        ("<annotations>", "<!DOCTYPE a [<!ENTITY b \"c\">]><annotations>"), ("z_order=\"1\"", "z_order=\"1e9\""),
    ],
)  # fmt: skip
def test_hostile_cvat_files_are_refused_in_one_line(tmp_path: Path, change: tuple[str, str]) -> None:
    _photo(tmp_path / "images/day 1/a.jpg")
    _photo(tmp_path / "images/train/b.jpg")
    assert change[0] in CVAT
    _write(tmp_path / "annotations.xml", CVAT.replace(*change))
    with pytest.raises(InputError, match=r"^[^\n]{9,600}; fix: "):
        _mask(tmp_path, "val")


def test_an_image_that_two_files_may_be_is_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        _photo(tmp_path / folder / "a.jpg")
    _write(tmp_path / "labels/a.json", {"imagePath": "a.jpg", "shapes": [], "imageHeight": 1, "imageWidth": 1})
    with pytest.raises(DatasetError, match=r"names 'a\.jpg', which may be one/a\.jpg, two/a\.jpg"):
        open_dataset(tmp_path)


def test_a_folder_of_two_formats_is_refused(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        _photo(tmp_path / kind / "train/a.png")
    _write(tmp_path / "annotations.json", _coco())
    with pytest.raises(DatasetError, match=r"may be read as coco or as folder; fix: name the format"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, "folder", check=False).name == "folder"
