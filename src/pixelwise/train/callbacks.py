"""Lightning callbacks and loggers: progress bar, TensorBoard, W&B."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.loggers import Logger

from ..errors import ConfigError, ResourceError, shown
from ..registry import suggest
from .pace import Pace, duration_text

if TYPE_CHECKING:
    from .module import TrainingModule

# A progress line is printed at least so often.
_SECONDS_PER_LINE = 30


class _RunBar(RichProgressBar):
    """Lightning's progress bar with the figures of `_ProgressLines`, which know of the whole run, resumed or not."""

    def __init__(self, pace: Pace, steps: int) -> None:
        super().__init__()
        self.pace, self.steps = pace, steps

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"

    def configure_columns(self, trainer: lightning.Trainer) -> list[Any]:
        """Return description and bar alone: Lightning's time and speed know nothing of validations."""
        return super().configure_columns(trainer)[:2]

    def get_metrics(self, trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Any]:  # type: ignore[override]
        """Return the words at the end of the bar."""
        return {
            "step": f"{module.step}/{self.steps}",
            **figures(super().get_metrics(trainer, module), self.pace, module),
        }


class _ProgressLines(ProgressBar):
    """Lines, for logs and pipes, in place of a bar that redraws itself: per hundredth of the run or half a minute."""

    def __init__(self, pace: Pace, steps: int) -> None:
        super().__init__()
        self.pace, self.steps = pace, steps
        self.enabled = True
        self._printed = time.monotonic()

    def disable(self) -> None:
        """Be silent; Lightning calls this on every rank but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Print again."""
        self.enabled = True

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, module: TrainingModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line if it is time."""
        if not self.enabled or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        is_late = time.monotonic() - self._printed > _SECONDS_PER_LINE
        if module.step % max(self.steps // 100, 1) == 0 or is_late:
            self._printed = time.monotonic()
            shown_figures = figures(self.get_metrics(trainer, module), self.pace, module).items()
            line = " ".join(f"{name} {value}" for name, value in shown_figures)
            print(f"step {module.step}/{self.steps} {line}", flush=True)


def figures(metrics: Mapping[str, Any], pace: Pace, module: TrainingModule) -> dict[str, str]:
    """Return what a bar and a line show beside the step: the loss, the seconds per step, the time that is left."""
    numbers = {name: f"{value:.4f}" for name, value in metrics.items() if isinstance(value, float)}
    left = duration_text(pace.seconds_left(module.step))
    return {**numbers, "s/step": f"{pace.seconds_per_step:.3g}", "left": left}


def make_progress_bar(pace: Pace, steps: int) -> ProgressBar:
    """Return a live progress bar in a terminal, lines elsewhere."""
    return _RunBar(pace, steps) if sys.stdout.isatty() else _ProgressLines(pace, steps)


def make_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """Build loggers by name, metrics.csv always. Raises ConfigError for a name, ResourceError for a missing package."""
    from lightning.pytorch import loggers

    # W&B goes online only where WANDB_MODE says so: a lost network, or a prompt for an account, must not stop a run.
    offline = "WANDB_MODE" not in os.environ
    builders: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: loggers.TensorBoardLogger(folder, name="", version="events"),
        "wandb": lambda: loggers.WandbLogger(save_dir=folder, project="pixelwise", name=folder.name, offline=offline),
    }
    made = []
    for name in names:
        if name not in builders:
            raise ConfigError("--train.loggers", f"unknown logger {shown(name)}", suggest(name, builders))
        try:
            made.append(builders[name]())
        except (ImportError, ModuleNotFoundError) as error:
            package = {"tensorboard": "pixelwise[track]", "wandb": "pixelwise[wandb]"}[name]
            raise ResourceError(name, "is not installed", f"pip install '{package}'") from error
    return made


def silence_lightning() -> None:
    """Hide Lightning's advertisements and hints about its own defaults; its other warnings stay."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*This DataLoader will create .* worker processes.*",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*No.*logger configured.*",
    ):
        warnings.filterwarnings("ignore", message=message)
