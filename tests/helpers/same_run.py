"""Two runs compared bit by bit."""

from __future__ import annotations

from pathlib import Path

import torch

from pixelwise.train.run_folder import COLUMNS
from pixelwise.train.state import read_state


def metrics(run: Path) -> list[list[str]]:
    lines = (run / "metrics.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    return [line.split(",")[:-1] for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, the training state, and every logged number, bit for bit; only seconds may differ."""
    for name in ("last", "best"):
        weights = Path("checkpoints") / name / "model.safetensors"
        assert (one / weights).read_bytes() == (other / weights).read_bytes(), name
    first, second = (read_state(run / "checkpoints" / "last" / "state.safetensors") for run in (one, other))
    assert first.progress == second.progress
    assert first.tensors.keys() == second.tensors.keys()
    assert any(name.startswith("optimizer.") for name in first.tensors)
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    assert metrics(one) == metrics(other)
