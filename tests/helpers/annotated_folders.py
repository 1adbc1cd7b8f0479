"""Small folders as annotation programs leave them: images of one color, JSON, and the mask that is read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.data import open_dataset

HEIGHT, WIDTH = 20, 30


def make_photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write an image of one color."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Splits must not share an image.
    Image.new("RGB", size, (sum(str(path).encode()) % 256, 80, 70)).save(path)
    return path


def write_content(path: Path, data: Any) -> Path:
    """Write text, or data as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def read_mask_of(root: Path, split: str = "train", index: int = 0) -> np.ndarray:
    """Return the mask (H, W) of class ids of one image of a dataset."""
    mask = open_dataset(root).split(split)[index].mask
    assert mask is not None
    return mask
