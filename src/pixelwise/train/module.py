"""One optimizer step, as Lightning's Trainer calls it: forward, loss, backward, optimizer, moving average.

The order of one step; the first two are repeated for each accumulated batch:

    on_train_batch_start      learning rate, seed of the batch
    training_step             forward and loss; Lightning then runs backward and, before the step, clips the gradient
    on_before_optimizer_step  stop if the gradient is not finite
    optimizer_step            step of the optimizer, moving average
    AfterStep                 validation, logging, saving (`after_step.py`)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from ..config import Config
from ..core import Batch, LowResLogits, Output
from ..errors import CheckpointError, InputError, ResourceError, listed
from ..models.base import SegmentationModel
from ..weights.checkpoint import load_weights
from .build import choose_memory_format, declared_backbones, frozen_layers, training_forward
from .ema import ModelEMA
from .ranks import copy_from_first, mean_over_ranks
from .schedule import build_optimizer, lr_factor, set_lr
from .state import TrainingState, optimizer_tensors, restore_optimizer
from .two_heads import training_loss

# Base of a positional code: (seed, batch, rank) become one number.
_SEED_FACTOR = 1_000_003


class TrainingModule(lightning.LightningModule):
    """A network with its loss, optimizer and moving average.

    multilabel    whether a pixel may have several labels
    step          optimizer steps of the whole run, resumed or not
    num_skipped   images so far that could not be read; the next one was taken in their place
    loss_of_step  loss of the last step, over all ranks and accumulated batches
    """

    def __init__(
        self,
        model: SegmentationModel,
        config: Config,
        ignore_id: int,
        *,
        multilabel: bool = False,
        class_weights: Tensor | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.config = config
        self.memory_format = choose_memory_format(model, device)
        self.model: SegmentationModel = model.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.loss = training_loss(model, config, ignore_id, class_weights, multilabel=multilabel)
        backbone_lr_factor, freeze_norm = config.optimizer.backbone_lr_factor, config.train.freeze_norm
        backbones = [] if backbone_lr_factor == 1 else declared_backbones(model, "--optimizer.backbone_lr_factor")
        self.optimizer = build_optimizer(
            model, config.optimizer, head_modules=model.head_modules(), backbones=backbones
        )
        frozen = frozen_layers(model, config.model.freeze_stride)
        parts = declared_backbones(model, "--train.freeze_norm") if freeze_norm == "backbone" else [model]
        norms = [] if freeze_norm == "none" else [m for p in parts for m in p.modules() if isinstance(m, _BatchNorm)]
        # Not a module list: that would register the layers a second time.
        self._in_eval_mode = (*frozen, *norms)
        self.ema = ModelEMA(model, config.train.ema) if config.train.ema else None
        # A function, since a module would be registered a second time.
        forward = training_forward(model, config)
        self.forward_model = torch.compile(forward) if config.train.compile else forward
        self.step = 0
        self.num_skipped = 0
        self.loss_of_step = 0.0
        self._keys_of_step: list[str] = []
        self._mean_weights: tuple[Tensor, ...] | None = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate and the seed of dropout, from the batch's number alone, and the training mode."""
        if batch_idx % self.config.optimizer.grad_accum_steps == 0:
            self.loss_of_step = 0.0
            self._keys_of_step = []
        set_lr(self.optimizer, lr_factor(self.step, self.config.train.steps, self.config.optimizer))
        torch.manual_seed(self.batch_seed(batch_idx))
        self.set_train_mode()

    def set_train_mode(self) -> None:
        """Put the model into training mode, except for batch norms whose running statistics stay as they are.

        Those are the ones that `train.freeze_norm` names, and those of frozen layers: a layer that `train_only` freezes
        keeps its statistics as well as its weights. The layers that `freeze_stride` freezes skip no block either
        (stochastic depth).
        """
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, _BatchNorm) and not module.weight.requires_grad:
                module.eval()
        for layer in self._in_eval_mode:
            layer.eval()

    def batch_seed(self, batch_idx: int) -> int:
        """Return the seed of a batch of the next step: another one for each seed of the run, batch and rank."""
        accumulate = self.config.optimizer.grad_accum_steps
        number = self.step * accumulate + batch_idx % accumulate
        # Seeds have 64 bits.
        return ((self.config.train.seed * _SEED_FACTOR + number) * _SEED_FACTOR + self.global_rank) % 2**63

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of one batch. Raises InputError naming step and images if it is not finite."""
        self.num_skipped += batch.num_skipped
        self._keys_of_step += batch.keys
        output = self._forward(batch.images)
        accumulate = self.config.optimizer.grad_accum_steps
        if batch_idx % accumulate == 0:
            labels = batch.step_labels or ((batch.masks, batch.pixel_weights),)
            seeds = [self.batch_seed(batch_idx + number) for number in range(len(labels))]
            self._mean_weights = self.loss.mean_label_weights(output, labels, seeds)
        seed = self.batch_seed(batch_idx)
        loss: Tensor = self.loss(output, batch.masks, batch.pixel_weights, seed=seed, mean_weights=self._mean_weights)
        # All ranks look at the same number, so that none waits for a rank that has stopped.
        value = float(mean_over_ranks(loss.detach()))
        if not math.isfinite(value):
            raise self._not_finite("loss")
        self.loss_of_step += value / accumulate
        if (batch_idx + 1) % accumulate == 0:
            self.log_live("loss", self.loss_of_step)
        return loss

    def _forward(self, images: Tensor) -> Output | LowResLogits:
        try:
            return self.forward_model(images.contiguous(memory_format=self.memory_format))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            what = f"batch normalization got a single value per channel, in a batch of {len(images)}"
            fix = "a larger --data.batch_size or --augment.crop, or --train.freeze_norm all"
            raise InputError("training", what, fix) from error
        except torch._dynamo.exc.BackendCompilerFailed as error:
            what = f"torch.compile failed: {str(error).splitlines()[0]}"
            raise ResourceError("--train.compile", what, "install a C++ compiler, or leave the option out") from error

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer, which may have been restored."""
        return self.optimizer

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise InputError naming step and images if the gradient is not finite, before it changes any weight."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not bool(get_total_norm(gradients).isfinite()):
            raise self._not_finite("gradient")

    def _not_finite(self, what: str) -> InputError:
        images = listed(self._keys_of_step[:8], 8)
        what = f"the {what} of step {self.step + 1} is not finite, images {images}"
        fix = "lower --optimizer.lr, or set --optimizer.clip_norm 1; earlier checkpoints are intact"
        return InputError("training", what, fix)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step (Lightning calls this after the last of the accumulated batches), then update the average."""
        super().optimizer_step(*args, **kwargs)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, self.step)

    def log_live(self, name: str, value: float) -> None:
        """Show a number at the end of the progress bar."""
        self.log(name, value, prog_bar=True, logger=False, rank_zero_only=True)

    @contextmanager
    def saved_weights(self) -> Iterator[None]:
        """Give the model the weights that are validated and saved, inside the block.

        They are the moving average, if there is one, with rank 0's batch norm statistics on every rank. Without a
        moving average the other ranks keep these statistics after the block.
        """
        with nullcontext() if self.ema is None else self.ema.applied_to(self.model):
            copy_from_first(self.model)
            yield

    def state_tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the next step depends on."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self.ema.state.items()}
        return tensors | optimizer_tensors(self.optimizer)

    def num_state_bytes(self) -> int:
        """Return the size of a saved state and its weights, with what the optimizer keeps after the first step."""
        settings = self.config.optimizer
        state = sum(tensor.nbytes for tensor in self.state_tensors().values())
        model = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        per_parameter = 0 if self.optimizer.state else 2 if settings.name == "adamw" else int(settings.momentum > 0)
        trained = sum(parameter.nbytes for parameter in self.model.parameters() if parameter.requires_grad)
        return int(state + model + per_parameter * trained)

    def restore(self, state: TrainingState, source: object) -> None:
        """Continue from a saved state. Raises CheckpointError naming `source` if it does not fit."""
        model, ema = state.named("model."), state.named("ema.")
        if bool(ema) != (self.ema is not None):
            what = f"was trained {'with' if ema else 'without'} a moving average"
            fix = "leave --train.ema as it was, or start a new run with --model.init_from"
            raise CheckpointError(source, what, fix)
        load_weights(self.model, model, source)
        if self.ema is not None:
            self.ema.load(ema)
        restore_optimizer(self.optimizer, state.tensors)
        self.step, self.num_skipped = state.progress.step, state.progress.num_skipped
