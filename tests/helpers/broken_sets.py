"""Datasets that are wrong in one way each, made from a clean one whose labels are known."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("ground", "disc", "bar")
SIZE = (96, 128)
Mask = NDArray[np.uint8]


@dataclass
class MadeSet:
    """A dataset in the folder format and its labels by "split/key".

    broken  keys of the files that a fault is in
    """

    root: Path
    truth: dict[str, Mask]
    broken: set[str] = field(default_factory=set)

    def image(self, key: str) -> Path:
        return self.root / "images" / f"{key}.png"

    def mask(self, key: str) -> Path:
        return self.root / "masks" / f"{key}.png"

    def keys(self, split: str = "") -> list[str]:
        return [key for key in self.truth if key.startswith(split)]


def scene(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Smooth noise of several sizes, as the light and dark parts of a photo."""
    rng = np.random.default_rng(seed)
    total = np.zeros((*size, 3))
    for cell in (4, 8, 16):
        noise = rng.normal(size=(size[0] // cell + 1, size[1] // cell + 1, 3)).astype(np.float32)
        total += cell * cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 8 * total, 0, 255).astype(np.uint8)


def labels(seed: int, size: tuple[int, int] = SIZE) -> Mask:
    """A disc and a bar on a ground."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (int(rng.integers(50, 90)), int(rng.integers(30, 60))), int(rng.integers(14, 22)), 1, -1)
    mask[:, : int(rng.integers(16, 30))] = 2
    return mask


def clean_set(root: Path, values: tuple[int, ...] = (0, 1, 2), classes: str | None = "names") -> MadeSet:
    """Six images in train, two in val, two in test; masks hold `values` for ground, disc and bar.

    classes  text of classes.yaml; "names" for the names with the values, None for no such file
    """
    made = MadeSet(root, {})
    table = np.array(values, np.uint8)
    for split, count in (("train", 6), ("val", 2), ("test", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            key, seed = f"{split}/{split[0]}{number}", len(made.truth)
            made.truth[key] = labels(seed)
            Image.fromarray(scene(seed)).save(made.image(key))
            Image.fromarray(table[made.truth[key]]).save(made.mask(key))
    rows = ", ".join(f"{{name: {name}, value: {value}}}" for name, value in zip(NAMES, values, strict=True))
    if classes is not None:
        (root / "classes.yaml").write_text(f"classes: [{rows}]\n" if classes == "names" else classes)
    return made


def rewrite(made: MadeSet, keys: list[str], change: Callable[[Mask], NDArray[np.uint8]]) -> None:
    """Replace the masks of some keys by what `change` makes of their labels."""
    made.broken |= set(keys)
    for key in keys:
        Image.fromarray(change(made.truth[key])).save(made.mask(key))


def as_jpeg(pixels: NDArray[np.uint8], quality: int = 75) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def with_orientation(pixels: NDArray[np.uint8], orientation: int) -> bytes:
    """A JPEG whose EXIF tag says how a viewer turns it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()
