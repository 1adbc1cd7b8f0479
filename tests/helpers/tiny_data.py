"""A dataset of small made images in the folder format, and settings that make a run of it take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelwise.config import Config

NAMES = ("ground", "disc", "bar")
TINY_COMPACT: dict[str, Any] = {
    "backbone_options": {"channels": [8, 8, 8, 8], "num_blocks": [1, 1], "dilations": [1]},
    "atrous_rates": [2],
    "decoder_channels": [8, 4, 4],
}
TINY_FCN: dict[str, Any] = {"width_mult": 0.0625, "geometry": "same"}


def write_dataset(folder: Path, num_train: int = 7, num_val: int = 3, size: tuple[int, int] = (32, 48)) -> Path:
    """images/{train,val}, masks/{train,val}, classes.yaml: a disc and a bar on a ground, a strip of void."""
    for split, count, seed in (("train", num_train, 0), ("val", num_val, 100)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, mask = make_image(seed + number, size)
            Image.fromarray(image).save(folder / "images" / split / f"p{number}.png")
            Image.fromarray(mask).save(folder / "masks" / split / f"p{number}.png")
    (folder / "classes.yaml").write_text("classes: [" + ", ".join(NAMES) + "]\n")
    return folder


def make_image(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) and mask (H, W) of classes 0..2 and 255."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    center = rng.uniform(0.3, 0.7, 2) * size
    mask[(rows - center[0]) ** 2 + (columns - center[1]) ** 2 < (min(size) / 4) ** 2] = 1
    mask[:, : size[1] // 6] = 2
    image = rng.integers(0, 60, (*size, 3)) + np.array([[90, 90, 90], [180, 60, 40], [30, 60, 180]])[mask]
    mask[-2:] = 255
    return image.astype(np.uint8), mask


def tiny_config(folder: Path, **sections: dict[str, Any]) -> Config:
    """Six steps of a tiny network on crops of 32 x 48; sections change it."""
    base: dict[str, Any] = {
        "data": {"path": str(folder), "batch_size": 2, "workers": 0},
        "augment": {"crop": [32, 48]},
        "model": {"name": "compact", "options": TINY_COMPACT},
        "train": {
            "steps": 6,
            "validate_every": 3,
            "save_every": 2,
            "log_every": 1,
            "precision": "float32",
            "device": "cpu",
        },
    }
    for section, values in sections.items():
        base[section] = {**base.get(section, {}), **values}
    return Config().updated(base)
