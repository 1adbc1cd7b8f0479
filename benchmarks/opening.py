"""What a folder of thousands of images costs before the first one is decoded: listing it, opening it, planning labels.

    python -m benchmarks.opening [--images 20000] [--rounds 5]

Makes images of 48x64 with masks in subfolders, as images/SPLIT/DRIVE/NAME.jpg and masks/SPLIT/DRIVE/NAME.png. The least
of the processor seconds of `--rounds` rounds is printed, which other load on the machine changes least.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixelwise.data import open_dataset
from pixelwise.files import write_text
from pixelwise.images import list_images, write_image, write_mask
from pixelwise.inference.jobs import plan

PER_FOLDER = 500


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Processor seconds of listing and opening thousands of images.")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = make_set(Path(name, "data"), arguments.images)
        made = Path(name, "made")
        made.mkdir()
        tasks: dict[str, Callable[[], object]] = {
            "list the images": lambda: list_images(folder / "images"),
            "open the dataset, unchecked": lambda: open_dataset(folder, check=False),
            "open the dataset": lambda: open_dataset(folder),
            "plan labels into a new folder": lambda: plan([folder / "images"], Path(name, "new"), [".png"]),
            "plan labels into a folder that exists": lambda: plan([folder / "images"], made, [".png"]),
        }
        print(f"{arguments.images} images of 48x64 with masks, {PER_FOLDER} per folder, {arguments.rounds} rounds")
        for task, run in tasks.items():
            print(f"{min(seconds_of(run) for _ in range(arguments.rounds)):.2f} cpu-s  {task}", flush=True)


def make_set(folder: Path, count: int) -> Path:
    """Write the set, four fifths of it as train, and return its folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = Path("val" if number % 5 == 4 else "train", f"drive{number // PER_FOLDER:03d}", f"{number:06d}")
        image, mask = (folder / kind / place.with_suffix(end) for kind, end in (("images", ".jpg"), ("masks", ".png")))
        if number < 1:
            image.parent.mkdir(parents=True)
            mask.parent.mkdir(parents=True)
            write_image(image, rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
            write_mask(mask, rng.integers(0, 3, (48, 64)).astype(np.uint8))
            contents = image.read_bytes(), mask.read_bytes()
        for path, content in zip((image, mask), contents, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    write_text(folder / "classes.yaml", "classes: [sky, road, car]\n")
    return folder


def seconds_of(run: Callable[[], object]) -> float:
    """Return the processor seconds of a function."""
    started = time.process_time()
    run()
    return time.process_time() - started


if __name__ == "__main__":
    main()
