"""Train on real datasets by `pixelwise train DATA` alone, half an hour each; print what it chose and what it scores.

    python tools/half_hour.py DATA [NAME ...]        # the folders DATA/nuclei, DATA/road_defects, ...

Nothing is set: the command gets a path and --out. Sets that have been scored already are skipped, so a stopped call
goes on with the next one. Writes runs/half_hour/NAME, NAME.log and NAME.json (the scores on test), prints a Markdown
table, and draws docs/images/half_hour/NAME.jpg for the sets whose license allows it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import numpy as np
import yaml

import pixelwise
from pixelwise.data import open_dataset
from pixelwise.images import write_image
from pixelwise.visualization.compare import draw_comparison

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "half_hour"
# Set -> the test image that is drawn, None where the license of the images is not stated or excludes it.
SETS: dict[str, int | None] = {
    "nuclei": 0,
    "road_defects": 0,
    "vessels_chase": 0,
    "pets_mini": 0,
    "sandstone_rgb": 0,
    "whales": None,
    "drone_chips": None,
}
HEADER = """\
| set | images | chosen network, crop, batch | steps | minutes | test mean IoU, 95 % | IoU (Dice) per class |
|---|--:|---|--:|--:|--:|---|"""


def main() -> None:
    """Train and score the sets that are missing, then print the table and draw the images."""
    source, names = Path(sys.argv[1]), sys.argv[2:] or list(SETS)
    RUNS.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (RUNS / f"{name}.json").exists():
            train_and_score(name, source / name)
    print(HEADER)
    for name in names:
        print(table_row(name, source / name), flush=True)
        draw(name, source / name)


def train_and_score(name: str, data: Path) -> None:
    """Run the two commands; the time of the first goes into NAME.seconds."""
    out, started = RUNS / name, time.monotonic()
    with open(RUNS / f"{name}.log", "w", encoding="utf-8") as log:
        run(["train", str(data), "--out", str(out)], log)
        (RUNS / f"{name}.seconds").write_text(f"{time.monotonic() - started:.0f}\n")
        run(["evaluate", "--model", str(out), "--data", str(data), "--out", str(RUNS / f"{name}.json")], log)


def run(words: list[str], log: TextIO) -> None:
    """Run a command of the package; its output goes to `log`."""
    subprocess.run([sys.executable, "-m", "pixelwise", *words], stdout=log, stderr=subprocess.STDOUT, check=True)


def table_row(name: str, data: Path) -> str:
    """Return a row of the table: what was chosen, and the scores on test."""
    config = yaml.safe_load((RUNS / name / "config.yaml").read_text(encoding="utf-8"))
    scores = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    splits = open_dataset(data).splits
    held = json.loads((RUNS / name / "scores.json").read_text(encoding="utf-8"))["protocol"]["num_images"]
    train = len(splits["train"]) - (0 if "val" in splits else held)
    network = config["model"]["name"]
    stride = 2 if len(config["model"]["options"].get("decoder_channels", ())) == 3 else 4
    rows = scores["scores"]["classes"]
    minutes = int((RUNS / f"{name}.seconds").read_text()) / 60
    spread = scores["spread"]["mean_iou"]
    interval = "" if spread is None else f", {100 * spread[0]:.1f} to {100 * spread[1]:.1f}"
    seen = [row for row in rows if row["iou"] is not None]
    classes = ", ".join(f"{row['name']} {100 * row['iou']:.1f} ({100 * row['dice']:.1f})" for row in seen)
    cells = (
        f"`{name}`",
        f"{train}, {held}, {len(splits['test'])}",
        f"{network}, logits at stride {stride}, {'x'.join(map(str, config['augment']['crop']))}, "
        f"{config['data']['batch_size']}",
        str(config["train"]["steps"]),
        f"{minutes:.0f}",
        f"**{100 * scores['scores']['mean_iou']:.1f}**{interval}",
        classes,
    )
    return f"| {' | '.join(cells)} |"


def draw(name: str, data: Path) -> None:
    """Draw a test image, its labels, and the truth."""
    index = SETS.get(name)
    if index is not None:
        sample = open_dataset(data).split("test")[index]
        sheet = draw_comparison(sample.image, [pixelwise.load(RUNS / name)], truth=sample.mask)
        path = ROOT / "docs" / "images" / "half_hour" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.asarray(sheet))


if __name__ == "__main__":
    main()
