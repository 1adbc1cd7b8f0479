"""A training run from configuration to checkpoints; killed at any moment, it goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from ..checkpoint import save_checkpoint
from ..config import Config
from ..data import open_dataset
from ..data.loader import DrawBatches, Draws, train_loader
from ..data.transforms import Augment
from ..errors import CheckpointError, Interrupted
from ..files import write_text
from ..metrics import Scores
from .build import build_model, class_weights
from .folder import RunFolder
from .lightning_parts import StopSignals, make_loggers, make_progress_bar
from .module import TrainingModule
from .precision import choose_device, choose_precision
from .state import load_state, restore_optimizer, save_state
from .validation import validate

# What a resumed run must share with the one that it goes on from: the rest may change without a break in the numbers.
_FIXED = ("model", "loss", "optimizer")


def train(config: Config, out: str | Path, *, resume: bool = False, command: str = "") -> Scores | None:
    """Train until `config.train.steps`; returns the last validation's scores, None when nothing was left to do.

    out       the run's folder (see `folder.py`)
    resume    go on from the newest whole state in `out`
    command   what the user typed, for the model card
    Raises the errors of data and config before the first step, and Interrupted (state saved) after a signal.
    """
    run = Run(config, RunFolder(out), command)
    run.folder.prepare(resume)
    with run.folder.locked():
        return run.fit(resume)


class Run:
    """One run: its data, network and folder, and what happens after a step."""

    def __init__(self, config: Config, folder: RunFolder, command: str = "") -> None:
        self.config, self.folder, self.command = config, folder, command
        dataset = open_dataset(config.data.path, config.data.layout)
        self.train_split = dataset.split(config.data.train_split)
        self.val_split = dataset.split(config.data.val_split)
        self.taxonomy, self.dataset_name = dataset.taxonomy, dataset.name
        self.device = choose_device(config.train.device)
        self.precision = choose_precision(config.train.precision, self.device)
        self.scores: Scores | None = None
        self.signals = StopSignals()

    def fit(self, resume: bool) -> Scores | None:
        """Build, maybe restore, train to the last step."""
        config = self.config
        torch.manual_seed(config.train.seed)
        # Tiny activations fall below float32's normal range, where a CPU is a hundred times slower.
        torch.set_flush_denormal(True)
        weights = class_weights(config.loss, self.train_split)
        module = TrainingModule(build_model(config.model, self.taxonomy), config, self.taxonomy.ignore_id, weights, self.after_step)
        if resume:
            self._restore(module)
        write_text(self.folder.config, config.to_yaml())
        self.folder.write_environment(precision=self.precision, device=self.device)
        if module.step < config.train.steps:
            trainer = self._trainer(module)
            trainer.fit(module, self._loader(module, trainer))
        if self.signals.received is not None and module.step < config.train.steps:
            what = f"stopped by {signal.Signals(self.signals.received).name} after step {module.step}, state saved"
            raise Interrupted(self.folder.path, what, "go on with --resume")
        return self.scores

    def _restore(self, module: TrainingModule) -> None:
        tensors, module.progress, settings, passed_over = load_state(self.folder.last)
        now = self._settings()
        changed = [name for name in _FIXED if settings.get(name) != now[name]]
        if changed:
            what = f"was trained with other settings in {', '.join(changed)}"
            raise CheckpointError(self.folder.last, what, "resume without these options, or start a new run with --model.init_from")
        for line in passed_over:
            print(f"warning: passed over {line}")
        module.step, module.num_bad = module.progress.step, module.progress.num_bad
        module.model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
        if module.average is not None:
            module.average.load({k.removeprefix("average."): t for k, t in tensors.items() if k.startswith("average.")})
        restore_optimizer(module.optimizer, tensors)
        self.folder.forget_after(module.step)

    def _settings(self) -> dict[str, Any]:
        return {name: dataclasses.asdict(getattr(self.config, name)) for name in _FIXED}

    def _loader(self, module: TrainingModule, trainer: lightning.Trainer) -> Any:
        data, accumulate, settings = self.config.data, self.config.optimizer.accumulate, self.config.train
        transform = Augment(self.config.augment, self.taxonomy.ignore_id)
        draws = Draws(self.train_split, transform, settings.seed, data.sampling, settings.on_bad, data.cache)
        first, last = module.step * accumulate, settings.steps * accumulate
        batches = DrawBatches(first, last, data.batch_size, trainer.global_rank, trainer.world_size)
        return train_loader(draws, batches, data.workers)

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
            accumulate_grad_batches=self.config.optimizer.accumulate,
            gradient_clip_val=self.config.optimizer.clip_norm or None,
            callbacks=[self.signals, make_progress_bar(module.step, settings.steps)],
            logger=make_loggers(settings.loggers, self.folder.path),
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=settings.log_every,
            default_root_dir=self.folder.path,
        )

    def after_step(self, module: TrainingModule) -> None:
        """Log, validate and save when their step has come; save and stop when a signal has."""
        settings, step = self.config.train, module.step
        stop = self.signals.received is not None
        last = step == settings.steps
        if step % settings.log_every == 0 or last:
            self._log(module, {"split": self.config.data.train_split, "loss": module.loss_of_step})
        if step % settings.validate_every == 0 or last:
            self._validate(module)
        if step % settings.save_every == 0 or last or stop:
            self._save(module)
        if stop:
            module.trainer.should_stop = True

    def _log(self, module: TrainingModule, values: dict[str, Any]) -> None:
        rate = module.optimizer.param_groups[0]["lr"]
        if module.global_rank == 0:
            self.folder.log({"step": module.step, "lr": rate, **values})
        numbers = {f"{values['split']}/{k}": v for k, v in values.items() if isinstance(v, float) and v is not None}
        for logger in module.trainer.loggers:
            logger.log_metrics({**numbers, "lr": rate}, step=module.step)

    def _validate(self, module: TrainingModule) -> None:
        started = time.monotonic()
        with module.weights_to_keep():
            self.scores = validate(module.model, self.val_split, module.device, module.global_rank, module.trainer.world_size)
            if self.scores.mean_iou > module.progress.best_score:
                module.progress = dataclasses.replace(module.progress, best_score=self.scores.mean_iou, best_step=module.step)
                if module.global_rank == 0:
                    save_checkpoint(self.folder.best, module.model, self.taxonomy, self._card(module))
        module.log_live("miou", self.scores.mean_iou)
        values = {"miou": self.scores.mean_iou, "pixel_accuracy": self.scores.pixel_accuracy, "mean_accuracy": self.scores.mean_accuracy}
        values |= {"fw_iou": self.scores.frequency_weighted_iou, "seconds": time.monotonic() - started}
        self._log(module, {"split": self.config.data.val_split, **values})

    def _save(self, module: TrainingModule) -> None:
        if module.global_rank != 0:
            return
        module.progress = dataclasses.replace(module.progress, step=module.step, num_bad=module.num_bad)
        save_state(self.folder.last, module.state_tensors(), module.progress, self._settings())
        with module.weights_to_keep():
            save_checkpoint(self.folder.last, module.model, self.taxonomy, self._card(module))

    def _card(self, module: TrainingModule) -> dict[str, Any]:
        card = {
            "title": f"{self.config.model.name} on {self.dataset_name}",
            "data": f"{self.dataset_name}, {len(self.train_split)} pictures of split `{self.train_split.name}`, "
            f"best step chosen on {len(self.val_split)} of split `{self.val_split.name}`",
            "recipe": {"steps": module.step, "of": self.config.train.steps, "precision": self.precision},
            "command": f"`{self.command}`",
        }
        if self.scores is not None:
            card["scores"] = {f"{self.val_split.name} {name}": value for name, value in self.scores.means().items()}
        return card


