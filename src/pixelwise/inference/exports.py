"""Labels for other programs: polygons per image as GeoJSON, and files over all images: COCO, shares, a submission.

    NAME.geojson             one feature per class and connected part, along the edges of pixels: x right, y down
    predictions.coco.json    images, categories, and one run-length encoding per class and image
    class_shares.csv         one row per image, one column per class: its share of the pixels, 0 to 1
    submission.csv           ImageId, ClassId (the number in mask files), EncodedPixels ("start length ...", down the
                             columns from 1, as Kaggle counts, or along the rows); a row per image and class, empty
                             where it is absent

Background is the rest of an image: it has a column of shares, but neither shapes nor rows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..core import Prediction, Taxonomy
from ..data.shapes.fill import crop
from ..data.shapes.outlines import outlines
from ..data.shapes.run_lengths import encode_coco, encode_submission
from ..errors import InputError
from ..files import write_text
from ..images import read_mask
from .jobs import Job

COCO, SHARES, SUBMISSION = "predictions.coco.json", "class_shares.csv", "submission.csv"


def export_files(out: Path, *, coco: bool, shares: bool, submission: bool) -> list[Path]:
    """Return the files over all images that were asked for."""
    return [out / name for name, is_wanted in ((COCO, coco), (SHARES, shares), (SUBMISSION, submission)) if is_wanted]


def class_regions(mask: NDArray[Any], taxonomy: Taxonomy) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield class id and pixels (H, W) of each class but the background, also of those that are absent."""
    for k in range(taxonomy.num_classes):
        if k not in taxonomy.background:
            yield k, mask[k] > 0 if taxonomy.multilabel else mask == k


def write_geojson(path: Path, prediction: Prediction) -> None:
    """Write the polygons of an image: `class`, `value` and `pixels` of each connected part, holes included."""
    taxonomy = prediction.taxonomy
    features = []
    for k, region in class_regions(prediction.mask, taxonomy):
        for part in outlines(region):
            # GeoJSON repeats the first corner at the end.
            rings = [[list(corner) for corner in (*ring, ring[0])] for ring in (part.exterior, *part.holes)]
            features.append(
                {
                    "type": "Feature",
                    "properties": {"class": taxonomy.names[k], "value": taxonomy.values[k], "pixels": _area(rings)},
                    "geometry": {"type": "Polygon", "coordinates": rings},
                }
            )
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}))


def _area(rings: Sequence[Sequence[Sequence[int]]]) -> int:
    """Return the area of a polygon with holes, by Gauss's formula: the rim turns right on the screen, holes left."""
    return sum(x0 * y1 - x1 * y0 for ring in rings for (x0, y0), (x1, y1) in pairwise(ring)) // 2


@dataclass
class Exports:
    """The files over all images that were asked for; `add` takes an image, `write` writes them, each whole.

    taxonomy          the classes
    files             those of `export_files`, in this order
    submission_order  of the pixels in the submission: down the columns, or along the rows
    """

    taxonomy: Taxonomy
    files: Sequence[Path]
    submission_order: Literal["columns", "rows"] = "columns"
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, job: Job, prediction: Prediction) -> None:
        """Keep what the files need of one image, packed."""
        if self.files:
            self._add(job, prediction.mask)

    def _add(self, job: Job, mask: NDArray[Any]) -> None:
        size = int(mask.shape[-2]), int(mask.shape[-1])
        row: dict[str, Any] = {"name": job.name, "file": job.source.name, "size": size}
        names = {path.name for path in self.files}
        if SHARES in names:
            planes = mask if self.taxonomy.multilabel else (mask == k for k in range(self.taxonomy.num_classes))
            row["shares"] = [float(np.count_nonzero(plane)) / (size[0] * size[1]) for plane in planes]
        if names - {SHARES}:
            order = self.submission_order
            row["regions"] = [_encoded(k, region, order) for k, region in class_regions(mask, self.taxonomy)]
        self._rows[job.name] = row

    def write(self, jobs: Sequence[Job], labeled: Sequence[Job]) -> None:
        """Write the files, images in the order of the jobs, and print their names.

        labeled  the jobs of this run; the masks of the others, which --resume has skipped, are read from their files
        Raises InputError for a mask that is not one of these classes.
        """
        done_now = set(labeled)
        for job in jobs:
            if job not in done_now:
                self._add_done(job)
        rows = [self._rows[job.name] for job in jobs if job.name in self._rows]
        content = {COCO: self._coco, SHARES: self._shares, SUBMISSION: self._submission}
        for path in self.files:
            write_text(path, content[path.name](rows))
        if self.files:
            print(f"written over all images: {', '.join(map(str, self.files))}")

    def _add_done(self, job: Job) -> None:
        if self.taxonomy.multilabel:
            what = "cannot be read back where pixels have several labels"
            raise InputError(job.mask, what, "write --overwrite in place of --resume")
        self._add(job, self.taxonomy.encode(read_mask(job.mask), job.mask))

    def _coco(self, rows: list[dict[str, Any]]) -> str:
        objects = [k for k in range(self.taxonomy.num_classes) if k not in self.taxonomy.background]
        ids = {k: number for number, k in enumerate(objects, 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, row in enumerate(rows, 1):
            height, width = row["size"]
            images.append({"id": image_id, "file_name": row["file"], "height": height, "width": width})
            for region in row["regions"]:
                if region["area"]:
                    rle = {"size": list(row["size"]), "counts": region["counts"]}
                    annotations.append(
                        {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[region["class"]]}
                        | {"segmentation": rle, "area": region["area"], "bbox": region["box"], "iscrowd": 0}
                    )
        categories = [{"id": ids[k], "name": self.taxonomy.names[k]} for k in objects]
        return json.dumps({"images": images, "annotations": annotations, "categories": categories})

    def _shares(self, rows: list[dict[str, Any]]) -> str:
        return _csv([["image", *self.taxonomy.names], *([row["name"], *row["shares"]] for row in rows)])

    def _submission(self, rows: list[dict[str, Any]]) -> str:
        lines: list[list[Any]] = [["ImageId", "ClassId", "EncodedPixels"]]
        for row in rows:
            lines += [[row["name"], self.taxonomy.values[r["class"]], r["runs"]] for r in row["regions"]]
        return _csv(lines)


def _encoded(k: int, region: NDArray[np.bool_], order: Literal["columns", "rows"]) -> dict[str, Any]:
    """Return the region of class k as run lengths, packed for COCO and spelled out, with its area and its box."""
    top, left, pixels = crop(region)
    return {
        "class": k,
        "counts": encode_coco(region)["counts"],
        "runs": encode_submission(region if order == "columns" else region.T),
        "area": int(np.count_nonzero(region)),
        "box": [left, top, pixels.shape[1], pixels.shape[0]],
    }


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
