"""After the last step: score the best checkpoint on the validation split, and write the report of the run."""

from __future__ import annotations

from pathlib import Path

from ..config import Config
from ..data import open_dataset
from ..evaluation.evaluator import evaluate_model, write_scores
from ..inference.segmenter import load
from ..visualization.examples import collect_examples, write_examples
from ..visualization.report import write_report
from ..weights.checkpoint import find_checkpoint


def finish_run(config: Config, out: str | Path) -> Path:
    """Write `scores.json`, `samples/` and `report.html` into the run's folder `out`; return the path of the report.

    The best checkpoint is scored (the last one if no validation could be scored), in float32, on the run's device.
    """
    folder = find_checkpoint(out)
    dataset = open_dataset(config.data.path, config.data.format)
    split = dataset.split(config.data.val_split)
    segmenter = load(folder, device=config.train.device, precision="float32")
    evaluation = evaluate_model(segmenter, split, dataset=dataset.name, model=str(folder))
    write_scores(Path(out) / "scores.json", evaluation)
    write_examples(Path(out) / "samples", collect_examples(segmenter, split, scores=evaluation.images))
    return write_report(out)
