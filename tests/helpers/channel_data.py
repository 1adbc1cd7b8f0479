"""Small made datasets whose images are not ordinary ones: five channels of 12 bits in TIFF, color with depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from helpers.tiny_data import NAMES, make_image, write_dataset

BANDS = ("blue", "green", "red", "red_edge", "nir")
CLASSES = "classes: [" + ", ".join(NAMES) + "]\n"
FIVE_CHANNELS = f"{CLASSES}images: {{channels: [{', '.join(BANDS)}], bits: 12}}\n"
COLOR_DEPTH = f"""{CLASSES}images:
  parts:
    - {{channels: [red, green, blue]}}
    - {{channels: [depth], bits: 16, folder: depth}}
"""


def five_channels(seed: int, size: tuple[int, int] = (32, 48)) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Image (H, W, 5) of 12 bits and mask (H, W): blue, green, red of `make_image`, and two that tell the classes."""
    image, mask = make_image(seed, size)
    rng = np.random.default_rng(seed)
    further = np.array([[500, 1000], [3000, 800], [900, 3600], *[[0, 0]] * 253], np.int64)[mask]
    further += rng.integers(0, 300, (*size, 2))
    return np.dstack([image[..., ::-1].astype(np.uint16) * 12, further.astype(np.uint16)]), mask


def write_five_channels(folder: Path, num_train: int = 4, num_val: int = 2, classes: str = FIVE_CHANNELS) -> Path:
    """images/{train,val}/*.tif of five samples per pixel with 12 of 16 bits, masks, classes.yaml."""
    for split, count, seed in (("train", num_train, 0), ("val", num_val, 100)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = five_channels(seed + number)
            path = folder / "images" / split / f"p{number}.tif"
            tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
            Image.fromarray(mask).save(folder / "masks" / split / f"p{number}.png")
    (folder / "classes.yaml").write_text(classes)
    return folder


def write_color_depth(folder: Path, num_train: int = 4, num_val: int = 2) -> Path:
    """images/{train,val}/*.jpg, depth/{train,val}/*.png of 16 bits (millimeters), masks, classes.yaml."""
    for split, count, seed in (("train", num_train, 0), ("val", num_val, 100)):
        for kind in ("images", "depth", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = make_image(seed + number, (32, 48))
            depth = np.array([4000, 1500, 2500, *[9000] * 253], np.uint16)[mask]
            Image.fromarray(image).save(folder / "images" / split / f"p{number}.jpg", quality=95)
            Image.fromarray(depth).save(folder / "depth" / split / f"p{number}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"p{number}.png")
    (folder / "classes.yaml").write_text(COLOR_DEPTH)
    return folder


def write_two_maps(folder: Path, num_train: int = 4, num_val: int = 2) -> Path:
    """The dataset of `tiny_data` with a second label map: left, middle or right third of the image, in geometry/."""
    write_dataset(folder, num_train, num_val)
    for path in (folder / "masks").rglob("*.png"):
        place = folder / "geometry" / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        thirds = np.broadcast_to(np.arange(48, dtype=np.uint8) // 16, (32, 48)).copy()
        thirds[:2] = 255
        Image.fromarray(thirds).save(place)
    (folder / "classes.yaml").write_text(f"{CLASSES}second: {{folder: geometry, classes: [left, middle, right]}}\n")
    return folder
