"""The best and the worst images of an evaluation as thumbnails (image, truth, prediction), in a run's `samples/`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..core import Prediction, drawn_labels
from ..data.dataset import Split
from ..errors import ConfigError, cut, shown
from ..evaluation.result import ImageScore
from ..files import make_folder, read_json, read_regular, write_bytes, write_text

THUMBNAIL = 240
"""Longest side in pixels."""

_INDEX = "examples.json"
# The three thumbnails of an example and their file types. Masks stay PNG: JPEG would mix the colors of the classes.
_THUMBNAILS = {"image": "jpg", "truth": "png", "prediction": "png"}


@dataclass(frozen=True)
class Example:
    """One image of the sheet: its scores, whether it is one of the best, and its thumbnails as file contents.

    image (JPEG), truth, prediction (PNG): at most 240 pixels per side; ignored pixels have the taxonomy's ignore color.
    """

    score: ImageScore
    is_best: bool
    image: bytes
    truth: bytes
    prediction: bytes


@dataclass(frozen=True)
class ExampleSheet:
    """The examples, worst first, and the color of each class as (name, "#rrggbb")."""

    examples: tuple[Example, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def collect_examples(
    segmenter: Callable[[NDArray[Any]], Prediction], split: Split, *, scores: Sequence[ImageScore], num: int = 4
) -> ExampleSheet:
    """Label the `num` worst and the `num` best images again, ranked by mean IoU, and keep thumbnails of them."""
    ranked = sorted((row for row in scores if row.mean_iou is not None), key=lambda row: (row.mean_iou, row.key))
    # Of fewer than 2 * num images, each is shown once.
    worst = ranked[: min(num, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][-num:]
    index = {item.key: position for position, item in enumerate(split.items)}
    taxonomy = split.taxonomy.for_figures()
    palette = taxonomy.palette()
    examples = []
    for row in (*worst, *best):
        sample = split[index[row.key]]
        assert sample.mask is not None, "only images with truth have a score"
        truth, prediction = (
            palette[_shrink(drawn_labels(mask, taxonomy), cv2.INTER_NEAREST_EXACT)]
            for mask in (sample.mask, segmenter(sample.image).mask)
        )
        image = _shrink(split.pixels.to_rgb(sample.image), cv2.INTER_AREA)
        examples.append(
            Example(
                row,
                row in best,
                image=_encode(image, "JPEG", quality=85),
                truth=_encode(truth, "PNG", optimize=True),
                prediction=_encode(prediction, "PNG", optimize=True),
            )
        )
    colors = ("#{:02x}{:02x}{:02x}".format(*color) for color in taxonomy.colors)
    return ExampleSheet(tuple(examples), tuple(zip(taxonomy.names, colors, strict=True)))


def write_examples(folder: str | Path, sheet: ExampleSheet) -> None:
    """Write the thumbnails and `examples.json` into `folder`, a run's `samples/`."""
    folder = make_folder(folder)
    rows = []
    for number, example in enumerate(sheet.examples):
        for name in _THUMBNAILS:
            write_bytes(_file(folder, number, name), getattr(example, name))
        rows.append({"is_best": example.is_best, "score": example.score._asdict()})
    # The list is written last, so that every file it names exists.
    text = json.dumps({"legend": sheet.legend, "examples": rows}, indent=1, ensure_ascii=False)
    write_text(folder / _INDEX, text + "\n")


def read_examples(folder: str | Path) -> ExampleSheet:
    """Read the files of `write_examples`; an empty sheet if there are none. Raises ConfigError for a damaged folder."""
    folder = Path(folder)
    if not (folder / _INDEX).exists():
        return ExampleSheet()
    try:
        data = read_json(folder / _INDEX)
        examples = []
        for number, row in enumerate(data["examples"]):
            thumbnails = {name: read_regular(_file(folder, number, name)) for name in _THUMBNAILS}
            examples.append(Example(ImageScore.from_dict(row["score"]), bool(row["is_best"]), **thumbnails))
        legend = tuple((str(name), _checked_color(color)) for name, color in data["legend"])
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"is not a list of examples: {type(error).__name__} {cut(error)}"
        raise ConfigError(folder / _INDEX, what, "remove the folder; the report does without it") from None
    return ExampleSheet(tuple(examples), legend)


def _checked_color(text: str) -> str:
    # Only a color may reach the styles of the page.
    if not re.fullmatch(r"#[0-9a-f]{6}", text):
        raise ValueError(f"expected a color #rrggbb, got {shown(text)}")
    return text


def _file(folder: Path, number: int, name: str) -> Path:
    """Return a thumbnail's file: numbered, because a key may hold characters that a file name may not."""
    return folder / f"{number:02d}_{name}.{_THUMBNAILS[name]}"


def _shrink(pixels: NDArray[Any], interpolation: int) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation))


def _encode(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
