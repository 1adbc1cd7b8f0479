"""Make a run's last checkpoint the model that ships: store float16, measure the scores, write the card, export it.

    python tools/ship.py runs/compact --data CAMVID

The weights are rounded before they are scored, so the card's scores are those of the shipped file: on val and test, in
float32 and in bfloat16. Nothing is chosen by them: the last checkpoint is taken, not the best on val, which is one
street corner of a drive that was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import torch

from pixelwise.data import open_dataset
from pixelwise.data.groups import find_groups
from pixelwise.evaluation.evaluator import evaluate_model
from pixelwise.export.run import export_segmenter
from pixelwise.inference.load_any import EXPORTED
from pixelwise.inference.segmenter import Precision, load
from pixelwise.inference.stored_config import SHIPPED
from pixelwise.weights.checkpoint import load_checkpoint, save_checkpoint

CARD = {
    "license": "other",
    "title": "compact, street scenes in 11 classes",
    "summary": "Labels street photos taken from a car. This is the model that `pixelwise.load()` returns; "
    "it is part of the package.",
    "intended_use": "Research and demonstration only: CamVid was published for research, and the copy that the model "
    "was trained on is for non-commercial use. Do not use it for driving or for any decision about people.",
    "limits": "The training set has 367 frames of four drives in one English city, by day and at dusk. Expect worse "
    "labels in other cities, countries and weather, at night, and at other camera heights. The weakest classes are "
    "pole, sign, fence and bicyclist.",
}


def main() -> None:
    """Round the weights, score them, write the card."""
    parser = argparse.ArgumentParser(description="Put a run's last checkpoint into the package.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    last = load_checkpoint(arguments.run / "checkpoints" / "last")
    card: dict[str, Any] = {**last.card, **CARD}
    save_checkpoint(SHIPPED, last.model, last.taxonomy, card, dtype=torch.float16)
    dataset = open_dataset(arguments.data)
    groups = find_groups(dataset)
    scores: list[dict[str, Any]] = []
    for split in ("val", "test"):
        for precision in get_args(Precision):
            segmenter = load(precision=precision)
            evaluation = evaluate_model(
                segmenter, dataset.split(split), dataset=dataset.name, precision=precision, groups=groups
            )
            found, spread = evaluation.scores, evaluation.spread
            scores.append(
                {
                    "dataset": dataset.name,
                    "split": split,
                    "precision": precision,
                    "metrics": {name: round(value, 4) for name, value in found.means().items()},
                    "class_iou": {row.name: round(row.iou, 3) for row in found.classes if row.iou is not None},
                    "group_iou": {row.name: row.mean_iou for row in spread.groups} if spread else {},
                }
            )
            print(split, precision, found.summary(), flush=True)
    save_checkpoint(SHIPPED, last.model, last.taxonomy, {**card, "scores": scores}, dtype=torch.float16)
    shipped = load()
    export_segmenter(shipped, SHIPPED / EXPORTED, format="onnx", weights="float16", checkpoint=shipped.digest)
    print(f"shipped {sum(f.stat().st_size for f in SHIPPED.iterdir()) / 1e6:.2f} MB in {SHIPPED}")


if __name__ == "__main__":
    main()
