"""Files of class names in a dataset's folder: JSON in the forms of several programs, and tables of colors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.annotated_folders import HEIGHT, WIDTH
from helpers.annotated_folders import make_photo as _photo
from helpers.annotated_folders import read_mask_of as _mask
from helpers.annotated_folders import write_content as _write
from pixelwise.core import Taxonomy
from pixelwise.data import open_dataset
from pixelwise.errors import InputError


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (["bg", "road"], Taxonomy(("bg", "road"))),
        ({"road": 1, "bg": 0}, Taxonomy(("bg", "road"))),
        ({"0": "bg", "7": "road"}, Taxonomy(("bg", "road"), values=(0, 7))),
        (
            [{"title": "bg", "color": "#010203"}, {"title": "road", "color": "#040506"}],
            Taxonomy(("bg", "road"), ((1, 2, 3), (4, 5, 6))),
        ),
        ({"categories": [{"id": 7, "name": "road"}]}, Taxonomy(("background", "road"), values=(0, 7))),
        ({"classes": [{"name": "bg"}, {"name": "road", "value": 255}]}, Taxonomy(("bg", "road"), values=(0, 255))),
    ],
)
def test_class_names_in_json(tmp_path: Path, content: Any, expected: Taxonomy) -> None:
    _photo(tmp_path / "images/train/a.png")
    (tmp_path / "masks/train").mkdir(parents=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "masks/train/a.png")
    _write(tmp_path / "classes.json", content)
    taxonomy = open_dataset(tmp_path).taxonomy
    assert (taxonomy.names, taxonomy.values) == (expected.names, expected.values)
    if any("color" in row for row in content if isinstance(row, dict)):
        assert taxonomy.colors == expected.colors


@pytest.mark.parametrize(
    "content",
    ["", "[", "[1]", "null", '{"a": [1]}', '{"a": 1e9}', "[]", '[{"name": 1}]', '[{"name": "a", "id": -1}]',
     '{"classes": ["a"], "labels": ["b"]}', '[{"name": "a", "color": "#xyz"}]', '["a", "a"]', "NaN", "[" * 9999],
)  # fmt: skip
def test_class_names_in_json_that_are_refused(tmp_path: Path, content: str) -> None:
    _photo(tmp_path / "images/train/a.png")
    _photo(tmp_path / "masks/train/a.png")
    _write(tmp_path / "classes.json", content)
    with pytest.raises(InputError, match=r"classes\.json: .{5,350}; fix: "):
        open_dataset(tmp_path)


def test_a_table_of_colors(tmp_path: Path) -> None:
    """Kaggle's copy of CamVid: train/, train_labels/ with _L in the names, class_dict.csv."""
    colors = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colors[:5] = (64, 0, 128)
    for split in ("train", "val"):
        path = tmp_path / f"{split}_labels/0016E5_{split}_07_L.png"
        _photo(tmp_path / f"{split}/0016E5_{split}_07.jpg")
        path.parent.mkdir()
        Image.fromarray(colors).save(path)
    _write(tmp_path / "class_dict.csv", "name,r,g,b\nVoid,0,0,0\nCar, 64, 0, 128\n")
    assert open_dataset(tmp_path).taxonomy.names == ("Void", "Car")
    np.testing.assert_array_equal(_mask(tmp_path, "val"), (colors[..., 0] > 0).astype(int))
    for text in ("", "name,r,g\nCar,1,2", "name,r,g,b\nCar,1,2", "name,r,g,b\nCar,1,2,999", "name,r,g,b\nCar,-1,2,3"):
        _write(tmp_path / "class_dict.csv", text)
        with pytest.raises(InputError, match=r"class_dict\.csv: .*expected .*; fix: "):
            open_dataset(tmp_path)
