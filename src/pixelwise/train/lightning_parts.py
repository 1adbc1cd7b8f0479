"""What hangs on Lightning's Trainer: signals, progress bar, loggers."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import Logger

from ..errors import ConfigError, EnvironmentFault
from ..registry import suggest


class StopSignals(Callback):
    """SIGINT, SIGTERM and SIGUSR1 end the run after the step at hand; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the signals over from Lightning, which would leave in the middle of a step."""
        for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number


class _RunBar(RichProgressBar):
    """Lightning's bar with the step counts of the whole run, resumed or not."""

    def __init__(self, done: int, steps: int) -> None:
        super().__init__()
        self.done, self.steps = done, steps

    def _get_train_description(self, current_epoch: int) -> str:
        return f"steps {self.done}..{self.steps}"

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """What stands at the end of the bar: loss and the last validation's mean IoU."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in metrics.items()}


class _PlainLines(ProgressBar):
    """For logs and pipes: a line now and then in place of a bar that redraws itself."""

    def __init__(self, done: int, steps: int) -> None:
        super().__init__()
        self.done, self.steps = done, steps

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One line a hundredth of the run."""
        if pl_module.step % max(self.steps // 100, 1) == 0 and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            metrics = {name: f"{value:.4f}" for name, value in self.get_metrics(trainer, pl_module).items() if isinstance(value, float)}
            shown = " ".join(f"{name} {value}" for name, value in metrics.items())
            print(f"step {pl_module.step}/{self.steps} {shown}", flush=True)


def make_progress_bar(done: int, steps: int) -> ProgressBar:
    """A live bar with ETA in a terminal, lines elsewhere."""
    return _RunBar(done, steps) if sys.stderr.isatty() else _PlainLines(done, steps)


def make_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """Loggers by name (metrics.csv is always written). Raises ConfigError for a name, EnvironmentFault for a missing package."""
    return [_make_logger(name, folder) for name in names]


def _make_logger(name: str, folder: Path) -> Logger:
    from lightning.pytorch import loggers

    builders = {
        "tensorboard": lambda: loggers.TensorBoardLogger(folder, name="", version="events"),
        "wandb": lambda: loggers.WandbLogger(save_dir=folder, project="pixelwise", name=folder.name, offline=True),
    }
    if name not in builders:
        raise ConfigError("--train.loggers", f"got {name!r}", suggest(name, builders))
    try:
        return builders[name]()
    except (ImportError, ModuleNotFoundError) as error:
        package = {"tensorboard": "pixelwise[track]", "wandb": "pixelwise[wandb]"}[name]
        raise EnvironmentFault(name, "is not installed", f"pip install '{package}'") from error


def quiet_lightning() -> None:
    """Keep Lightning's adverts and hints about its own defaults out of the user's terminal; warnings of substance stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*", ".*No.*logger configured.*"):
        warnings.filterwarnings("ignore", message=message)
