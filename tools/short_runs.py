"""Train every system for a few steps on small street scenes: does its loss fall, and what does it predict?

    python tools/short_runs.py CAMVID [SYSTEM ...]

Systems that have been trained already are skipped, so a stopped call resumes. The networks are narrowed (`width_mult`),
so the labels show that a system learns, not how good it can be. Writes runs/short/, docs/images/systems.jpg, and for
each system an image of the receptive field of its middle pixel, docs/images/systems/.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

import pixelwise
from pixelwise.config import Config
from pixelwise.data import open_dataset
from pixelwise.images import write_image
from pixelwise.images.legend import legend, legend_entries
from pixelwise.models import MODELS
from pixelwise.train.run import train
from pixelwise.visualization.explain import draw_receptive_field
from pixelwise.visualization.panels import Panel, contact_sheet, fit

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "short"
SIZE = (96, 128)
STEPS = 300
NUM_TRAIN, NUM_VAL = 96, 8
# The deeper networks of a family look like its first one; NOT_PHOTOS take more than one image and one mask.
TOO_ALIKE = (
    "fcn16s_a",
    "fcn16s_g",
    "fcn8s_al",
    "fcn8s_g",
    "7x7",
    "4x4",
    "v3_resnet101",
    "plus_resnet101",
    "cascade_resnet101",
    "pspnet_resnet101",
    "fcn_resnet101",
    "xception65",
    "xception71",
)
NOT_PHOTOS = ("fusion", "two_heads")
# Systems whose pages show the receptive field of the middle pixel.
SHOWN_FIELDS = (
    "fcn8s_vgg16",
    "unet",
    "deconvnet",
    "hypercolumns_vgg16",
    "frrn_a",
    "deeplabv1_largefov_vgg16",
    "deeplabv2_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3plus_xception41",
    "pspnet_resnet50",
)
PANEL = 256
# Other options where a quarter of the width is not possible, or too slow on two cores.
NARROW: dict[str, dict[str, Any]] = {
    "frrn_a": {"base_channels": 12, "residual_channels": 8},
    "frrn_b": {"base_channels": 12, "residual_channels": 8},
    "compact": {},
    "deconvnet": {"width_mult": 0.125},
    "hypercolumns_alexnet": {"width_mult": 0.25, "grid_size": 5},
}


def main() -> None:
    """Train the missing systems, then draw the sheet."""
    source, chosen = Path(sys.argv[1]), sys.argv[2:]
    data = small_copy(source, RUNS / "data")
    names = chosen or [name for name in MODELS if not any(word in name for word in TOO_ALIKE + NOT_PHOTOS)]
    for name in sorted(names):
        if not (RUNS / name / "checkpoints" / "last" / "config.json").exists():
            shutil.rmtree(RUNS / name, ignore_errors=True)
            run(name, data)
        print(f"{name}: loss {' -> '.join(f'{loss:.2f}' for loss in losses(name))}", flush=True)
        if name in SHOWN_FIELDS:
            draw_field(name, data)
    draw_sheet(sorted(names), data)


def small_copy(source: Path, folder: Path) -> Path:
    """Write evenly chosen images of both splits, resized to SIZE, in the folder format."""
    if (folder / "classes.yaml").exists():
        return folder
    dataset = open_dataset(source)
    for split_name, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        split = dataset.split(split_name)
        for kind in ("images", "masks"):
            (folder / kind / split_name).mkdir(parents=True, exist_ok=True)
        for index in np.linspace(0, len(split) - 1, count).astype(int):
            sample = split[int(index)]
            image = cv2.resize(sample.image, SIZE[::-1], interpolation=cv2.INTER_AREA)
            mask = cv2.resize(np.asarray(sample.mask), SIZE[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            Image.fromarray(image).save(folder / "images" / split_name / f"{sample.key}.png")
            Image.fromarray(mask).save(folder / "masks" / split_name / f"{sample.key}.png")
    taxonomy = dataset.taxonomy
    classes = [{"name": n, "color": list(c)} for n, c in zip(taxonomy.names, taxonomy.colors, strict=True)]
    (folder / "classes.yaml").write_text(yaml.safe_dump({"classes": classes, "ignore": [255]}))
    return folder


def options(name: str) -> dict[str, Any]:
    """Return the options that narrow a system to a quarter of its channels."""
    found: dict[str, Any] = dict(NARROW.get(name, {"width_mult": 0.25}))
    if "geometry" in MODELS[name].options:
        found |= {"geometry": "same", "batch_norm": "vgg" in name}
    return {key: value for key, value in found.items() if key in MODELS[name].options}


def run(name: str, data: Path) -> None:
    """Train a system for STEPS steps."""
    config = Config().updated(
        {
            "data": {"path": str(data), "batch_size": 4, "workers": 0},
            "model": {"name": name, "options": options(name)},
            "augment": {"crop": list(SIZE), "scale": [1.0, 1.5], "flip": 0.5},
            "optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 0.01, "schedule": "poly", "warmup_steps": 10},
            "train": {"steps": STEPS, "validate_every": STEPS, "save_every": STEPS, "log_every": 5, "ema": 0.0},
        }
    )
    train(config, RUNS / name)


def losses(name: str) -> tuple[float, float]:
    """Return the means of the first and of the last four logged losses."""
    with open(RUNS / name / "metrics.csv", encoding="utf-8") as file:
        values = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    return float(np.mean(values[:4])), float(np.mean(values[-4:]))


def draw_field(name: str, data: Path) -> None:
    """Draw the receptive field of the middle pixel on a validation image."""
    path = ROOT / "docs" / "images" / "systems" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = open_dataset(data).split("val")[2].image
    drawn = draw_receptive_field(pixelwise.load(RUNS / name), np.repeat(np.repeat(image, 3, 0), 3, 1))
    write_image(path, np.asarray(drawn))


def draw_sheet(names: list[str], data: Path) -> None:
    """Draw one photo, its ground truth, and the labels of all systems."""
    split = open_dataset(data).split("val")
    sample = split[2]
    assert sample.mask is not None
    colors = split.taxonomy.palette()
    panels = [Panel(fit(sample.image, PANEL), "photo"), Panel(fit(colors[sample.mask], PANEL, labels=True), "truth")]
    masks = [sample.mask]
    for name in names:
        prediction = pixelwise.load(RUNS / name)(sample.image)
        masks.append(prediction.mask)
        valid = sample.mask != split.taxonomy.ignore_id
        right = float((prediction.mask == sample.mask)[valid].mean())
        first, last = losses(name)
        note = f"loss {first:.2f} to {last:.2f}, {right:.0%} right"
        panels.append(
            Panel(fit(colors[prediction.mask], PANEL, labels=True), name.replace("torchvision_", "tv_"), note)
        )
    columns = 6
    footer = legend(legend_entries(masks, split.taxonomy), columns * (PANEL + 14) - 14)
    size = f"{SIZE[1]} x {SIZE[0]} pixels"
    heading = f"Every system after {STEPS} steps from scratch, a quarter of its width or less, on {size}"
    sheet = contact_sheet(panels, columns, heading=heading, footer=footer)
    write_image(ROOT / "docs" / "images" / "systems.jpg", np.asarray(sheet))


if __name__ == "__main__":
    main()
