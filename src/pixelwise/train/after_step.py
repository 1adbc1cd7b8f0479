"""What happens after each optimizer step: logging, validation, saving, and the end of a run that is to stop."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from ..config import Config
from ..core import Batch
from ..data.dataset import Dataset
from ..data.held_out import HeldOut
from ..errors import CheckpointError, InputError, printable
from ..evaluation.multilabel_scores import SetScores
from ..weights.checkpoint import check_finite, save_checkpoint
from ..weights.model_card import escape, public_command
from .module import TrainingModule
from .pace import Pace
from .ranks import process_rank
from .resume import run_settings
from .run_checks import loss_warning, one_class_warning
from .run_folder import RunFolder
from .state import TrainingProgress, save_state
from .stop_signals import StopSignals
from .validation import validate
from .watch import RankWatch


class AfterStep(Callback):
    """After each optimizer step: log, validate and save if it is time; save and stop if a signal has come.

    scores      of the last validation, None before the first
    held_out    the images of the training split that are validated on, None if the dataset has a split for it
    thresholds  of several labels per pixel, as the last validation found them, also one before the run was resumed
    notes       what was warned of, and an early stop, by kind
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        *,
        signals: StopSignals,
        watch: RankWatch,
        pace: Pace,
        dataset: Dataset,
        precision: str,
        command: str,
        progress: TrainingProgress,
        fingerprint: dict[str, Any],
        thresholds: tuple[float, ...] = (),
        held_out: HeldOut | None = None,
    ) -> None:
        self.config, self.folder, self.signals, self.watch, self.pace = config, folder, signals, watch, pace
        self.dataset, self.precision, self.command, self.fingerprint = dataset, precision, command, fingerprint
        self.held_out = held_out
        self.train_split = dataset.split(config.data.train_split)
        self.val_split = dataset.split(config.data.val_split)
        self.best_score, self.best_step = progress.best_score, progress.best_step
        self.num_no_better, self.losses, self.notes = progress.num_no_better, progress.losses, progress.notes
        self.scores: SetScores | None = None
        self.thresholds = thresholds
        self._scored_step = 0

    @property
    def ended_early(self) -> bool:
        """Whether so many validations brought no better mean IoU that `train.early_stop` ends the run."""
        return 0 < self.config.train.early_stop <= self.num_no_better

    def facts(self) -> dict[str, Any]:
        """Return what environment.json keeps: the precision, and the notes if there are any."""
        return {"precision": self.precision, **({"notes": self.notes} if self.notes else {})}

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: lightning.Trainer, module: TrainingModule, outputs: object, batch: Batch, batch_idx: int
    ) -> None:
        """Do what is due after this step; nothing between accumulated batches."""
        if (batch_idx + 1) % self.config.optimizer.grad_accum_steps:
            return
        settings, step = self.config.train, module.step
        stop = self.signals.any_rank_received(module.device)
        last = step == settings.steps
        validates, saves = (step % every == 0 or last for every in (settings.validate_every, settings.save_every))
        if validates or saves or stop:
            self._check_finite(module)
        if step % settings.log_every == 0 or last:
            lr = float(module.optimizer.param_groups[0]["lr"])
            self._log(module, {"split": self.config.data.train_split, "lr": lr, "loss": module.loss_of_step})
        self.losses.add(module.loss_of_step, step, self.config)
        self._warn("loss", loss_warning(self.losses, module, batch))
        if validates:
            try:
                with self.pace.measured("validation"):
                    self._validate(module)
            except InputError:
                # An unreadable validation image must not cost the steps since the last save. All ranks come here.
                self._save(module)
                raise
            # A signal during the validation does not wait for the next step.
            stop = self.signals.any_rank_received(module.device)
            self._note_early_stop(step)
        ends = self.ended_early
        if saves or stop or ends:
            with self.pace.measured("saving"):
                self._save(module)
        trainer.should_stop |= stop or ends

    def _warn(self, kind: str, line: str) -> None:
        """Print a warning, if the line is not empty and none of its kind was printed in this run."""
        if line and kind not in self.notes:
            self.notes[kind] = line
            if process_rank() == 0:
                print(printable(f"warning: {line}"), file=sys.stderr, flush=True)

    def _note_early_stop(self, step: int) -> None:
        """Print that the run ends early, if it does; forget that it did, if it goes on after all."""
        self.notes.pop("early_stop", None)
        steps = self.config.train.steps
        if self.ended_early and step < steps:
            without = f"{self.num_no_better} validation{'s' * (self.num_no_better > 1)}"
            best = f"{100 * self.best_score:.2f} % (step {self.best_step})"
            line = f"stopped early after step {step} of {steps}: no mean IoU above {best} in {without}"
            self.notes["early_stop"] = line
            if process_rank() == 0:
                print(line, flush=True)

    def _check_finite(self, module: TrainingModule) -> None:
        try:
            check_finite(module.state_tensors(), "training")
        except CheckpointError as error:
            what = f"after step {module.step} {error.what}"
            raise InputError("training", what, "lower --optimizer.lr; the last checkpoint is intact") from error

    def _log(self, module: TrainingModule, values: dict[str, Any]) -> None:
        if module.global_rank == 0:
            self.folder.log({"step": module.step, **values})
        numbers = {f"{values['split']}/{k}": v for k, v in values.items() if isinstance(v, float)}
        for logger in module.trainer.loggers:
            logger.log_metrics(numbers, step=module.step)

    def _validate(self, module: TrainingModule) -> None:
        """Score the weights that will be saved (the moving average, if there is one); keep the best ones."""
        started = time.monotonic()
        with module.saved_weights():
            scores = validate(
                module.model,
                self.val_split,
                module.device,
                precision=self.precision,
                rank=module.global_rank,
                world_size=module.trainer.world_size,
                on_read_error=self.config.train.on_read_error,
            )
            self.scores, self._scored_step = scores, module.step
            self.thresholds = scores.thresholds
            self.num_no_better += 1
            if scores.mean_iou > self.best_score:
                self.num_no_better = 0
                self.best_score, self.best_step = scores.mean_iou, module.step
                if module.global_rank == 0:
                    self._save_checkpoint(self.folder.best, module)
        if module.global_rank == 0:
            print(f"step {module.step}/{self.config.train.steps} validation: {scores.summary()}", flush=True)
        self._warn("one_class", one_class_warning(scores, self.val_split.name, module.step))
        means = scores.means()
        columns = {
            "miou": "mean_iou",
            "pixel_accuracy": "pixel_accuracy",
            "mean_accuracy": "mean_accuracy",
            "fw_iou": "frequency_weighted_iou",
            "mean_dice": "mean_dice",
        }
        values: dict[str, Any] = {"split": self.config.data.val_split}
        # Several labels per pixel have no pixel accuracy.
        values |= {column: means[name] for column, name in columns.items() if name in means}
        if (foreground := scores.foreground_dice) is not None:
            values["foreground_dice"] = foreground
        values["seconds"] = time.monotonic() - started
        self._log(module, values)

    def _save(self, module: TrainingModule) -> None:
        """Write the checkpoint `last`, to predict with, and the training state, to resume from."""
        with module.saved_weights():
            if module.global_rank == 0:
                with self.watch.saving():
                    self._save_checkpoint(self.folder.last, module)
        progress = TrainingProgress(
            step=module.step,
            best_score=self.best_score,
            best_step=self.best_step,
            num_no_better=self.num_no_better,
            num_skipped=module.num_skipped,
            losses=self.losses,
            notes=self.notes,
        )
        if module.global_rank == 0:
            settings = {**run_settings(self.config), "data": self.fingerprint}
            with self.watch.saving():
                save_state(self.folder.last, module.state_tensors(), progress, settings)

    def _save_checkpoint(self, folder: Path, module: TrainingModule) -> None:
        train = self.train_split
        second = train.second if module.model.num_heads > 1 else None
        save_checkpoint(
            folder,
            module.model,
            self.dataset.taxonomy,
            self._card(module),
            pixels=train.pixels,
            thresholds=self.thresholds,
            second=None if second is None else (second.folder, second.taxonomy),
        )

    def _card(self, module: TrainingModule) -> dict[str, Any]:
        """Return the facts of the model card: the origin of the weights, and their scores if just validated."""
        train, val = self.train_split, self.val_split
        card: dict[str, Any] = {
            "title": f"{self.config.model.name} on {self.dataset.name}",
            "data": f"{self.dataset.name}, {len(train)} images of split {escape(train.name)}, "
            f"best step chosen on {len(val)} of split {escape(val.name)}",
            "recipe": {"steps": module.step, "of": self.config.train.steps, "precision": self.precision},
        }
        if self.command:
            card["command"] = public_command(self.command)
        if self.scores is not None and self._scored_step == module.step:
            measured = {"dataset": self.dataset.name, "split": val.name, "precision": self.precision}
            card["scores"] = [{**measured, "metrics": self.scores.means()}]
        return card
