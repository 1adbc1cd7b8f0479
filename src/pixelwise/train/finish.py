"""After the last step: score the best checkpoint on the validation split, and write the report of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..data.groups import find_groups
from ..data.inspection import readable
from ..evaluation.evaluator import evaluate_model
from ..evaluation.multilabel_scores import SetScores
from ..evaluation.result import write_scores
from ..inference.segmenter import load
from ..visualization.examples import collect_examples, write_examples
from ..visualization.report import write_report
from ..weights.checkpoint import find_checkpoint
from .build import open_training_splits
from .run_folder import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """The results of a run.

    checkpoint  folder of the checkpoint that was scored: `checkpoints/best`, or `checkpoints/last`
    step        the step that it was saved after
    scores      its scores on the validation split
    report      path of report.html
    """

    checkpoint: Path
    step: int
    scores: SetScores
    report: Path


def finish_run(config: Config, out: str | Path) -> FinishedRun:
    """Score the checkpoint of the run in `out`; write `scores.json`, `samples/` and `report.html` beside it.

    The best checkpoint is scored (the last one if no validation could be scored), in float32, on the run's device.
    """
    folder = find_checkpoint(out)
    dataset, _, split, _ = open_training_splits(config.data, RunFolder(out).read_held_out())
    if config.train.on_read_error == "skip":
        split = readable(split)
    segmenter = load(folder, device=config.train.device, precision="float32")
    groups = find_groups(dataset, config.data.groups)
    evaluation = evaluate_model(
        segmenter, split, dataset=dataset.name, model=str(folder), groups=groups, thresholds=segmenter.thresholds
    )
    write_scores(Path(out) / "scores.json", evaluation)
    write_examples(Path(out) / "samples", collect_examples(segmenter, split, scores=evaluation.images))
    step = segmenter.card["recipe"]["steps"]
    return FinishedRun(folder, step, evaluation.scores, write_report(out))
