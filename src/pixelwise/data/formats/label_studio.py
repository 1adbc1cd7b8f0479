"""Label Studio: a JSON list of tasks with brushes (run lengths) and polygons in percent of the image.

Results are drawn in the order of the file, the later over the earlier; polygons are filled as COCO does.
Source: labelstud.io, "Export annotations", "Units of image annotations"; label_studio_sdk.converter.brush.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ...errors import DatasetError, MaskError, cut, listed, shown
from ...files import write_text
from ..dataset import Dataset, Item
from ..shapes.drawing import Drawing, Shape
from ..shapes.fill import check_points, crop, fill_coco
from ..shapes.run_lengths import check_size, decode_label_studio, encode_label_studio
from . import DATASETS
from .annotations import (
    ImageIndex,
    annotated_dataset,
    contains_words,
    entry,
    key_of,
    read_annotations,
    rows_of,
    split_of,
)
from .base import DatasetFormat
from .conversion import Conversion

_WORDS = (b'"annotations"', b'"result"', b'"data"')
# JSON-MIN: the values of the results stand in the task itself, with the size of the image in each.
_MIN_WORDS = (b'"annotation_id"', b'"original_width"', b'labels"')
_TIMES = ("created_at", "updated_at")
_FIX = "export the annotations again as JSON"
_AREAS = ("brushlabels", "polygonlabels")
# Uploaded images get eight characters before their names.
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")


@dataclass(frozen=True)
class LabelStudioDrawing(Drawing):
    """The results of one task that have an area, in the order of the file."""

    path: Path
    task: str
    size: tuple[int, int]
    results: tuple[Mapping[str, Any], ...]

    @property
    def source(self) -> str:
        """File and task."""
        return f"{self.path} ({self.task})"

    def read(self) -> tuple[tuple[int, int], list[Shape]]:
        """Return the size and the results, in the order of the file."""
        return self.size, [self._shape(row) for row in self.results]

    def _shape(self, row: Mapping[str, Any]) -> Shape:
        value = entry(row, "value", dict, self.source)
        kind = row["type"]
        names = entry(value, kind, list, self.source)
        if len(names) != 1 or not isinstance(names[0], str):
            raise MaskError(self.source, f"expected one label per shape, got {shown(names)}", _FIX)
        if kind == "brushlabels":
            return Shape(names[0], crop(decode_label_studio(value.get("rle"), *self.size, self.source)))
        # In percent of the image.
        points = check_points(value.get("points"), (100, 100), self.source)
        return Shape(names[0], fill_coco(points * self.size[::-1] / 100, self.size, self.source))


@DATASETS.register("label_studio", tiny={})
class LabelStudio(DatasetFormat):
    """Label Studio's JSON export: brushes and polygons."""

    needs = (
        "a JSON list of Label Studio's tasks, the images anywhere below; several files are train.json, val.json, ..."
    )
    targets: Mapping[str, str] = MappingProxyType(
        {
            "label-studio": "Label Studio's JSON with brushes",
            "label-studio-min": "Label Studio's JSON-MIN with brushes",
        }
    )

    def find_root(self, folder: Path) -> Path | None:
        """Return `folder` itself."""
        return folder if _files(folder) else None

    def read(self, root: Path) -> Dataset:
        """Read every JSON as the split that its name says; a single one is `train`."""
        index, splits, labels, notes = ImageIndex(root), {}, {}, []
        files = _files(root)
        for path in files:
            split = split_of(path.stem) or ("train" if len(files) == 1 else path.stem)
            if split in splits:
                raise DatasetError(root, f"has two JSON files for split {split}", "keep one of them in the folder")
            items, found, lines = _read_tasks(path, index, split)
            splits[split] = items
            labels.update(dict.fromkeys(found))
            notes += lines
        return annotated_dataset("label_studio", root, [(label, None) for label in sorted(labels)], splits, notes)

    def write(self, target: str, conversion: Conversion) -> None:
        """Write SPLIT.json with one brush per class and image, and images/SPLIT, as local files of Label Studio."""
        tasks: dict[str, list[dict[str, Any]]] = {}
        empty = 0
        for split, item, mask in conversion.samples():
            place = conversion.place_image(item, f"images/{split}")
            size = {"original_width": int(mask.shape[-1]), "original_height": int(mask.shape[-2])}
            values = [
                {"format": "rle", "rle": encode_label_studio(region), "brushlabels": [label]}
                for label, region in conversion.regions(item, mask)
            ]
            empty += not values
            data = {"image": f"/data/local-files/?d={quote(place)}"}
            rows = tasks.setdefault(split, [])
            if target == "label-studio-min":
                number = len(rows) + 1
                brushes = [{**value, **size} for value in values]
                rows.append({**data, "id": number, "label": brushes, "annotator": 1, "annotation_id": number})
                continue
            head = {"type": "brushlabels", "from_name": "label", "to_name": "image", **size, "image_rotation": 0}
            results = [{"id": f"r{k}", **head, "value": value} for k, value in enumerate(values)]
            rows.append({"data": data, "annotations": [{"result": results}]})
        for split, rows in tasks.items():
            write_text(conversion.out / f"{split}.json", json.dumps(rows))
        if empty:
            what = "Label Studio keeps no size for them, and they count as not labeled"
            conversion.notes.append(f"{empty} images have no shape: {what}")
        conversion.write_classes(ignored=True)


def _files(root: Path) -> list[Path]:
    files = [p for p in sorted(root.glob("*.json")) if contains_words(p, *_WORDS) or contains_words(p, *_MIN_WORDS)]
    return [path for path in files if _is_list(path)]


def _is_list(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _read_tasks(path: Path, index: ImageIndex, split: str) -> tuple[list[Item], list[str], list[str]]:
    """Return the items of a file, their labels, and lines about what was left out."""
    items, labels = [], []
    names: set[str] = set()
    skipped: Counter[str] = Counter()
    empty = []
    for number, task in enumerate(read_annotations(path, list)):
        where = f"{path} (task {number + 1})"
        data, results = _task(task, where)
        name = _image_name(data, where)
        if name in names and "annotations" not in task:
            # In JSON-MIN, each annotation of a task is a record of its own.
            raise DatasetError(where, f"annotates {shown(name)} again", "keep one annotation per task")
        names.add(name)
        areas = [row for row in results if str(row.get("type")) in _AREAS]
        skipped += Counter(cut(row.get("type")) for row in results if str(row.get("type")) not in _AREAS)
        image = _find(index, name, path, split)
        if not areas:
            # Neither a brush nor a size: an image without an annotation, or one without any object.
            empty.append(image.name)
            continue
        size = check_size(areas[0].get("original_height"), areas[0].get("original_width"), where)
        if any(row.get("image_rotation") for row in areas):
            raise DatasetError(where, "is rotated in Label Studio", "rotate the image itself")
        drawing = LabelStudioDrawing(path, f"task {number + 1}", size, tuple(areas))
        items.append(Item(key_of(name), image, path, drawing=drawing))
        for row in areas:
            value = entry(row, "value", dict, where)
            labels += [label for label in entry(value, row["type"], list, where) if isinstance(label, str)]
    lines = []
    if empty:
        lines.append(f"{path}: {len(empty)} images without a brush or polygon are left out: {listed(empty)}")
    if skipped:
        kinds = listed(f"{count} {kind}" for kind, count in skipped.items())
        lines.append(f"{path}: results without an area are not drawn: {kinds}")
    return items, labels, lines


def _task(task: Any, where: str) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """Return the data of a task, and the results of its annotation in the form of the full export."""
    if isinstance(task, Mapping) and "annotations" not in task and "annotation_id" in task:
        data = {key: value for key, value in task.items() if isinstance(value, str) and key not in _TIMES}
        values = [v for value in task.values() if isinstance(value, list) for v in value if isinstance(v, dict)]
        results = []
        for value in values:
            kind = next((key for key in value if key in _AREAS), None) or next(
                (key for key in value if key.endswith("labels")), "other"
            )
            size = {key: value.get(key) for key in ("original_width", "original_height")}
            results.append({"type": kind, **size, "value": value})
        return data, results
    done = [row for row in rows_of(task, "annotations", where) if not row.get("was_cancelled")]
    if len(done) > 1:
        raise DatasetError(where, f"has {len(done)} annotations", "keep one annotation per task")
    return entry(task, "data", dict, where), rows_of(done[0], "result", where) if done else []


def _image_name(data: Mapping[str, Any], source: object) -> str:
    """Return the path of an image in the address that a task has for it."""
    texts = [value for value in data.values() if isinstance(value, str) and re.search(r"\.\w{2,5}\b", value)]
    address = data.get("image", data.get("img", texts[0] if texts else None))
    if not isinstance(address, str):
        raise DatasetError(source, f"expected the address of an image, got {shown(dict(data))}", _FIX)
    try:
        parts = urlsplit(address)
    except ValueError:
        raise DatasetError(source, f"expected the address of an image, got {shown(address)}", _FIX) from None
    local = parse_qs(parts.query).get("d")
    path = local[0] if local else unquote(parts.path)
    return path.lstrip("/") if local or not parts.scheme else path.rsplit("/", 1)[-1]


def _find(index: ImageIndex, name: str, path: Path, split: str) -> Path:
    """Return the image: by the name of the task, by its last part, or by that without the mark of an upload."""
    last = name.rsplit("/", 1)[-1]
    uploaded = _UPLOADED.fullmatch(last)
    found = index.find(name, path, split=split)
    for other in (last, uploaded[1] if uploaded else last):
        # os.path, because Path raises OSError for a name that is too long.
        if os.path.exists(found):
            break
        found = index.find(other, path, split=split)
    return found
