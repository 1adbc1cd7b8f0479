"""Lightning callbacks and loggers: signals, progress bar, TensorBoard, W&B."""

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
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar
from lightning.pytorch.loggers import Logger

from ..errors import ConfigError, Interrupted, ResourceError, shown
from ..registry import suggest
from .ranks import max_over_ranks

if TYPE_CHECKING:
    from .module import TrainingModule


class StopSignals(Callback):
    """Stop a run on SIGINT, SIGTERM or SIGUSR1, with its state saved.

    The first signal ends the run after the current step. A second Ctrl-C (SIGINT), or any signal while no step is
    running, ends it at once. In order:

    1. `caught` installs the handlers around the whole run.
    2. `on_train_start` installs them again, since Lightning sets its own.
    3. A signal sets `received`; the step goes on.
    4. After the step, `AfterStep` asks `any_rank_received`, saves, and sets `trainer.should_stop`.
    5. `train` raises Interrupted once Lightning's loop has ended.

    subject   subject of the error: the folder of the run
    received  number of the last signal, 0 before the first
    """

    def __init__(self, subject: object) -> None:
        self.subject = subject
        self.received = 0
        self._in_loop = False
        # Windows lacks SIGUSR1. Only the main thread may set handlers.
        names = ("SIGINT", "SIGTERM", "SIGUSR1") if threading.current_thread() is threading.main_thread() else ()
        self._numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals inside the block, and restore the former handlers after it."""
        before = {number: signal.getsignal(number) for number in self._numbers}
        self._set_handlers()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the handlers back from Lightning, which would stop in the middle of a step."""
        self._set_handlers()
        self._in_loop = True

    def any_rank_received(self, device: torch.device) -> bool:
        """Return whether any rank has received a signal; all ranks get the same answer."""
        self.received = max_over_ranks(self.received, device)
        return self.received != 0

    def _set_handlers(self) -> None:
        for number in self._numbers:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        second_interrupt = self.received == number == signal.SIGINT
        self.received = number
        if second_interrupt or not self._in_loop:
            what = f"stopped at once by {signal.Signals(number).name}"
            raise Interrupted(self.subject, what, "go on with --resume from the last state that was saved")


class _RunBar(RichProgressBar):
    """Lightning's progress bar with the step counts of the whole run, resumed or not."""

    def __init__(self, done: int, steps: int) -> None:
        super().__init__()
        self.done, self.steps = done, steps

    def _get_train_description(self, current_epoch: int) -> str:
        return f"steps {self.done}..{self.steps}"

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Return the numbers at the end of the bar: the loss."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in metrics.items()}


class _ProgressLines(ProgressBar):
    """One line per hundredth of the run, for logs and pipes, in place of a bar that redraws itself."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.enabled = True

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
        if module.step % max(self.steps // 100, 1) == 0:
            metrics = self.get_metrics(trainer, module)
            shown = " ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))
            print(f"step {module.step}/{self.steps} {shown}", flush=True)


def make_progress_bar(done: int, steps: int) -> ProgressBar:
    """Return a live progress bar in a terminal, lines elsewhere."""
    return _RunBar(done, steps) if sys.stderr.isatty() else _ProgressLines(steps)


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
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
        ".*No.*logger configured.*",
    ):
        warnings.filterwarnings("ignore", message=message)
