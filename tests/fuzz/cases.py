"""The table of the kinds of cases, and how often each has its turn."""

from __future__ import annotations

from random import Random

from fuzz.annotations import annotation_case, pairs_case
from fuzz.command_lines import command_case
from fuzz.folders import dataset_case, listing_case, predict_case
from fuzz.harness import Make
from fuzz.images import image_case, mask_case
from fuzz.pixel_formats import overlaps_case, pixels_case
from fuzz.texts import classes_case, run_case, settings_case
from fuzz.weight_files import checkpoint_case, foreign_case, state_case

KINDS: dict[str, Make] = {
    "images": image_case,
    "masks": mask_case,
    "settings": settings_case,
    "classes": classes_case,
    "runs": run_case,
    "checkpoints": checkpoint_case,
    "states": state_case,
    "weights": foreign_case,
    "listings": listing_case,
    "predictions": predict_case,
    "datasets": dataset_case,
    "annotations": annotation_case,
    "pairs": pairs_case,
    "pixels": pixels_case,
    "overlaps": overlaps_case,
    "commands": command_case,
}
# Cheap kinds have more turns, so that each kind gets a like part of the time.
_WEIGHTS = {
    **{"images": 60, "masks": 40, "states": 10, "annotations": 12, "classes": 8, "listings": 8},
    **{"pixels": 12, "overlaps": 6, "weights": 6, "pairs": 4, "checkpoints": 3},
}
TURNS = [kind for kind in KINDS for _ in range(_WEIGHTS.get(kind, 1))]
Random(0).shuffle(TURNS)
