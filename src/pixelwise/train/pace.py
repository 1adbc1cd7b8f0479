"""How long the steps, validations and saves of a run take, and so when it will be done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import lightning
from lightning.pytorch.callbacks import Callback

from ..config import TrainConfig
from .ranks import process_rank

if TYPE_CHECKING:
    from .module import TrainingModule

# Steps whose mean duration is that of the next ones.
_NUM_STEPS = 50
# A first step beyond it is believed: the start of workers and of the libraries is the smaller part of it.
_LONG_STEP_SECONDS = 10


class Pace(Callback):
    """Measure a run. After the first steps, print how long the others will take.

    The first step, which starts the workers and the libraries, counts until there is a second one.
    """

    def __init__(self, settings: TrainConfig) -> None:
        self._settings = settings
        self._seconds: dict[str, float] = {}
        self._durations: deque[float] = deque(maxlen=_NUM_STEPS)
        self._num_steps = 0
        self._mark = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._mark = time.monotonic()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step, if it is one; loading its images belongs to it."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        now = time.monotonic()
        if self._num_steps == 1:
            self._durations.clear()
        self._durations.append(now - self._mark)
        self._mark = now
        self._num_steps += 1
        long = self._durations[0] >= _LONG_STEP_SECONDS
        if self._num_steps == (1 if long else 2) and module.step < self._settings.steps and process_rank() == 0:
            print(self.forecast(module.step), flush=True)

    @contextmanager
    def measured(self, what: Literal["validation", "saving"]) -> Iterator[None]:
        """Measure a validation or a save, which is no part of a step."""
        started = time.monotonic()
        yield
        self._seconds[what] = time.monotonic() - started
        self._mark += self._seconds[what]

    @property
    def seconds_per_step(self) -> float:
        """The mean of the last steps."""
        return sum(self._durations) / max(len(self._durations), 1)

    def seconds_left(self, step: int) -> float:
        """Return how long the steps after `step` will take, with their validations and saves as far as measured."""
        settings = self._settings
        validations = num_due(step, settings.steps, settings.validate_every)
        # After the last step, the best checkpoint is scored once more.
        seconds = self._seconds.get("validation", 0.0) * (validations + 1)
        seconds += self._seconds.get("saving", 0.0) * num_due(step, settings.steps, settings.save_every)
        return seconds + self.seconds_per_step * (settings.steps - step)

    def forecast(self, step: int) -> str:
        """Return the line that says when the run will be done."""
        left = self.seconds_left(step)
        counted = "" if "validation" in self._seconds else "; validations come on top"
        steps = self._settings.steps - step
        return (
            f"about {self.seconds_per_step:.3g} s per step, {steps:,} step{'s' * (steps > 1)} left, "
            f"done at about {clock_text(time.time() + left)} (in {duration_text(left)}){counted}"
        )


def num_due(step: int, steps: int, every: int) -> int:
    """Return how often something is done after `step` that is done every so many steps and after the last one."""
    return steps // every - step // every + (steps % every > 0)


def duration_text(seconds: float) -> str:
    """Return a duration in the two largest units: "40 s", "12 min", "3 h 5 min", "11 days 4 h"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days {minutes % 1440 // 60} h"


def clock_text(moment: float) -> str:
    """Return the local time of a moment, in seconds since 1970, with the date if it is not today."""
    then = time.localtime(moment)
    today = time.strftime("%Y-%m-%d", then) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M" if today else "%H:%M on %Y-%m-%d", then)
