"""A training run from configuration to checkpoints; killed at any moment, it goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning
import torch

from ..config import Config
from ..data import open_dataset
from ..data.counts import check_classes
from ..data.dataset import Split
from ..data.loader import AugmentedDataset, ResumableBatchSampler, TrainLoader
from ..errors import CheckpointError, DatasetError, InputError, Interrupted, ResourceError
from ..evaluation.metrics import Scores
from ..files import write_text
from ..inference.device import find_device
from ..models import MODELS
from ..weights.checkpoint import check_finite, is_checkpoint, load_weights, save_checkpoint
from .build import build_model, class_weights, training_transform
from .callbacks import StopSignals, make_loggers, make_progress_bar
from .module import TrainingModule
from .precision import choose_precision
from .ranks import check_launch, largest_over_ranks, process_rank
from .run_folder import RunFolder
from .state import State, load_state, restore_optimizer, save_state
from .validation import validate

# What a resumed run must share with the one that it goes on from, and what changes which images it sees.
_FIXED = ("model", "loss", "optimizer")
_DRAWN = {"data": ("batch_size", "sampling", "train_split"), "train": ("seed", "devices", "nodes"), "augment": None}


def train(config: Config, out: str | Path, *, resume: bool = False, command: str = "") -> Scores | None:
    """Train until `config.train.steps`; returns the last validation's scores, None when nothing was left to do.

    out       the run's folder (see `folder.py`); of several ranks only the first touches it
    resume    go on from the newest whole state in `out`, from the start where there is none
    command   what the user typed, for the model card
    Raises the errors of data and config before the first step, and Interrupted (state saved) after a signal.
    """
    run = Run(config, RunFolder(out), command)
    is_first = process_rank() == 0
    if is_first and not resume:
        run.check_classes()
    with run.signals.caught(), run.folder.opened(resume) if is_first else nullcontext(), _flushed_denormals():
        return run.fit(resume, is_first)


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Tiny activations fall below float32's normal range, where a CPU is a hundred times slower: round them to 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Run:
    """One run: its data, network and folder, and what happens after a step."""

    def __init__(self, config: Config, folder: RunFolder, command: str = "") -> None:
        self.config, self.folder, self.command = config, folder, command
        self.device = find_device(config.train.device, "--train.device").type
        check_launch(config.train, self.device)
        MODELS[config.model.name]  # an unknown name is said here, before the folder is made
        dataset = open_dataset(config.data.path, config.data.format)
        self.train_split = dataset.split(config.data.train_split)
        self.val_split = dataset.split(config.data.val_split)
        _refuse_unlabelled(self.train_split)
        _refuse_unlabelled(self.val_split)
        self.taxonomy, self.dataset_name = dataset.taxonomy, dataset.name
        self.precision = choose_precision(config.train.precision, self.device)
        self.scores: Scores | None = None
        self.scored_step = 0
        self.signals = StopSignals(folder.path)

    def check_classes(self) -> None:
        """Warn of classes that no mask holds, before the run's folder is made and hours are spent."""
        for line in check_classes(self.train_split, skip_bad=self.config.train.on_read_error == "skip"):
            print(f"warning: {line}", file=sys.stderr)

    def fit(self, resume: bool, is_first: bool) -> Scores | None:
        """Build, maybe restore, train to the last step."""
        config = self.config
        torch.manual_seed(config.train.seed)
        weights = class_weights(config.loss, self.train_split, skip_bad=config.train.on_read_error == "skip")
        state = self._load_state() if resume else None
        model = build_model(
            config.model, self.taxonomy, self.folder.last if state and is_checkpoint(self.folder.last) else None
        )
        module = TrainingModule(model, config, self.taxonomy.ignore_id, weights, self.after_step)
        if state is not None:
            self._restore(module, state)
        if is_first:
            self.folder.truncate_metrics(module.step)
            write_text(self.folder.config, config.to_yaml())
            self._write_environment(module)
        if module.step < config.train.steps:
            self._train(module)
            if is_first:
                self._write_environment(module)
        if self.signals.received and module.step < config.train.steps:
            what = f"stopped by {signal.Signals(self.signals.received).name} after step {module.step}, state saved"
            raise Interrupted(self.folder.path, what, "go on with --resume")
        return self.scores

    def _train(self, module: TrainingModule) -> None:
        trainer = self._trainer(module)
        loader = self._loader(module, trainer)
        try:
            trainer.fit(module, loader)
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                what = "a process that reads images was ended from outside, mostly for want of memory or of /dev/shm"
                fix = "lower --data.workers or --data.cache_mib; go on with --resume"
                raise ResourceError("training", what, fix) from error
            if "closed by peer" in str(error) or "reset by peer" in str(error):
                raise ResourceError(
                    "training", "another rank has ended", "see its line; go on with --resume"
                ) from error
            raise
        finally:
            loader.close()

    def _write_environment(self, module: TrainingModule) -> None:
        self.folder.write_environment(precision=self.precision, device=self.device, replaced_images=module.num_bad)

    def _load_state(self) -> State | None:
        state, skipped = load_state(self.folder.last)
        for line in skipped:
            print(f"warning: passed over {line}")
        if state is None:
            print(f"{self.folder.last}: no state was saved yet, starting at step 0")
        return state

    def _restore(self, module: TrainingModule, state: State) -> None:
        self._compare(state.settings)
        averaged = any(name.startswith("average.") for name in state.tensors)
        if averaged != (module.average is not None):
            what = f"was trained {'with' if averaged else 'without'} a moving average"
            raise CheckpointError(
                self.folder.last, what, "leave --train.ema as it was, or start a new run with --model.init_from"
            )
        module.progress = state.progress
        module.step, module.num_bad = state.progress.step, state.progress.num_bad
        load_weights(module.model, _named(state.tensors, "model."), self.folder.last)
        if module.average is not None:
            module.average.load(_named(state.tensors, "average."))
        restore_optimizer(module.optimizer, state.tensors)

    def _compare(self, saved: dict[str, Any]) -> None:
        """Refuse what breaks the run, name what changes its images; of settings that an older state lacks nothing is known."""
        now = self._settings()
        changed = [
            name
            for name in _FIXED
            if any(now[name].get(key, value) != value for key, value in saved.get(name, {}).items())
        ]
        if changed:
            what = f"was trained with other settings in {', '.join(changed)}"
            raise CheckpointError(
                self.folder.last, what, "resume without these options, or start a new run with --model.init_from"
            )
        drawn = [name for name, value in now["drawn"].items() if saved.get("drawn", {}).get(name, value) != value]
        if drawn:
            print(
                f"{', '.join(drawn)} changed: from here on other images and crops are drawn than an unbroken run would draw"
            )

    def _settings(self) -> dict[str, Any]:
        fixed: dict[str, Any] = {name: dataclasses.asdict(getattr(self.config, name)) for name in _FIXED}
        drawn: dict[str, Any] = {}
        for section, names in _DRAWN.items():
            values = dataclasses.asdict(getattr(self.config, section))
            drawn |= {f"{section}.{name}": values[name] for name in names or values}
        return {**fixed, "drawn": drawn}

    def _loader(self, module: TrainingModule, trainer: lightning.Trainer) -> TrainLoader:
        data, accumulate, settings = self.config.data, self.config.optimizer.grad_accum_steps, self.config.train
        augment = self.config.augment
        transform = training_transform(augment, self.taxonomy.ignore_id)
        cache_bytes = data.cache_mib * 2**20 // max(data.workers, 1)
        windows = (augment.crop[0], augment.crop[1]) if augment.tiled_crops else None
        draws = AugmentedDataset(
            self.train_split,
            transform,
            settings.seed,
            data.sampling,
            settings.on_read_error,
            cache_bytes,
            augment.classmix_prob,
            windows,
        )
        first, last = module.step * accumulate, settings.steps * accumulate
        batches = ResumableBatchSampler(first, last, data.batch_size, trainer.global_rank, trainer.world_size)
        return TrainLoader(draws, batches, data.workers)

    def _trainer(self, module: TrainingModule) -> lightning.Trainer:
        settings = self.config.train
        return lightning.Trainer(
            accelerator="gpu" if self.device == "cuda" else "cpu",
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="auto" if settings.devices * settings.nodes == 1 else "ddp",
            precision="bf16-mixed" if self.precision == "bfloat16" else "32-true",
            max_steps=settings.steps - module.step,
            max_epochs=1,
            accumulate_grad_batches=self.config.optimizer.grad_accum_steps,
            gradient_clip_val=self.config.optimizer.clip_norm or None,
            callbacks=[self.signals, make_progress_bar(module.step, settings.steps)],
            logger=make_loggers(settings.loggers, self.folder.path),
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            default_root_dir=self.folder.path,
        )

    def after_step(self, module: TrainingModule) -> None:
        """Log, validate and save when their step has come; save and stop when a signal has."""
        settings, step = self.config.train, module.step
        self.signals.received = largest_over_ranks(self.signals.received, module.device)
        stop = self.signals.received != 0
        last = step == settings.steps
        validates, saves = (step % every == 0 or last for every in (settings.validate_every, settings.save_every))
        if validates or saves or stop:
            self._check_finite(module)
        if step % settings.log_every == 0 or last:
            rate = float(module.optimizer.param_groups[0]["lr"])
            self._log(module, {"split": self.config.data.train_split, "lr": rate, "loss": module.loss_of_step})
        if validates:
            try:
                self._validate(module)
            except InputError:
                # An image of the validation split that cannot be read must not cost the steps before it.
                self._save(module)
                raise
        if saves or stop:
            self._save(module)
        if stop:
            module.trainer.should_stop = True

    def _check_finite(self, module: TrainingModule) -> None:
        try:
            check_finite(module.state_tensors(), "training")
        except CheckpointError as error:
            what = f"after step {module.step} {error.what}"
            raise InputError("training", what, "lower --optimizer.lr; the last checkpoint is whole") from error

    def _log(self, module: TrainingModule, values: dict[str, Any]) -> None:
        if module.global_rank == 0:
            self.folder.log({"step": module.step, **values})
        numbers = {f"{values['split']}/{k}": v for k, v in values.items() if isinstance(v, float)}
        for logger in module.trainer.loggers:
            logger.log_metrics(numbers, step=module.step)

    def _validate(self, module: TrainingModule) -> None:
        started = time.monotonic()
        with module.ema_weights():
            scores = validate(
                module.model, self.val_split, module.device, module.global_rank, module.trainer.world_size
            )
            self.scores, self.scored_step = scores, module.step
            if scores.mean_iou > module.progress.best_score:
                module.progress = dataclasses.replace(
                    module.progress, best_score=scores.mean_iou, best_step=module.step
                )
                if module.global_rank == 0:
                    save_checkpoint(self.folder.best, module.model, self.taxonomy, self._card(module))
        module.log_live("miou", scores.mean_iou)
        values = {
            "miou": scores.mean_iou,
            "pixel_accuracy": scores.pixel_accuracy,
            "mean_accuracy": scores.mean_accuracy,
        }
        values |= {"fw_iou": scores.frequency_weighted_iou, "seconds": time.monotonic() - started}
        self._log(module, {"split": self.config.data.val_split, **values})

    def _save(self, module: TrainingModule) -> None:
        with module.ema_weights():
            if module.global_rank == 0:
                save_checkpoint(self.folder.last, module.model, self.taxonomy, self._card(module))
        module.progress = dataclasses.replace(module.progress, step=module.step, num_bad=module.num_bad)
        if module.global_rank == 0:
            save_state(self.folder.last, module.state_tensors(), module.progress, self._settings())

    def _card(self, module: TrainingModule) -> dict[str, Any]:
        card: dict[str, Any] = {
            "title": f"{self.config.model.name} on {self.dataset_name}",
            "data": f"{self.dataset_name}, {len(self.train_split)} images of split `{self.train_split.name}`, "
            f"best step chosen on {len(self.val_split)} of split `{self.val_split.name}`",
            "recipe": {"steps": module.step, "of": self.config.train.steps, "precision": self.precision},
            "command": f"`{self.command}`",
        }
        if self.scores is not None and self.scored_step == module.step:
            card["scores"] = [
                {"dataset": self.dataset_name, "split": self.val_split.name, "metrics": self.scores.means()}
            ]
        return card


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _refuse_unlabelled(split: Split) -> None:
    if not split.has_masks:
        without = next(item.image for item in split.items if item.mask is None)
        what = f"has no mask, but split {split.name} is to be learned from or scored"
        raise DatasetError(without, what, "add it, or name another split")
