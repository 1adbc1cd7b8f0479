"""Made images whose pixels may have several labels: a disc, a bar across it, and a frame that some lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("disc", "bar", "thin frame")
FILE_NAMES = ("disc", "bar", "thin_frame")


def make_overlap(seed: int, size: tuple[int, int] = (40, 48)) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return image (H, W, 3) and masks (3, H, W): each class shows in a channel of its own, where they overlap too."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    center = rng.uniform(0.35, 0.65, 2) * size
    masks = np.zeros((3, *size), bool)
    masks[0] = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < (min(size) / 3.5) ** 2
    top = int(center[0]) + int(rng.integers(-6, 3))
    masks[1, top : top + 8] = True
    if seed % 3:
        masks[2] = True
        masks[2, 4:-4, 4:-4] = False
    image = rng.integers(0, 50, (*size, 3)) + 150 * masks.transpose(1, 2, 0)
    return image.astype(np.uint8), masks


def write_overlaps(folder: Path, num_train: int = 5, num_val: int = 3, layout: str = "folder") -> Path:
    """Write images, masks and classes.yaml: a folder per image, the class as a suffix, or an array per image."""
    for split, count, first in (("train", num_train, 1), ("val", num_val, 101)):
        for number in range(count):
            image, masks = make_overlap(first + number)
            path = folder / "images" / split / f"p{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            target = folder / "masks" / split
            target.mkdir(parents=True, exist_ok=True)
            if layout == "array":
                np.save(target / f"p{number}.npy", masks)
                continue
            for name, mask in zip(FILE_NAMES, masks, strict=True):
                # An absent class has no file.
                if mask.any():
                    file = target / (f"p{number}/{name}.png" if layout == "folder" else f"p{number}_{name}.png")
                    file.parent.mkdir(exist_ok=True)
                    Image.fromarray(mask).save(file)
    (folder / "classes.yaml").write_text("kind: multilabel\nclasses: [" + ", ".join(NAMES) + "]\n")
    return folder
