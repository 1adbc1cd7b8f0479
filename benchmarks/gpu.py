"""Labeling and training on a GPU, pixelwise beside plain torch: everything in one call of a few minutes.

    python -m benchmarks.gpu [--minutes 8] [--device cuda] [--batch 8] [--rounds 5]
    python -m benchmarks.gpu --device cpu --tiny --sizes 64x64 --batch 2 --rounds 1      # tries the script itself

label   one image from uint8 pixels in the host's memory to labels in the host's memory
train   steps of AdamW on batches of the first size: the loop of `benchmarks.training` in float32, and the Trainer

Plain is what a user of torch writes: float32, contiguous, full logits, `argmax`; torchvision's network runs like that
by default, and `torchvision_deeplabv3_resnet50` is equal to it, bit by bit. Ours is bfloat16, channels_last, the argmax
in blocks. Rounds alternate, milliseconds are medians by the clock, after a round that is not counted. Rows that do not
fit into --minutes are named and left out; rows without memory for them too.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from pixelwise.core import Taxonomy
from pixelwise.errors import size_text
from pixelwise.inference.device import find_device
from pixelwise.inference.segmenter import Segmenter
from pixelwise.models import create_model
from pixelwise.models.base import SegmentationModel
from pixelwise.train.callbacks import silence_lightning
from pixelwise.weights.checkpoint import Checkpoint

from .training import random_batch, time_engine, time_plain

NUM_CLASSES = 21
NETWORKS = ("torchvision_deeplabv3_resnet50", "deeplabv3plus_xception65", "fcn8s_vgg16", "unet")
STEPS = 6


def main() -> None:
    """Print a row per network, size and task."""
    parser = argparse.ArgumentParser(description="Labeling and training on a GPU beside plain torch.")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", default=["512x512", "1024x2048"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="narrow networks, to try the script")
    arguments = parser.parse_args()
    silence_lightning()
    device = find_device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, batches of {arguments.batch}, {arguments.rounds} rounds")
    print(f"{'':52s} plain, ms  ours, ms  ratio")
    sizes = [(int(height), int(width)) for height, width in (size.split("x") for size in arguments.sizes)]
    end = time.monotonic() + 60 * arguments.minutes
    for network in NETWORKS:
        torch.manual_seed(0)
        model = create_model(network, NUM_CLASSES, tiny=arguments.tiny)
        rows: dict[str, Callable[[], dict[str, Callable[[], float]]]] = {
            f"label {network} {size_text(size)}": lambda size=size, model=model: labeling(model, size, device)  # type: ignore[misc]
            for size in sizes
        }
        rows[f"train {network} {size_text(sizes[0])}"] = lambda model=model: training(  # type: ignore[misc]
            model, sizes[0], arguments.batch, device
        )
        for title, make in rows.items():
            if time.monotonic() > end:
                print(f"{title:52s} left out: {arguments.minutes:g} minutes are over")
                continue
            try:
                print_row(title, alternate(make(), arguments.rounds))
            except torch.OutOfMemoryError:
                print(f"{title:52s} left out: not enough memory on the device")


def labeling(model: SegmentationModel, size: tuple[int, int], device: torch.device) -> dict[str, Callable[[], float]]:
    """Return functions that label an image of random pixels and return their seconds."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    taxonomy = Taxonomy(tuple(f"class {k}" for k in range(NUM_CLASSES)))
    plain = copy.deepcopy(model).eval().to(device)
    checkpoint = Checkpoint(copy.deepcopy(model).eval(), taxonomy)
    segmenter = Segmenter(checkpoint, "random", device=str(device), precision="bfloat16")

    def label_plainly() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            images = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device)
            plain(images).logits.argmax(1)[0].cpu().numpy()
        return time.perf_counter() - started

    def label() -> float:
        started = time.perf_counter()
        segmenter(image)
        return time.perf_counter() - started

    return {"plain": label_plainly, "ours": label}


def training(
    model: SegmentationModel, size: tuple[int, int], batch: int, device: torch.device
) -> dict[str, Callable[[], float]]:
    """Return functions that train for `STEPS` steps on random pixels and return the seconds of one."""
    batches = [random_batch(batch, *size, num_classes=NUM_CLASSES) for _ in range(STEPS)]
    return {
        "plain": lambda: time_plain(copy.deepcopy(model), batches, device=device.type) / STEPS,
        "ours": lambda: time_engine(copy.deepcopy(model), batches, "bfloat16", device=device.type) / STEPS,
    }


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each side, after a round that is not counted."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds + 1):
        for side, function in sides.items():
            spent = function()
            if number:
                seconds[side].append(spent)
    return {side: statistics.median(times) for side, times in seconds.items()}


def print_row(title: str, seconds: Mapping[str, float]) -> None:
    """Print milliseconds and their ratio."""
    plain, ours = seconds["plain"], seconds["ours"]
    print(f"{title:52s} {1000 * plain:9.1f} {1000 * ours:9.1f} {plain / ours:6.2f}", flush=True)


if __name__ == "__main__":
    main()
