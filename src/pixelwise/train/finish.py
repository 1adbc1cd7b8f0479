"""After the last step: score the best checkpoint on the validation split, and write the run's page."""

from __future__ import annotations

from pathlib import Path

from ..config import Config
from ..data import open_dataset
from ..evaluate import evaluate, write_scores
from ..examples import collect_examples, write_examples
from ..inference.segmenter import load
from ..report import write_report


def finish(config: Config, out: str | Path) -> Path:
    """Write `scores.json` (the best checkpoint on the validation split), `samples/` and `report.html`; returns the page's path."""
    out = Path(out)
    dataset = open_dataset(config.data.path, config.data.layout)
    split = dataset.split(config.data.val_split)
    segmenter = load(out / "checkpoints" / "best", device=config.train.device)
    evaluation = evaluate(segmenter, split, dataset=dataset.name, model=str(out / "checkpoints" / "best"))
    write_scores(out / "scores.json", evaluation)
    write_examples(out / "samples", collect_examples(segmenter, split, evaluation.images))
    return write_report(out)
