"""What hangs on Lightning's Trainer: signals, progress bar, loggers."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import Logger

from ..errors import ConfigError, Interrupted, ResourceError
from ..registry import suggest


class StopSignals(Callback):
    """SIGINT, SIGTERM and SIGUSR1 end the run after the step at hand, or at once where no step is; so does a second SIGINT.

    subject is what the error names: the run's folder.
    """

    def __init__(self, subject: object) -> None:
        self.subject = subject
        self.received = 0
        self.in_steps = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take the signals inside the block, and give them back after it."""
        before = {number: signal.getsignal(number) for number in _signals()}
        self._take()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the signals back from Lightning, which would leave in the middle of a step."""
        self._take()
        self.in_steps = True

    def _take(self) -> None:
        for number in _signals():
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        impatient = self.received == number == signal.SIGINT
        self.received = number
        if impatient or not self.in_steps:
            what = f"stopped at once by {signal.Signals(number).name}"
            raise Interrupted(self.subject, what, "go on with --resume from the last state that was saved")


def _signals() -> list[signal.Signals]:
    """Windows lacks SIGUSR1; only the main thread may ask for any."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


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
        self.speaks = True

    def disable(self) -> None:
        """Lightning asks this of every rank but the first."""
        self.speaks = False

    def enable(self) -> None:
        """Speak again."""
        self.speaks = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One line a hundredth of the run."""
        # Callbacks are called before the module, which counts the step.
        step = pl_module.step + 1
        if not self.speaks or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if step % max(self.steps // 100, 1) == 0:
            metrics = self.get_metrics(trainer, pl_module)
            shown = " ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))
            print(f"step {step}/{self.steps} {shown}", flush=True)


def make_progress_bar(done: int, steps: int) -> ProgressBar:
    """A live bar with ETA in a terminal, lines elsewhere."""
    return _RunBar(done, steps) if sys.stderr.isatty() else _PlainLines(done, steps)


def make_loggers(names: Sequence[str], folder: Path) -> list[Logger]:
    """Loggers by name (metrics.csv is always written). Raises ConfigError for a name, ResourceError for a missing package."""
    return [_make_logger(name, folder) for name in names]


def _make_logger(name: str, folder: Path) -> Logger:
    from lightning.pytorch import loggers

    # A lost network, or a question for an account, must not end a run: W&B goes online only where its own variable says so.
    offline = "WANDB_MODE" not in os.environ
    builders: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: loggers.TensorBoardLogger(folder, name="", version="events"),
        "wandb": lambda: loggers.WandbLogger(save_dir=folder, project="pixelwise", name=folder.name, offline=offline),
    }
    if name not in builders:
        raise ConfigError("--train.loggers", f"got {name!r}", suggest(name, builders))
    try:
        return builders[name]()
    except (ImportError, ModuleNotFoundError) as error:
        package = {"tensorboard": "pixelwise[track]", "wandb": "pixelwise[wandb]"}[name]
        raise ResourceError(name, "is not installed", f"pip install '{package}'") from error


_HINTS = (
    ".*does not have many workers.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*No.*logger configured.*",
)


def silence_lightning() -> None:
    """Keep Lightning's adverts and hints about its own defaults out of the user's terminal; warnings of substance stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in _HINTS:
        warnings.filterwarnings("ignore", message=message)
