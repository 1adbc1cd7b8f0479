"""The training loss early in a run and at half of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Config


@dataclass
class LossTrend:
    """Sums and counts of the losses in the two `tenths` of a run, which a saved state keeps."""

    early_sum: float = 0.0
    early_count: int = 0
    late_sum: float = 0.0
    late_count: int = 0

    def add(self, loss: float, step: int, config: Config) -> None:
        """Count the loss of a step, 1 to `train.steps`."""
        early, late = tenths(config)
        if step in early:
            self.early_sum += loss
            self.early_count += 1
        if step in late:
            self.late_sum += loss
            self.late_count += 1


def tenths(config: Config) -> tuple[range, range]:
    """Return the steps of the first and of the last tenth between the warm-up and half of the run."""
    half = config.train.steps // 2
    start = min(config.optimizer.warmup_steps, half)
    tenth = (half - start) // 10
    return range(start + 1, start + 1 + tenth), range(half + 1 - tenth, half + 1)
