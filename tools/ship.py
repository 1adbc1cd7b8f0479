"""Put a run's best checkpoint into the package as the model that ships: float16 on disk, scores measured, card written.

    python tools/ship.py runs/compact --data CAMVID

The weights are rounded first and scored afterwards, so that the card's numbers are those of the file that ships: on val
and test, in float32 and in bfloat16. The test split is read here for the first time; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from pixelwise.data import open_dataset
from pixelwise.evaluation.evaluator import evaluate
from pixelwise.inference.segmenter import SHIPPED, Precision, load
from pixelwise.weights.checkpoint import load_checkpoint, save_checkpoint

CARD = {
    "license": "other",
    "title": "compact, street scenes in 11 classes",
    "summary": "Labels street photos taken from a car. Ships inside pixelwise; what `pixelwise.load()` gives.",
    "intended_use": "Research and demonstration only: CamVid was published for research, and its copy here is for "
    "non-commercial use. Not for driving, nor for any decision about people.",
    "limits": "Trained on 367 frames of four drives in one English city, by day and at dusk. Other cities, weather, nights, "
    "camera heights and countries will be labelled worse. Poles, signs, fences and bicyclists are its weakest classes.",
}


def main() -> None:
    """Round, score, write the card."""
    parser = argparse.ArgumentParser(description="Put a run's best checkpoint into the package.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    best = load_checkpoint(arguments.run / "checkpoints" / "best")
    card: dict[str, Any] = {**best.card, **CARD}
    for key in ("recipe", "command", "data"):
        card[key] = best.card[key]
    save_checkpoint(SHIPPED, best.model, best.taxonomy, card, dtype=torch.float16)
    dataset = open_dataset(arguments.data)
    scores: dict[str, str] = {}
    for split in ("val", "test"):
        for precision in Precision.__args__:
            result = evaluate(
                load(precision=precision), dataset.split(split), dataset=dataset.name, precision=precision
            )
            means = {name.replace("_", " "): f"{100 * value:.2f}" for name, value in result.scores.means().items()}
            scores[f"{split}, {precision}"] = ", ".join(f"{name} {value}" for name, value in means.items())
            print(split, precision, scores[f"{split}, {precision}"], flush=True)
            per_class = {row.name: f"{100 * row.iou:.1f}" for row in result.scores.classes if row.iou is not None}
            scores[f"{split}, {precision}, IoU per class"] = ", ".join(
                f"{name} {value}" for name, value in per_class.items()
            )
    save_checkpoint(SHIPPED, best.model, best.taxonomy, {**card, "scores": scores}, dtype=torch.float16)
    print(f"shipped {sum(f.stat().st_size for f in SHIPPED.iterdir()) / 1e6:.2f} MB in {SHIPPED}")


if __name__ == "__main__":
    main()
