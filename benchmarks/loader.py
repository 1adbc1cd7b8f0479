"""Speed of the training loader: images per processor second of one core, from files and from its cache.

    python -m benchmarks.loader DATA [--recipe compact_camvid] [--batches 40] [--rounds 5] [--profile]

It makes the batches of a training with the settings of a recipe, in this process and on one thread, as a worker makes
them: read or take from the cache, augment, paste classes, collate. Rounds alternate between the kinds; the median of
their processor seconds is printed. `--profile` prints where they go, function by function, in place of that.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from itertools import cycle, islice

import cv2
import torch

from pixelwise.config import Config
from pixelwise.data.loader import TrainLoader
from pixelwise.recipes import recipe_file
from pixelwise.train.build import make_loader, open_training_splits

MIB = {"from files": 0, "from its cache": 2048}


def main() -> None:
    """Print images per processor second."""
    parser = argparse.ArgumentParser(description="Images per processor second of the training loader.")
    parser.add_argument("data", help="folder of the dataset")
    parser.add_argument("--recipe", default="compact_camvid")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the seconds go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    config = Config.from_yaml(recipe_file(arguments.recipe)).updated(
        {"data": {"path": arguments.data, "workers": 0}, "train": {"steps": 10**6}}
    )
    split = open_training_splits(config.data).train
    loaders = {
        kind: make_loader(config.updated({"data": {"cache_mib": mib}}), split, fill=None) for kind, mib in MIB.items()
    }
    # Until every image has been drawn twice over, which fills the cache.
    seconds_of(loaders["from its cache"], 2 * len(split) // config.data.batch_size + 1)
    if arguments.profile:
        for kind, loader in loaders.items():
            with cProfile.Profile() as profile:
                seconds_of(loader, arguments.batches)
            print(kind)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return
    found: dict[str, list[float]] = {kind: [] for kind in loaders}
    for kind in islice(cycle(loaders), arguments.rounds * len(loaders)):
        found[kind].append(seconds_of(loaders[kind], arguments.batches))
    images = arguments.batches * config.data.batch_size
    crop = "x".join(map(str, config.augment.crop))
    print(f"{arguments.recipe}, {len(split)} images, crops of {crop}, {arguments.rounds} rounds of {images} images")
    for kind, times in found.items():
        median = statistics.median(times)
        print(f"{kind:15s} {images / median:6.1f} images per cpu-s, {1000 * median / images:5.2f} cpu-ms per image")


def seconds_of(loader: TrainLoader, batches: int) -> float:
    """Return the processor seconds of the first batches of a loader; they are the same ones in each round."""
    started = time.process_time()
    for _ in islice(loader, batches):
        pass
    return time.process_time() - started


if __name__ == "__main__":
    main()
