"""A training run, read from top to bottom: data, model and optimizer, loop, validation, saving.

A run that is killed at any moment and resumed ends in the same bits as one that was not: everything random is a
function of the seed and the step, and the state that `state.py` writes holds the rest.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

from ..config import Config
from ..data.check import check_dataset
from ..data.dataset import Split
from ..data.inspection import Inspected
from ..data.loader import TrainLoader
from ..data.workers import worker_killed
from ..errors import ConfigError, Interrupted, ResourceError, printable
from ..evaluation.multilabel_scores import SetScores
from ..files import write_text
from ..inference.device import find_device
from ..models import MODELS
from ..weights.checkpoint import is_checkpoint, saved_thresholds
from .after_step import AfterStep
from .build import build_model, make_class_weights, make_loader, open_training_splits
from .callbacks import make_loggers, make_progress_bar
from .module import TrainingModule
from .multilabel_losses import check_multilabel
from .pace import Pace
from .precision import choose_precision
from .ranks import check_launch, end_group, is_rank_error, process_rank, started_by_torchrun
from .resume import check_data, check_settings, data_fingerprint, short_hash
from .run_folder import RunFolder
from .state import TrainingProgress, TrainingState, read_newest_state
from .stop_signals import StopSignals
from .watch import RankWatch

if TYPE_CHECKING:
    from .recipe_choice import ChosenRecipe


def train(
    config: Config, out: str | Path, *, resume: bool = False, command: str = "", chosen: ChosenRecipe | None = None
) -> SetScores | None:
    """Train up to step `config.train.steps`; return the scores of the last validation, None if no step was left to do.

    out      folder of the run (see `run_folder.py`); of several ranks only the first one writes it
    resume   continue from the newest intact state in `out`, from the start if there is none
    command  what the user typed, for the model card
    chosen   the recipe that was chosen for the data: kept in the folder; the data have been read for it
    Raises the errors of data and configuration before the first step, and Interrupted (state saved) after a signal.
    """
    device = find_device(config.train.device, "--train.device").type
    check_launch(config.train, device)
    MODELS.check_name(config.model.name)
    _require_utf8(out)
    with RankWatch(config.train) as watch:
        scores = _train(config, out, device, resume=resume, command=command, chosen=chosen, watch=watch)
    return scores


def _train(
    config: Config,
    out: str | Path,
    device: str,
    *,
    resume: bool,
    command: str,
    chosen: ChosenRecipe | None,
    watch: RankWatch,
) -> SetScores | None:
    """Do the work of one rank; `watch` looks after the others."""
    settings, skip_bad = config.train, config.train.on_read_error == "skip"
    is_first_rank = process_rank() == 0
    folder = RunFolder(out)
    going_on = shlex.join(["pixelwise", "train", config.data.path, "--out", str(out), "--resume"])
    signals, pace = StopSignals(folder, going_on), Pace(settings)

    # Data
    known = chosen.held_out if chosen else folder.read_held_out() if resume else None
    dataset, train_split, val_split, held_out = open_training_splits(config.data, known)
    check_multilabel(config, dataset.taxonomy)
    if held_out and held_out.groups:
        config = config.updated({"data": {"hold_out": ", ".join(held_out.groups)}})
    if is_first_rank:
        images = f"{len(train_split)} images of split {train_split.name}, {len(val_split)} of {val_split.name}"
        print(printable(f"{config.model.name} on {device}, {settings.steps} steps: {images}"), flush=True)
    fingerprint = data_fingerprint(train_split, val_split)
    inspected: list[Inspected] | None = None
    if is_first_rank and not resume:
        # Once: files that were changed since are named by `check_data`, bad ones when it is their turn.
        inspected = chosen.found if chosen else check_dataset(dataset, train_split, val_split, skip_bad=skip_bad)

    lock = folder.opened(resume, data=dataset.root) if is_first_rank else nullcontext()
    with signals.caught(), lock, _denormals_flushed():
        # Model and, made by `TrainingModule`: loss, optimizer (schedule.py), EMA; restored if the run is resumed
        torch.manual_seed(settings.seed)
        state = _read_state(config, folder, fingerprint) if resume else None
        resumed = folder.last if state and is_checkpoint(folder.last) else None
        module = _make_module(config, train_split, resumed, inspected=inspected, device=device)
        if state is not None:
            module.restore(state, folder.last)

        after_step = AfterStep(
            config,
            folder,
            signals=signals,
            watch=watch,
            pace=pace,
            dataset=dataset,
            precision=choose_precision(settings.precision, device),
            command=command,
            progress=state.progress if state else TrainingProgress(),
            fingerprint=fingerprint,
            thresholds=saved_thresholds(resumed) if resumed else (),
            held_out=held_out,
        )
        _train_steps(module, after_step, device=device, inspected=inspected, chosen=chosen)
        if signals.received and module.step < settings.steps:
            what = f"stopped by {signal.Signals(signals.received).name} after step {module.step}, state saved"
            raise Interrupted(folder.path, what, f"go on with `{going_on}`")
        return after_step.scores


def _make_module(
    config: Config, split: Split, resumed: Path | None, *, inspected: list[Inspected] | None, device: str
) -> TrainingModule:
    """Return the network with loss and optimizer; see `build_model` for `resumed`."""
    skip_bad, taxonomy = config.train.on_read_error == "skip", split.taxonomy
    return TrainingModule(
        build_model(config.model, taxonomy, resumed, split=split),
        config,
        taxonomy.ignore_id,
        multilabel=taxonomy.multilabel,
        class_weights=make_class_weights(config.loss, split, skip_bad=skip_bad, found=inspected),
        device=device,
    )


def _train_steps(
    module: TrainingModule,
    after_step: AfterStep,
    *,
    device: str,
    inspected: list[Inspected] | None,
    chosen: ChosenRecipe | None,
) -> None:
    """Take the steps that are left, if any.

    Lightning calls `module.on_train_batch_start` (learning rate, seed) and `training_step` for each batch; after each
    step, `after_step` validates and saves.
    """
    config, folder, is_first_rank = after_step.config, after_step.folder, process_rank() == 0
    done = ""
    if module.step >= config.train.steps:
        done = f"has {module.step} steps, --train.steps is {config.train.steps}"
    elif after_step.ended_early:
        early_stop = config.train.early_stop
        done = f"ended early after step {module.step}, as --train.early_stop {early_stop} asks (0 goes on)"
    if done:
        # config.yaml stays that of the steps that were trained.
        if is_first_rank:
            print(printable(f"{folder.path}: {done}: nothing is left to train"))
        return
    if is_first_rank:
        folder.check_save(module.num_state_bytes())
        folder.truncate_metrics(module.step)
        write_text(folder.config, config.to_yaml())
        if chosen and chosen.choices:
            write_text(folder.recipe, chosen.to_yaml())
        if after_step.held_out:
            after_step.held_out.write(folder.held_out)
            print(printable(f"{folder.held_out} names the {len(after_step.val_split)} images that are held out"))
        folder.write_environment(device=device, skipped_images=module.num_skipped, **after_step.facts())
    callbacks = [
        after_step.signals,
        after_step.pace,
        make_progress_bar(after_step.pace, config.train.steps),
        after_step,
    ]
    trainer = _make_trainer(
        config, folder, step=module.step, device=device, precision=after_step.precision, callbacks=callbacks
    )
    ranks = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    fill = module.model.preprocess.fill()
    loader = make_loader(config, after_step.train_split, step=module.step, inspected=inspected, fill=fill, **ranks)
    if is_first_rank:
        _print_start(config, module, precision=after_step.precision)
    _fit(trainer, module, loader, watch=after_step.watch, start=f"{module.step} {short_hash(after_step.fingerprint)}")
    if is_first_rank:
        folder.write_environment(device=device, skipped_images=module.num_skipped, **after_step.facts())


def _print_start(config: Config, module: TrainingModule, *, precision: str) -> None:
    """Print what is trained, as a sign of life: the first step may take a while."""
    height, width = config.augment.crop
    crops = f"crops of {height}x{width}" if height else "whole images"
    batch = f"{config.data.batch_size} {crops} per batch"
    steps = f"steps {module.step + 1} to {config.train.steps}"
    count = sum(parameter.numel() for parameter in module.model.parameters())
    print(f"{config.model.name} has {count:,} parameters; {batch}, {precision}; {steps}", flush=True)


def _require_utf8(out: str | Path) -> None:
    if "\0" in os.fspath(out) or os.fspath(out).encode("utf-8", "replace") != os.fsencode(out):
        # safetensors reads no file below such a path, so the first save could not be read back.
        raise ConfigError("--out", f"expected a path in UTF-8, got {os.fsencode(out)[:100]!r}", "rename the folder")


def _read_state(config: Config, folder: RunFolder, fingerprint: dict[str, Any]) -> TrainingState | None:
    """Return the newest intact state of the run, None if none was saved; print what the resumed run starts from.

    Raises CheckpointError if the settings or the data are not those of the state.
    """
    state, damaged = read_newest_state(folder.last)
    is_first_rank = process_rank() == 0
    for line in damaged if is_first_rank else ():
        print(printable(f"warning: skipped {line}"))
    if state is None:
        if is_first_rank:
            print(printable(f"{folder.last}: no state was saved yet, starting at step 0"))
        return None
    notices = check_data(fingerprint, state.settings.get("data"), folder.last)
    notices += check_settings(config, state.settings, folder.last)
    if is_first_rank:
        step = f"step {state.progress.step} of {config.train.steps}"
        print(printable(f"resuming {folder.path} at {step}"), *map(printable, notices), sep="\n")
    return state


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Round numbers below float32's normal range to 0: a CPU is a hundred times slower on them."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _make_trainer(
    config: Config, folder: RunFolder, *, step: int, device: str, precision: str, callbacks: list[Callback]
) -> lightning.Trainer:
    """Return Lightning's Trainer for the steps that are left after `step` steps."""
    settings = config.train
    # Lightning would take its own variables, and SLURM's, for ranks; `check_launch` has looked at the launch.
    rank_zero_only.rank = process_rank()  # type: ignore[attr-defined]
    return lightning.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=settings.devices,
        num_nodes=settings.nodes,
        plugins=[TorchElasticEnvironment() if started_by_torchrun() else LightningEnvironment()],
        # A collective operation waits for a slow rank; `RankWatch` ends the run if one is gone or frozen.
        strategy="auto" if settings.devices * settings.nodes == 1 else DDPStrategy(timeout=timedelta(days=1)),
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
        max_steps=settings.steps - step,
        # For Lightning the whole run is one epoch: the loader yields every batch that is left.
        max_epochs=1,
        accumulate_grad_batches=config.optimizer.grad_accum_steps,
        gradient_clip_val=config.optimizer.clip_norm or None,
        callbacks=callbacks,
        logger=make_loggers(settings.loggers, folder.path),
        # Checkpoints, sampling and validation are ours: a resumed run must do them at the same steps as an unbroken
        # one.
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        # `AfterStep` decides when to log, by `train.log_every`.
        log_every_n_steps=1,
        default_root_dir=folder.path,
    )


def _fit(
    trainer: lightning.Trainer, module: TrainingModule, loader: TrainLoader, *, watch: RankWatch, start: str
) -> None:
    """Train together with the other ranks, and explain errors whose cause is another process.

    start  the step and the data that this rank starts with, which must be those of the others
    """
    try:
        with watch.others_started():
            try:
                watch.meet(start)
                trainer.fit(module, loader)
            except BaseException as error:
                if is_rank_error(error):
                    watch.explain()
                # The other ranks then learn at once that this one has ended.
                end_group()
                raise
            watch.finished()
    except RuntimeError as error:
        # torch raises it in the main thread, wherever that is, as soon as a worker is killed.
        if "DataLoader worker" in str(error):
            raise worker_killed() from error
        if is_rank_error(error):
            failure = watch.failure or ResourceError("training", "another rank has ended", "go on with --resume")
            raise failure from error
        raise
    finally:
        loader.close()
