"""The best and the worst images of an evaluation as thumbnails: image, truth, prediction. Kept in a run's `samples/`."""

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

from ..core import Prediction, Taxonomy
from ..data.dataset import Split
from ..errors import ConfigError
from ..evaluation.evaluator import ImageScore
from ..files import make_folder, write_bytes, write_text

THUMBNAIL = 240  # longest side in pixels

_INDEX = "examples.json"
# What an image shows, and the end of its file's name. Masks stay PNG: JPEG would blur the classes' colours together.
_IMAGES = {"image": "jpg", "truth": "png", "prediction": "png"}


@dataclass(frozen=True)
class Example:
    """One image of the sheet: its scores, which end of the ranking it is from, and its images as file contents.

    image (JPEG), truth, prediction (PNG): at most 240 pixels a side; ignored pixels are black.
    """

    score: ImageScore
    is_best: bool
    image: bytes
    truth: bytes
    prediction: bytes


@dataclass(frozen=True)
class Sheet:
    """The examples, worst first, and the colour of each class as (name, "#rrggbb")."""

    examples: tuple[Example, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def collect_examples(
    segmenter: Callable[[NDArray[np.uint8]], Prediction], split: Split, rows: Sequence[ImageScore], num: int = 4
) -> Sheet:
    """Label the `num` worst and `num` best images of `rows` again, by mean IoU, and keep thumbnails of them."""
    ranked = sorted((row for row in rows if row.mean_iou is not None), key=lambda row: (row.mean_iou, row.key))
    worst = ranked[: min(num, (len(ranked) + 1) // 2)]
    best = ranked[len(worst) :][-num:]
    index = {item.key: position for position, item in enumerate(split.items)}
    examples = []
    for row in (*worst, *best):
        sample = split[index[row.key]]
        mask = segmenter(sample.image).mask
        assert sample.mask is not None, "only images with truth have a score"
        images = (
            _thumbnail(sample.image[..., :3], "image"),
            _thumbnail(split.taxonomy.palette()[_shrink(sample.mask, cv2.INTER_NEAREST_EXACT)], "truth"),
            _thumbnail(split.taxonomy.palette()[_shrink(mask, cv2.INTER_NEAREST_EXACT)], "prediction"),
        )
        examples.append(Example(row, row in best, *images))
    return Sheet(tuple(examples), _legend(split.taxonomy))


def write_examples(folder: str | Path, sheet: Sheet) -> None:
    """Write the images and `examples.json` into `folder`, a run's `samples/`."""
    folder = make_folder(folder)
    rows = []
    for number, example in enumerate(sheet.examples):
        for image in _IMAGES:
            write_bytes(_file(folder, number, image), getattr(example, image))
        rows.append({"is_best": example.is_best, "score": example.score._asdict()})
    # Last, so that what it lists is there.
    write_text(
        folder / _INDEX, json.dumps({"legend": sheet.legend, "examples": rows}, indent=1, ensure_ascii=False) + "\n"
    )


def read_examples(folder: str | Path) -> Sheet:
    """Read what `write_examples` wrote; an empty sheet where nothing was. Raises ConfigError for a damaged folder."""
    folder = Path(folder)
    if not (folder / _INDEX).exists():
        return Sheet()
    try:
        data = json.loads((folder / _INDEX).read_text("utf-8"))
        examples = tuple(_read_example(folder, number, row) for number, row in enumerate(data["examples"]))
        return Sheet(examples, tuple((str(name), _color(color)) for name, color in data["legend"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = f"is no list of examples: {type(error).__name__} {error}"
        raise ConfigError(folder / _INDEX, what, "remove the folder; the report does without it") from None


def _read_example(folder: Path, number: int, row: dict[str, Any]) -> Example:
    images = {image: _file(folder, number, image).read_bytes() for image in _IMAGES}
    return Example(ImageScore(**row["score"]), bool(row["is_best"]), **images)


def _color(text: str) -> str:
    """Nothing else than a colour may reach the page's styles."""
    if not re.fullmatch(r"#[0-9a-f]{6}", text):
        raise ValueError(f"colour {text!r}")
    return text


def _file(folder: Path, number: int, image: str) -> Path:
    """Numbered, since a key may hold characters that no file name may."""
    return folder / f"{number:02d}_{image}.{_IMAGES[image]}"


def _legend(taxonomy: Taxonomy) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, f"#{r:02x}{g:02x}{b:02x}") for name, (r, g, b) in zip(taxonomy.names, taxonomy.colors, strict=True)
    )


def _shrink(pixels: NDArray[Any], interpolation: int) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation))


def _thumbnail(pixels: NDArray[np.uint8], kind: str) -> bytes:
    file = BytesIO()
    image = Image.fromarray(_shrink(pixels, cv2.INTER_AREA))
    if _IMAGES[kind] == "jpg":
        image.save(file, "JPEG", quality=85)
    else:
        image.save(file, "PNG", optimize=True)
    return file.getvalue()
