"""Speed of `pixelwise check`: its pass over a dataset against bare decoding of the same files, in one run.

    python -m benchmarks.check [--images 48] [--suffix .png] [--rounds 5] [--no-classes] [--target folder]

Makes a set like Cityscapes: images of 1024x2048 with the texture of photos, and index PNG masks of a hundred polygons
of 19 classes and ignored pixels; `--target` writes it in another format, such as coco or labelme. Both sides take as
many threads as there are cores. Bare decoding reads every image and mask once, as `images.read_image` and `read_mask`
do; of polygons it reads the images alone. The pass is all that the command does: it opens the folder, reads it, and
judges what it found. Rounds alternate, so that other load on the machine affects both; the ratios are those of the
medians. The shapes of the classes are looked at in 24 masks per split, so a second line leaves them out: it is what an
image more costs in a large set.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelwise.core import Taxonomy
from pixelwise.data import counts, diagnose, open_dataset
from pixelwise.data.conversion import convert_dataset
from pixelwise.data.dataset import Dataset
from pixelwise.files import write_text
from pixelwise.images import read_image, read_mask, write_image, write_mask
from pixelwise.strict_yaml import to_yaml

HEIGHT, WIDTH, NUM_CLASSES = 1024, 2048, 19


def main() -> None:
    """Print the seconds of both sides per image, by the clock and of the processor, and the ratios."""
    parser = argparse.ArgumentParser(description="Speed of `pixelwise check` against bare decoding.")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--suffix", choices=(".png", ".jpg"), default=".png")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-classes", action="store_true", help="without classes.yaml")
    parser.add_argument("--target", default="folder", help="format of the set, as `pixelwise convert --to` takes it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = make_set(Path(name), arguments.images, arguments.suffix, arguments.target)
        if arguments.no_classes:
            (folder / "classes.yaml").unlink()
        dataset = open_dataset(folder, check=False)
        sides: dict[str, Callable[[], object]] = {
            "bare decoding": lambda: decode_all(dataset),
            "check": lambda: diagnose(open_dataset(folder, check=False)),
            "check without shapes": lambda: diagnose_without_shapes(folder),
        }
        seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(arguments.rounds):
            for side, run in sides.items():
                seconds[side].append(timed(run))
    settings = f"{arguments.images} images {arguments.suffix} of {HEIGHT}x{WIDTH}, {arguments.target}"
    print(f"{settings}{', no classes.yaml' if arguments.no_classes else ''}, {arguments.rounds} rounds")
    medians = {side: [statistics.median(times) for times in zip(*runs, strict=True)] for side, runs in seconds.items()}
    first = medians["bare decoding"]
    for side, (wall, cpu) in medians.items():
        each = f"{1000 * wall / arguments.images:7.1f} ms, {1000 * cpu / arguments.images:7.1f} cpu-ms per image"
        print(f"{side:21s}{each}, ratio {wall / first[0]:.2f}, of the processor's seconds {cpu / first[1]:.2f}")


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a function takes: by the clock, of the processor."""
    started = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def decode_all(dataset: Dataset) -> None:
    """Decode every image and mask file once, on as many threads as the pass has."""
    items = [item for split in dataset.splits.values() for item in split.items]

    def decode_one(number: int) -> None:
        item = items[number]
        read_image(item.image)
        if item.mask is not None and item.drawing is None:
            read_mask(item.mask)

    with ThreadPoolExecutor() as executor:
        list(executor.map(decode_one, range(len(items))))


def diagnose_without_shapes(folder: Path) -> None:
    """Run the pass with a single mask per split whose shapes are looked at."""
    before, counts._MAX_SHAPES = counts._MAX_SHAPES, 1
    try:
        diagnose(open_dataset(folder, check=False))
    finally:
        counts._MAX_SHAPES = before


def make_set(folder: Path, num_images: int, suffix: str, target: str) -> Path:
    """Write the set below a folder, three quarters of it as train, and return its own folder."""
    rng = np.random.default_rng(0)
    taxonomy = Taxonomy(tuple(f"class {k}" for k in range(NUM_CLASSES)))
    source = folder / "folder"
    for number in range(num_images):
        split = "val" if number % 4 == 3 else "train"
        mask = draw_mask(rng)
        for kind in ("images", "masks"):
            (source / kind / split).mkdir(parents=True, exist_ok=True)
        write_image(source / "images" / split / f"{number:06d}{suffix}", draw_image(mask, rng))
        values = taxonomy.decode(mask, 255)
        write_mask(source / "masks" / split / f"{number:06d}.png", values, palette=taxonomy.palette("value"))
    write_text(source / "classes.yaml", to_yaml(taxonomy.to_dict()))
    if target == "folder":
        return source
    convert_dataset(open_dataset(source), target, folder / target, link=True)
    return folder / target


def draw_mask(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a mask of a hundred polygons: large ones first, then small ones in rows, and ignored pixels."""
    mask = np.full((HEIGHT, WIDTH), 0, np.uint8)
    for number in range(100):
        radius = max(8.0, rng.uniform(200, 500) * 0.96**number)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(8, 40)))
        around = radius * rng.uniform(0.6, 1, len(angles))
        center = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        points = np.stack([center[0] + around * np.cos(angles), center[1] + around * np.sin(angles)], 1)
        label = 255 if number % 12 == 11 else int(rng.integers(0, NUM_CLASSES))
        cv2.fillPoly(mask, [points.astype(np.int32)], label)
    return mask


def draw_image(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return an image of a color per class with light, texture and noise, as large as photos are when compressed."""
    colors = rng.integers(30, 220, (256, 3)).astype(np.float32)
    light: Any = cv2.resize(rng.normal(0, 20, (8, 16, 1)).astype(np.float32), (WIDTH, HEIGHT))
    texture: Any = cv2.resize(rng.normal(0, 6, (HEIGHT // 4, WIDTH // 4)).astype(np.float32), (WIDTH, HEIGHT))
    noise = rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    blurred: Any = cv2.GaussianBlur(colors[mask], (0, 0), 1.5)
    image: NDArray[np.uint8] = np.clip(blurred + (light + texture + noise)[..., None], 0, 255).astype(np.uint8)
    return image


if __name__ == "__main__":
    main()
