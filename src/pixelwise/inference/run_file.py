"""Where the files lie that commands add to a run or checkpoint folder: CRF parameters, a temperature."""

from __future__ import annotations

from pathlib import Path


def find_run_file(model: str | Path, name: str) -> Path:
    """Return the file in a folder; a checkpoint inside a run shares the run's file unless it has its own."""
    folder = Path(model)
    run = folder.resolve().parent.parent
    is_checkpoint = folder.resolve().parent.name == "checkpoints"
    own = (folder / name).is_file() or not is_checkpoint or not (run / name).is_file()
    return (folder if own else run) / name
